/** When beats are sent, and what becomes of them. */

import { describe, expect, test } from "vitest";
import { settled, World, type Attached, type FakeMedia } from "./world.js";

/** A film that plays, from its start, with its place known. */
async function playing(world: World, options: Parameters<World["attach"]>[1] = {}): Promise<Attached & { media: FakeMedia }> {
  const media = world.media();
  const attached = world.attach(media, options);
  await attached.playhead.resume();
  await settled();
  media.play();
  return { ...attached, media };
}

describe("a beat", () => {
  test("comes after every 4 s of film, the first at a random phase", async () => {
    for (const [random, first] of [[0, 0.05], [0.25, 1], [0.99, 3.96]] as const) {
      const world = new World();
      world.random = random;
      await playing(world);
      await world.advance(13);
      const positions = world.service.positions;
      expect(positions[0]).toBeGreaterThan(first - 0.06);
      expect(positions[0]).toBeLessThan(first + 0.25);
      expect(positions.length).toBeGreaterThanOrEqual(3);
      for (const [at, position] of positions.slice(1).entries()) {
        expect(position - positions[at]!).toBeGreaterThan(3.95);
        expect(position - positions[at]!).toBeLessThan(4.05);
      }
    }
  });

  test.each([[0.5, 8], [2, 2], [4, 1], [16, 1]])("at speed %d is due after %d s of the clock", async (rate, seconds) => {
    const world = new World();
    const { media } = await playing(world);
    media.playbackRate = rate;
    await world.advance(20);
    const times = world.service.live.map(({ at }) => at);
    for (const [at, time] of times.slice(1).entries()) expect(time - times[at]!).toBeCloseTo(seconds * 1_000, -2);
  });

  test("carries the title, the place and, once it is finite, the duration", async () => {
    const world = new World();
    const { media } = await playing(world, { movieId: 9_007_199_254_740_993n });
    media.duration = NaN;
    await world.advance(3);
    media.duration = 5_400.5;
    await world.advance(4);
    const [first, second] = world.service.live;
    expect(first!.body).toEqual({ movie_id: "9007199254740993", position_seconds: expect.closeTo(2, 1) });
    expect(second!.body).toEqual({ ...first!.body, position_seconds: expect.closeTo(6, 1), duration_seconds: 5_400.5 });
    expect(first!.keepalive && second!.keepalive).toBe(true);
  });

  test("is not sent while paused, nor if nothing has moved", async () => {
    const world = new World();
    const { media, tab, playhead } = await playing(world);
    await world.advance(3);
    media.pause();
    await world.advance(1);
    const count = world.service.live.length;
    expect(world.service.positions.at(-1)).toBeCloseTo(3, 1);
    await world.advance(30);
    playhead.flush();
    tab.leave();
    media.pause();
    await world.advance(1);
    expect(world.service.live.length).toBe(count);
  });

  test("is not sent for a live stream", async () => {
    const world = new World();
    const { media, tab } = await playing(world);
    media.duration = Infinity;
    await world.advance(10);
    media.pause();
    tab.leave();
    await world.advance(1);
    expect(world.service.writes).toEqual([]);
  });

  test("is not sent while held, and the film's last place is not lost", async () => {
    const world = new World();
    const { media, playhead, tab } = await playing(world);
    await world.advance(3);
    playhead.hold();
    await world.advance(0.1);
    expect(world.service.positions.at(-1)).toBeCloseTo(3, 1);
    const count = world.service.live.length;
    // The advertisement takes the element's source and time.
    media.empty();
    media.load(30);
    media.play();
    await world.advance(20);
    tab.visibility = "hidden";
    tab.visibility = "visible";
    media.pause();
    media.empty();
    media.load();
    media.currentTime = 3;
    await world.advance(0.1);
    playhead.release();
    await world.advance(1);
    expect(world.service.live.length).toBe(count);
    media.play();
    await world.advance(4.1);
    expect(world.service.positions.slice(count)).toEqual([expect.closeTo(7, 1)]);
  });

  test("comes on time though the page's timers are throttled, by the Worker", async () => {
    const world = new World();
    world.updatesTime = false;
    world.throttleMs = 60_000;
    await playing(world);
    await world.advance(13);
    expect(world.service.positions).toEqual([2, 6, 10].map((position) => expect.closeTo(position, 1)));
  });

  test("comes on time where a policy forbids the Worker, by the page's timers", async () => {
    const world = new World();
    world.updatesTime = false;
    world.hasWorker = false;
    await playing(world);
    await world.advance(13);
    expect(world.service.positions).toEqual([2, 6, 10].map((position) => expect.closeTo(position, 1)));
  });

  test("costs nothing while the film waits for data", async () => {
    const world = new World();
    world.random = 0;
    let ticks = 0;
    const { media } = await playing(world);
    media.addEventListener("timeupdate", () => (ticks += 1));
    media.readyState = 2;
    const before = world.timersSet;
    await world.advance(10);
    expect(world.timersSet - before).toBeLessThan(2 * (10_000 / 50) + 10);
    expect([ticks, world.service.writes.length]).toEqual([0, 0]);
  });

  test("obeys Playhead-Interval until an answer leaves it out", async () => {
    const world = new World();
    world.service.headers = { "Playhead-Interval": "10" };
    await playing(world);
    await world.advance(26);
    expect(world.service.positions).toEqual([5, 15, 25].map((position) => expect.closeTo(position, 1)));
    world.service.headers = {};
    await world.advance(15);
    expect(world.service.positions.slice(3)).toEqual([35, 39].map((position) => expect.closeTo(position, 1)));
  });
});

