// What a package must be before it is published: small, well formed for every kind of importer, and typed under `strict`
// in a project that knows nothing of this one.

import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { fileURLToPath } from "node:url";

const here = fileURLToPath(new URL(".", import.meta.url));
const bin = (name) => join(here, "node_modules/.bin", name);
const run = (command, args, cwd = here) => {
  console.log(`$ ${command.split("/").at(-1)} ${args.join(" ")}`);
  const { status } = spawnSync(command, args, { cwd, stdio: "inherit" });
  if (status !== 0) throw new Error(`${command.split("/").at(-1)} failed`);
};

const budget = JSON.parse(readFileSync(join(here, "size.json"), "utf8"));
const size = gzipSync(readFileSync(join(here, "dist/playhead.iife.js")), { level: 9 }).length;
console.log(`bundle: ${size} bytes gzipped, the budget is ${budget.gzipBytesMax}`);
if (size > budget.gzipBytesMax) {
  console.error(`over budget: ${budget.rule}`);
  process.exit(1);
}

run(bin("publint"), ["--strict"]);
// A package of modules only: who requires it from CommonJS gets them by node's own require(esm).
run(bin("attw"), ["--pack", ".", "--profile", "esm-only", "--no-emoji", "--exclude-entrypoints", "./playhead.iife.js"]);

const project = mkdtempSync(join(tmpdir(), "playhead-pack-"));
try {
  run("npm", ["pack", "--silent", "--pack-destination", project]);
  const tarball = readdirSync(project).find((name) => name.endsWith(".tgz"));
  writeFileSync(join(project, "package.json"), JSON.stringify({ name: "empty", private: true, type: "module" }));
  run("npm", ["install", "--silent", "--no-audit", "--no-fund", `./${tarball}`], project);
  writeFileSync(
    join(project, "page.ts"),
    `import { attachPlayhead, browser, type Playhead } from "@playhead/player";
import { forgetViewer } from "@playhead/player/forget";
const video = document.createElement("video");
const playhead: Playhead = attachPlayhead(video, { baseUrl: "", movieId: 7n, viewerId: "1", getToken: async () => "t" });
playhead.addEventListener("saved", ({ detail }) => detail.positionSeconds.toFixed(1));
playhead.addEventListener("place-found", (event) => event.preventDefault());
const start: number = await playhead.resume();
start.toFixed();
// @ts-expect-error: a title has an id
attachPlayhead(video, { baseUrl: "", getToken: () => "t" });
// @ts-expect-error: an event's detail is typed
playhead.addEventListener("saved", ({ detail }) => detail.nothing);
attachPlayhead(video, { baseUrl: "", movieId: "7", getToken: () => "t" }, { ...browser(), now: () => 0 }).detach();
await forgetViewer("", "1");
`,
  );
  for (const [module, resolution] of [["nodenext", "nodenext"], ["esnext", "bundler"]]) {
    const strict = ["--strict", "--exactOptionalPropertyTypes", "--noUncheckedIndexedAccess", "--noEmit", "--types", ""];
    run(bin("tsc"), ["page.ts", ...strict, "--target", "es2022", "--module", module, "--moduleResolution", resolution], project);
  }
} finally {
  rmSync(project, { recursive: true });
}
