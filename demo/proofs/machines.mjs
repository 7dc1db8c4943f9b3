// The parts of a proof: the real server, and browsers as a viewer has them, each of which can be killed.
//
// A server keeps its data on a RAM disk (a disk that stalls by itself would be measured with it) and its port over
// restarts. A browser is Debian's Chromium with a fresh profile, spoken to over its debugging port; killing it kills its
// whole process group, by the group's own id.

import { spawn, execFileSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { extname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const STATIC = fileURLToPath(new URL("../static/", import.meta.url));
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".mp4": "video/mp4", ".m3u8": "application/vnd.apple.mpegurl" };
const READY_WITHIN_MS = 60_000;

/** As `crates/playhead/src/demo.rs` has them. */
export const VIEWERS = ["-9000000000000000001", "-9000000000000000002", "-9000000000000000003"];

export const sleep = (milliseconds) => new Promise((go) => setTimeout(go, milliseconds));

/** Asks until the answer is not undefined. */
export async function eventually(what, withinMs, ask) {
  const until = Date.now() + withinMs;
  for (;;) {
    const answer = await ask();
    if (answer !== undefined && answer !== false) return answer;
    if (Date.now() > until) throw new Error(`waited ${withinMs / 1000} s in vain: ${what}`);
    await sleep(50);
  }
}

function directory() {
  return mkdtempSync(join(existsSync("/dev/shm") ? "/dev/shm" : tmpdir(), "playhead-proof-"));
}

/** The first line that the pattern fits. */
async function line(stream, pattern, child) {
  const lines = createInterface({ input: stream });
  const ended = once(child, "exit").then(([code]) => { throw new Error(`ended with ${code} before it was ready`); });
  const late = sleep(READY_WITHIN_MS).then(() => { throw new Error("was not ready in time"); });
  ended.catch(() => undefined);
  late.catch(() => undefined);
  const found = (async () => {
    for await (const text of lines) {
      const match = pattern.exec(text);
      if (match) return match[1];
    }
    throw new Error("said nothing");
  })();
  const result = await Promise.race([found, ended, late]);
  stream.resume();
  return result;
}

export class Server {
  #binary;
  #data = directory();
  #child;
  #tokens = new Map();
  address = "127.0.0.1:0";

  constructor(binary) {
    this.#binary = binary;
  }

  async start() {
    const environment = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("PLAYHEAD_")));
    const flags = ["--dev", "--listen", this.address, "--admin-listen", "127.0.0.1:0", "--data-dir", this.#data];
    // Little of the RAM disk is needed; and who watches a place closely asks more often than a viewer may.
    const bounds = ["--disk-reserve-bytes", "1048576", "--throttle-per-second", "0", "--delete-throttle-per-second", "0"];
    const child = spawn(this.#binary, ["serve", ...flags, ...bounds, "--workers", "1"], {
      env: environment,
      stdio: ["ignore", "pipe", "ignore"],
    });
    this.#child = child;
    this.address = await line(child.stdout, /^listening on http:\/\/(.*)$/, child);
    return this;
  }

  async kill() {
    const { exitCode, signalCode } = this.#child;
    if (exitCode !== null || signalCode !== null) return;
    const ended = once(this.#child, "exit");
    this.#child.kill("SIGKILL");
    await ended;
  }

  async remove() {
    await this.kill();
    rmSync(this.#data, { recursive: true, force: true });
  }

  url(path) {
    return `http://${this.address}${path}`;
  }

  token(viewer) {
    let token = this.#tokens.get(viewer);
    if (!token) {
      const flags = ["token", `--user=${viewer}`, "--ttl", "1h", "--data-dir", this.#data];
      token = execFileSync(this.#binary, flags, { encoding: "utf8" }).trim();
      this.#tokens.set(viewer, token);
    }
    return token;
  }

  /** What the service has; undefined if it does not answer. */
  async bookmark(viewer, movie) {
    const headers = { Authorization: `Bearer ${this.token(viewer)}` };
    const response = await fetch(this.url(`/api/v1/stream/progress/${movie}`), { headers }).catch(() => undefined);
    return response?.ok ? response.json() : undefined;
  }

  async put(viewer, movie, position, duration) {
    const response = await fetch(this.url("/api/v1/stream/progress"), {
      method: "POST",
      headers: { Authorization: `Bearer ${this.token(viewer)}`, "Content-Type": "application/json" },
      body: JSON.stringify({ movie_id: movie, position_seconds: position, duration_seconds: duration }),
    });
    if (response.status !== 204) throw new Error(`a beat was answered with ${response.status}`);
  }
}

export class Browser {
  #profile = directory();
  #child;
  #connection;

  async start() {
    const flags = [
      "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync", "--mute-audio", "--autoplay-policy=no-user-gesture-required",
      "--remote-debugging-port=0", `--user-data-dir=${this.#profile}`, "about:blank",
    ];
    // A group of its own, so that all of its processes go at once.
    const child = spawn(process.env.CHROMIUM ?? "chromium", flags, { detached: true, stdio: ["ignore", "ignore", "pipe"] });
    this.#child = child;
    const endpoint = await line(child.stderr, /^DevTools listening on (ws:.*)$/, child);
    this.#connection = await chromium.connectOverCDP(endpoint, { timeout: READY_WITHIN_MS });
    return this;
  }

  /** A tab of the profile's one window. */
  async tab() {
    const page = await this.#connection.contexts()[0].newPage();
    page.setDefaultTimeout(READY_WITHIN_MS);
    return page;
  }

  /** As a crash, a dead battery. */
  kill() {
    try {
      process.kill(-this.#child.pid, "SIGKILL");
    } catch (error) {
      if (error.code !== "ESRCH") throw error;
    }
  }

  async remove() {
    this.kill();
    await this.#connection?.close().catch(() => undefined);
    // The last of the group may still be writing.
    for (let attempt = 0; ; attempt += 1) {
      try {
        return rmSync(this.#profile, { recursive: true, force: true });
      } catch (error) {
        if (attempt > 20) throw error;
        await sleep(100);
      }
    }
  }
}

/**
 * Serves the page and the clips from the repository, so that they are there while the server is not, as they are where
 * the service and the films come from different machines; tokens too. `policy` changes the content security policy.
 */
export async function serveFilms(page, server, policy) {
  const html = policy && { "Content-Security-Policy": policy };
  await page.route(server.url("/demo/**"), async (route) => {
    const { pathname } = new URL(route.request().url());
    const viewer = /^\/demo\/token\/(.*)$/.exec(pathname)?.[1];
    if (viewer) return route.fulfill({ body: server.token(viewer), contentType: "text/plain" });
    const body = readFileSync(join(STATIC, pathname.replace("/demo/", "")));
    const type = TYPES[extname(pathname)];
    const headers = { "Content-Type": type, "Accept-Ranges": "bytes", ...(type === "text/html" ? html : {}) };
    const range = /^bytes=(\d+)-(\d*)$/.exec(route.request().headers()["range"] ?? "");
    if (!range) return route.fulfill({ body, headers });
    const [start, end] = [Number(range[1]), Math.min(range[2] ? Number(range[2]) : Infinity, body.length - 1)];
    headers["Content-Range"] = `bytes ${start}-${end}/${body.length}`;
    return route.fulfill({ status: 206, body: body.subarray(start, end + 1), headers });
  });
}
