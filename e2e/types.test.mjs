// The types of the JavaScript client: what applications write with them compiles, what is wrong does not,
// and they say what is there and nothing else.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import ts from "typescript";

import * as client from "../clients/js/dist/signal.js";
import * as testing from "../clients/js/src/testing.js";

const path = (name) => fileURLToPath(new URL(name, import.meta.url));
const TSC = path("node_modules/typescript/bin/tsc");

function compile(project) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [TSC, "-p", path(project)], { encoding: "utf8" });
  assert.equal(status, 0, stdout + stderr);
}

// What a file of types exports: constants and functions, and of classes and interfaces the members.
function exported(name) {
  const source = ts.createSourceFile(name, readFileSync(path(name), "utf8"), ts.ScriptTarget.Latest, true);
  const found = { values: [], types: [], members: {} };
  for (const node of source.statements) {
    if (!node.modifiers?.some(({ kind }) => kind === ts.SyntaxKind.ExportKeyword)) continue;
    const names = node.declarationList?.declarations ?? [node];
    for (const { name } of names) {
      const isType = ts.isInterfaceDeclaration(node) || ts.isTypeAliasDeclaration(node);
      found[isType ? "types" : "values"].push(name.text);
      if (ts.isClassDeclaration(node) || ts.isInterfaceDeclaration(node)) {
        const members = node.members.filter((member) => member.name);
        found.members[name.text] = new Map(members.map((member) => [memberName(member), !member.questionToken]));
      }
    }
  }
  return found;
}

const memberName = ({ name }) => name.text ?? name.getText();
const unique = (names) => [...new Set(names)].sort();

const CLIENT = exported("../clients/js/src/signal.d.ts");
const TESTING = exported("../clients/js/src/testing.d.ts");

// Every member that has to be there is, and none is there that is not declared.
function assertMembers(members, names) {
  const undeclared = names.filter((name) => !members.has(name));
  assert.deepEqual(undeclared, []);
  const missing = [...members].filter(([name, isNeeded]) => isNeeded && !names.includes(name));
  assert.deepEqual(missing, []);
}

const present = (object) => Object.keys(object).filter((name) => object[name] !== undefined);
const methods = ({ prototype }) => Object.getOwnPropertyNames(prototype).filter((name) => name !== "constructor");

test("what applications write compiles, and what is wrong does not", () => compile("types/tsconfig.json"));

test("what applications write names every public thing", () => {
  for (const [{ values, types, members }, name] of [
    [CLIENT, "types/client.ts"],
    [TESTING, "types/testing.ts"],
  ]) {
    const text = readFileSync(path(name), "utf8");
    const names = [...values, ...types, ...Object.values(members).flatMap((of) => [...of.keys()])];
    const missing = unique(names).filter((each) => !text.includes(each === "*" ? '"*"' : each));
    assert.deepEqual(missing, [], name);
  }
});

test("the sources agree with what they say of themselves", () => compile("types/sources.json"));

test("what is exported is declared, and the other way round", () => {
  assert.deepEqual(unique(CLIENT.values), Object.keys(client).sort());
  assert.deepEqual(unique(TESTING.values), Object.keys(testing).sort());
});

test("classes have the members that are declared, and no others", () => {
  const signal = new client.Signal({ url: "ws://test", WebSocket: new testing.FakeServer().WebSocket });
  assertMembers(CLIENT.members.Signal, [...methods(client.Signal), ...Object.keys(signal)]);
  signal.close();
  const details = { rooms: ["r"], closeCode: 4003 };
  const error = new client.SignalError("denied", "no", details);
  assertMembers(CLIENT.members.SignalError, Object.keys(error).filter((name) => name !== "name"));
  const server = new testing.FakeServer();
  assertMembers(TESTING.members.FakeServer, [...methods(testing.FakeServer), ...Object.keys(server)]);
});

test("what applications are handed has the members that are declared, and no others", async () => {
  const server = new testing.FakeServer({ deny: ["office"] });
  const seen = { StateChange: [], Frame: [], Meta: [], Recovered: [] };
  const options = { url: "ws://test", WebSocket: server.WebSocket, reconnect: { minMs: 1 }, random: () => 0 };
  const signal = client.connect(options);
  signal.on("state", (change) => seen.StateChange.push(change));
  signal.on("frame", (frame) => seen.Frame.push(frame));
  signal.on("recovered", (recovered) => seen.Recovered.push(recovered));
  signal.on("*", (data, meta) => seen.Meta.push(meta));
  await signal.join("r");
  await assert.rejects(signal.join("office"));
  const heard = signal.once("e");
  server.deliver({ room: "r", event: "e", data: 1, id: "m-1" });
  await heard;
  const [connection] = server.connections;
  for (const name of TESTING.members.FakeConnection.keys()) assert.ok(name in connection, name);
  for (const message of server.received) assertMembers(TESTING.members.FakeMessage, present(message));
  const recovered = signal.once("recovered");
  server.cut();
  await recovered;
  for (const [name, objects] of Object.entries(seen)) {
    assert.ok(objects.length > 0, name);
    for (const object of objects) assertMembers(CLIENT.members[name], present(object));
  }
  assertMembers(CLIENT.members.Diagnostics, present(signal.diagnostics()));
  signal.close();
});
