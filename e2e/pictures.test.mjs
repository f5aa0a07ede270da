// The pictures of the demo page in the documents show the page as it is.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { FOLDER, manifest, manifestPath } from "./pictures.mjs";

test("the pictures were taken of the page as it is: else `just screenshots`, and look at them", () => {
  const taken = JSON.parse(readFileSync(manifestPath(FOLDER), "utf8"));
  assert.deepEqual(taken, manifest(FOLDER));
  assert.equal(Object.keys(taken.pictures).length, 4);
});

test("each picture of the documents is there", () => {
  const readme = readFileSync(new URL("../README.md", import.meta.url), "utf8");
  const shown = new Set([...readme.matchAll(/docs\/screenshots\/([\w-]+\.png)/g)].map(([, name]) => name));
  assert.deepEqual([...shown].sort(), Object.keys(manifest(FOLDER).pictures));
});
