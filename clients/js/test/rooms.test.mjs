// Rooms, requests, credentials and snapshots, on the fake server.

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { settle, start, takeClock } from "./harness.mjs";

describe("rooms", () => {
  test("join resolves once delivery is guaranteed, and rooms are joined again", async (t) => {
    const pass = takeClock(t);
    const { client, server } = start(t, { rooms: ["first"] });
    assert.deepEqual(await client.join(["a", "b"]), { rooms: ["a", "b"], degraded: false });
    await client.leave("b");
    const recovered = client.once("recovered");
    const resync = client.once("resync");
    server.cut();
    await settle();
    assert.deepEqual(client.diagnostics().rooms, { first: "wanted", a: "wanted" });
    const late = client.join("c");
    await pass(1000);
    await late;
    const { data } = await recovered;
    assert.deepEqual(data.rooms, ["first", "a", "c"]);
    assert.deepEqual([data.denied, data.degraded, data.attempts], [[], false, 1]);
    assert.ok(data.offlineMs >= 750 && data.offlineMs <= 1000, data.offlineMs);
    assert.deepEqual(await resync, { data: null, meta: { reason: "recovered" } });
    const [connection] = server.connections;
    assert.deepEqual([...connection.rooms], ["first", "a", "c"]);
    // All of them in one request.
    const joins = server.received.filter(({ event }) => event === "join");
    assert.deepEqual(joins.at(-1).data.rooms, ["first", "a", "c"]);
  });

  test("a join that the bus has not confirmed waits for resync", async (t) => {
    const { client, server } = start(t);
    await client.ready();
    server.degraded = true;
    let isJoined = false;
    const join = client.join("a").then(() => (isJoined = true));
    assert.deepEqual(await client.join("a", { acceptDegraded: true }), { rooms: ["a"], degraded: true });
    await settle();
    assert.ok(!isJoined);
    server.resync(["other"], "confirmed");
    await settle();
    assert.ok(!isJoined);
    server.resync(["a"], "confirmed");
    await join;
  });

  test("a resync for everything does not confirm what was only just asked for", async (t) => {
    const { client, server } = start(t);
    await client.ready();
    server.isSilent = true;
    let isJoined = false;
    const join = client.join("a").then(() => (isJoined = true));
    const [connection] = server.connections;
    connection.write(JSON.stringify({ event: "resync", data: { rooms: null, reason: "bus" } }));
    await settle();
    assert.ok(!isJoined);
    connection.write(JSON.stringify({ event: "ack", id: "1", data: { rooms: ["a"], denied: [] } }));
    await join;
  });

  test("what is denied is refused, said, and not asked for again", async (t) => {
    const pass = takeClock(t);
    const { client, server } = start(t, { server: { deny: ["secret"] } });
    const denied = client.once("denied");
    const join = client.join(["open", "secret"]);
    await assert.rejects(join, { code: "denied", rooms: ["secret"] });
    assert.deepEqual((await denied).data, ["secret"]);
    server.cut();
    await pass(1000);
    assert.deepEqual([...[...server.connections][0].rooms], ["open"]);
  });

  test("leaving a room gives up a join that waits", async (t) => {
    const { client, server } = start(t);
    server.isDown = true;
    const join = client.join("a");
    await client.leave("a");
    await assert.rejects(join, { code: "left" });
  });

  test("an abort ends the waiting, not the wish", async (t) => {
    const pass = takeClock(t);
    const { client, server } = start(t);
    server.isDown = true;
    const abort = new AbortController();
    const join = client.join("a", { signal: abort.signal });
    abort.abort(new Error("enough"));
    await assert.rejects(join, /enough/);
    server.isDown = false;
    await pass(1000);
    assert.deepEqual(client.diagnostics().rooms, { a: "joined" });
  });

  test("the plain protocol answers nothing, and everything else works", async (t) => {
    const pass = takeClock(t);
    const { client, server } = start(t, { protocol: "plain", server: { protocol: "plain" } });
    await client.join("a");
    await settle();
    const heard = [];
    client.on("*", (data, { event, to }) => heard.push([event, data, to]));
    const off = client.on("resync", () => assert.fail("a producer is not the edge"));
    const own = client.once("message:resync");
    server.deliver({ room: "a", event: "e", data: 1 });
    server.deliver({ room: "a", event: "resync", data: 2 });
    assert.equal((await own).data, 2);
    assert.deepEqual(heard, [["e", 1, undefined], ["resync", 2, undefined]]);
    assert.equal(await client.request("pay", {}), undefined);
    assert.equal(client.diagnostics().protocol, "plain");
    off();
    server.cut();
    await pass(1000);
    assert.deepEqual([...[...server.connections][0].rooms], ["a"]);
  });

  test("a producer cannot speak for the edge", async (t) => {
    const { client, server } = start(t);
    await client.join("a");
    for (const event of ["resync", "goodbye", "state", "error", "ack", "connected"]) {
      const name = ["resync", "state", "error"].includes(event) ? `message:${event}` : event;
      const heard = client.once(name);
      server.deliver({ room: "a", event, data: { rooms: null } });
      assert.deepEqual((await heard).meta.to, { room: "a" });
      assert.equal(client.state, "online");
    }
  });
});

