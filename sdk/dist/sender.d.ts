/**
 * Brings positions to the service: one request at a time, the newest position only.
 *
 * A position that has just been reached goes as a *live* heartbeat, which the server orders by its arrival. One that had to
 * wait, for whatever reason, goes as an item of a batch with its time: it can't come in after something newer and undo
 * it, as a late heartbeat of a paused device would. Batches hold all titles of this viewer that wait, at most 100 at a
 * time, from one tab at a time.
 *
 * **The promise.** No two requests that were not aborted. Nothing is dropped until it is acknowledged, but what the
 * service refuses for good; of a batch that is refused only the items that its pointers name.
 */
import type { Environment } from "./environment.js";
import type { Entry, Outbox } from "./outbox.js";
import type { Request } from "./transport.js";
export interface Sender {
    /** A position was reached. On `hide` it goes at once, whatever is under way: there may be no later. */
    offer(entry: Entry | undefined, hide?: boolean): void;
    /**
     * Sends what the outbox holds; resolves once that was tried. `now`: also if a pause between two attempts has not ended,
     * since the network has changed.
     */
    catchUp(now?: boolean): Promise<void>;
    /** Lets what is under way end, and begins nothing more. */
    close(): void;
}
export declare function sender({ now, random, setTimeout, clearTimeout, locks }: Environment, request: Request, outbox: Outbox, emit: (type: string, detail: object) => void, lock: string): Sender;
/** The entries that the pointers of a 422 name, `/items/3/position_seconds` say. Nothing else in it repeats what was sent. */
export declare function namedBy<T>(problem: unknown, entries: readonly T[]): T[];
