/**
 * One timer that also runs on time in a hidden page.
 *
 * Timers of hidden pages are throttled to one a second, later to one a minute; those of a dedicated Worker are not. Both
 * are set, and whoever is first calls: so nothing needs to notice that a content security policy forbids the Worker.
 */
import type { Environment } from "./environment.js";
export interface Ticker {
    /** Calls once after this time, which replaces the one set before; a negative time never. */
    set(milliseconds: number): void;
    end(): void;
}
export declare function ticker({ setTimeout, clearTimeout, worker }: Environment, call: () => void): Ticker;
