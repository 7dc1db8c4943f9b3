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

export const STORE = "positions";
const OLDEST_MS = 30 * 24 * 3_600_000;

export function outbox({ now, indexedDB }: Environment, baseUrl: string, viewerId: string | undefined): Outbox {
  /** By title; the held ones with a mark that no title has. */
  const rows = new Map<string, Entry>();
  const heldOf = (movieId: string): string => `${movieId}?`;
  const owner = [baseUrl, viewerId ?? ""];
  const database = open(viewerId === undefined ? undefined : indexedDB).catch(() => undefined);

  /**
   * Changes a row, here and in storage. At once, so that it is done though the page closes; unless it depends on what is
   * stored, for another tab may have put something newer.
   */
  function change(title: string, to: (old: Entry | undefined) => Entry | undefined, depends?: boolean): void {
    const next = to(rows.get(title));
    if (next) rows.set(title, next);
    else rows.delete(title);
    database
      .then((opened) => {
        const store = opened!.transaction(STORE, "readwrite").objectStore(STORE);
        const key = [...owner, title];
        const apply = (next: Entry | undefined): unknown => (next ? store.put(next, key) : store.delete(key));
        if (!depends) return apply(next);
        const stored = store.get(key);
        stored.onsuccess = () => apply(to(stored.result));
        return;
      })
      .catch(() => undefined);
  }

  function put(entry: Entry): void {
    const { movieId, held } = entry;
    change(held ? heldOf(movieId) : movieId, () => entry);
    if (!held && rows.has(heldOf(movieId))) change(heldOf(movieId), () => undefined);
  }

  return {
    async load() {
      try {
        const opened = await database;
        const found = opened && (await done<Entry[]>(opened.transaction(STORE).objectStore(STORE).getAll(all(owner))));
        for (const entry of found ?? []) {
          const title = entry.held ? heldOf(entry.movieId) : entry.movieId;
          if (entry.time < now() - OLDEST_MS) change(title, () => undefined);
          else if (!(rows.get(title)?.time! >= entry.time)) rows.set(title, entry);
        }
      } catch {
        // What is in memory has to do.
      }
    },
    put,
    // What is held came after what may be sent, or it would have been dropped.
    newest: (movieId) => rows.get(heldOf(movieId)) ?? rows.get(movieId),
    settle(movieId, mayBeSent) {
      const entry = rows.get(heldOf(movieId));
      if (!entry) return false;
      const isKept = mayBeSent(entry.position);
      if (isKept) put({ ...entry, held: false });
      else change(heldOf(movieId), () => undefined);
      return isKept;
    },
    waiting: () => [...rows.values()].filter(({ sent, held }) => !sent && !held).sort((a, b) => a.time - b.time),
    settled(entry, isSent) {
      change(
        entry.movieId,
        (old) => (old && old.time > entry.time ? old : isSent ? { ...entry, sent: true } : undefined),
        true,
      );
    },
  };
}

/** One spelling of the address, so that a slash more is not another service. */
export function trimmed(baseUrl: string): string {
  return baseUrl.replace(/\/+$/, "");
}

/** All titles of this owner: an array is greater than every string. */
export function all(owner: readonly string[]): IDBKeyRange {
  return IDBKeyRange.bound(owner, [...owner, []]);
}

export async function open(factory: IDBFactory | undefined): Promise<IDBDatabase | undefined> {
  if (!factory) return undefined;
  const request = factory.open("playhead");
  request.onupgradeneeded = () => request.result.createObjectStore(STORE);
  return done<IDBDatabase>(request);
}

export function done<T>(request: IDBRequest): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = reject;
  });
}
