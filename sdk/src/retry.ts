/**
 * What to do about an answer: a pure function of status, attempt and chance.
 *
 * A client error is final, but for 401 (the token is at fault, not the position), 408 and 429. Everything else that is
 * not a success is tried again: after `Retry-After × (1 + random)` where the server says when, so that a fleet does
 * not come back at once, else with full jitter over an exponential back-off. The wait is bounded.
 */

export interface Decision {
  readonly action: "done" | "drop" | "wait";
  /** To wait. */
  readonly milliseconds?: number;
}

/** The back-off's first and longest step. */
const BASE_MS = 1_000;
const LONGEST_MS = 30_000;
/** The longest that a server may ask to wait. */
const LONGEST_ASKED_MS = 600_000;

/**
 * @param status - of the answer; 0 if there was none (network failure, time-out)
 * @param attempt - how many attempts have failed before this one
 * @param retryAfterSeconds - the header's value, if it was there and a number
 * @param random - from 0 to below 1
 * @param longestMs - of the back-off's steps
 */
export function decide(
  status: number,
  attempt: number,
  retryAfterSeconds: number | undefined,
  random: number,
  longestMs = LONGEST_MS,
): Decision {
  if (status >= 200 && status < 300) return { action: "done" };
  if (status >= 300 && status < 500 && ![401, 408, 429].includes(status)) return { action: "drop" };
  // A second token was refused too: the session has ended, or the key has changed. Not a matter of seconds.
  const step = status === 401 ? LONGEST_MS : Math.min(BASE_MS * 2 ** attempt, longestMs);
  const milliseconds =
    retryAfterSeconds === undefined
      ? step * random
      : Math.min(retryAfterSeconds * 1_000 * (1 + random), LONGEST_ASKED_MS);
  return { action: "wait", milliseconds };
}
