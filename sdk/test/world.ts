/**
 * A world for one test: a clock that is moved by hand, a media element that plays by it, a page, and a service.
 *
 * The service keeps positions as the real one does (live beats by arrival, items by when they happened) and can be told
 * to fail; the real one is met in the browser proofs. Time goes on in steps of 10 ms; after each, everything that is
 * ready is let run, IndexedDB included.
 */

import { setMaxListeners } from "node:events";
import { IDBFactory } from "fake-indexeddb";
import { attachPlayhead, type Environment, type Playhead, type PlayheadOptions } from "../src/index.js";

const STEP_MS = 10;

// One signal ends all of a session's listeners, which node takes for a leak.
setMaxListeners(100);

export class FakeMedia extends EventTarget {
  paused = true;
  readyState = 4;
  duration = 3600;
  playbackRate = 1;
  seeking = false;
  #time = 0;
  #sinceUpdate = 0;
  #tasks: (() => void)[] = [];

  constructor(isLoaded = true) {
    super();
    if (!isLoaded) {
      this.readyState = 0;
      this.duration = NaN;
    }
  }

  get currentTime(): number {
    return this.#time;
  }

  /** A seek: by the page, the viewer or the player, which look the same. */
  set currentTime(seconds: number) {
    this.#time = seconds;
    this.seeking = true;
    this.#tasks.push(
      () => this.fire("seeking"),
      () => {
        this.seeking = false;
        this.fire("timeupdate");
        this.fire("seeked");
      },
    );
  }

  load(duration = 3600): void {
    this.duration = duration;
    this.readyState = 4;
    this.fire("loadedmetadata");
  }

  play(): void {
    this.paused = false;
    this.fire("play");
    this.fire("playing");
  }

  pause(): void {
    this.paused = true;
    this.fire("timeupdate");
    this.fire("pause");
  }

  end(): void {
    this.#time = this.duration;
    this.pause();
    this.fire("ended");
  }

  /** Another source, or the same anew: the time is 0 before anyone is told. */
  empty(): void {
    this.#time = 0;
    this.readyState = 0;
    this.fire("emptied");
  }

  fire(type: string): void {
    this.dispatchEvent(new Event(type));
  }

  step(milliseconds: number, updates: boolean): void {
    this.#tasks.shift()?.();
    if (this.paused || this.readyState < 3 || this.seeking) return;
    this.#time = Math.min(this.#time + (milliseconds / 1_000) * this.playbackRate, this.duration || Infinity);
    this.#sinceUpdate += milliseconds;
    if (this.#sinceUpdate >= 250) {
      this.#sinceUpdate = 0;
      if (updates) this.fire("timeupdate");
    }
  }
}

export interface SeenRequest {
  readonly at: number;
  readonly method: string;
  readonly path: string;
  readonly token: string;
  readonly body: any;
  readonly keepalive: boolean;
  isAborted: boolean;
}

interface Row {
  position: number;
  duration: number | undefined;
  time: number;
}

export class Service {
  readonly seen: SeenRequest[] = [];
  readonly rows = new Map<string, Row>();
  /** No answer: the connection is refused. */
  isDown = false;
  /** How long answers take; `Infinity` for ever. */
  delayMs = 0;
  /** What is answered instead, first come first served. */
  readonly instead: { status: number; headers?: Record<string, string>; json?: unknown }[] = [];
  headers: Record<string, string> = {};
  badTokens = new Set<string>();

  constructor(private readonly world: World) {}

  get writes(): SeenRequest[] {
    return this.seen.filter(({ method }) => method === "POST");
  }

  get live(): SeenRequest[] {
    return this.writes.filter(({ path }) => !path.endsWith("/batch"));
  }

  get batches(): SeenRequest[] {
    return this.writes.filter(({ path }) => path.endsWith("/batch"));
  }

  get positions(): number[] {
    return this.live.map(({ body }) => body.position_seconds);
  }

  put(viewer: string, movie: string, position: number, duration?: number): void {
    this.rows.set(`${viewer} ${movie}`, { position, duration, time: this.world.now });
  }

