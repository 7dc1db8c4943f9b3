// Runs the browser proofs and prints their results as a table. `cargo xtask browser` builds the server and calls this:
//
//     node proofs/run.mjs --binary PATH [--rounds 5] [--lanes 2] [--only WORDS]… [--output text|json]
//
// Exit status 0: every round of every proof held. Rounds run in lanes side by side, each with a server and browsers of
// its own. Needs Debian's chromium.

import { parseArgs } from "node:util";
import { Browser, Server } from "./machines.mjs";
import { play, PROOFS } from "./proofs.mjs";

/** Longer than the longest round takes on a busy machine. */
const ROUND_WITHIN_MS = 240_000;

const { values } = parseArgs({
  options: {
    binary: { type: "string" },
    rounds: { type: "string", default: "5" },
    lanes: { type: "string", default: "2" },
    only: { type: "string", multiple: true, default: [] },
    output: { type: "string", default: "text" },
  },
});
const chosen = PROOFS.filter(({ name }) => values.only.length === 0 || values.only.some((words) => name.includes(words)));
if (!values.binary || chosen.length === 0 || !(Number(values.rounds) > 0)) {
  console.error(`usage: run.mjs --binary PATH [--rounds N] [--lanes N] [--only WORDS] [--output json]; the proofs are:\n${PROOFS.map(({ name }) => `  ${name}`).join("\n")}`);
  process.exit(2);
}

const queue = chosen.flatMap((proof) => Array.from({ length: Number(values.rounds) }, () => proof));
const results = new Map(chosen.map(({ name }) => [name, { name, rounds: 0, failures: [], lost: [] }]));
let done = 0;

function within(promise, milliseconds) {
  let timer;
  const late = new Promise((_, reject) => (timer = setTimeout(() => reject(new Error("took too long")), milliseconds)));
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

async function lane() {
  const machines = { server: await new Server(values.binary).start(), other: await new Browser().start() };
  try {
    for (let proof = queue.shift(); proof; proof = queue.shift()) {
      const result = results.get(proof.name);
      result.rounds += 1;
      try {
        const { lost } = await within(play(proof, machines), ROUND_WITHIN_MS);
        if (lost !== undefined) result.lost.push(lost);
      } catch (error) {
        result.failures.push(error.message);
        // What a failed round has left behind is no one else's fault.
        await machines.server.remove();
        await machines.other.remove();
        machines.server = await new Server(values.binary).start();
        machines.other = await new Browser().start();
      }
      done += 1;
      if (process.stderr.isTTY) process.stderr.write(`\r${done} rounds done, ${queue.length} to begin `);
    }
  } finally {
    await machines.server.remove();
    await machines.other.remove();
  }
}

const lanes = Array.from({ length: Math.min(Number(values.lanes), queue.length) }, lane);
await Promise.all(lanes);
if (process.stderr.isTTY) process.stderr.write("\r\x1b[K");

const rows = [...results.values()].map(({ name, rounds, failures, lost }) => {
  const sorted = [...lost].sort((a, b) => a - b);
  const round = (number) => number === undefined ? null : Math.round(number * 1_000) / 1_000;
  return {
    proof: name,
    rounds,
    held: rounds - failures.length,
    lost_seconds_median: round(sorted[Math.floor(sorted.length / 2)]),
    lost_seconds_max: round(sorted.at(-1)),
    failures,
  };
});
if (values.output === "json") {
  console.log(JSON.stringify({ bound_seconds: 4.25, proofs: rows }, null, 2));
} else {
  const width = Math.max(...rows.map(({ proof }) => proof.length));
  const cell = (value) => (value === null ? "-" : value.toFixed(2)).padStart(10);
  console.log(`${"proof".padEnd(width)}   held   median lost  most lost`);
  for (const { proof, rounds, held, lost_seconds_median, lost_seconds_max, failures } of rows) {
    const verdict = `${held}/${rounds}`.padStart(7);
    console.log(`${proof.padEnd(width)}${verdict} ${cell(lost_seconds_median)} s${cell(lost_seconds_max)} s${failures.length ? "  FAILED" : ""}`);
    for (const failure of failures) console.log(`    ${failure.split("\n")[0]}`);
  }
  console.log("Lost: seconds of film between where it was and where the other device starts; at most 4.25.");
}
process.exitCode = rows.some(({ failures }) => failures.length) ? 1 : 0;
