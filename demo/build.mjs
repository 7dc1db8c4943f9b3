// Builds the demo's scripts, and those of its examples that players bring along, into static/built. The rest of static/
// is written by hand, or made by media/make.sh. `node build.mjs DIRECTORY` builds elsewhere, to compare with what is
// committed.

import { copyFileSync, mkdirSync, rmSync } from "node:fs";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "rolldown";

const here = fileURLToPath(new URL(".", import.meta.url));
const out = resolve(process.argv[2] ?? `${here}static/built`);
rmSync(out, { recursive: true, force: true });
mkdirSync(out, { recursive: true });
for (const name of ["page", "device"]) {
  await build({
    cwd: here,
    input: `src/${name}.ts`,
    platform: "browser",
    resolve: { alias: { "@playhead/player": `${here}../sdk/src/index.ts` } },
    output: { file: `${out}/${name}.js`, format: "iife", minify: true, comments: false },
  });
}
// Players as they are published. The light build of hls.js has no subtitles, encryption and other audio, nor have the clips.
copyFileSync(`${here}../sdk/dist/playhead.iife.js`, `${out}/playhead.iife.js`);
copyFileSync(`${here}node_modules/hls.js/dist/hls.light.min.js`, `${out}/hls.light.min.js`);
copyFileSync(`${here}node_modules/shaka-player/dist/shaka-player.hls-es2021.js`, `${out}/shaka-player.js`);
