// The measurements' arguments. What they measure is no test, and takes minutes.

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import { run, scratch } from "./support.mjs";

const script = (name, ...args) =>
  run(process.execPath, [fileURLToPath(new URL(name, import.meta.url)), ...args]);

for (const [name, ...args] of [
  ["faults.mjs", "--only", "flood"],
  ["faults.mjs", "--runs", "0"],
  ["faults.mjs", "--fast"],
  ["scale-out.mjs", "--edges", "1,two"],
  ["scale-out.mjs", "--publishes", "7"],
  ["scale-out.mjs", "--fast"],
]) {
  test(`${name} ${args.join(" ")} ends with 64 and a sentence`, async () => {
    const { code, stdout, stderr } = await script(name, ...args);
    assert.deepEqual([code, stdout], [64, ""]);
    assert.match(stderr, new RegExp(`^${name}: [^\n]+\n`));
  });
}

test("faults.mjs --list names the faults", async () => {
  const { code, stdout } = await script("faults.mjs", "--list");
  assert.equal(code, 0);
  assert.match(stdout, /^redis-killed +Redis killed/m);
  assert.match(stdout, /^master-killed-sharded +cluster, sharded/m);
});

test("faults.mjs --table makes rows of what was measured", async () => {
  const seen = { doubled: 0, notReady: 20, ready: 900, silence: 3_000, resyncs: 1 };
  const results = [
    { fault: "redis-killed", ...seen, lost: 5, unannounced: 0, resync: 1_000 },
    { fault: "redis-killed", ...seen, lost: 7, unannounced: 0, resync: 1_250 },
    { fault: "network-dead", ...seen, lost: 9, unannounced: 2, resync: 1_000 },
    { fault: "slots-moved-classic", ...seen, lost: 0, unannounced: 0, resync: null, notReady: null, ready: null },
  ];
  const file = join(scratch, "results.jsonl");
  writeFileSync(file, results.map((result) => JSON.stringify(result)).join("\n"));
  const { code, stdout } = await script("faults.mjs", "--table", file);
  assert.equal(code, 0);
  const [, , killed, dead, moved] = stdout.split("\n").map((row) => row.split(" | ").slice(1).join(" | "));
  assert.equal(killed, "misses 5–7 messages | `resync` 1.0–1.3 s after its end | 3.0 | 0.0 | 0.9 |");
  assert.equal(dead, "misses 9 messages | **is not told of all** | 3.0 | 0.0 | 0.9 |");
  assert.equal(moved, "misses nothing | misses nothing | 3.0 | – | – |");
});
