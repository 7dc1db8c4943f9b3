// The proofs: each round watches on one device, lets something happen, and looks where another goes on.
//
// A round gives back how many seconds of film were lost, or throws. Lost is the difference between where the film was when
// its device stopped and where the next one starts; the bound is one interval of 4 s and the time of a request.

import { positionAt, Tab } from "./device.mjs";
import { Browser, eventually, serveFilms, sleep, VIEWERS } from "./machines.mjs";

const BOUND_SECONDS = 4.25;
const TITLES = ["101", "102", "103", "104", "105", "9007199254740993"];
const NO_WORKER =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self' blob:; connect-src 'self'; worker-src 'none'";

function check(holds, says) {
  if (!holds) throw new Error(says);
}

const between = (low, high) => low + Math.random() * (high - low);
const pick = (list) => list[Math.floor(Math.random() * list.length)];

/** Opens the title on the other device, and compares the place, and the picture there, with where the film was. */
async function resumesElsewhere({ server, other, viewer, movie }, position) {
  const tab = new Tab(await other.tab(), server, "other");
  try {
    await tab.open(viewer, movie, { play: false });
    const start = await tab.started();
    const lost = position - start;
    const drawn = await tab.picture();
    // Pictures are 0.1 s apart.
    const isThere = drawn === Math.floor(start) || drawn === Math.floor(start + 0.05) || drawn === Math.floor(start - 0.05);
    check(isThere, `the picture shows second ${drawn} at ${start.toFixed(2)}`);
    check(lost <= BOUND_SECONDS, `${lost.toFixed(2)} s were lost: from ${position.toFixed(2)} to ${start.toFixed(2)}`);
    check(lost > -0.5, `it starts ${(-lost).toFixed(2)} s ahead of what was seen`);
    return { lost };
  } finally {
    await tab.page.close();
  }
}

/** Watches on a device until a moment drawn by chance. */
async function watching(round, { rate = 1, films = false, policy } = {}) {
  const tab = new Tab(await round.device.tab(), round.server, "device");
  if (films || policy) await serveFilms(tab.page, round.server, policy);
  await tab.open(round.viewer, round.movie, { rate });
  // Long enough that the first beat is over, at whatever phase.
  await tab.playedTo(between(4.5, 12) * Math.sqrt(rate));
  return tab;
}

async function killed(round, tab, rate = 1) {
  const seen = await tab.look();
  const time = Date.now();
  round.device.kill();
  return resumesElsewhere(round, positionAt(seen, time, rate));
}

