// What is published: size, dependencies, names, versions, types.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { gzipSync } from "node:zlib";

import { bundle } from "../build.mjs";
import * as client from "../dist/signal.js";
import * as testing from "../src/testing.js";

const GZIPPED_BYTES_MAX = 10_000;

const read = (path) => readFileSync(new URL(`../${path}`, import.meta.url), "utf8");
const manifest = JSON.parse(read("package.json"));

test("the module is current, small, and imports nothing", () => {
  const text = read("dist/signal.js");
  assert.equal(text, bundle(), "node clients/js/build.mjs");
  const bytes = gzipSync(text, { level: 9 }).length;
  assert.ok(bytes < GZIPPED_BYTES_MAX, `${bytes} bytes gzipped`);
  assert.doesNotMatch(text, /\bimport\b|\brequire\b/);
  // But for the first line.
  assert.doesNotMatch(text, /[^:]\/\/ |\/\*/);
});

test("the package depends on nothing", () => {
  for (const kind of ["dependencies", "peerDependencies", "optionalDependencies", "devDependencies"]) {
    assert.equal(manifest[kind], undefined);
  }
});

test("one version everywhere", () => {
  assert.equal(client.VERSION, manifest.version);
  assert.match(read("../../Cargo.toml"), new RegExp(`^version = "${manifest.version}"$`, "m"));
});

test("the types name what is there", () => {
  const named = (path) =>
    [...read(path).matchAll(/^export (?:const|class|function) (\w+)/gm)].map(([, name]) => name).sort();
  assert.deepEqual(named("src/signal.d.ts"), Object.keys(client).sort());
  assert.deepEqual(named("src/testing.d.ts"), Object.keys(testing).sort());
  const types = read("src/signal.d.ts");
  const members = Object.getOwnPropertyNames(client.Signal.prototype);
  for (const member of members) assert.match(types, new RegExp(`\\b${member}\\b`), member);
});

test("what the package exports is in it", async () => {
  for (const { types, default: path } of Object.values(manifest.exports)) {
    assert.ok(read(types).length > 0 && read(path).length > 0);
    assert.ok(manifest.files.includes(path.split("/")[1]), path);
  }
});
