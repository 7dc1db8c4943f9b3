/**
 * One device of the demo: a player with @playhead/player, in a document of its own.
 *
 * The page puts it into a frame; it also works alone, as the browser proofs use it: `device.html?device=…&viewer=…&movie=…`,
 * with `play` to begin at once, `rate` for the speed, and `wait` to open the title only when told. Its network can be pulled and it can be killed; so it has its own
 * `fetch` to give to the player, and its own storage, as two devices have.
 */

import { attachPlayhead, browser, type Environment } from "@playhead/player";
import type HlsClass from "hls.js";
import type { Said } from "./messages.js";
import { tokenOf } from "./service.js";
import { follow } from "./theme.js";
import { clock, titleOf } from "./titles.js";

declare const Hls: typeof HlsClass;

const query = new URLSearchParams(location.search);
const name = query.get("device") ?? "device";
const viewer = query.get("viewer") ?? "";
const title = titleOf(query.get("movie"));
const element = <T extends Element>(id: string): T => document.getElementById(id) as unknown as T;
const video = element<HTMLVideoElement>("video");
const play = element<HTMLButtonElement>("play");
const seek = element<HTMLInputElement>("seek");
const speed = element<HTMLButtonElement>("speed");
const time = element<HTMLElement>("time");
const saved = element<HTMLElement>("saved");
const mark = element<HTMLElement>("mark");
const note = element<HTMLElement>("note");

let isOn = true;
let isDead = false;
let beats = 0;

function say(said: Said): void {
  if (parent !== window) parent.postMessage({ device: name, ...said }, location.origin);
}

// --- The device's own network and storage.

/** The network as this device has it; what goes to the service is told to the page. */
async function ownFetch(address: RequestInfo | URL, init: RequestInit = {}): Promise<Response> {
  const beat = (beats += 1);
  const body = init.body ? JSON.parse(String(init.body)) : undefined;
  const what = init.method === "GET" ? "asks" : body?.items ? "late" : "beat";
  say({ kind: "sent", beat, what, position: (body?.items?.at(-1) ?? body)?.position_seconds });
  const sent = performance.now();
  const answered = (status: number): void =>
    say({ kind: "answered", beat, status, milliseconds: performance.now() - sent });
  try {
    if (!isOn || isDead) throw new TypeError("the network was pulled");
    const response = await fetch(address, init);
    answered(response.status);
    return response;
  } catch (error) {
    answered(0);
    throw error;
  }
}

const environment: Environment = {
  ...browser(),
  fetch: ownFetch,
  indexedDB: { open: (database: string) => indexedDB.open(`${database} of ${name}`) } as IDBFactory,
  locks: undefined,
};

// Before the player listens: a dead device does not notice that its page goes.
for (const [target, type] of [[window, "pagehide"], [document, "visibilitychange"]] as const) {
  target.addEventListener(type, (event) => isDead && event.stopImmediatePropagation(), { capture: true });
}

/** What the player has told, for who looks from outside. */
const told: { readonly type: string; readonly detail: unknown }[] = [];

window.demoDevice = {
  open,
  log: told,
  setNetwork(on) {
    if (on === isOn) return;
    isOn = on;
    document.body.classList.toggle("offline", !on);
    if (!on) return;
    window.dispatchEvent(new Event("online"));
    restart?.();
  },
  die() {
    isDead = true;
  },
};

// --- The film.

let restart: (() => void) | undefined;

function show(text: string): void {
  note.textContent = text;
  note.hidden = text === "";
}

async function getToken(): Promise<string> {
  if (!isOn) throw new TypeError("the network was pulled");
  return tokenOf(viewer);
}

