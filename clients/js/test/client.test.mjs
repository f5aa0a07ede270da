// The client on the fake server, with the clock in the test's hands: states, reconnecting, liveness.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { CLOSE_CODES, connect, mayReconnect } from "../dist/signal.js";
import { FakeServer } from "../src/testing.js";
import { settle, start, takeClock } from "./harness.mjs";

const names = (states) => states.map(({ state }) => state);

describe("states", () => {
  test("go from connecting to online, each with its reason", async (t) => {
    const { client, states } = start(t);
    assert.equal(client.state, "connecting");
    await client.ready();
    assert.equal(client.state, "online");
    assert.deepEqual(names(states), ["connecting", "authenticating", "online"]);
    client.close("done");
    assert.deepEqual(states.at(-1), { state: "closed", previous: "online", reason: "done" });
    await assert.rejects(client.ready(), { code: "closed" });
    await assert.rejects(client.join("r"), { code: "closed" });
    await assert.rejects(client.request("x"), { code: "closed" });
    await assert.rejects(client.once("x"), { code: "closed" });
  });

  test("an abort signal closes it, before it dials too", async (t) => {
    const abort = new AbortController();
    const { client, server } = start(t, { signal: abort.signal });
    await client.ready();
    abort.abort();
    assert.equal(client.state, "closed");
    const late = start(t, { signal: abort.signal }, server);
    await settle();
    assert.equal(late.client.state, "closed");
    assert.equal(server.dials, 1);
  });

  test("a listener may close it at any change of state", async (t) => {
    for (const at of ["connecting", "authenticating", "online", "recovering"]) {
      const { client, server } = start(t);
      client.on("state", ({ state }) => state === at && client.close());
      for (const event of ["recovered", "resync"]) client.on(event, () => assert.fail("it is closed"));
      await settle();
      server.cut();
      await settle();
      assert.equal(client.state, "closed", at);
      assert.equal(server.connections.size, 0);
    }
  });

  test("what cannot be meant is refused at once", () => {
    const { WebSocket } = new FakeServer();
    assert.throws(() => connect({ url: "nonsense", WebSocket }), TypeError);
    assert.throws(() => connect({ url: "ws://x", WebSocket, protocol: "v9" }), /no protocol v9/);
  });

  test("a listener that throws stops nobody else", async (t) => {
    const { client, server } = start(t);
    await client.ready();
    const mistake = new Promise((resolve) => (globalThis.reportError = resolve));
    t.after(() => delete globalThis.reportError);
    client.on("e", () => {
      throw new Error("a mistake of the application");
    });
    const heard = client.once("e");
    server.deliver({ all: true, event: "e", data: 1 });
    assert.equal((await heard).data, 1);
    assert.match((await mistake).message, /of the application/);
  });
});

