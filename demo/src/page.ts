/** The demo's page: who watches, two devices, what to continue with, and every beat as it goes out. */

import type { Said } from "./messages.js";
import { call, type Bookmark } from "./service.js";
import { choose, follow, isDark } from "./theme.js";
import { clock, TITLES, titleOf, type Title } from "./titles.js";

const VIEWERS = ["-9000000000000000001", "-9000000000000000002", "-9000000000000000003"];
const LOG_ROWS_MAX = 40;
const by = <T extends HTMLElement>(id: string): T => document.getElementById(id) as T;

let viewer = VIEWERS[0] as string;

/** An element with text, for what is made here. */
function make(tag: string, className: string, text = ""): HTMLElement {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

// --- Devices.

class Stand {
  readonly #root: HTMLElement;
  readonly #screen: HTMLElement;
  readonly #state: HTMLElement;
  readonly #network: HTMLButtonElement;
  readonly #power: HTMLButtonElement;
  #frame: HTMLIFrameElement | undefined;
  #title: Title | undefined;
  #hasNetwork = true;

  constructor(
    readonly id: string,
    readonly name: string,
  ) {
    this.#root = by(id);
    const part = (selector: string): HTMLElement => this.#root.querySelector(selector) as HTMLElement;
    this.#screen = part(".screen");
    this.#state = part(".state");
    this.#network = part(".network") as HTMLButtonElement;
    this.#power = part(".power") as HTMLButtonElement;
    this.#network.addEventListener("click", () => this.#setNetwork(!this.#hasNetwork));
    this.#power.addEventListener("click", () => (this.#frame ? this.kill() : this.open(this.#title)));
  }

  /** Opens a title, or the idle screen; what was open is closed as a tab is, with its last word. */
  open(title: Title | undefined): void {
    this.#title = title;
    this.#frame?.remove();
    const frame = document.createElement("iframe");
    const query = new URLSearchParams({ device: this.id, viewer, ...(title ? { movie: title.id, play: "" } : {}) });
    frame.src = `device.html?${query}`;
    frame.title = title ? `${this.name}: ${title.name}` : this.name;
    frame.allow = "autoplay; fullscreen";
    // In the document's own time, so before the player there begins.
    frame.addEventListener("load", () => this.#setNetwork(this.#hasNetwork));
    this.#frame = frame;
    this.#screen.replaceChildren(frame);
    this.#show();
  }

  /** The battery is out: nothing is sent any more. */
  kill(): void {
    this.#frame?.contentWindow?.demoDevice?.die();
    const height = this.#screen.offsetHeight;
    this.#frame = undefined;
    const dark = make("p", "dark", "No power");
    dark.style.height = `${height}px`;
    this.#screen.replaceChildren(dark);
    log({ device: this.name, what: "killed" });
    this.#show();
  }

  resize(pixels: number): void {
    if (this.#frame) this.#frame.style.height = `${pixels}px`;
  }

  #setNetwork(isOn: boolean): void {
    if (isOn !== this.#hasNetwork) log({ device: this.name, what: isOn ? "network back" : "network pulled" });
    this.#hasNetwork = isOn;
    this.#frame?.contentWindow?.demoDevice?.setNetwork(isOn);
    this.#show();
  }

  #show(): void {
    const state = !this.#frame ? "off" : this.#hasNetwork ? "on" : "cut";
    this.#root.dataset["state"] = state;
    this.#state.textContent = { off: "Off", on: "Online", cut: "No network" }[state];
    this.#network.disabled = !this.#frame;
    this.#network.setAttribute("aria-pressed", String(!this.#hasNetwork));
    (this.#network.lastElementChild as HTMLElement).textContent = this.#hasNetwork ? "Pull the network" : "Plug it in";
    (this.#power.lastElementChild as HTMLElement).textContent = this.#frame ? "Kill the device" : "Switch on";
  }
}

const stands = [new Stand("television", "Television"), new Stand("phone", "Phone")] as const;

addEventListener("message", ({ origin, data }: MessageEvent<Said & { device: string }>) => {
  const stand = stands.find(({ id }) => id === data.device);
  if (origin !== location.origin || !stand) return;
  switch (data.kind) {
    case "height":
      return stand.resize(data.pixels);
    case "state":
      by("spoken").textContent = `${stand.name}: ${data.text}`;
      return log({ device: stand.name, what: data.text.toLowerCase() });
    case "saved":
      return refreshSoon();
    case "sent":
      return sent(stand, data.beat, data.what, data.position);
    case "answered":
      return answered(stand, data.beat, data.status, data.milliseconds);
  }
});

// --- The log.

interface Line {
  readonly device: string;
  readonly what: string;
  readonly position?: number | undefined;
}

const rows = by("log-rows");
const waiting = new Map<string, HTMLElement>();
const took: number[] = [];
let [sentCount, keptCount] = [0, 0];

function log({ device, what, position }: Line): HTMLElement {
  const row = document.createElement("tr");
  const outcome = make("td", "outcome");
  row.append(
    make("td", "when", new Date().toLocaleTimeString([], { hour12: false })),
    make("td", `who ${device.toLowerCase()}`, device),
    make("td", "what", what),
    make("td", "position", position === undefined ? "" : clock(position)),
    outcome,
  );
  rows.prepend(row);
  while (rows.children.length > LOG_ROWS_MAX) rows.lastElementChild?.remove();
  by("log-empty").hidden = true;
  return outcome;
}

const WORDS: Record<string, string> = { beat: "beat", late: "late beats", asks: "where was I?" };

function sent(stand: Stand, beat: number, what: string, position: number | undefined): void {
  if (what !== "asks") sentCount += 1;
  waiting.set(`${stand.id} ${beat}`, log({ device: stand.name, what: WORDS[what] ?? what, position }));
  count();
}

function answered(stand: Stand, beat: number, status: number, milliseconds: number): void {
  const key = `${stand.id} ${beat}`;
  const outcome = waiting.get(key);
  waiting.delete(key);
  const isKept = status >= 200 && status < 300;
  if (outcome) {
    outcome.classList.add(isKept ? "kept" : "failed");
    const text = status === 0 ? "no answer" : status === 204 ? "kept" : status === 200 ? "found" : String(status);
    outcome.textContent = status === 0 ? text : `${text} in ${Math.max(milliseconds, 1).toFixed(0)} ms`;
  }
  if (status === 204) {
    keptCount += 1;
    took.push(milliseconds);
    if (took.length > 100) took.shift();
  }
  count();
}

function count(): void {
  by("count-sent").textContent = String(sentCount);
  by("count-kept").textContent = String(keptCount);
  const sorted = [...took].sort((a, b) => a - b);
  const median = sorted[Math.floor(sorted.length / 2)];
  by("count-median").textContent = median === undefined ? "–" : `${Math.max(median, 1).toFixed(0)} ms`;
}

// --- Titles.

function openOn(): Stand {
  const chosen = document.querySelector<HTMLInputElement>("input[name=open-on]:checked");
  return stands.find(({ id }) => id === chosen?.value) ?? stands[0];
}

function card(title: Title): HTMLElement {
  const item = document.createElement("li");
  item.dataset["movie"] = title.id;
  const button = make("button", "card") as HTMLButtonElement;
  const poster = document.createElement("img");
  poster.src = `posters/${title.slug}.svg`;
  poster.alt = "";
  poster.width = 200;
  poster.height = 300;
  const words = make("span", "words");
  words.append(make("span", "name", title.name), make("span", "line", title.line));
  button.append(poster, words);
  button.addEventListener("click", () => {
    const stand = openOn();
    stand.open(title);
    by(stand.id).scrollIntoView({ block: "nearest", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
  });
  item.append(button);
  return item;
}

/** One card per title, kept from one answer to the next, so that the focus stays where it is. */
const continuing = new Map<string, HTMLElement>();

function show(bookmarks: readonly Bookmark[]): void {
  const list = by("continue-list");
  const items = bookmarks.flatMap(({ movie_id, position_seconds, duration_seconds }) => {
    const title = titleOf(movie_id);
    if (!title) return [];
    const item = continuing.get(movie_id) ?? card(title);
    continuing.set(movie_id, item);
    const duration = duration_seconds ?? 0;
    let bar = item.querySelector("progress");
    if (!bar) {
      bar = document.createElement("progress");
      bar.setAttribute("aria-hidden", "true");
      item.querySelector("img")?.after(bar);
    }
    bar.max = duration || 1;
    bar.value = duration ? position_seconds : 0;
    const left = duration ? `${clock(duration - position_seconds)} left` : "";
    (item.querySelector(".line") as HTMLElement).textContent = `${clock(position_seconds)}${left ? `, ${left}` : ""}`;
    return [item];
  });
  const isSameOrder = items.length === list.children.length && items.every((item, at) => list.children[at] === item);
  if (!isSameOrder) {
    const focused = document.activeElement;
    list.replaceChildren(...items);
    if (focused instanceof HTMLElement && list.contains(focused)) focused.focus({ preventScroll: true });
  }
  by("continue-empty").hidden = items.length > 0;
  by("forget").hidden = items.length === 0;
}

async function refresh(): Promise<void> {
  const asked = viewer;
  try {
    const response = await call(asked, "GET", "?limit=20");
    if (!response.ok || asked !== viewer) return;
    const { items } = (await response.json()) as { items: Bookmark[] };
    show(items);
    by("trouble").hidden = true;
  } catch {
    by("trouble").hidden = false;
  }
}

let refreshing: ReturnType<typeof setTimeout> | undefined;

function refreshSoon(): void {
  refreshing ??= setTimeout(() => {
    refreshing = undefined;
    void refresh();
  }, 250);
}

// --- The page.

by("forget").addEventListener("click", async () => {
  for (const stand of stands) stand.open(undefined);
  // After the devices' last words.
  setTimeout(async () => {
    await call(viewer, "DELETE", "").catch(() => undefined);
    await refresh();
  }, 300);
});

for (const input of document.querySelectorAll<HTMLInputElement>("input[name=viewer]")) {
  input.addEventListener("change", () => {
    viewer = VIEWERS[Number(input.value)] as string;
    for (const stand of stands) stand.open(undefined);
    void refresh();
  });
}

const theme = by<HTMLButtonElement>("theme");
theme.addEventListener("click", () => {
  choose(isDark() ? "light" : "dark");
  label();
});
const label = (): void => theme.setAttribute("aria-label", isDark() ? "Use the light theme" : "Use the dark theme");
follow(label);

by("all-list").replaceChildren(...TITLES.map(card));
for (const stand of stands) stand.open(undefined);
void refresh();
// Another window, or another machine, may watch as the same viewer.
setInterval(refreshSoon, 10_000);
