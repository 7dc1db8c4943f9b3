/**
 * When a beat is due, in media time: pure, told of positions and of the time by the session.
 *
 * A beat is due after 4 s of film, whatever the speed, so that never more than that is lost; and at least 1 s of the
 * clock apart. The first comes at a random phase of the interval: a fleet that starts with a broadcast must not beat in
 * step. The server may ask for another interval (`Playhead-Interval`).
 */
export interface Heartbeat {
    /** Obeys the server; without a value the interval is the usual one again. */
    askFor(seconds: number | undefined): void;
    /** Counts from here, as after a seek of our own: nothing was lost by it. */
    startAt(position: number): void;
    /** A beat was made, due or not. */
    beaten(position: number, now: number): void;
    /** Milliseconds on the clock until one is due, if the film goes on at this rate; 0 if it is due. */
    dueIn(position: number, now: number, rate: number): number;
}
/** @param random - from 0 to below 1: the phase of the first beat */
export declare function heartbeat(random: number): Heartbeat;
