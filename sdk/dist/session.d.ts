/**
 * One title in one media element: listens to the element and the page, and decides what is sent, kept and sought.
 *
 * **The promise.** Nothing here throws into the player, and playback waits for nothing. Beats follow heartbeat.ts; besides,
 * a position goes out at once on `pause`, `seeked`, `ended`, a change of source, and when the page is hidden or left.
 *
 * **Unknown is not zero.** A session begins *unconfirmed*: what it reaches is held in the outbox and not sent. It is
 * confirmed once the place was read and lies at or behind the film, or the film was moved there; once the viewer has
 * sought; or after 30 s watched. A page that comes back after a while begins so again: another device may be further.
 *
 * **What it leaves out.** Live streams have no place. While held (advertisements in the same element) and between a change
 * of source and the next `playing`, the element's time is not the film's and is not looked at.
 */
import type { Environment } from "./environment.js";
import { type GetToken } from "./transport.js";
export interface PlayheadOptions {
    /** Where the service is: `https://api.example.com`; `""` is the page's own origin. */
    readonly baseUrl: string;
    /** A signed 64-bit integer; a string or a bigint above 2^53. */
    readonly movieId: string | number | bigint;
    /** Whose position it is, by a name of your own. Without it nothing is kept on the device. */
    readonly viewerId?: string;
    /** Gives a token of exactly that viewer, or throws. Called at the start, and again when a token was refused. */
    readonly getToken: GetToken;
    /** Seconds to start before the place, 0 to 10. */
    readonly rewindSeconds?: number;
}
export interface Session {
    /**
     * Reads the place and seeks there once the metadata is known. Resolves within about 2 s with the second at which the
     * film starts, for players that want to know it before they load; never rejects.
     */
    resume(): Promise<number>;
    /** Sends where the film is now. */
    flush(): void;
    /** The element shows something else for a while, an advertisement say. */
    hold(): void;
    /** The element shows the film again. */
    release(): void;
    /** Sends where the film is and lets go of the element. For another title or viewer, attach anew. */
    detach(): void;
}
/** Tells the page; says whether it does not object. */
export type Emit = (type: string, detail: object) => boolean;
export declare function session(media: HTMLMediaElement, options: PlayheadOptions, environment: Environment, emit: Emit): Session;