describe("events", () => {
  test("carry by what they came", async (t) => {
    const { client, server } = start(t, { credentials: { userId: "ann" } });
    await client.join("a");
    const metas = [];
    const off = client.on("e", (data, { to, room, id }) => metas.push([data, to, room, id]));
    server.deliver({ room: "a", event: "e", data: 1, id: "m-1" });
    server.deliver({ user: "ann", event: "e", data: 2 });
    server.deliver({ client: client.clientId, event: "e", data: 3 });
    server.deliver({ all: true, event: "e", data: 4 });
    await settle();
    assert.deepEqual(metas, [
      [1, { room: "a" }, "a", "m-1"],
      [2, { user: true }, undefined, undefined],
      [3, { client: true }, undefined, undefined],
      [4, { all: true }, undefined, undefined],
    ]);
    off();
    off();
    server.deliver({ all: true, event: "e", data: 5 });
    await settle();
    assert.equal(metas.length, 4);
  });

  test("are iterated over from the call on, until the client or the reader ends it", async (t) => {
    const { client, server } = start(t);
    await client.ready();
    const iterator = client.events("e");
    const { listeners } = client.diagnostics();
    for (const data of [1, 2, 3]) server.deliver({ all: true, event: "e", data });
    const seen = [];
    for await (const { data } of iterator) {
      seen.push(data);
      if (data === 3) break;
    }
    assert.deepEqual(seen, [1, 2, 3]);
    assert.equal(client.diagnostics().listeners, listeners - 2);
    const rest = client.events("e");
    const next = rest.next();
    client.close();
    assert.deepEqual(await next, { done: true, value: undefined });
  });

  test("an iterator and a wait end with their signal", async (t) => {
    const { client } = start(t);
    await client.ready();
    const { listeners } = client.diagnostics();
    const abort = new AbortController();
    const once = client.once("e", { signal: abort.signal });
    const next = client.events("e", { signal: abort.signal }).next();
    client.on("e", () => {}, { signal: abort.signal });
    abort.abort(new Error("enough"));
    await assert.rejects(once, /enough/);
    await assert.rejects(next, /enough/);
    assert.equal(client.diagnostics().listeners, listeners);
  });

  test("an iterator that is not read fails instead of losing events", async (t) => {
    const { client, server } = start(t);
    await client.ready();
    const iterator = client.events("e");
    for (let number = 0; number <= 10_000; number += 1) server.deliver({ all: true, event: "e" });
    await new Promise((resolve) => setImmediate(resolve));
    await assert.rejects(iterator.next(), { code: "overflow" });
  });
});

describe("requests", () => {
  test("are answered, refused, or late", async (t) => {
    const pass = takeClock(t);
    const { client, server } = start(t);
    server.on("sum", (numbers) => numbers.reduce((sum, number) => sum + number, 0));
    server.on("never", () => new Promise(() => {}));
    server.on("fails", () => {
      throw Object.assign(new Error("No"), { code: "failed" });
    });
    await client.ready();
    assert.equal(await client.request("sum", [1, 2, 3]), 6);
    await assert.rejects(client.request("fails"), { code: "failed", message: "No" });
    await assert.rejects(client.request("unknown"), { code: "unsupported" });
    const late = client.request("never", 1, { timeout: 100 });
    const abort = new AbortController();
    const aborted = client.request("never", 1, { signal: abort.signal });
    const lost = client.request("never");
    await settle();
    abort.abort();
    await assert.rejects(aborted, { name: "AbortError" });
    const checks = [assert.rejects(late, { code: "timeout" }), assert.rejects(lost, { code: "disconnected" })];
    await pass(100);
    server.cut();
    await Promise.all(checks);
    await assert.rejects(client.request("sum", []), { code: "offline" });
    assert.equal(client.diagnostics().waiting, 0);
  });

  test("a queue keeps them while offline, within its bound and their time", async (t) => {
    const pass = takeClock(t);
    const { client, server } = start(t, { queue: 2 });
    server.on("echo", (data) => data);
    server.isDown = true;
    const first = client.request("echo", 1);
    const hasty = assert.rejects(client.request("echo", 2, { timeout: 100 }), { code: "timeout" });
    await assert.rejects(client.request("echo", 3), { code: "offline" });
    await pass(100);
    await hasty;
    const third = client.request("echo", 3);
    server.isDown = false;
    await pass(1000);
    assert.deepEqual(await Promise.all([first, third]), [1, 3]);
  });

  test("one message too many bytes is not sent", async (t) => {
    const { client, server } = start(t);
    server.on("echo", (data) => data.length);
    await client.ready();
    await assert.rejects(client.request("echo", "x".repeat(131_072)), { code: "too_big" });
    assert.equal(await client.request("echo", "x".repeat(130_000)), 130_000);
  });
});