  place(viewer: string, movie: string): number | undefined {
    return this.rows.get(`${viewer} ${movie}`)?.position;
  }

  fetch = (url: RequestInfo | URL, init: RequestInit = {}): Promise<Response> => {
    const { pathname } = new URL(String(url), "http://page.test");
    const token = new Headers(init.headers).get("Authorization") ?? "";
    const request: SeenRequest = {
      at: this.world.now,
      method: init.method ?? "GET",
      path: pathname,
      token: token.replace("Bearer ", ""),
      body: init.body === undefined ? undefined : JSON.parse(String(init.body)),
      keepalive: init.keepalive === true,
      isAborted: false,
    };
    this.seen.push(request);
    return new Promise((resolve, reject) => {
      init.signal?.addEventListener("abort", () => {
        request.isAborted = true;
        reject(new DOMException("aborted", "AbortError"));
      });
      const answer = (): void => {
        if (request.isAborted) return;
        if (this.isDown) reject(new TypeError("Failed to fetch"));
        else resolve(this.#answer(request));
      };
      if (this.delayMs === 0) answer();
      else if (this.delayMs < Infinity) this.world.setTimeout(answer, this.delayMs);
    });
  };

  #answer(request: SeenRequest): Response {
    const respond = (status: number, json?: unknown, headers: Record<string, string> = {}): Response =>
      new Response(json === undefined ? null : JSON.stringify(json), { status, headers: { ...this.headers, ...headers } });
    const instead = this.instead.shift();
    if (instead) return respond(instead.status, instead.json, instead.headers);
    if (this.badTokens.has(request.token)) return respond(401, { status: 401 });
    const viewer = request.token.replace(/#.*/, "");
    const write = (item: any, time: number): void => {
      const key = `${viewer} ${item.movie_id}`;
      if (time >= (this.rows.get(key)?.time ?? -Infinity)) {
        this.rows.set(key, { position: item.position_seconds, duration: item.duration_seconds, time });
      }
    };
    if (request.path.endsWith("/batch")) {
      const { sent_at_ms, items } = request.body;
      for (const item of items) write(item, this.world.now - Math.max(sent_at_ms - item.event_time_ms, 0));
      return respond(204);
    }
    if (request.method === "POST") {
      write(request.body, this.world.now);
      return respond(204);
    }
    const movie = request.path.split("/").at(-1) as string;
    const row = this.rows.get(`${viewer} ${movie}`);
    const isCompleted = row?.duration !== undefined && row.position >= 0.95 * row.duration;
    return respond(200, {
      movie_id: movie,
      position_seconds: row?.position ?? 0,
      resume_position_seconds: isCompleted ? 0 : (row?.position ?? 0),
      duration_seconds: row?.duration ?? null,
      updated_at: row ? new Date(row.time).toISOString() : null,
      state: row ? (isCompleted ? "completed" : "in_progress") : "none",
    });
  }
}

class FakePage extends EventTarget {
  visibilityState: DocumentVisibilityState = "visible";
}

/** A browser tab; another one shares the world's storage. */
export class Tab {
  readonly document = new FakePage();
  readonly window = new EventTarget();

  set visibility(state: DocumentVisibilityState) {
    this.document.visibilityState = state;
    this.document.dispatchEvent(new Event("visibilitychange"));
  }

  leave(): void {
    this.visibility = "hidden";
    this.window.dispatchEvent(new Event("pagehide"));
  }
}

/** `viewerId: undefined` leaves it out. */
export type Attaching = Omit<Partial<PlayheadOptions>, "viewerId"> & { viewerId?: string | undefined };

export class World {
  now = Date.UTC(2026, 0, 1);
  random = 0.5;
  readonly service = new Service(this);
  indexedDB: IDBFactory | undefined = new IDBFactory();
  locks: LockManager | undefined;
  /** What page timers are late by, as in a hidden page. */
  throttleMs = 0;
  hasWorker = true;
  timersSet = 0;
  updatesTime = true;
  readonly #timers = new Map<number, { at: number; callback: () => void }>();
  #nextTimer = 1;
  readonly #media: FakeMedia[] = [];