async function open(): Promise<void> {
  if (!title) {
    show("Choose a title below");
    return;
  }
  document.title = `${title.name} on ${name}`;
  video.setAttribute("aria-label", title.name);
  element<HTMLElement>("heading").textContent = title.name;
  const playhead = attachPlayhead(
    video,
    { baseUrl: "", movieId: title.id, viewerId: viewer, getToken },
    environment,
  );
  for (const type of ["resumed", "saved", "place-found", "rejected", "error"]) {
    playhead.addEventListener(type, (event) => {
      told.push({ type, detail: (event as CustomEvent).detail });
      if (told.length > 500) told.shift();
    });
  }
  playhead.addEventListener("resumed", ({ detail }) => {
    const { positionSeconds, source } = detail;
    if (positionSeconds > 0) announce(`Resumed at ${clock(positionSeconds)}${source === "local" ? " from this device’s copy" : ""}`);
    markAt(positionSeconds);
  });
  playhead.addEventListener("place-found", ({ detail }) => announce(`Found your place at ${clock(detail.positionSeconds)}`));
  playhead.addEventListener("saved", ({ detail }) => {
    if (detail.movieId !== title.id) return;
    markAt(detail.positionSeconds);
    saved.textContent = `Saved ${clock(detail.positionSeconds)} in ${Math.max(detail.milliseconds, 1).toFixed(0)} ms`;
    say({ kind: "saved" });
  });
  playhead.addEventListener("error", ({ detail }) => {
    if (detail.status === 0) saved.textContent = "Not saved yet: no answer";
  });

  // Loads nothing before it is known where to start.
  const start = await playhead.resume();
  const hls = new Hls({
    startPosition: start,
    xhrSetup: () => {
      if (!isOn) throw new Error("the network was pulled");
    },
  });
  hls.on(Hls.Events.ERROR, (_, { fatal }) => {
    if (fatal) restart = () => hls.startLoad(video.currentTime);
  });
  restart = () => hls.startLoad(video.currentTime);
  hls.loadSource(`media/${title.slug}.m3u8`);
  hls.attachMedia(video);
  video.playbackRate = video.defaultPlaybackRate = Number(query.get("rate") ?? 1);
  if (query.has("play")) video.play().catch(() => undefined);
}

let quiet: ReturnType<typeof setTimeout> | undefined;

/** Shows it over the picture for a while. */
function announce(text: string): void {
  show(text);
  say({ kind: "state", text });
  clearTimeout(quiet);
  quiet = setTimeout(() => show(""), 4_000);
}

function markAt(seconds: number): void {
  if (video.duration > 0) mark.style.left = `${Math.min((seconds / video.duration) * 100, 100)}%`;
  mark.hidden = !(video.duration > 0);
}

// --- Controls.

function update(): void {
  const { currentTime, duration, paused } = video;
  const isKnown = duration > 0 && duration < Infinity;
  if (isKnown) seek.max = String(duration);
  seek.disabled = play.disabled = speed.disabled = !isKnown;
  seek.value = String(currentTime);
  seek.style.setProperty("--played", isKnown ? `${(currentTime / duration) * 100}%` : "0%");
  seek.setAttribute("aria-valuetext", `${clock(currentTime)} of ${clock(isKnown ? duration : 0)}`);
  time.textContent = isKnown ? `${clock(currentTime)} / ${clock(duration)}` : "";
  play.setAttribute("aria-label", paused ? "Play" : "Pause");
  play.classList.toggle("playing", !paused);
  speed.textContent = `${video.playbackRate}×`;
  speed.setAttribute("aria-label", `Speed ${video.playbackRate}×`);
}

for (const type of ["timeupdate", "durationchange", "play", "pause", "seeked", "ratechange", "emptied"]) {
  video.addEventListener(type, update);
}
play.addEventListener("click", () => (video.paused ? video.play().catch(() => undefined) : video.pause()));
video.addEventListener("click", () => play.click());
seek.addEventListener("input", () => (video.currentTime = Number(seek.value)));
speed.addEventListener("click", () => (video.playbackRate = video.defaultPlaybackRate = video.playbackRate === 1 ? 2 : 1));
new ResizeObserver(() => say({ kind: "height", pixels: document.body.offsetHeight })).observe(document.body);
follow();
update();
if (!query.has("wait")) void open();
