// The examples in JavaScript: those that run do what they say, and the others at least compile.

import assert from "node:assert/strict";
import { createReadStream } from "node:fs";
import { createServer } from "node:http";
import { once } from "node:events";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

import { CHROMIUM, FLAGS } from "./browser.mjs";
import { bun, DEADLINE_MS, Edge, Process, run, until } from "./support.mjs";

const path = (name) => fileURLToPath(new URL(`../examples/js/${name}`, import.meta.url));
const EDGE = "127.0.0.1:3000";

describe("examples", () => {
  let demo;
  before(async () => (demo = await Edge.demo({ SIGNAL_ALLOWED_ORIGINS: "*" })));
  after(() => demo.stop());

  test("the program prints orders", async (t) => {
    // The examples name the demo's usual address, which may be taken here.
    const script = `import(${JSON.stringify(path("node.mjs"))})`;
    const preload = `
      const { WebSocket } = globalThis;
      globalThis.WebSocket = class extends WebSocket {
        constructor(url, names) { super(url.replace("${EDGE}", "${demo.address}"), names); }
      };`;
    const flags = ["--experimental-websocket", "--no-warnings", "--input-type=module"];
    const child = new Process(process.execPath, [...flags, "-e", `${preload} await ${script};`]);
    t.after(() => child.stop("SIGKILL"));
    await child.line("an order", (line) => /^o-\d+ \d+\.\d\d EUR$/.test(line));
  });

  test("the page shows orders, and those that were paid", async (t) => {
    const server = createServer((request, response) => {
      const name = request.url === "/" ? "index.html" : request.url.slice(1);
      const type = name.endsWith(".html") ? "text/html" : "text/javascript";
      response.setHeader("content-type", type);
      createReadStream(path(`plain/${name}`)).on("error", () => response.destroy()).pipe(response);
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    const browser = await chromium.launch({ executablePath: CHROMIUM, args: FLAGS });
    t.after(async () => {
      await browser.close();
      server.close();
    });
    const page = await browser.newPage();
    page.setDefaultTimeout(DEADLINE_MS);
    const problems = [];
    page.on("pageerror", (error) => problems.push(error.message));
    await page.route("**/orders.js", async (route) => {
      const response = await route.fetch();
      const body = (await response.text()).replaceAll(EDGE, demo.address);
      await route.fulfill({ response, body });
    });
    await page.goto(`http://127.0.0.1:${server.address().port}/`);
    await page.locator("li[data-paid=true]").first().waitFor();
    const orders = await page.locator("li").count();
    await until("a further order", async () => (await page.locator("li").count()) > orders);
    await page.locator("li[data-paid=false]").first().waitFor();
    assert.deepEqual(problems, []);
  });

  test("the React example compiles", async () => {
    const args = ["build", path("react/OrderBoard.jsx"), "--external", "react", "--external", "@signal/client"];
    const { code, stdout, stderr } = await run(bun(), [...args, "--external", "react/*"]);
    assert.equal(code, 0, stderr);
    assert.match(stdout, /function OrderBoard/);
    assert.match(stdout, /function useRoom/);
  });
});
