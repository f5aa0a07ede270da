// Puts the sources into one module, dist/signal.js: what the package exports and an edge serves as
// /signal.js. Nothing is transformed: files come one after another, imports of each other and comments,
// which have lines of their own, fall away.
//
//   node build.mjs           writes it
//   node build.mjs --check   fails if it is not current

import { readFileSync, writeFileSync } from "node:fs";

const FILES = [
  "close-codes",
  "errors",
  "codec",
  "keys",
  "events",
  "rooms",
  "requests",
  "follow",
  "journal",
  "client",
];
const PUBLIC = ["CLOSE_CODES", "SignalError", "mayReconnect", "VERSION", "Signal", "connect"];
const HEAD = "// @signal/client. The sources, with comments, are in clients/js/src.\n";

export function bundle() {
  const parts = FILES.map((name) => {
    const text = readFileSync(new URL(`src/${name}.js`, import.meta.url), "utf8");
    return text
      .replaceAll(/^import .*;\n/gm, "")
      .replaceAll(/^ *\/\/.*\n/gm, "")
      .replaceAll(/^ *\/\*\*.*?\*\/\n/gms, "")
      .replaceAll(/^ +/gm, "")
      .replaceAll(/^export ((?:class|const|function) (\w+))/gm, (whole, declaration, name) =>
        PUBLIC.includes(name) ? whole : declaration,
      )
      .replaceAll(/\n{2,}/g, "\n")
      .trim();
  });
  return `${HEAD}${parts.join("\n")}\n`;
}

const target = new URL("dist/signal.js", import.meta.url);
if (process.argv[1] === new URL(import.meta.url).pathname) {
  if (process.argv[2] !== "--check") writeFileSync(target, bundle());
  else if (readFileSync(target, "utf8") !== bundle()) {
    console.error("dist/signal.js is not current: node clients/js/build.mjs");
    process.exitCode = 1;
  }
}
