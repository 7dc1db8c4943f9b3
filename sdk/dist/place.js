/**
 * What to do with a place that was read: the rule "unknown is not zero", as a pure function.
 *
 * Until the place was read, nobody knows whether the position on the screen is further than what is kept. So it is not
 * sent (see session.ts) until one of these holds: the place was read and lies at or behind it, the viewer has sought,
 * or has watched 30 s.
 */
/** Seconds of film after which the viewer has chosen to watch from here. */
export const WATCHED_SECONDS = 30;
/** Less than this is no difference between two positions. */
const TOLERANCE_SECONDS = 0.5;
export function judge({ place, current, sought, watched, opening }) {
    if (sought)
        return "go-on";
    if (opening)
        return "resume";
    if (place <= current + TOLERANCE_SECONDS)
        return "go-on";
    return watched < WATCHED_SECONDS ? "seek" : "tell";
}
/** Whether a position kept without knowing the place may be sent, now that the place is known. */
export function maySend(held, place) {
    return place <= held + TOLERANCE_SECONDS;
}