describe("at once", () => {
  test("on pause and on ended", async () => {
    const world = new World();
    const { media } = await playing(world);
    await world.advance(1);
    media.pause();
    await settled();
    expect(world.service.positions).toEqual([expect.closeTo(1, 1)]);
    media.play();
    await world.advance(1);
    media.end();
    await settled();
    expect(world.service.positions.at(-1)).toBe(3600);
  });

  test("when a seek has settled, once", async () => {
    const world = new World();
    const { media } = await playing(world);
    await world.advance(1);
    for (const to of [100, 200, 300]) {
      media.currentTime = to;
      await world.advance(0.2);
    }
    expect(world.service.positions).toEqual([]);
    await world.advance(0.5);
    expect(world.service.positions).toEqual([expect.closeTo(300.5, 0)]);
  });

  test("a small jump over a gap is no seek", async () => {
    const world = new World();
    const { media } = await playing(world);
    await world.advance(1);
    media.currentTime += 0.3;
    await world.advance(0.5);
    expect(world.service.positions).toEqual([]);
  });

  test("when the page is hidden: in the event, with the request under way aborted", async () => {
    const world = new World();
    const { tab } = await playing(world);
    world.service.delayMs = 2_000;
    await world.advance(2.5);
    expect(world.service.positions).toEqual([expect.closeTo(2, 1)]);
    tab.visibility = "hidden";
    // Not a turn later.
    expect(world.service.positions).toEqual([expect.closeTo(2, 1), expect.closeTo(2.5, 1)]);
    expect(world.service.live.map(({ isAborted }) => isAborted)).toEqual([true, false]);
    tab.window.dispatchEvent(new Event("pagehide"));
    expect(world.service.live.length).toBe(2);
    await world.advance(3);
    expect(world.service.place("v1", "7")).toBeCloseTo(2.5, 1);
  });

  test("when the page is left while the service asks for patience", async () => {
    const world = new World();
    const { tab } = await playing(world);
    world.service.instead.push({ status: 503, headers: { "Retry-After": "60" } });
    await world.advance(3);
    tab.leave();
    await settled();
    expect(world.service.place("v1", "7")).toBeCloseTo(3, 1);
  });

  test("when the source changes, from where the film was", async () => {
    const world = new World();
    const { media, tab } = await playing(world);
    await world.advance(3);
    media.empty();
    await settled();
    expect(world.service.positions.at(-1)).toBeCloseTo(3, 1);
    // The player brings it back: until it plays the element's time is not the film's.
    media.load();
    await world.advance(1);
    tab.visibility = "hidden";
    media.currentTime = 3;
    await world.advance(1);
    expect(world.service.place("v1", "7")).toBeCloseTo(3, 1);
    media.play();
    await world.advance(4.5);
    expect(world.service.place("v1", "7")).toBeCloseTo(7, 0);
  });

  test("when it is let go of; after that, nothing", async () => {
    const world = new World();
    const { media, playhead, tab } = await playing(world);
    await world.advance(1);
    playhead.detach();
    await settled();
    expect(world.service.positions).toEqual([expect.closeTo(1, 1)]);
    await world.advance(10);
    media.pause();
    tab.leave();
    await world.advance(1);
    expect(world.service.seen.filter(({ method }) => method === "POST").length).toBe(1);
  });
});

