/** Resume, and the rule that unknown is not zero. */

import { describe, expect, test } from "vitest";
import { settled, Tab, World } from "./world.js";

describe("resume", () => {
  test("starts where another device was", async () => {
    const world = new World();
    world.service.put("v1", "7", 500, 3600);
    const media = world.media();
    const { playhead, named } = world.attach(media);
    expect(await playhead.resume()).toEqual(500);
    expect(media.currentTime).toBe(500);
    expect(named("resumed")).toEqual([{ positionSeconds: 500, source: "server" }]);
    media.play();
    await world.advance(5);
    expect(world.service.positions).toEqual([expect.closeTo(502, 1)]);
  });

  test("waits for the metadata, and says before where it will start", async () => {
    const world = new World();
    world.service.put("v1", "7", 500);
    const media = world.media(false);
    const { playhead, named } = world.attach(media);
    expect(await playhead.resume()).toEqual(500);
    await world.advance(5);
    expect([media.currentTime, named("resumed")]).toEqual([0, []]);
    media.load();
    expect(media.currentTime).toBe(500);
    await world.advance(1);
    expect(world.service.writes).toEqual([]);
  });

  test.each([[0, 500], [7, 493], [10, 490], [60, 490], [-5, 500]])("rewinds by %d s", async (rewindSeconds, expected) => {
    const world = new World();
    world.service.put("v1", "7", 500);
    const media = world.media();
    await world.attach(media, { rewindSeconds }).playhead.resume();
    expect(media.currentTime).toBe(expected);
    media.play();
    await world.advance(3);
    expect(world.service.place("v1", "7")).toBeCloseTo(expected + 2, 0);
  });

  test("never goes before the start", async () => {
    const world = new World();
    world.service.put("v1", "7", 4);
    const media = world.media();
    await world.attach(media, { rewindSeconds: 10 }).playhead.resume();
    expect(media.currentTime).toBe(0);
  });

  test("starts a completed title, and one never watched, at 0, and writes nothing for it", async () => {
    const world = new World();
    world.service.put("v1", "7", 3590, 3600);
    for (const movieId of ["7", "8"]) {
      const media = world.media();
      const { playhead, tab } = world.attach(media, { movieId });
      expect(await playhead.resume()).toEqual(0);
      expect(media.currentTime).toBe(0);
      tab.leave();
      await world.advance(1);
    }
    expect(world.service.writes).toEqual([]);
  });

  test("lets the viewer win who has sought before the answer", async () => {
    const world = new World();
    world.service.put("v1", "7", 500);
    world.service.delayMs = 500;
    const media = world.media();
    const { playhead } = world.attach(media);
    const start = playhead.resume();
    await world.advance(0.2);
    media.currentTime = 1200;
    await world.advance(2);
    expect(await start).toBe(1200);
    expect(media.currentTime).toBe(1200);
    expect(world.service.place("v1", "7")).toBe(1200);
  });

  test("asks once, however often it is called", async () => {
    const world = new World();
    const { playhead } = world.attach(world.media());
    await Promise.all([playhead.resume(), playhead.resume()]);
    await playhead.resume();
    expect(world.service.seen.length).toBe(1);
  });

  test("keeps nobody waiting for longer than 2 s", async () => {
    const world = new World();
    world.service.delayMs = Infinity;
    const { playhead } = world.attach(world.media());
    let start: unknown;
    void playhead.resume().then((value) => (start = value));
    await world.advance(1.9);
    expect(start).toBeUndefined();
    await world.advance(0.2);
    expect(start).toBe(0);
  });

  test("works without storage, and with storage that hangs or fails", async () => {
    const hanging = { open: () => ({}) } as unknown as IDBFactory;
    const failing = { open: () => { throw new DOMException("no", "SecurityError"); } } as unknown as IDBFactory;
    for (const storage of [undefined, hanging, failing]) {
      const world = new World();
      world.indexedDB = storage as never;
      world.service.put("v1", "7", 500);
      const media = world.media();
      const start = world.attach(media).playhead.resume();
      await world.advance(1);
      expect(await start).toBe(500);
      media.play();
      await world.advance(3);
      expect(world.service.place("v1", "7")).toBeCloseTo(502, 0);
    }
  });
});