describe("reconnecting", () => {
  test("waits with full jitter between 0.5 and 20 s, and never less", async (t) => {
    const pass = takeClock(t);
    for (const [random, expected] of [
      [0, [500, 500, 500, 500, 500, 500, 500, 500]],
      [1, [1000, 2000, 4000, 8000, 16_000, 20_000, 20_000, 20_000]],
    ]) {
      const { client, server, states } = start(t, { random: () => random });
      server.isDown = true;
      await settle();
      for (const delayMs of expected) {
        assert.equal(states.at(-1).delayMs, delayMs);
        const { dials } = server;
        await pass(delayMs - 1);
        assert.equal(server.dials, dials, "too early");
        await pass(1);
        assert.equal(server.dials, dials + 1);
      }
      client.close();
    }
  });

  test("the wait grows until the connection was stable", async (t) => {
    const pass = takeClock(t);
    const { client, server, states } = start(t, { random: () => 1 });
    for (const delayMs of [1000, 2000, 4000]) {
      await settle();
      assert.equal(client.state, "online");
      await pass(9_999);
      server.cut();
      await settle();
      assert.deepEqual([states.at(-1).state, states.at(-1).delayMs], ["recovering", delayMs]);
      await pass(delayMs);
    }
    await pass(10_000);
    server.cut();
    await settle();
    assert.equal(states.at(-1).delayMs, 1000);
  });

  test("the table of close codes decides", async (t) => {
    takeClock(t);
    assert.ok(Object.keys(CLOSE_CODES).length > 10);
    for (const [code, { name, again }] of Object.entries(CLOSE_CODES)) {
      const { client, server } = start(t);
      await settle();
      server.close(Number(code));
      await settle();
      assert.equal(client.state, again ? "recovering" : "closed", name);
      assert.equal(client.diagnostics().history.at(-1).code, Number(code));
      client.close();
    }
    for (const code of [1005, 1006, 1011, 1012, 4199]) assert.ok(mayReconnect(code), code);
    assert.ok(!mayReconnect(4599));
  });

  test("goodbye says when to come back", async (t) => {
    const pass = takeClock(t);
    const { client, server, states } = start(t);
    await settle();
    await pass(20_000);
    server.goodbye(3210);
    await settle();
    assert.deepEqual(names(states).slice(-2), ["draining", "recovering"]);
    assert.deepEqual([states.at(-1).code, states.at(-1).delayMs], [4101, 3210]);
    await pass(3209);
    assert.equal(server.dials, 1);
    await pass(1);
    assert.equal(client.state, "online");
    // A hint that makes no sense does not end in a tight loop: timers overflow beyond 2^31 ms.
    server.goodbye(1e15);
    await settle();
    assert.equal(states.at(-1).delayMs, 300_000);
  });

  test("an edge that says goodbye again and again is not dialled in a loop", async (t) => {
    const pass = takeClock(t);
    const { client, server } = start(t);
    for (let second = 0; second < 20; second += 0.1) {
      if (client.state === "online") server.goodbye(0);
      await pass(100);
    }
    assert.ok(server.dials <= 8, `${server.dials} dials in 20 s`);
    assert.ok(server.dials > 2);
  });

  test("after goodbye without a close the client leaves by itself", async (t) => {
    const pass = takeClock(t);
    const { client, server, states } = start(t);
    await settle();
    server.say("goodbye", { reason: "draining", retryAfterMs: 10 });
    await settle();
    assert.equal(client.state, "draining");
    await pass(5000);
    assert.equal(states.at(-1).state, "recovering");
  });

  test("the old socket is closed before another one is dialled", async (t) => {
    const pass = takeClock(t);
    const { client, server } = start(t);
    await settle();
    const [old] = server.connections;
    server.isSilent = true;
    await pass(30_000);
    await pass(8_000);
    assert.equal(client.state, "recovering");
    assert.equal(old.readyState, 3);
    assert.equal(server.dials, 1);
  });

  test("what a lost socket still says is ignored", async (t) => {
    const pass = takeClock(t);
    const { client, server } = start(t);
    await settle();
    const [old] = server.connections;
    const { onmessage, onclose } = old;
    server.cut();
    await pass(1000);
    assert.equal(client.state, "online");
    client.on("e", () => assert.fail("a message of a lost connection"));
    onmessage({ data: '{"event":"e","to":{"all":true}}' });
    onclose({ code: 4501, reason: "" });
    assert.equal(client.state, "online");
  });

  test("a frame that cannot be read ends the connection, and is made known", async (t) => {
    const pass = takeClock(t);
    const { client, server, states } = start(t);
    await settle();
    const resyncs = [];
    client.on("resync", (rooms, { reason }) => resyncs.push([rooms, reason]));
    for (const connection of server.connections) connection.write("{");
    await settle();
    assert.equal(states.at(-1).reason, "a frame could not be read");
    await pass(1000);
    assert.deepEqual(resyncs, [[null, "recovered"]]);
  });

  test("a hundred reconnects leave neither sockets nor timers nor listeners", async (t) => {
    const pass = takeClock(t);
    const { client, server } = start(t, { rooms: ["a"] });
    await settle();
    const { listeners } = client.diagnostics();
    for (let round = 0; round < 100; round += 1) {
      await pass(10_000);
      server.cut();
      await pass(1000);
    }
    assert.equal(server.dials, 101);
    assert.equal(server.connections.size, 1);
    const { listeners: now, waiting, queued, rooms, frames, history } = client.diagnostics();
    assert.deepEqual([now, waiting, queued, rooms], [listeners, 0, 0, { a: "joined" }]);
    assert.ok(frames.length <= 50 && history.length <= 30);
  });
});

