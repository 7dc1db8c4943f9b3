// Uses the generated client as an engineer would: every call against the real server, good and refused. Every answer is
// looked up in the document, and its body is checked against the schema there.

import { strict as assert } from "node:assert";
import { readFileSync } from "node:fs";
import { Ajv2020 } from "ajv/dist/2020.js";
import { client } from "./generated/client.gen.js";
import * as calls from "./generated/sdk.gen.js";
import type { Bookmark, Problem } from "./generated/types.gen.js";

interface Answer {
  $ref?: string;
  content?: Record<string, { schema: object }>;
}

interface Operation {
  operationId: string;
  responses: Record<string, Answer>;
}

interface Document {
  paths: Record<string, Record<string, Operation>>;
  components: { responses: Record<string, Answer> };
}

function given(name: string): string {
  const value = process.env[name];
  assert.ok(value, `${name} is not set`);
  return value;
}

const text = readFileSync("openapi.json", "utf8");
const document = JSON.parse(text) as Document;

const ajv = new Ajv2020({ strict: false, allErrors: true });
ajv.addFormat("int64", true);
ajv.addFormat("double", true);
ajv.addFormat("date-time", /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/);
ajv.addSchema(JSON.parse(text) as object, "document");

/** The schema of the document that a body must have. */
function validator(schema: object) {
  return ajv.compile(JSON.parse(JSON.stringify(schema).replaceAll("#/", "document#/")) as object);
}

const called = new Set<string>();

client.setConfig({ baseUrl: given("PLAYHEAD_URL"), auth: () => given("PLAYHEAD_TOKEN") });
client.interceptors.response.use(async (response, request, options) => {
  const operation = document.paths[options.url]?.[request.method.toLowerCase()];
  assert.ok(operation, `${request.method} ${options.url} is not in the document`);
  called.add(operation.operationId);
  const what = `${operation.operationId} ${response.status}`;
  let answer = operation.responses[String(response.status)];
  assert.ok(answer, `${what} is not in the document`);
  if (answer.$ref !== undefined) {
    answer = document.components.responses[answer.$ref.split("/").pop() ?? ""];
  }
  const body = await response.clone().text();
  const type = response.headers.get("content-type") ?? "";
  const content = answer?.content?.[type];
  assert.equal(content !== undefined, body !== "", `${what}: a body of the type ${type}`);
  if (content !== undefined) {
    const validate = validator(content.schema);
    assert.ok(validate(JSON.parse(body)), `${what}: ${ajv.errorsText(validate.errors)} in ${body}`);
  }
  return response;
});

/** What a call gave, if it was not refused. */
function kept<T>(result: { data?: T; error?: unknown; response: Response }, status: number): T {
  assert.equal(result.response.status, status, JSON.stringify(result.error));
  return result.data as T;
}

/** The problem of a call that was refused. */
function refused(result: { error?: unknown; response: Response }, status: number, slug: string): Problem {
  const problem = result.error as Problem;
  assert.equal(result.response.status, status, JSON.stringify(problem));
  assert.equal(problem.type, `urn:playhead:problem:${slug}`);
  return problem;
}

// An answer to HEAD has the type of a body that it does not have: it must not be parsed.
const unparsed = { parseAs: "stream" } as const;

const now = Date.now();
const title = { movie_id: "42" };

kept(await calls.saveProgress({ body: { movie_id: 42, position_seconds: 1234.5, duration_seconds: 7200 } }), 204);
kept(await calls.saveProgress({ body: { movie_id: "-9223372036854775808", position_seconds: 7 } }), 204);
kept(
  await calls.saveProgressBatch({
    body: {
      sent_at_ms: now,
      items: [
        { movie_id: 42, position_seconds: 3, event_time_ms: now - 60_000 },
        { movie_id: "8", position_seconds: 99, duration_seconds: 100, event_time_ms: now - 30_000 },
      ],
    },
  }),
  204,
);

const bookmark: Bookmark = kept(await calls.getProgress({ path: title }), 200);
assert.deepEqual([bookmark.movie_id, bookmark.resume_position_seconds, bookmark.state], ["42", 1234.5, "in_progress"]);
assert.equal(kept(await calls.getProgress({ path: { movie_id: "1" } }), 200).state, "none");
assert.equal((await calls.getProgressHead({ path: title, ...unparsed })).response.status, 200);

const first = kept(await calls.listProgress({ query: { limit: 1, state: "all" } }), 200);
assert.equal(first.items.length, 1);
assert.ok(first.next_cursor);
const rest = kept(await calls.listProgress({ query: { state: "all", cursor: first.next_cursor } }), 200);
assert.deepEqual([first.items[0]?.movie_id, rest.items.map((item) => item.movie_id), rest.next_cursor], [
  "-9223372036854775808",
  ["42", "8"],
  null,
]);
const set = kept(await calls.listProgress({ query: { movie_id: ["8", "1", "42"] } }), 200);
assert.deepEqual(
  set.items.map((item) => item.state),
  ["completed", "none", "in_progress"],
);
assert.equal((await calls.listProgressHead(unparsed)).response.status, 200);

refused(await calls.getProgress({ path: { movie_id: "042" } }), 404, "not-found");
refused(await calls.listProgress({ query: { limit: 0 } }), 400, "invalid-query");
refused(await calls.listProgress({ query: { cursor: "x" } }), 400, "invalid-query");
refused(await calls.saveProgress({ body: { movie_id: 42, position_seconds: 1, x: "x".repeat(4096) } as never }), 413, "payload-too-large");
const invalid = refused(await calls.saveProgress({ body: { movie_id: "x", position_seconds: -1 } }), 422, "invalid-request");
assert.deepEqual(
  invalid.errors?.map((fault) => fault.pointer),
  ["/movie_id", "/position_seconds"],
);
const unauthorized = await calls.saveProgress({ body: { movie_id: 42, position_seconds: 1 }, auth: "x" });
refused(unauthorized, 401, "unauthorized");
assert.equal(unauthorized.response.headers.get("www-authenticate"), "Bearer");

kept(await calls.forgetTitle({ path: title }), 204);
assert.equal(kept(await calls.getProgress({ path: title }), 200).state, "none");
kept(await calls.forgetUser(), 204);
assert.deepEqual(kept(await calls.listProgress({ query: { state: "all" } }), 200).items, []);

assert.deepEqual(kept(await calls.describe({ auth: "" }), 200), JSON.parse(text));
assert.equal((await calls.describeHead(unparsed)).response.status, 200);

const operations = Object.values(document.paths).flatMap((item) => Object.values(item));
const missing = operations.map((operation) => operation.operationId).filter((id) => !called.has(id));
assert.deepEqual(missing, [], "calls that nothing here made");
assert.deepEqual(Object.keys(calls).sort(), [...called].sort());
console.log(`${called.size} calls of the generated client gave what the document says`);