  setTimeout = (callback: () => void, milliseconds: number): number => {
    this.timersSet += 1;
    this.#timers.set(this.#nextTimer, { at: this.now + milliseconds, callback });
    return this.#nextTimer++;
  };

  clearTimeout = (timer: number): void => {
    this.#timers.delete(timer);
  };

  environment(tab: Tab): Environment {
    return {
      now: () => this.now,
      random: () => this.random,
      fetch: this.service.fetch,
      setTimeout: (callback, milliseconds) => this.setTimeout(callback, milliseconds + this.throttleMs),
      clearTimeout: this.clearTimeout,
      document: tab.document,
      window: tab.window,
      indexedDB: this.indexedDB,
      locks: this.locks,
      worker: (source) => this.#worker(source),
    };
  }

  /** Runs the Worker's own source, with the timers of this world. */
  #worker(source: string): Worker {
    if (!this.hasWorker) throw new DOMException("forbidden", "SecurityError");
    const worker = { onmessage: undefined as undefined | (() => void) };
    const postMessage = (...message: unknown[]): void => {
      if (message.length === 0) throw new TypeError("1 argument required, but only 0 present");
      worker.onmessage?.();
    };
    const setTimeout = (callback: (...values: unknown[]) => void, milliseconds: number, ...values: unknown[]): number =>
      this.setTimeout(() => callback(...values), milliseconds);
    const inside = Function("setTimeout", "clearTimeout", "postMessage", `let onmessage;${source};return onmessage`);
    const receive = inside(setTimeout, this.clearTimeout, postMessage) as (event: { data: unknown }) => void;
    return Object.assign(worker, {
      postMessage: (data: unknown) => receive({ data }),
      terminate: () => receive({ data: -1 }),
    }) as unknown as Worker;
  }

  media(isLoaded = true): FakeMedia {
    const media = new FakeMedia(isLoaded);
    this.#media.push(media);
    return media;
  }

  attach(media: FakeMedia, options: Attaching = {}, tab = new Tab()): Attached {
    const viewerId = "viewerId" in options ? options.viewerId : "v1";
    const { viewerId: _, ...others } = options;
    const all = {
      baseUrl: "",
      movieId: "7",
      getToken: () => viewerId ?? "v1",
      ...others,
      ...(viewerId === undefined ? {} : { viewerId }),
    };
    const playhead = attachPlayhead(media as unknown as HTMLMediaElement, all, this.environment(tab));
    const events: [string, any][] = [];
    for (const type of ["saved", "resumed", "place-found", "rejected", "error"]) {
      playhead.addEventListener(type, (event) => events.push([type, (event as CustomEvent).detail]));
    }
    const named = (type: string) => events.filter(([found]) => found === type).map(([, detail]) => detail);
    return { playhead, tab, events, named };
  }

  /** A tab is gone without a word: the element is, and nothing is listened to. */
  forget(media: FakeMedia): void {
    this.#media.splice(this.#media.indexOf(media), 1);
  }

  async advance(seconds: number): Promise<void> {
    for (let left = Math.round((seconds * 1_000) / STEP_MS); left > 0; left -= 1) {
      this.now += STEP_MS;
      for (const media of this.#media) media.step(STEP_MS, this.updatesTime);
      for (const [id, { at, callback }] of [...this.#timers]) {
        if (at <= this.now && this.#timers.delete(id)) callback();
      }
      await settled(2);
    }
    await settled(20);
  }
}

export interface Attached {
  readonly playhead: Playhead;
  readonly tab: Tab;
  readonly events: [string, any][];
  readonly named: (type: string) => any[];
}

/** Lets what is ready run: promises, and IndexedDB, which takes turns of the event loop. */
export async function settled(turns = 20): Promise<void> {
  for (; turns > 0; turns -= 1) await new Promise((go) => setImmediate(go));
}
