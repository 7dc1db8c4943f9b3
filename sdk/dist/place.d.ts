/**
 * What to do with a place that was read: the rule "unknown is not zero", as a pure function.
 *
 * Until the place was read, nobody knows whether the position on the screen is further than what is kept. So it is not
 * sent (see session.ts) until one of these holds: the place was read and lies at or behind it, the viewer has sought,
 * or has watched 30 s.
 */
/** Seconds of film after which the viewer has chosen to watch from here. */
export declare const WATCHED_SECONDS = 30;
export interface Situation {
    /** Where the server says to start, less the rewind. */
    readonly place: number;
    /** Where the film is. */
    readonly current: number;
    /** The viewer has chosen a position by hand. */
    readonly sought: boolean;
    /** Seconds of film played since the title was opened or come back to. */
    readonly watched: number;
    /** The answer came in time: playback has not been started without it. */
    readonly opening: boolean;
}
/**
 * - `resume`: start there.
 * - `go-on`: beats may be sent from where the film is.
 * - `seek`: tell of the place, and seek there unless the page objects.
 * - `tell`: tell of it; the viewer has watched too much to be moved.
 */
export type Verdict = "resume" | "go-on" | "seek" | "tell";
export declare function judge({ place, current, sought, watched, opening }: Situation): Verdict;
/** Whether a position kept without knowing the place may be sent, now that the place is known. */
export declare function maySend(held: number, place: number): boolean;
