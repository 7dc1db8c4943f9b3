/**
 * What the outside world gives: clock, chance, network, storage, page. Tests put their own in; pages need not.
 */
/** The browser's own. Its functions must be called without a `this`: take them out of the object first. */
export function browser() {
    return {
        now: Date.now,
        random: Math.random,
        fetch,
        setTimeout,
        clearTimeout,
        document,
        window,
        indexedDB,
        locks: navigator.locks,
        worker: (source) => new Worker(URL.createObjectURL(new Blob([source]))),
    };
}