describe("requests", () => {
  test("never overlap; a newer position takes the place of the waiting one", async () => {
    const world = new World();
    const { media } = await playing(world);
    world.service.delayMs = 3_000;
    await world.advance(2.1);
    media.pause();
    await world.advance(0.2);
    media.currentTime = 50;
    await world.advance(1);
    media.currentTime = 60;
    await world.advance(1);
    expect(world.service.writes.length).toBe(1);
    await world.advance(5);
    expect(world.service.writes.length).toBe(2);
    expect(world.service.place("v1", "7")).toBe(60);
  });

  test("are given up after 4 s, and the newest position goes instead", async () => {
    const world = new World();
    const { named } = await playing(world);
    world.service.delayMs = Infinity;
    await world.advance(6.1);
    expect(world.service.live[0]!.isAborted).toBe(true);
    expect(named("error")).toEqual([{ status: 0, retryInMilliseconds: 500 }]);
    world.service.delayMs = 0;
    await world.advance(1);
    expect(world.service.place("v1", "7")).toBeCloseTo(6, 1);
  });

  test("wait as long as the server says, and a random part more", async () => {
    const world = new World();
    const { named } = await playing(world);
    world.service.instead.push({ status: 503, headers: { "Retry-After": "10" } });
    await world.advance(2.1);
    expect(named("error")).toEqual([{ status: 503, retryInMilliseconds: 15_000 }]);
    await world.advance(14.5);
    expect(world.service.writes.length).toBe(1);
    await world.advance(0.6);
    expect(world.service.writes.length).toBe(2);
    expect(world.service.place("v1", "7")).toBeGreaterThan(12);
  });

  test("back off while nobody answers", async () => {
    const world = new World();
    await playing(world);
    world.service.isDown = true;
    await world.advance(100);
    const gaps = world.service.writes.slice(1).map(({ at }, number) => at - world.service.writes[number]!.at);
    for (const [number, gap] of gaps.entries()) expect(gap).toBeCloseTo(Math.min(500 * 2 ** number, 15_000), -2);
    expect(gaps.length).toBeGreaterThan(6);
  });

  test("that had to wait keep their time: a paused device does not undo what another has saved since", async () => {
    const world = new World();
    const { media, named } = await playing(world);
    await world.advance(3);
    world.service.isDown = true;
    media.pause();
    await world.advance(0.3);
    world.service.isDown = false;
    world.service.put("v1", "7", 900);
    await world.advance(5);
    expect(world.service.batches.at(-1)!.body.items).toEqual([
      { movie_id: "7", position_seconds: expect.closeTo(3, 1), duration_seconds: 3600, event_time_ms: expect.any(Number) },
    ]);
    expect(named("saved").at(-1)).toMatchObject({ late: true });
    expect(world.service.place("v1", "7")).toBe(900);
  });

  test("ask for a new token once", async () => {
    const world = new World();
    let count = 0;
    const { named } = await playing(world, { getToken: (viewerId) => `${viewerId}#${(count += 1)}` });
    await world.advance(3);
    world.service.badTokens.add("v1#1");
    await world.advance(4);
    expect(world.service.live.map(({ token }) => token)).toEqual(["v1#1", "v1#1", "v1#2"]);
    expect(world.service.place("v1", "7")).toBeCloseTo(6, 1);
    expect(named("error")).toEqual([]);
    for (let token = 2; token < 30; token += 1) world.service.badTokens.add(`v1#${token}`);
    await world.advance(4);
    expect(world.service.live.slice(3).map(({ token }) => token)).toEqual(["v1#2", "v1#3"]);
    expect(named("error")).toEqual([{ status: 401, retryInMilliseconds: 15_000 }]);
    world.service.badTokens.clear();
    await world.advance(16);
    expect(world.service.place("v1", "7")).toBeGreaterThan(20);
  });

  test("that are refused for good are reported and dropped", async () => {
    const world = new World();
    const { named } = await playing(world);
    world.service.instead.push({ status: 422, json: { status: 422, errors: [] } });
    await world.advance(5);
    expect(named("rejected")).toEqual([{ status: 422, problem: { status: 422, errors: [] }, movieIds: ["7"] }]);
    expect(world.service.writes.length).toBe(1);
    await world.advance(2);
    expect(world.service.place("v1", "7")).toBeCloseTo(6, 1);
  });

  test("that fail never throw into the page, whatever fails", async () => {
    const world = new World();
    const failures = [
      () => { throw new Error("no session"); },
      () => Promise.reject(new Error("no session")),
      () => new Promise<string>(() => undefined),
    ];
    for (const [number, getToken] of failures.entries()) {
      const media = world.media();
      const { playhead, tab, named } = world.attach(media, { getToken, movieId: number });
      const resumed = playhead.resume();
      await world.advance(2.6);
      expect(await resumed).toBe(0);
      media.play();
      media.currentTime = 100;
      await world.advance(10);
      tab.leave();
      playhead.detach();
      expect(named("error").length).toBeGreaterThan(0);
      world.forget(media);
    }
    expect(world.service.seen).toEqual([]);
  });

  test("report what was saved, and how long it took", async () => {
    const world = new World();
    const { named } = await playing(world);
    world.service.delayMs = 30;
    await world.advance(2.1);
    expect(named("saved")).toEqual([
      { movieId: "7", positionSeconds: expect.closeTo(2, 1), milliseconds: 30, late: false },
    ]);
  });
});
