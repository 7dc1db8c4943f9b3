/**
 * What the outside world gives: clock, chance, network, storage, page. Tests put their own in; pages need not.
 */
export interface Environment {
    /** Milliseconds, as `Date.now`. */
    readonly now: () => number;
    readonly random: () => number;
    readonly fetch: typeof fetch;
    readonly setTimeout: (callback: () => void, milliseconds: number) => unknown;
    readonly clearTimeout: (timer: never) => void;
    /** Where `visibilitychange` happens. */
    readonly document: EventTarget & {
        readonly visibilityState: DocumentVisibilityState;
    };
    /** Where `pagehide`, `pageshow` and `online` happen. */
    readonly window: EventTarget;
    /** Undefined: positions are kept in memory only. */
    readonly indexedDB: IDBFactory | undefined;
    /** Undefined: tabs don't take turns. */
    readonly locks: LockManager | undefined;
    /** Makes a timer that is not throttled in hidden pages; may throw where a policy forbids it. */
    readonly worker: (source: string) => Worker;
}
/** The browser's own. Its functions must be called without a `this`: take them out of the object first. */
export declare function browser(): Environment;
