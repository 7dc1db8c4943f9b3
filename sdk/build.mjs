// Builds the package: modules and types by tsc, and one script for pages without a bundler by rolldown.
// `node build.mjs DIRECTORY` builds elsewhere, to compare with what is committed.

import { execFileSync } from "node:child_process";
import { rmSync } from "node:fs";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "rolldown";

const here = fileURLToPath(new URL(".", import.meta.url));
const out = resolve(process.argv[2] ?? `${here}dist`);
rmSync(out, { recursive: true, force: true });
const tsc = fileURLToPath(new URL("node_modules/typescript/bin/tsc", import.meta.url));
execFileSync(process.execPath, [tsc, "--project", here, "--outDir", out], { stdio: "inherit" });
await build({
  cwd: here,
  input: "iife.ts",
  platform: "browser",
  output: { file: `${out}/playhead.iife.js`, format: "iife", minify: true },
});