describe("waking up", () => {
  // The client listens on the globals that browsers have.
  const target = new EventTarget();
  const globals = ["addEventListener", "removeEventListener", "document"];
  before(() => {
    for (const name of globals.slice(0, 2)) globalThis[name] = target[name].bind(target);
    globalThis.document = new EventTarget();
  });
  after(() => globals.forEach((name) => delete globalThis[name]));

  function browser() {
    document.visibilityState = "visible";
    return { fire: (event) => target.dispatchEvent(new Event(event)), document };
  }

  test("online shortens the wait, but not below half a second after the last dial", async (t) => {
    const page = browser();
    const pass = takeClock(t);
    const { client, server } = start(t, { random: () => 1 });
    server.isDown = true;
    await pass(1000);
    await pass(2000);
    assert.equal(server.dials, 3); // The next would be 4 s later.
    for (let time = 0; time < 3000; time += 50) {
      page.fire("online");
      await pass(50);
    }
    assert.ok(server.dials >= 8 && server.dials <= 10, `${server.dials} dials`);
    server.isDown = false;
    page.document.dispatchEvent(new Event("visibilitychange"));
    await pass(500);
    assert.equal(client.state, "online");
  });

  test("a page that is hidden, or goes offline, does not dial for it", async (t) => {
    const page = browser();
    const pass = takeClock(t);
    const { server } = start(t, { random: () => 1 });
    server.isDown = true;
    await pass(1000);
    const { dials } = server;
    page.fire("offline");
    page.document.visibilityState = "hidden";
    page.document.dispatchEvent(new Event("visibilitychange"));
    await pass(1999);
    assert.equal(server.dials, dials);
  });

  test("a dead link is found when the page is back", async (t) => {
    const page = browser();
    const pass = takeClock(t);
    const { client, server, states } = start(t);
    await settle();
    server.isSilent = true;
    page.fire("online");
    page.fire("online");
    assert.equal(server.received.filter(({ event }) => event === "heartbeat").length, 0);
    await pass(7_999);
    assert.equal(client.state, "online");
    await pass(1);
    assert.equal(states.at(-1).reason, "the connection does not answer");
  });

  test("no listener stays when it is closed", async (t) => {
    const page = browser();
    const { client, server } = start(t);
    await client.ready();
    client.close();
    page.fire("online");
    await settle();
    assert.equal(server.dials, 1);
    assert.deepEqual(server.received.map(({ event }) => event), ["authenticate"]);
  });
});

describe("a link's life", () => {
  test("silence is asked about; an answer, or any frame, is a sign of life", async (t) => {
    const pass = takeClock(t);
    const { client, server } = start(t);
    await settle();
    const heartbeats = () => server.received.filter(({ event }) => event === "heartbeat").length;
    await pass(30_000);
    assert.equal(heartbeats(), 1);
    await pass(8_000);
    server.deliver({ all: true, event: "e" });
    await pass(30_000);
    assert.equal(heartbeats(), 1, "there was traffic");
    await pass(30_000);
    assert.equal(heartbeats(), 2);
    assert.equal(client.state, "online");
  });

  test("a timer that fires late proves nothing, one after it does", async (t) => {
    const pass = takeClock(t);
    const { client, server } = start(t);
    await settle();
    server.isSilent = true;
    await pass(30_000);
    // Asleep for an hour: the timer is due long since, and the answer may wait behind it.
    const now = Date.now() + 3_600_000;
    t.mock.method(Date, "now", () => now);
    await pass(8_000);
    assert.equal(client.state, "online");
    await pass(8_000);
    assert.equal(client.state, "recovering");
  });

  test("on the plain protocol heartbeats go out, and nothing is expected", async (t) => {
    const pass = takeClock(t);
    const { client, server } = start(t, { protocol: "plain", server: { protocol: "plain" } });
    for (let minute = 0; minute < 4; minute += 1) await pass(30_000);
    assert.equal(server.received.filter(({ event }) => event === "heartbeat").length, 4);
    assert.equal(client.state, "online");
  });

  test("a login that is not answered is given up", async (t) => {
    const pass = takeClock(t);
    const { states, server } = start(t);
    server.isSilent = true;
    await pass(15_000);
    assert.deepEqual([states.at(-1).state, states.at(-1).reason], ["recovering", "no login in time"]);
  });
});
