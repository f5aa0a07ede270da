// What the JavaScript client does in a browser, in headless Chromium, on one protocol, sealed or not.
//
// The page is any that an edge serves, and the client comes from the edge's /signal.js. Between page
// and edges is a switch, so that an edge can die and another one take over under the same address.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { chromium } from "playwright-core";

import { CHROMIUM, FLAGS } from "./browser.mjs";
import { API_KEY, DEADLINE_MS, Edge, startRedis, until } from "./support.mjs";
import { Switch } from "./switch.mjs";
import { JWT_SECRET, mint } from "./token.mjs";

const ROOM = "branch:1";

// Runs in the page: a client in `window.signal`, and all that it says in `window.log`.
async function begin({ protocol, encryption, reconnect, room }) {
  const { connect } = await import("/signal.js");
  const log = [];
  const signal = connect({ url: "/ws", protocol, encryption, reconnect, getToken: window.getToken });
  signal.on("state", (change) => log.push(["state", change.state, change.code]));
  signal.on("*", (data, { event, to }) => log.push([event, data, to]));
  signal.on("resync", (rooms, { reason }) => log.push(["resync", rooms, reason]));
  signal.on("recovered", ({ rooms }) => log.push(["recovered", rooms]));
  Object.assign(window, { signal, log });
  await signal.join(room);
  return signal.diagnostics();
}

