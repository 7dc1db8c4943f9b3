/**
 * The newest position of each title, kept until it is acknowledged, and after that as the local copy to start from when
 * the service can't be reached.
 *
 * One row per (baseUrl, viewerId, movieId), so what one viewer leaves behind is never another's. Beside it there may be
 * one *held* row: a position that must not be sent before the title's place was read (place.ts). Rows live in memory
 * and are written through to IndexedDB, where there is one and a viewerId; they are read from there at the start and
 * when the network comes back. Nothing here throws or rejects: storage that fails must not reach the player.
 *
 * Bounds: one row and one held row per title; rows older than the service takes (30 days) are removed.
 */
import type { Environment } from "./environment.js";
export interface Entry {
    readonly movieId: string;
    readonly position: number;
    readonly duration: number | undefined;
    /** When it happened, by this device's clock. */
    readonly time: number;
    /** It must not be sent yet. */
    readonly held?: boolean;
    /** It was acknowledged: only a local copy now. */
    readonly sent?: boolean;
}
export interface Outbox {
    /** Reads what earlier pages and other tabs have left. */
    load(): Promise<void>;
    /** Keeps a position. One that may be sent takes the place of the held one, not the other way round. */
    put(entry: Entry): void;
    /** Where this device was last, sent or not, held or not. */
    newest(movieId: string): Entry | undefined;
    /** The place is known: a held position becomes one that may be sent, or is dropped. Says whether one may be sent. */
    settle(movieId: string, mayBeSent: (position: number) => boolean): boolean;
    /** What waits to be sent, oldest first. */
    waiting(): Entry[];
    /** It stays as a local copy (`sent`) or goes, unless a newer position came meanwhile. */
    settled(entry: Entry, isSent: boolean): void;
}
export declare const STORE = "positions";
export declare function outbox({ now, indexedDB }: Environment, baseUrl: string, viewerId: string | undefined): Outbox;
/** One spelling of the address, so that a slash more is not another service. */
export declare function trimmed(baseUrl: string): string;
/** All titles of this owner: an array is greater than every string. */
export declare function all(owner: readonly string[]): IDBKeyRange;
export declare function open(factory: IDBFactory | undefined): Promise<IDBDatabase | undefined>;
export declare function done<T>(request: IDBRequest): Promise<T>;
