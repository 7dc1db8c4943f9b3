/** What happens offline: kept, sent later, never another's. */

import { describe, expect, test } from "vitest";
import { forgetViewer } from "../src/forget.js";
import { settled, Tab, World, type Attached } from "./world.js";

/** Opens a title without a network, seeks, pauses and leaves: the device keeps the position. */
async function watchedOffline(world: World, movieId: string, position: number, viewerId: string | null = "v1"): Promise<void> {
  const media = world.media();
  const { playhead, tab } = world.attach(media, { movieId, viewerId: viewerId ?? undefined });
  world.service.isDown = true;
  await playhead.resume();
  media.currentTime = position;
  await world.advance(0.6);
  tab.leave();
  await settled();
  playhead.detach();
  await settled();
  world.forget(media);
  world.service.isDown = false;
}

describe("what was reached offline", () => {
  test("is sent at the next start, with its time, before the place is read", async () => {
    const world = new World();
    world.service.put("v1", "7", 20);
    await world.advance(0.1);
    await watchedOffline(world, "7", 100);
    world.now += 3_600_000;
    const media = world.media();
    const start = await world.attach(media).playhead.resume();
    expect(start).toBe(100);
    const { body } = world.service.batches.at(-1)!;
    expect(body.sent_at_ms).toBe(world.now);
    expect(body.sent_at_ms - body.items[0].event_time_ms).toBeGreaterThanOrEqual(3_600_000);
  });

  test("is sent when the network comes back, whatever pause was asked for", async () => {
    const world = new World();
    const media = world.media();
    const { playhead, tab } = world.attach(media);
    await playhead.resume();
    media.play();
    world.service.isDown = true;
    await world.advance(120);
    const tries = world.service.writes.length;
    world.service.isDown = false;
    tab.window.dispatchEvent(new Event("online"));
    await settled();
    expect(world.service.writes.length).toBeGreaterThan(tries);
    expect(world.service.place("v1", "7")).toBeGreaterThan(115);
  });

  test("is sent with a new time of sending on each attempt", async () => {
    const world = new World();
    await watchedOffline(world, "7", 100);
    world.service.seen.length = 0;
    world.service.instead.push({ status: 503 }, { status: 503 }, { status: 503 });
    world.attach(world.media());
    await world.advance(6);
    const batches = world.service.batches.map(({ body }) => body);
    const times = batches.map(({ sent_at_ms }) => sent_at_ms);
    expect(new Set(times).size).toBe(times.length);
    expect(new Set(batches.map(({ items }) => items[0].event_time_ms)).size).toBe(1);
    expect(world.service.place("v1", "7")).toBe(100);
  });

  test("goes in batches of at most 100", async () => {
    const world = new World();
    for (let movie = 1; movie <= 130; movie += 1) await watchedOffline(world, String(movie), movie);
    world.service.seen.length = 0;
    world.attach(world.media(), { movieId: "1000" });
    await world.advance(0.5);
    expect(world.service.batches.map(({ body }) => body.items.length)).toEqual([100, 30]);
    expect(world.service.place("v1", "130")).toBeCloseTo(130, 0);
    world.service.seen.length = 0;
    world.attach(world.media(), { movieId: "1000" });
    await world.advance(0.5);
    expect(world.service.batches).toEqual([]);
  });

  test("of a refused batch only what its pointers name is dropped; the rest goes at once", async () => {
    const world = new World();
    for (const movie of ["1", "2", "3"]) await watchedOffline(world, movie, 50);
    world.service.seen.length = 0;
    const problem = { status: 422, errors: [{ pointer: "/items/1/position_seconds", code: "out-of-range" }] };
    world.service.instead.push({ status: 422, json: problem });
    const { named } = world.attach(world.media(), { movieId: "9" });
    await world.advance(0.5);
    const sent = world.service.batches.map(({ body }) => body.items.map((item: any) => item.movie_id));
    expect(sent).toEqual([["1", "2", "3"], ["1", "3"]]);
    expect(named("rejected")).toEqual([{ status: 422, problem, movieIds: ["2"] }]);
    expect(world.service.place("v1", "2")).toBeUndefined();
  });

  test("is kept when the whole batch is refused for another reason", async () => {
    const world = new World();
    await watchedOffline(world, "1", 50);
    for (const status of [400, 403, 413]) {
      world.service.instead.push({ status });
      const { named, playhead } = world.attach(world.media(), { movieId: "9" });
      await world.advance(0.5);
      expect(named("rejected")).toEqual([{ status, problem: undefined, movieIds: [] }]);
      playhead.detach();
    }
    world.attach(world.media(), { movieId: "9" });
    await world.advance(0.5);
    expect(world.service.place("v1", "1")).toBe(50);
  });

  test("does not replace what another device has saved since", async () => {
    const world = new World();
    await watchedOffline(world, "7", 100);
    await world.advance(10);
    world.service.put("v1", "7", 40);
    await world.advance(10);
    const start = await world.attach(world.media()).playhead.resume();
    expect(start).toBe(40);
  });

  test("is where the film starts while the service can be read but not written to", async () => {
    const world = new World();
    world.service.put("v1", "7", 20);
    await world.advance(1);
    await watchedOffline(world, "7", 100);
    world.service.instead.push({ status: 503, headers: { "Retry-After": "30" } });
    const start = await world.attach(world.media()).playhead.resume();
    expect(start).toBe(100);
  });

  test("survives a clock that is set back", async () => {
    const world = new World();
    await watchedOffline(world, "7", 100);
    world.now -= 7_200_000;
    world.attach(world.media());
    await world.advance(0.5);
    const { sent_at_ms, items } = world.service.batches.at(-1)!.body;
    expect(items[0].event_time_ms).toBe(sent_at_ms);
  });

  test("is removed once the service would not take it any more", async () => {
    const world = new World();
    await watchedOffline(world, "7", 100);
    world.now += 31 * 24 * 3_600_000;
    world.service.seen.length = 0;
    world.attach(world.media());
    await world.advance(0.5);
    expect(world.service.writes).toEqual([]);
  });

  test("is sent by one tab at a time", async () => {
    const world = new World();
    await watchedOffline(world, "7", 100);
    let isTaken = false;
    world.locks = {
      request: async (_name: string, _options: object, call: (lock: object | null) => Promise<boolean>) => {
        if (isTaken) return call(null);
        isTaken = true;
        return call({}).finally(() => (isTaken = false));
      },
    } as unknown as LockManager;
    world.service.delayMs = 100;
    world.service.seen.length = 0;
    for (let tab = 0; tab < 5; tab += 1) world.attach(world.media(), { movieId: "9" });
    await world.advance(1);
    expect(world.service.batches.length).toBe(1);
  });

  test("is kept by nobody without a viewerId", async () => {
    const world = new World();
    await watchedOffline(world, "7", 100, null);
    world.service.seen.length = 0;
    for (const viewerId of ["", "v1", undefined]) {
      const media = world.media();
      const { playhead } = world.attach(media, { viewerId });
      expect(await playhead.resume()).toBe(0);
    }
    expect(world.service.writes).toEqual([]);
  });
});

