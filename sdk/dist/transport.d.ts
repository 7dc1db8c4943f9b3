/**
 * How a request goes out: token, time limit, what the answer's head asks for.
 *
 * **The promise.** A request never rejects and always ends within its time limit, the token's provider included; no
 * answer at all has the status 0. A 401 asks for a new token, once per request. Requests are `keepalive`, so that one
 * begun while the page closes is carried out. With a token at hand `fetch` is called before {@link Request} returns: a
 * page that closes gives no second turn.
 */
import type { Environment } from "./environment.js";
export interface Answer {
    readonly status: number;
    readonly retryAfterSeconds?: number | undefined;
    /** The body, where there was one in JSON. */
    readonly json?: unknown;
}
/** A GET without a body, a POST with one. */
export type Request = (path: string, body: unknown, timeLimitMs: number, abort?: AbortController) => Promise<Answer>;
export type GetToken = (viewerId: string | undefined) => string | Promise<string>;
/**
 * @param getToken - `undefined` once no token may be asked for: the page may belong to another viewer already
 * @param onInterval - told of `Playhead-Interval`, or of its absence, with every answer
 */
export declare function transport({ fetch, setTimeout, clearTimeout }: Environment, baseUrl: string, getToken: () => string | Promise<string> | undefined, onInterval: (seconds: number | undefined) => void): Request;
