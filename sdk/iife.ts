/** The script for pages without a bundler: `Playhead.attachPlayhead(…)`. */

import { attachPlayhead } from "./src/index.js";

Object.assign(globalThis, { Playhead: { attachPlayhead } });