describe("two viewers on one browser", () => {
  const copyOf = async (world: World, viewerId: string, baseUrl = ""): Promise<number> => {
    world.service.isDown = true;
    const { playhead } = world.attach(world.media(), { viewerId, baseUrl });
    const start = await playhead.resume();
    playhead.detach();
    world.service.isDown = false;
    return start;
  };

  test("never send each other's positions, nor start from each other's copies", async () => {
    const world = new World();
    await watchedOffline(world, "7", 100, "v1");
    expect(await copyOf(world, "v2")).toBe(0);
    expect(await copyOf(world, "v1")).toBe(100);
    world.service.seen.length = 0;
    const { playhead } = world.attach(world.media(), { viewerId: "v2" });
    expect(await playhead.resume()).toBe(0);
    await world.advance(5);
    expect(world.service.writes).toEqual([]);
    world.attach(world.media(), { viewerId: "v1" });
    await world.advance(1);
    expect(world.service.writes.map(({ token }) => token)).toEqual(["v1"]);
    expect([world.service.place("v1", "7") !== undefined, world.service.place("v2", "7")]).toEqual([true, undefined]);
  });

  test("switch in the middle of an outage", async () => {
    const world = new World();
    // The page's session belongs to whoever signed in last.
    let session = "v1";
    const getToken = (viewerId: string | undefined): string => {
      if (viewerId !== session) throw new Error("signed out");
      return session;
    };
    const tab = new Tab();
    const media = world.media();
    const first: Attached = world.attach(media, { viewerId: "v1", getToken }, tab);
    await first.playhead.resume();
    media.play();
    media.currentTime = 700;
    await world.advance(2);
    world.service.isDown = true;
    await world.advance(6);
    session = "v2";
    first.playhead.detach();
    const second = world.attach(media, { viewerId: "v2", getToken }, tab);
    expect(await second.playhead.resume()).toBe(media.currentTime);
    media.currentTime = 30;
    await world.advance(6);
    world.service.isDown = false;
    tab.window.dispatchEvent(new Event("online"));
    await world.advance(20);
    for (const { token, body } of world.service.writes) {
      for (const { position_seconds } of body.items ?? [body]) expect(position_seconds >= 700).toBe(token === "v1");
    }
    expect(world.service.place("v2", "7")).toBeLessThan(100);
    expect(world.service.place("v1", "7")).toBeGreaterThanOrEqual(700);
  });

  test("on two services are apart too, whatever slash the address ends in", async () => {
    const world = new World();
    world.service.isDown = true;
    const media = world.media();
    const { playhead } = world.attach(media, { baseUrl: "https://a.test/" });
    void playhead.resume();
    media.play();
    media.currentTime = 50;
    await world.advance(1);
    playhead.detach();
    await settled();
    expect(await copyOf(world, "v1", "https://b.test")).toBe(0);
    expect(await copyOf(world, "v1", "https://a.test")).toBeGreaterThanOrEqual(50);
  });

  test("can be forgotten, one without the other", async () => {
    const world = new World();
    await watchedOffline(world, "7", 100, "v1");
    await watchedOffline(world, "7", 100, "v2");
    await forgetViewer("", "v1", world.indexedDB);
    expect(await copyOf(world, "v1")).toBe(0);
    expect(await copyOf(world, "v2")).toBe(100);
  });
});
