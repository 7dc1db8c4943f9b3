/** The vectors of docs/HEARTBEAT.md, which any player may run, against this player's own rules. */

import { describe, expect, test } from "vitest";
import vectors from "../../docs/heartbeat-vectors.json" with { type: "json" };
import { heartbeat } from "../src/heartbeat.js";
import { judge, maySend } from "../src/place.js";
import { decide } from "../src/retry.js";
import { namedBy } from "../src/sender.js";

describe("due", () => {
  test.each(vectors.due)("$name", ({ first_phase, samples }) => {
    const beats = heartbeat(first_phase);
    for (const sample of samples) {
      const isDue = beats.dueIn(sample.position, sample.clock_ms, 1) === 0;
      expect(isDue, `at ${sample.position}`).toBe(sample.beat);
      if (isDue) beats.beaten(sample.position, sample.clock_ms);
      if ("answer_interval_seconds" in sample) beats.askFor(sample.answer_interval_seconds ?? undefined);
    }
  });
});

test.each(vectors.retry)("retry: $status, attempt $attempt", (vector) => {
  const decision = decide(vector.status, vector.attempt, vector.retry_after_seconds, vector.random);
  const { action, milliseconds } = vector;
  expect(decision).toEqual(milliseconds === undefined ? { action } : { action, milliseconds });
});

test.each(vectors.place)("place: $name", ({ verdict, ...situation }) => {
  expect(judge(situation)).toBe(verdict);
});

test.each(vectors.held)("held: $name", ({ held, place, sent }) => {
  expect(maySend(held, place)).toBe(sent);
});

test.each(vectors.refused)("refused: $pointers", ({ items, pointers, named }) => {
  const entries = Array.from({ length: items }, (_, number) => number);
  expect(namedBy({ errors: pointers.map((pointer) => ({ pointer })) }, entries)).toEqual(named);
});

test("a 422 that is no problem document names nothing", () => {
  for (const problem of [undefined, null, "text", {}, { errors: 5 }, { errors: [null, {}] }, { errors: [{ pointer: 0 }] }]) {
    expect(namedBy(problem, [1, 2])).toEqual([]);
  }
});