describe("credentials", () => {
  test("are renewed in place when they end", async (t) => {
    const reasons = [];
    let serial = 0;
    const getToken = ({ reason }) => (reasons.push(reason), `token-${(serial += 1)}`);
    const { client, server } = start(t, { getToken, rooms: ["a", "b"] });
    await client.ready();
    server.deny.add("b");
    const denied = client.once("denied");
    server.say("expiring", { in: 60_000 });
    assert.deepEqual((await server.next("refresh")).data, { token: "token-2" });
    // The new ones do not allow one of the rooms.
    assert.deepEqual((await denied).data, ["b"]);
    assert.deepEqual(reasons, ["login", "refresh"]);
    assert.equal(server.dials, 1);
  });

  test("a renewal that fails is tried again while there is time", async (t) => {
    const pass = takeClock(t);
    let fails = 2;
    const getToken = async ({ reason }) => {
      if (reason === "refresh" && (fails -= 1) >= 0) throw new Error("no network");
      return reason;
    };
    const { client, server } = start(t, { getToken });
    await settle();
    const errors = [];
    client.on("error", ({ message }) => errors.push(message));
    server.say("expiring", { in: 60_000 });
    await pass(0);
    await pass(5000);
    await pass(5000);
    assert.deepEqual(errors, ["no network", "no network"]);
    assert.equal(server.received.filter(({ event }) => event === "refresh").length, 1);
  });

  test("that were refused are not offered again; others are, once", async (t) => {
    const pass = takeClock(t);
    const login = ({ token }) => {
      if (token !== "good") throw new Error("Authentication failed");
      return {};
    };
    const same = start(t, { getToken: () => "bad", server: { login } });
    await pass(0);
    await pass(1000);
    assert.equal(same.client.state, "closed");
    assert.equal(same.states.at(-1).code, 4003);
    assert.equal(same.server.dials, 1);

    const renewed = start(t, { getToken: ({ reason }) => (reason === "refused" ? "good" : "bad"), server: { login } });
    await pass(0);
    await pass(1000);
    assert.equal(renewed.client.state, "online");

    let serial = 0;
    const guessing = start(t, { getToken: () => `bad-${(serial += 1)}`, server: { login } });
    await pass(0);
    await pass(1000);
    await pass(30_000);
    assert.equal(guessing.client.state, "closed");
    assert.equal(guessing.server.dials, 2);
  });

  test("that ended while the page slept are replaced", async (t) => {
    const pass = takeClock(t);
    let token = "old";
    const { client, server } = start(t, { getToken: () => token });
    await settle();
    token = "new";
    server.close(4500, "Credentials revoked");
    await pass(1000);
    assert.equal(client.state, "online");
    server.close(4500, "Credentials revoked");
    await pass(2000);
    assert.equal(client.state, "closed", "the same token was offered again");
  });

  test("an edge that could not judge them is asked again", async (t) => {
    const pass = takeClock(t);
    let isDown = true;
    const login = () => {
      if (isDown) throw Object.assign(new Error("Authentication error"), { code: "authentication_error" });
      return {};
    };
    for (const protocol of ["json", "plain"]) {
      isDown = true;
      const { client } = start(t, { protocol, server: { login, protocol } });
      await settle();
      assert.equal(client.state, "recovering");
      isDown = false;
      await pass(1000);
      assert.equal(client.state, "online");
    }
  });

  test("a token that cannot be had is tried for again", async (t) => {
    const pass = takeClock(t);
    let attempts = 0;
    const getToken = async () => {
      if ((attempts += 1) < 3) throw new Error("no token");
      return "token";
    };
    const { client, server, states } = start(t, { getToken });
    await pass(0);
    assert.equal(states.at(-1).reason, "no token");
    await pass(1000);
    await pass(2000);
    assert.equal(client.state, "online");
    assert.equal(server.dials, 1);
  });
});

