// A client of a running server that knows nothing but the .proto files:
//   BIDTRIE_ADDRESS=HOST:PORT BIDTRIE_PROTOS=FOLDER node --test client.test.js

import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { after, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const { BIDTRIE_ADDRESS: address, BIDTRIE_PROTOS: protos } = process.env;
assert.ok(address && protos, "BIDTRIE_ADDRESS and BIDTRIE_PROTOS must be set");

const here = fileURLToPath(new URL(".", import.meta.url));
const loaded = grpc.loadPackageDefinition(
  protoLoader.loadSync(
    ["bidtrie/v1/targeting.proto", "bidtrie/v1/creative.proto", "bidtrie/v1/admin.proto", "health.proto"],
    { includeDirs: [protos, here], keepCase: true, longs: String, enums: String, defaults: true, oneofs: true },
  ),
);
const v1 = loaded.bidtrie.v1;
const plain = grpc.credentials.createInsecure();
const targeting = new v1.Targeting(address, plain);
const creative = new v1.Creative(address, plain);
const admin = new v1.Admin(address, plain);
const health = new loaded.grpc.health.v1.Health(address, plain);
after(() => [targeting, creative, admin, health].forEach((client) => client.close()));

const SECOND = 1000;

// A unary call as a promise; `seconds` is its deadline.
function call(client, method, request, seconds = 60) {
  return new Promise((resolve, reject) => {
    const deadline = new Date(Date.now() + seconds * SECOND);
    client[method](request, { deadline }, (error, response) => (error ? reject(error) : resolve(response)));
  });
}

async function failsWith(promise, code) {
  const error = await promise.then(
    () => assert.fail(`expected ${grpc.status[code]}, got an answer`),
    (caught) => caught,
  );
  assert.equal(grpc.status[error.code], grpc.status[code], error.message);
  return error;
}

// Long enough to be cancelled on its way: the server writes 160 texts.
const LONG = {
  product: { name: "Trail running shoes (sleep=0.02)", description: "Light shoes with a firm grip on wet rock." },
  slots: Array.from({ length: 10 }, (_, i) => ({ name: `slot${i}`, type: "SLOT_TYPE_DESCRIPTION" })),
  candidates: 16,
  sampling: { temperature: 1, seed: "7" },
};
const SHORT = {
  request_id: "node-2",
  product: { name: "Trail running shoes", description: "Light shoes with a firm grip on wet rock." },
  slots: [{ name: "title", type: "SLOT_TYPE_HEADLINE", max_characters: 30 }],
  candidates: 2,
  sampling: { temperature: 0.8, top_p: 0.95, seed: "18446744073709551615" },
};

test("health says SERVING", async () => {
  for (const service of ["", "bidtrie.v1.Targeting", "bidtrie.v1.Creative", "bidtrie.v1.Admin"]) {
    assert.equal((await call(health, "Check", { service })).status, "SERVING");
  }
  await failsWith(call(health, "Check", { service: "nobody" }), grpc.status.NOT_FOUND);
});

test("GetStatus names model and catalogs", async () => {
  const status = await call(admin, "GetStatus", {});
  assert.equal(status.ready, true);
  assert.match(status.model.version, /^[0-9a-f]{16}/);
  assert.ok(status.catalogs.some((catalog) => catalog.is_default));
});

test("Target ranks segments for a plain context", async () => {
  const response = await call(targeting, "Target", {
    request_id: "node-1",
    context: { title: "The best family SUVs of the year", keywords: ["cars", "suv"], language: "en" },
    top_k: 5,
  });
  assert.equal(response.request_id, "node-1");
  assert.equal(response.segments.length, 5);
  assert.equal(response.partial, false);
  assert.notEqual(response.source, "SOURCE_UNSPECIFIED");
  for (const [i, segment] of response.segments.entries()) {
    assert.ok(segment.id && segment.name);
    assert.equal(segment.path.at(-1), segment.name);
    assert.ok(i === 0 || segment.score <= response.segments[i - 1].score, "best first");
  }
  assert.ok(response.timings.total_ms > 0);
});

test("Target takes an OpenRTB BidRequest", async () => {
  const response = await call(targeting, "Target", {
    bid_request: {
      id: "auction-1",
      imp: [{ id: "1", banner: { w: 300, h: 250 } }],
      site: { name: "Car News", content: { title: "The best family SUVs of the year", genre: "Automotive" } },
      device: { ua: "agent", ip: "192.0.2.1" },
    },
  });
  assert.equal(response.request_id, "auction-1");
  assert.equal(response.segments.length, 3);
});

test("candidates and blocked segments are obeyed", async () => {
  const context = { title: "The best family SUVs of the year" };
  const all = await call(targeting, "Target", { context, top_k: 4 });
  const ids = all.segments.map((segment) => segment.id);
  const some = await call(targeting, "Target", { context, top_k: 4, candidates: ids, blocked: [ids[0]] });
  const left = some.segments.map((segment) => segment.id);
  assert.ok(left.length > 0 && left.length < ids.length);
  assert.ok(left.every((id) => ids.includes(id) && id !== ids[0]));
});

test("bad input is INVALID_ARGUMENT with details", async () => {
  const error = await failsWith(
    call(targeting, "Target", { context: { title: "t" }, top_k: 0, tmax_ms: -1 }),
    grpc.status.INVALID_ARGUMENT,
  );
  assert.match(error.details, /top_k: .*tmax_ms: /);
  assert.equal(error.metadata.get("grpc-status-details-bin").length, 1);
});

test("Generate keeps the slot's limit and the seed", async () => {
  const response = await call(creative, "Generate", SHORT);
  assert.equal(response.request_id, "node-2");
  assert.equal(response.seed, "18446744073709551615");
  assert.ok(response.creatives.length >= 1 && response.creatives.length <= 2);
  for (const [rank, text] of response.creatives.entries()) {
    assert.equal(text.slot, "title");
    assert.equal(text.rank, rank);
    assert.ok(text.text.length > 0 && [...text.text].length <= 30, text.text);
  }
  const again = await call(creative, "Generate", SHORT);
  assert.deepEqual(again.creatives, response.creatives);
});

test("GenerateStream sends the pieces and then the response", async () => {
  const updates = [];
  for await (const update of creative.GenerateStream(SHORT)) updates.push(update);
  assert.ok(updates.length >= 3, `${updates.length} messages`);
  const last = updates.pop();
  assert.equal(last.update, "response");
  assert.ok(updates.every((update) => update.update === "delta"));
  const streamed = new Map();
  for (const { delta } of updates) {
    streamed.set(delta.candidate, (streamed.get(delta.candidate) ?? "") + delta.text);
  }
  for (const { text } of last.response.creatives) assert.ok([...streamed.values()].includes(text), text);
});

test("cancelling a stream midway stops the server's work", async () => {
  const stream = creative.GenerateStream(LONG);
  const error = await new Promise((resolve) => {
    let pieces = 0;
    stream.on("data", () => {
      pieces += 1;
      if (pieces === 2) stream.cancel();
    });
    stream.on("error", resolve);
    stream.on("end", () => resolve(new Error("the stream ended")));
  });
  assert.equal(error.code, grpc.status.CANCELLED, error.message);
  for (let tries = 0; (await call(admin, "GetStatus", {})).requests_in_flight > 0; tries += 1) {
    assert.ok(tries < 200, "the request is still in flight");
    await sleep(50);
  }
});

test("a deadline that is too short is refused at once", async () => {
  await failsWith(call(creative, "Generate", LONG, 0.05), grpc.status.RESOURCE_EXHAUSTED);
});

test("the server still answers", async () => {
  const response = await call(targeting, "Target", { context: { title: "Chess openings for beginners" } });
  assert.equal(response.segments.length, 3);
});
