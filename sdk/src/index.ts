/**
 * `@playhead/player`: remembers where a viewer is in a film.
 *
 * ```ts
 * const playhead = attachPlayhead(video, { baseUrl, movieId, viewerId, getToken });
 * await playhead.resume();
 * ```
 *
 * This file is the public face. In reading order behind it: session.ts (one title in one element), heartbeat.ts (when),
 * place.ts (unknown is not zero), sender.ts, transport.ts and retry.ts (how), outbox.ts (what is kept), ticker.ts and
 * environment.ts (the browser).
 */

import { browser } from "./environment.js";
import { session, type PlayheadOptions, type Session } from "./session.js";

export { browser, type Environment } from "./environment.js";
export type { PlayheadOptions } from "./session.js";

/** What happens; each is a `CustomEvent` with this `detail`. */
export interface PlayheadEvents {
  /** The service has acknowledged a position; `late` if it had to wait and kept its time. */
  saved: { readonly movieId: string; readonly positionSeconds: number; readonly milliseconds: number; readonly late: boolean };
  /** The film starts, or goes on, from this place. */
  resumed: { readonly positionSeconds: number; readonly source: "server" | "local" };
  /**
   * The place could only be read after playback had begun, and is further. Within the first 30 s the film is moved
   * there, unless a listener calls `preventDefault()`, to ask the viewer, say: then set `currentTime` if they agree.
   */
  "place-found": { readonly positionSeconds: number; readonly currentSeconds: number };
  /** The service refuses for good; these titles' positions were dropped. */
  rejected: { readonly status: number; readonly problem: unknown; readonly movieIds: readonly string[] };
  /** No answer (status 0), or one that says to try again; it is tried again. */
  error: { readonly status: number; readonly retryInMilliseconds: number };
}

export interface Playhead extends Session, EventTarget {
  addEventListener<K extends keyof PlayheadEvents>(
    type: K,
    listener: (event: CustomEvent<PlayheadEvents[K]>) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
}

/**
 * Keeps the position of a title that plays in a media element.
 *
 * @param environment - clock, network and storage, for tests: `{ ...browser(), fetch: mine }`; a page leaves it out
 */
export function attachPlayhead(
  media: HTMLMediaElement,
  options: PlayheadOptions,
  environment = browser(),
): Playhead {
  const events = new EventTarget();
  const emit = (type: string, detail: object): boolean =>
    events.dispatchEvent(new CustomEvent(type, { detail, cancelable: true }));
  return Object.assign(events, session(media, options, environment, emit)) as Playhead;
}
