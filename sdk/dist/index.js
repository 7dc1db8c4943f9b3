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
import { session } from "./session.js";
export { browser } from "./environment.js";
/**
 * Keeps the position of a title that plays in a media element.
 *
 * @param environment - clock, network and storage, for tests: `{ ...browser(), fetch: mine }`; a page leaves it out
 */
export function attachPlayhead(media, options, environment = browser()) {
    const events = new EventTarget();
    const emit = (type, detail) => events.dispatchEvent(new CustomEvent(type, { detail, cancelable: true }));
    return Object.assign(events, session(media, options, environment, emit));
}