export function flows({ protocol, encryption = "off", skip = false }) {
  describe(`in a browser: ${protocol}, encryption ${encryption}`, { skip }, () => {
    let redis, edge, browser, wires, page, problems;
    const environment = {
      SIGNAL_AUTH: "jwt",
      SIGNAL_JWT_SECRET: JWT_SECRET,
      SIGNAL_API_KEY: API_KEY,
      SIGNAL_ENCRYPTION: encryption,
      SIGNAL_DRAIN_WINDOW: "100ms",
    };
    const serve = () => Edge.serve({ redis, environment });

    before(async () => {
      redis = await startRedis();
      edge = await serve();
      wires = await Switch.start(edge.address);
      browser = await chromium.launch({ executablePath: CHROMIUM, args: FLAGS });
    });
    after(async () => {
      await browser?.close();
      await wires.stop();
      await edge.stop();
      await redis.stop("SIGKILL");
    });

    // A page with a client in it; `tokens` is asked for each.
    async function open(t, { tokens = () => mint("ann"), reconnect = { minMs: 50, maxMs: 200 } } = {}) {
      // What it opens is no page: its policy allows no script.
      const context = await browser.newContext({ bypassCSP: true });
      t.after(() => context.close());
      context.setDefaultTimeout(DEADLINE_MS);
      page = await context.newPage();
      problems = [];
      page.on("pageerror", (error) => problems.push(error.message));
      await page.exposeFunction("getToken", (why) => tokens(why));
      await page.goto(`http://${wires.address}/livez`);
      const options = { protocol, encryption, reconnect, room: ROOM };
      return { context, ...(await page.evaluate(begin, options)) };
    }

    // Waits until the page's log has such an entry, and returns the first.
    async function logged(...start) {
      const find = (start) =>
        window.log.find((entry) => start.every((part, index) => JSON.stringify(entry[index]) === JSON.stringify(part)));
      const handle = await page.waitForFunction(find, start);
      return handle.jsonValue();
    }

    const clear = () => page.evaluate(() => void (window.log.length = 0));
    const states = async () =>
      (await page.evaluate(() => window.log)).filter(([kind]) => kind === "state").map(([, state]) => state);

    async function delivered(via, data) {
      await via.publish({ room: ROOM, event: "order.created", data });
      await logged("order.created", data, { room: ROOM });
    }

    test("connects, joins, and gets what is published", async (t) => {
      const { protocol: spoken, isEncrypted } = await open(t);
      assert.equal(spoken, `signal.v1.${protocol}`);
      assert.equal(isEncrypted, encryption !== "off");
      await delivered(edge, { id: "o-1", total: "3.80", note: "naïve 🧾" });
      await edge.publish({ user: "ann", event: "inbox", data: 1 });
      await logged("inbox", 1, { user: true });
      const refused = await page.evaluate(() => window.signal.request("pay").catch(({ code }) => code));
      assert.equal(refused, "unsupported");
      await page.evaluate(() => window.signal.close());
      await edge.forgotten();
      assert.deepEqual(problems, []);
    });

    test("an edge is killed, and another one goes on", async (t) => {
      const doomed = await serve();
      wires.to(doomed.address);
      await open(t);
      await delivered(doomed, 1);
      wires.to(edge.address);
      await doomed.stop("SIGKILL");
      await logged("recovered", [ROOM]);
      await logged("resync", null, "recovered");
      await delivered(edge, 2);
      assert.deepEqual(problems, []);
    });

    test("a drain moves it", async (t) => {
      const draining = await serve();
      wires.to(draining.address);
      await open(t);
      wires.to(edge.address);
      await draining.stop();
      await logged("recovered", [ROOM]);
      await logged("state", "recovering", 4101);
      assert.ok((await states()).includes("draining"));
      await delivered(edge, 3);
    });

    test("credentials are renewed in place, and replaced when they were refused", async (t) => {
      const reasons = [];
      const tokens = ({ reason }) => {
        reasons.push(reason);
        const seconds = reasons.length === 1 ? -100 : reasons.length === 2 ? 30 : 3600;
        return mint("ann", { seconds });
      };
      await open(t, { tokens });
      await until("a renewal", () => reasons.length === 3);
      assert.deepEqual(reasons, ["login", "refused", "refresh"]);
      await page.waitForFunction(() => window.signal.diagnostics().expires > Date.now() + 3_000_000);
      await delivered(edge, 4);
    });

    test("offline and online again", async (t) => {
      const { context } = await open(t);
      await context.setOffline(true);
      wires.down();
      await logged("state", "recovering", 1006);
      await clear();
      wires.up();
      await context.setOffline(false);
      await logged("recovered", [ROOM]);
      await delivered(edge, 5);
    });

    test("a frozen page gets what came meanwhile, and its late timers end nothing", async (t) => {
      const { context } = await open(t);
      const session = await context.newCDPSession(page);
      await clear();
      await session.send("Page.setWebLifecycleState", { state: "frozen" });
      await edge.publish({ room: ROOM, event: "order.created", data: 6 });
      await session.send("Page.setWebLifecycleState", { state: "active" });
      await logged("order.created", 6, { room: ROOM });
      assert.deepEqual(await states(), []);
    });

    // Takes as long as a heartbeat may: once is enough.
    const isOnce = protocol === "json" && encryption === "off";
    test("a hidden tab whose link died finds out when it is seen again", { skip: !isOnce }, async (t) => {
      await open(t);
      const show = (visibility) =>
        page.evaluate((visibility) => {
          Object.defineProperty(document, "visibilityState", { value: visibility, configurable: true });
          document.dispatchEvent(new Event("visibilitychange"));
        }, visibility);
      await show("hidden");
      await delivered(edge, 7);
      wires.freeze();
      await show("visible");
      await logged("recovered", [ROOM]);
      await delivered(edge, 8);
      wires.cut();
    });

    test("a hundred reconnects leave neither sockets nor listeners", async (t) => {
      const { context } = await open(t, { reconnect: { minMs: 1, maxMs: 2 } });
      const { listeners } = await page.evaluate(() => window.signal.diagnostics());
      const session = await context.newCDPSession(page);
      for (let round = 0; round < 100; round += 1) {
        await clear();
        wires.cut();
        await logged("recovered", [ROOM]);
      }
      const { listeners: now, waiting } = await page.evaluate(() => window.signal.diagnostics());
      assert.deepEqual([now, waiting], [listeners, 0]);
      const { result } = await session.send("Runtime.evaluate", { expression: "WebSocket.prototype" });
      await until("one socket in the page", async () => {
        await session.send("HeapProfiler.collectGarbage");
        const { objects } = await session.send("Runtime.queryObjects", { prototypeObjectId: result.objectId });
        const { result: count } = await session.send("Runtime.callFunctionOn", {
          objectId: objects.objectId,
          functionDeclaration: "function () { return this.length; }",
        });
        return count.value === 1;
      });
      await until("one connection", () => wires.count <= 2);
      await delivered(edge, 9);
      assert.deepEqual(problems, []);
    });

    test("it leaves nothing behind", () => edge.forgotten());
  });
}