describe("unknown is not zero", () => {
  /** A title at 500 s that is opened while the service is down, and plays from 0. */
  async function outage(seconds: number) {
    const world = new World();
    world.service.put("v1", "7", 500, 3600);
    world.service.isDown = true;
    const media = world.media();
    const attached = world.attach(media);
    expect(await attached.playhead.resume()).toBe(0);
    media.play();
    await world.advance(seconds);
    return { world, media, ...attached };
  }

  test("nothing is sent, and within 30 s the film is moved to the place once it is read", async () => {
    const { world, media, named } = await outage(10);
    expect(world.service.writes).toEqual([]);
    world.service.isDown = false;
    await world.advance(16);
    expect(named("place-found")).toEqual([{ positionSeconds: 500, currentSeconds: expect.any(Number) }]);
    expect(named("resumed")).toEqual([{ positionSeconds: 500, source: "server" }]);
    expect(media.currentTime).toBeGreaterThan(500);
    expect(world.service.positions.every((position) => position > 500)).toBe(true);
    await world.advance(5);
    expect(world.service.place("v1", "7")).toBeGreaterThan(500);
  });

  test("the place is asked for often enough to be found in time, however long the outage and whatever chance draws", async () => {
    for (const random of [0, 0.5, 0.999]) {
      for (const seconds of [8, 12, 20, 25]) {
        const world = new World();
        world.random = random;
        world.service.put("v1", "7", 500, 3600);
        world.service.isDown = true;
        const media = world.media();
        const { playhead, named } = world.attach(media);
        await playhead.resume();
        media.play();
        await world.advance(seconds);
        world.service.isDown = false;
        await world.advance(4.1);
        expect(named("resumed"), `down ${seconds} s, drawn ${random}`).toEqual([{ positionSeconds: 500, source: "server" }]);
      }
    }
  });

  test("who pauses in an outage asks less and less often", async () => {
    const { world, media } = await outage(10);
    media.pause();
    await world.advance(60);
    const before = world.service.seen.length;
    await world.advance(120);
    expect(world.service.seen.length - before).toBeLessThan(12);
  });

  test("the page may ask the viewer instead; until they choose nothing is sent", async () => {
    const { world, media, playhead } = await outage(3);
    playhead.addEventListener("place-found", (event) => event.preventDefault());
    world.service.isDown = false;
    await world.advance(6);
    expect(media.currentTime).toBeLessThan(10);
    expect(world.service.place("v1", "7")).toBe(500);
    media.currentTime = 500;
    await world.advance(1);
    expect(world.service.place("v1", "7")).toBeGreaterThan(500);
  });

  test("the network that comes back brings the place at once, and does not disturb an answer under way", async () => {
    const { world, media, named, tab } = await outage(15.4);
    world.service.isDown = false;
    tab.window.dispatchEvent(new Event("online"));
    tab.window.dispatchEvent(new Event("online"));
    await world.advance(0.1);
    expect(named("place-found").length).toBe(1);
    expect(media.currentTime).toBeGreaterThanOrEqual(500);

    const quick = new World();
    quick.service.put("v1", "7", 500);
    quick.service.delayMs = 300;
    const attached = quick.attach(quick.media());
    const start = attached.playhead.resume();
    await quick.advance(0.1);
    attached.tab.window.dispatchEvent(new Event("online"));
    await quick.advance(1);
    expect(await start).toBe(500);
    expect(attached.named("place-found")).toEqual([]);
    expect(quick.service.seen.length).toBe(1);
  });

  test("who has watched 30 s from here has chosen", async () => {
    const { world, media, named, playhead } = await outage(3);
    playhead.addEventListener("place-found", (event) => event.preventDefault());
    world.service.isDown = false;
    await world.advance(26.5);
    expect(world.service.place("v1", "7")).toBe(500);
    await world.advance(4);
    expect(world.service.place("v1", "7")).toBeGreaterThan(29);
    expect(world.service.place("v1", "7")).toBeLessThan(40);
    expect(named("resumed")).toEqual([]);
    expect(media.currentTime).toBeLessThan(40);
  });

  test("read after more than 30 s the place is told, and the film is not moved", async () => {
    const { world, media, named } = await outage(40);
    const reads = world.service.seen.filter(({ method }) => method === "GET").length;
    expect(reads).toBeGreaterThan(3);
    // The read comes first this time.
    world.service.isDown = false;
    world.service.instead.push({ status: 200, json: { resume_position_seconds: 500, updated_at: null } });
    await world.advance(20);
    expect(media.currentTime).toBeLessThan(70);
    expect(named("resumed")).toEqual([]);
    expect(world.service.place("v1", "7")).toBeGreaterThan(40);
  });

  test("who has sought has chosen", async () => {
    const { world, media, named } = await outage(3);
    media.currentTime = 100;
    await world.advance(2);
    world.service.isDown = false;
    await world.advance(20);
    expect(named("place-found")).toEqual([]);
    const sent = world.service.writes.flatMap(({ body }) => body.items ?? [body]).map((item) => item.position_seconds);
    expect(Math.min(...sent)).toBeGreaterThanOrEqual(100);
    expect(world.service.place("v1", "7")).toBeGreaterThan(100);
  });

  test("a place behind changes nothing", async () => {
    const { world, named } = await outage(10);
    world.service.isDown = false;
    world.service.put("v1", "7", 2);
    await world.advance(16);
    expect(named("place-found")).toEqual([]);
    expect(world.service.place("v1", "7")).toBeGreaterThan(10);
  });

  test("a tab closed in the outage lowers nothing when the title is opened again", async () => {
    const { world, media, tab } = await outage(10);
    tab.leave();
    await settled();
    world.forget(media);
    world.service.isDown = false;
    const again = world.media();
    const { playhead } = world.attach(again);
    expect(await playhead.resume()).toEqual(500);
    await world.advance(1);
    expect(world.service.writes).toEqual([]);
    // And what was held is gone: it does not come up in the next outage.
    world.service.isDown = true;
    await world.advance(1);
    expect(await world.attach(world.media()).playhead.resume()).toBe(0);
  });

  test("nor when another title is opened", async () => {
    const { world, media, tab } = await outage(10);
    tab.leave();
    await settled();
    world.forget(media);
    world.service.isDown = false;
    await world.attach(world.media(), { movieId: "8" }).playhead.resume();
    await world.advance(5);
    expect(world.service.place("v1", "7")).toBe(500);
  });

  test("but what was reached beyond the place is sent then", async () => {
    const { world, media, tab } = await outage(10);
    tab.leave();
    await settled();
    world.forget(media);
    await world.advance(1);
    world.service.put("v1", "7", 5);
    await world.advance(1);
    world.service.isDown = false;
    // It happened before that write, which stands.
    expect((await world.attach(world.media()).playhead.resume())).toBe(5);

    const other = await outage(10);
    other.world.service.rows.clear();
    other.tab.leave();
    await settled();
    other.world.forget(other.media);
    other.world.service.isDown = false;
    const start = await other.world.attach(other.world.media()).playhead.resume();
    expect(start).toBeCloseTo(10, 1);
    expect(other.world.service.place("v1", "7")).toBeCloseTo(10, 1);
  });

  test("a page that never asks for the place sends nothing before 30 s", async () => {
    const world = new World();
    world.service.put("v1", "7", 500);
    const media = world.media();
    const { tab } = world.attach(media);
    media.play();
    await world.advance(29);
    tab.visibility = "hidden";
    await settled();
    expect(world.service.writes).toEqual([]);
    await world.advance(2);
    expect(world.service.place("v1", "7")).toBeGreaterThanOrEqual(29);
    await world.advance(3);
    expect(world.service.place("v1", "7")).toBeGreaterThan(32);
  });

  test("the local copy is where playback starts, and what is sent from it waits for the place", async () => {
    const world = new World();
    const media = world.media();
    const first = world.attach(media);
    await first.playhead.resume();
    media.play();
    await world.advance(60);
    first.tab.leave();
    await settled();
    world.forget(media);
    expect(world.service.place("v1", "7")).toBeCloseTo(60, 1);
    // Another device goes on to 300, unseen by this one.
    world.service.put("v1", "7", 300);
    world.service.isDown = true;
    const again = world.media();
    const { playhead, named } = world.attach(again);
    expect(await playhead.resume()).toEqual(expect.closeTo(60, 1));
    again.play();
    await world.advance(8);
    world.service.isDown = false;
    await world.advance(9);
    expect(named("place-found").length).toBe(1);
    expect(again.currentTime).toBeGreaterThan(300);
    expect(world.service.place("v1", "7")).toBeGreaterThanOrEqual(300);
  });
});

