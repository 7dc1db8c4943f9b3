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
/**
 * @param status - of the answer; 0 if there was none (network failure, time-out)
 * @param attempt - how many attempts have failed before this one
 * @param retryAfterSeconds - the header's value, if it was there and a number
 * @param random - from 0 to below 1
 * @param longestMs - of the back-off's steps
 */
export declare function decide(status: number, attempt: number, retryAfterSeconds: number | undefined, random: number, longestMs?: number): Decision;
