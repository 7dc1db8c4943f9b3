/**
 * When a beat is due, in media time: pure, told of positions and of the time by the session.
 *
 * A beat is due after 4 s of film, whatever the speed, so that never more than that is lost; and at least 1 s of the
 * clock apart. The first comes at a random phase of the interval: a fleet that starts with a broadcast must not beat in
 * step. The server may ask for another interval (`Playhead-Interval`).
 */

const INTERVAL_SECONDS = 4;
/** Between two beats that are due, on the clock. */
const APART_MS = 1_000;
/** What timers may be early: a beat at 3.97 s is on time, and need not wait for the next tick. */
const SLACK_SECONDS = 0.03;

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
export function heartbeat(random: number): Heartbeat {
  let interval = INTERVAL_SECONDS;
  /** The part of the interval after which the next is due: whole after the first. */
  let phase = random;
  let base: number | undefined;
  let beatenAt = -Infinity;
  return {
    askFor(seconds) {
      interval = seconds ? Math.min(Math.max(seconds, 1), 600) : INTERVAL_SECONDS;
    },
    startAt(position) {
      base = position;
    },
    beaten(position, now) {
      base = position;
      phase = 1;
      beatenAt = now;
    },
    dueIn(position, now, rate) {
      base ??= position;
      const left = interval * phase - Math.abs(position - base);
      // Of a clock that was set back no more is believed than what a beat can have to wait.
      const apart = Math.min(beatenAt + APART_MS - now, APART_MS);
      const film = left > SLACK_SECONDS ? (left * 1_000) / (Math.abs(rate) || 1) : 0;
      return Math.max(film, now < beatenAt ? 0 : apart, 0);
    },
  };
}