describe("follow", () => {
  // A shop that publishes what it changes, after it has changed it.
  function shop(server) {
    const orders = [];
    const add = (id) => {
      orders.push(id);
      server.deliver({ room: "branch:1", event: "order.created", data: id });
    };
    return { orders, add };
  }

  // A view that keeps what it was told.
  function view() {
    const seen = new Set();
    return {
      seen,
      reset: (snapshot) => (seen.clear(), snapshot.forEach((id) => seen.add(id))),
      apply: (event, id) => seen.add(id),
    };
  }

  test("nothing is missed between the subscription and the snapshot", async (t) => {
    const { client, server } = start(t);
    const { orders, add } = shop(server);
    add(1);
    const { seen, reset, apply } = view();
    const load = async () => {
      add(2); // After the subscription, before the snapshot.
      const snapshot = [...orders];
      add(3); // After the snapshot, before it is here.
      await settle();
      return snapshot;
    };
    const { ready, stop } = client.follow("branch:1", { load, reset, apply });
    await ready;
    assert.deepEqual([...seen], [1, 2, 3]);
    add(4);
    await settle();
    assert.deepEqual([...seen], [1, 2, 3, 4]);
    stop();
    add(5);
    await settle();
    assert.equal(seen.size, 4);
  });

  test("a gap makes it load again, and what fails is tried again", async (t) => {
    const pass = takeClock(t);
    const { client, server } = start(t);
    const { orders, add } = shop(server);
    const { seen, reset, apply } = view();
    let loads = 0;
    const load = async () => {
      if ((loads += 1) === 2) throw new Error("the API is away");
      return [...orders];
    };
    const { ready } = client.follow("branch:1", { load, reset, apply, spreadMs: 0 });
    await ready;
    server.cut();
    await settle();
    orders.push(7); // Published while nobody listened.
    await pass(1000);
    await pass(1000);
    assert.equal(loads, 3);
    assert.deepEqual([...seen], [7]);
    server.resync(["elsewhere"]);
    await settle();
    assert.equal(loads, 3);
    server.resync(["branch:1"]);
    await pass(0);
    await pass(0);
    assert.equal(loads, 4);
    add(8);
    await settle();
    assert.deepEqual([...seen], [7, 8]);
  });

  test("a gap while it loads makes the load count for nothing", async (t) => {
    const { client, server } = start(t);
    const { orders } = shop(server);
    const { seen, reset, apply } = view();
    let loads = 0;
    const load = async () => {
      const snapshot = [...orders];
      if ((loads += 1) === 1) {
        server.resync(null);
        orders.push(9);
        await settle();
      }
      return snapshot;
    };
    await client.follow("branch:1", { load, reset, apply, spreadMs: 0 }).ready;
    assert.equal(loads, 2);
    assert.deepEqual([...seen], [9]);
  });

  test("it ends when the room is denied, and with its signal", async (t) => {
    const { client } = start(t, { server: { deny: ["secret"] } });
    const never = { load: () => assert.fail(), reset() {}, apply() {} };
    await client.ready();
    const { listeners } = client.diagnostics();
    await assert.rejects(client.follow("secret", never).ready, { code: "denied" });
    const abort = new AbortController();
    const load = () => new Promise(() => {});
    const { ready } = client.follow("open", { ...never, load, signal: abort.signal });
    abort.abort(new Error("enough"));
    await assert.rejects(ready, /enough/);
    assert.equal(client.diagnostics().listeners, listeners);
  });
});

describe("diagnostics", () => {
  test("say what happened, without credentials", async (t) => {
    const { client, server } = start(t, { getToken: () => "very-secret", credentials: { pin: 1234 } });
    await client.join("a");
    server.say("expiring", { in: 1000 });
    await server.next("refresh");
    const report = client.diagnostics();
    assert.equal(report.state, "online");
    assert.equal(report.protocol, "signal.v1.json");
    assert.deepEqual(report.server, { instance: "fake", version: "0" });
    assert.ok(Math.abs(report.clockSkewMs) < 1000);
    assert.deepEqual(report.history.map(({ state }) => state), ["connecting", "authenticating", "online"]);
    assert.ok(report.frames.some(({ way, event }) => way === "sent" && event === "join"));
    assert.doesNotMatch(JSON.stringify(report), /very-secret|1234/);
  });
});
