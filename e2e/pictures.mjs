// The pictures of the demo page in docs/screenshots, and of what they were taken.
//
// A manifest beside them has the hash of each picture and of each file that the page is made of, so that a
// test can tell when the page has changed and the pictures have not.

import { createHash } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("..", import.meta.url));

// What the page is made of. The orders on it are made up anew each time.
const SOURCES = [
  "clients/js/dist/signal.js",
  "crates/signal-server/assets/demo.html",
  "crates/signal-server/assets/demo.js",
];

export const FOLDER = join(ROOT, "docs/screenshots");

const hash = (path) => createHash("sha256").update(readFileSync(path)).digest("hex");
const hashes = (folder, names) => Object.fromEntries(names.map((name) => [name, hash(join(folder, name))]));

// What the manifest of a folder has to say now.
export function manifest(folder) {
  const pictures = readdirSync(folder).filter((name) => name.endsWith(".png"));
  return { sources: hashes(ROOT, SOURCES), pictures: hashes(folder, pictures.sort()) };
}

export const manifestPath = (folder) => join(folder, "manifest.json");