export const PROOFS = [
  {
    name: "tab closed",
    async round(round) {
      const tab = await watching(round);
      const seen = await tab.look();
      await tab.page.close();
      return resumesElsewhere(round, positionAt(seen, Date.now(), 1));
    },
  },
  {
    name: "browser killed",
    async round(round) {
      return killed(round, await watching(round));
    },
  },
  {
    name: "double speed, browser killed",
    async round(round) {
      return killed(round, await watching(round, { rate: 2 }), 2);
    },
  },
  {
    name: "no Worker (policy), browser killed",
    async round(round) {
      const tab = await watching(round, { policy: NO_WORKER });
      check(tab.violations.some((text) => text.includes("worker-src")), "the policy did not forbid the Worker");
      return killed(round, tab);
    },
  },
  {
    name: "network cut and healed, browser killed",
    async round(round) {
      const tab = await watching(round);
      await tab.page.context().setOffline(true);
      const saved = await tab.count("saved");
      await sleep(between(3_000, 7_000));
      check((await tab.count("saved")) === saved, "something was saved without a network");
      await tab.page.context().setOffline(false);
      await tab.happened("saved", saved);
      await sleep(between(0, 4_000));
      return killed(round, tab);
    },
  },
  {
    name: "server killed while playing, browser killed after",
    async round(round) {
      const tab = await watching(round, { films: true });
      await round.server.kill();
      const saved = await tab.count("saved");
      await sleep(between(2_000, 6_000));
      await round.server.start();
      await tab.happened("saved", saved);
      await sleep(between(0, 4_000));
      return killed(round, tab);
    },
  },
  {
    name: "server down at open, up 10 s later",
    async round(round) {
      const { server, viewer, movie } = round;
      await server.put(viewer, movie, 60, 88);
      const tab = new Tab(await round.device.tab(), server, "device");
      await serveFilms(tab.page, server);
      await tab.open(viewer, movie, { wait: true });
      await server.kill();
      await tab.begin();
      await tab.playedTo(1);
      await sleep(10_000);
      await server.start();
      const found = await tab.happened("place-found");
      check(found.detail.positionSeconds === 60, `the place found is ${found.detail.positionSeconds}`);
      check(found.detail.currentSeconds < 30, "the place was found too late to go there");
      const until = Date.now() + 6_000;
      while (Date.now() < until) {
        const { position_seconds } = await server.bookmark(viewer, movie);
        check(position_seconds >= 60, `the saved place was lowered to ${position_seconds}`);
        await sleep(100);
      }
      const { position } = await tab.look();
      check(position > 60, `the film was not moved, it is at ${position}`);
      check((await server.bookmark(viewer, movie)).position_seconds > 60, "nothing is saved after the place was found");
      return {};
    },
  },
  {
    name: "server down at open, tab closed, opened after",
    async round(round) {
      const { server, viewer, movie, device } = round;
      await server.put(viewer, movie, 60, 88);
      const first = new Tab(await device.tab(), server, "device");
      await serveFilms(first.page, server);
      await first.open(viewer, movie, { wait: true });
      await server.kill();
      await first.begin();
      await first.playedTo(between(5, 10));
      await first.page.close();
      await server.start();
      const again = new Tab(await device.tab(), server, "device");
      await again.open(viewer, movie);
      await again.happened("resumed");
      const until = Date.now() + 5_000;
      while (Date.now() < until) {
        const { position_seconds } = await server.bookmark(viewer, movie);
        check(position_seconds >= 60, `the saved place was lowered to ${position_seconds}`);
        await sleep(100);
      }
      check((await again.look()).position >= 60, "the film did not start at the place");
      return {};
    },
  },
  {
    name: "offline, account switched",
    async round(round) {
      const { server, movie, device } = round;
      const [one, two] = VIEWERS;
      const tab = new Tab(await device.tab(), server, "device");
      await serveFilms(tab.page, server);
      await tab.open(one, movie);
      await tab.happened("saved");
      await server.kill();
      await tab.seek(50);
      await tab.playedTo(53);
      // The other viewer, in the same tab: a frame of the same page would be no different to the storage.
      await tab.open(two, movie);
      await tab.playedTo(2);
      check((await tab.look()).position < 20, "the second viewer started from the first one's copy");
      await tab.seek(20);
      await tab.playedTo(22);
      await server.start();
      await tab.happened("saved");
      await tab.page.close();
      const seenOne = await server.bookmark(one, movie);
      const seenTwo = await server.bookmark(two, movie);
      check(seenOne.position_seconds < 20, `the first viewer's place became ${seenOne.position_seconds} while signed out`);
      check(seenTwo.position_seconds >= 20 && seenTwo.position_seconds < 50, `the second is at ${seenTwo.position_seconds}`);
      const back = new Tab(await device.tab(), server, "device");
      await back.open(one, movie, { play: false });
      const start = await back.started();
      // It was at 53 or more when its page went; what a closing page keeps on the device may be an interval old.
      check(start >= 50, `the first viewer's offline place was lost: ${start}`);
      // The last beat of a page that closes may arrive after we looked: the second viewer's own place may have moved on.
      const lastTwo = await server.bookmark(two, movie);
      check(lastTwo.position_seconds >= seenTwo.position_seconds && lastTwo.position_seconds < 50, `the second became ${lastTwo.position_seconds}`);
      return {};
    },
  },
  {
    name: "one plays, one is paused",
    async round(round) {
      const { server, viewer, movie, device, other } = round;
      const paused = new Tab(await other.tab(), server, "other");
      await paused.open(viewer, movie);
      await paused.playedTo(1);
      await paused.seek(70);
      await paused.playedTo(71);
      await paused.pause();
      await paused.happened("saved");
      const playing = new Tab(await device.tab(), server, "device");
      await playing.open(viewer, movie);
      await playing.happened("resumed");
      await playing.seek(10);
      await eventually("the playing device to be the newest", 20_000, async () => {
        const bookmark = await server.bookmark(viewer, movie);
        return bookmark.position_seconds < 20;
      });
      let last = 0;
      const closeAt = Date.now() + between(2_000, 6_000);
      const until = closeAt + 4_000;
      for (let isClosed = false; Date.now() < until; await sleep(50)) {
        const { position_seconds } = await server.bookmark(viewer, movie);
        check(position_seconds >= last && position_seconds < 50, `the place jumped from ${last} to ${position_seconds}`);
        last = position_seconds;
        if (!isClosed && Date.now() > closeAt) {
          isClosed = true;
          await paused.page.close();
        }
      }
      return {};
    },
  },
];

/** One round of one proof, with machines of its own where the last one's are gone. */
export async function play(proof, lane) {
  const round = { server: lane.server, other: lane.other, device: await new Browser().start(), viewer: pick(VIEWERS), movie: pick(TITLES) };
  try {
    for (const viewer of VIEWERS) {
      const headers = { Authorization: `Bearer ${lane.server.token(viewer)}` };
      await fetch(lane.server.url("/api/v1/stream/progress"), { method: "DELETE", headers });
    }
    return await proof.round(round);
  } finally {
    await round.device.remove();
  }
}
