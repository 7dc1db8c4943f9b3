// One device of the demo in a tab, and what can be seen of it.

import { eventually, sleep } from "./machines.mjs";

/** Longer than anything takes on a machine that is busy; only what fails waits for it. */
const PATIENCE_MS = 40_000;

export class Tab {
  constructor(page, server, device) {
    this.page = page;
    this.server = server;
    this.device = device;
    this.violations = [];
    page.on("console", (message) => this.violations.push(message.text()));
  }

  /** Opens a title. Resolves when the page has been loaded; `wait` leaves the title for {@link begin}. */
  async open(viewer, movie, { play = true, rate = 1, wait = false } = {}) {
    const query = new URLSearchParams({ device: this.device, viewer, movie, rate: String(rate) });
    if (play) query.set("play", "");
    if (wait) query.set("wait", "");
    await this.page.goto(this.server.url(`/demo/device.html?${query}`));
    return this;
  }

  begin() {
    return this.page.evaluate(() => window.demoDevice.open());
  }

  /** Where the film is now, and by which clock. */
  look() {
    return this.page.evaluate(() => {
      const { currentTime, paused, readyState, seeking, duration } = document.getElementById("video");
      return { at: Date.now(), position: currentTime, paused, readyState, seeking, duration, log: window.demoDevice.log };
    });
  }

  /** Waits until the film has come this far, by playing. */
  async playedTo(position) {
    await eventually(`the film to come to ${position}`, PATIENCE_MS, async () => (await this.look()).position >= position);
  }

  /** Waits until the picture of a film that was opened is there, at its start; gives back where that is. */
  async started() {
    const seen = await eventually("the film to be there", PATIENCE_MS, async () => {
      const seen = await this.look();
      return seen.log.some(({ type }) => type === "resumed") && seen.readyState >= 2 && !seen.seeking && seen;
    });
    return seen.position;
  }

  /** Waits for an event of the player, after the first `after` ones. */
  async happened(type, after = 0) {
    return eventually(`the event ${type}`, PATIENCE_MS, async () => {
      const { log } = await this.look();
      return log.filter((entry) => entry.type === type)[after];
    });
  }

  async count(type) {
    return (await this.look()).log.filter((entry) => entry.type === type).length;
  }

  seek(position) {
    return this.page.evaluate((to) => (document.getElementById("video").currentTime = to), position);
  }

  pause() {
    return this.page.evaluate(() => document.getElementById("video").pause());
  }

  /** The second that is drawn in the picture itself, read from its eight squares. */
  async picture() {
    const read = () =>
      this.page.evaluate(() => {
        const video = document.getElementById("video");
        const canvas = Object.assign(document.createElement("canvas"), { width: 640, height: 360 });
        const context = canvas.getContext("2d");
        context.drawImage(video, 0, 0, 640, 360);
        let second = 0;
        for (let bit = 7; bit >= 0; bit -= 1) {
          second = second * 2 + (context.getImageData(600 - bit * 20, 332, 1, 1).data[0] > 127 ? 1 : 0);
        }
        return second;
      });
    // The element may be at a new place a moment before its picture is.
    let second = await read();
    for (let attempt = 0; attempt < 3; attempt += 1) {
      await sleep(100);
      const again = await read();
      if (again === second) break;
      second = again;
    }
    return second;
  }
}

/** Where a playing film is at a time of the clock, from when it was last looked at. */
export function positionAt({ at, position, duration, paused }, time, rate) {
  return paused ? position : Math.min(position + ((time - at) / 1_000) * rate, duration);
}