describe("a page that comes back", () => {
  async function paused(awaySeconds: number, comeBack: (tab: Tab) => void) {
    const world = new World();
    const media = world.media();
    const attached = world.attach(media);
    await attached.playhead.resume();
    media.play();
    await world.advance(10);
    media.pause();
    attached.tab.visibility = "hidden";
    await world.advance(awaySeconds);
    world.service.put("v1", "7", 200);
    comeBack(attached.tab);
    await world.advance(1);
    return { world, media, ...attached };
  }

  test.each([
    ["after more than 60 s", 61, (tab: Tab) => (tab.visibility = "visible")],
    ["from the cache", 5, (tab: Tab) => tab.window.dispatchEvent(Object.assign(new Event("pageshow"), { persisted: true }))],
  ])("%s goes on where another device was", async (_, away, comeBack) => {
    const { world, media, named } = await paused(away, comeBack);
    expect(named("place-found")).toEqual([{ positionSeconds: 200, currentSeconds: expect.closeTo(10, 1) }]);
    expect(media.currentTime).toBe(200);
    await world.advance(1);
    expect(world.service.place("v1", "7")).toBe(200);
    media.play();
    await world.advance(4.2);
    expect(world.service.place("v1", "7")).toBeGreaterThan(203);
  });

  test("soon does not ask", async () => {
    const { media } = await paused(5, (tab) => (tab.visibility = "visible"));
    expect(media.currentTime).toBeCloseTo(10, 1);
  });

  test("also when play is pressed after a long pause in plain sight", async () => {
    const { world, media } = await paused(100, () => undefined);
    media.play();
    await world.advance(1);
    expect(media.currentTime).toBeGreaterThan(200);
    expect(world.service.place("v1", "7")).toBe(200);
  });

  test("sends nothing while it asks in vain", async () => {
    const world = new World();
    const { media, tab } = await (async () => {
      const media = world.media();
      const attached = world.attach(media);
      await attached.playhead.resume();
      media.play();
      await world.advance(10);
      media.pause();
      return { media, ...attached };
    })();
    tab.visibility = "hidden";
    await world.advance(100);
    world.service.put("v1", "7", 200);
    world.service.instead.push(...Array.from({ length: 3 }, () => ({ status: 503, headers: { "Retry-After": "2" } })));
    tab.visibility = "visible";
    media.play();
    await world.advance(8);
    expect(world.service.place("v1", "7")).toBe(200);
    await world.advance(6);
    expect(world.service.place("v1", "7")).toBeGreaterThan(200);
  });
});
