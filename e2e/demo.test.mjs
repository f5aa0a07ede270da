// The demo and its page, in a real browser: what someone sees who types the first command.

import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { chromium } from "playwright-core";

import { CHROMIUM, FLAGS } from "./browser.mjs";
import { DEADLINE_MS, Edge, scratch, signal, until } from "./support.mjs";

const SCREENSHOTS = process.env.E2E_SCREENSHOTS ?? scratch;

describe("the demo page", () => {
  let demo, browser;

  before(async () => {
    demo = await Edge.demo();
    browser = await chromium.launch({ executablePath: CHROMIUM, args: FLAGS });
  });

  after(async () => {
    await browser?.close();
    await demo.stop();
  });

  // Opens the page; what goes wrong in it is noted in `problems`.
  async function open(t, options = {}) {
    const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
    t.after(() => context.close());
    context.setDefaultTimeout(DEADLINE_MS);
    const page = await context.newPage();
    const problems = [];
    page.on("pageerror", (error) => problems.push(error.message));
    page.on("console", (message) => message.type() === "error" && problems.push(message.text()));
    page.on("requestfailed", (request) => problems.push(`failed: ${request.url()}`));
    await page.goto(`http://${demo.address}/`);
    return { page, problems };
  }

  const state = (page, view, wanted) =>
    page.locator(`[data-testid=${view}-state][data-state=${wanted}]`).waitFor();

  async function connected(page) {
    await Promise.all([state(page, "pos", "online"), state(page, "admin", "online")]);
  }

  const ticket = (branch, more = "") => `[data-testid=ticket][data-branch="${branch}"]${more}`;

  test("says in the terminal where it is and what to try next", async () => {
    const output = demo.lines.join("\n");
    assert.ok(output.includes(`http://${demo.address}`), output);
    for (const command of ["signal tail", "signal emit", "signal token"]) {
      assert.ok(output.includes(command), output);
    }
  });

  test("both views connect, as two users", async (t) => {
    const { page, problems } = await open(t);
    await connected(page);
    assert.match(await page.getByTestId("pos-identity").textContent(), /user pos-1/);
    assert.match(await page.getByTestId("admin-identity").textContent(), /user admin/);
    assert.deepEqual(problems, []);
  });

  test("an order arrives at the till of its branch, and then its payment", async (t) => {
    const { page, problems } = await open(t);
    const waiting = page.locator(ticket(1, "[data-payment=waiting]")).first();
    const id = await waiting.getAttribute("data-order");
    const paid = page.locator(ticket(1, `[data-payment=paid][data-order="${id}"]`)).first();
    await paid.waitFor();
    assert.match(await paid.textContent(), /o-\d+.*paid by (card|cash).*\d+\.\d\d/s);
    await page.getByTestId("median").filter({ hasText: /median <?\d+(\.\d)? ms/ }).waitFor();
    await page.screenshot({ path: join(SCREENSHOTS, "demo.png") });
    assert.deepEqual(problems, []);
  });

  test("another branch brings other orders, and no more of the first", async (t) => {
    const { page, problems } = await open(t);
    await page.locator(ticket(1)).first().waitFor();
    await page.getByLabel("Branch 3").check();
    const third = page.locator(ticket(3));
    await third.first().waitFor();
    // What was under way at the click may still have come; from here on a stranger is a mistake.
    const early = await page.locator(ticket(1)).count();
    const orders = page.locator('[data-testid=order][data-branch="1"]');
    const ordersOfFirst = await orders.count();
    await until("more orders of both branches", async () => {
      return (await orders.count()) >= ordersOfFirst + 2 && (await third.count()) >= 2;
    });
    assert.equal(await page.locator(ticket(1)).count(), early);
    assert.equal(await page.locator(ticket(2)).count(), 0);
    assert.deepEqual(problems, []);
  });

  test("the branch can be chosen with the keyboard", async (t) => {
    const { page } = await open(t);
    await page.getByLabel("Branch 1").focus();
    await page.keyboard.press("ArrowRight");
    await page.locator(ticket(2)).first().waitFor();
    assert.ok(await page.getByLabel("Branch 2").isChecked());
  });

  test("the admin board shows an order, then its payment, of every branch", async (t) => {
    const { page, problems } = await open(t);
    const waiting = page.locator("[data-testid=order][data-payment=waiting]").first();
    const id = await waiting.getAttribute("data-order");
    const done = `[data-order="${id}"]:not([data-payment=waiting])`;
    await page.locator(`[data-testid=order]${done}`).waitFor();
    for (const branch of [1, 2, 3]) {
      await page.locator(`[data-testid=order][data-branch="${branch}"]`).first().waitFor();
    }
    await page.locator("[data-testid=order][data-payment=flagged]").first().waitFor();
    assert.match(await page.getByTestId("captured").textContent(), /\d+\.\d\d/);
    assert.notEqual(await page.getByTestId("count-flagged").textContent(), "0");
    assert.deepEqual(problems, []);
  });

  test("it shows who got what", async (t) => {
    const { page, problems } = await open(t);
    const delivery = (what) => page.locator(`[data-testid=delivery]${what}`).first();
    await delivery('[data-event="order.created"][data-got="admin pos"]').waitFor();
    await delivery('[data-event="order.created"][data-got="admin"]').waitFor();
    await delivery('[data-event="payment.flagged"][data-got="admin"]').waitFor();
    const emitted = await emit(["--all", "--event", "notice", "--data", '{"text":"<b>hello</b>"}']);
    assert.equal(emitted.code, 0, emitted.stderr);
    await delivery('[data-got="admin pos"][data-subject="<b>hello</b>"]').waitFor();
    for (const view of ["pos", "admin"]) {
      const notice = page.getByTestId(`${view}-notice`).filter({ hasText: "<b>hello</b>" });
      await notice.waitFor();
      await page.getByTestId(`${view}-frames`).locator("summary").click();
      const frames = page.getByTestId(`${view}-frames`).locator("li");
      await frames.filter({ hasText: '{"event":"notice","data":{"text":"<b>hello</b>"},"to":{"all":true}}' }).waitFor();
    }
    assert.deepEqual(problems, []);
  });

  // The command that the demo prints, with other arguments.
  function emit(args) {
    const line = demo.lines.find((line) => line.includes("signal emit"));
    const [, via, key] = /--via (\S+) --key (\S+)/.exec(line);
    return signal(["emit", "--via", via, "--key", key, ...args]);
  }

  test("it fits on a phone, light and dark", async (t) => {
    for (const colorScheme of ["light", "dark"]) {
      const { page } = await open(t, { viewport: { width: 390, height: 844 }, colorScheme });
      await page.locator(ticket(1)).first().waitFor();
      const width = await page.evaluate(() => document.documentElement.scrollWidth);
      assert.equal(width, 390);
      await page.screenshot({ path: join(SCREENSHOTS, `phone-${colorScheme}.png`), fullPage: true });
    }
  });

  test("a connection is cut, and what happened meanwhile is there when it is back", async (t) => {
    const { page, problems } = await open(t);
    await connected(page);
    for (const view of ["pos", "admin"]) {
      await page.getByTestId(`${view}-cut`).focus();
      await page.keyboard.press("Enter");
      await state(page, view, "recovering");
      assert.match(await page.getByTestId(`${view}-detail`).textContent(), /attempt \d+ in \d\.\d s/);
      // The other view goes on.
      const orders = await page.locator("[data-testid=order]").count();
      const tickets = await page.locator("[data-testid=ticket]").count();
      await state(page, view, "online");
      const notice = page.getByTestId(`${view}-notice`);
      await notice.filter({ hasText: /Back after \d+\.\d s and \d+ attempts?: \d+ that happened/ }).waitFor();
      assert.ok((await page.locator("[data-testid=order]").count()) > orders);
      assert.ok((await page.locator("[data-testid=ticket]").count()) > tickets);
    }
    // The totals are those of a page that has heard everything.
    const { page: fresh } = await open(t);
    await connected(fresh);
    await until("equal totals", async () => {
      const totals = (page) => page.locator("dd").allTextContents();
      return String(await totals(page)) === String(await totals(fresh));
    });
    assert.deepEqual(problems, []);
  });

  test("an order that is placed at the till arrives at both views", async (t) => {
    const { page, problems } = await open(t);
    await page.getByLabel("Branch 3").check();
    await connected(page);
    const before = await page.locator(ticket(3)).count();
    for (let click = 0; click < 3; click += 1) await page.getByTestId("place").click();
    // More than the made-up service places in the same time.
    await until("three tickets", async () => (await page.locator(ticket(3)).count()) >= before + 3);
    const id = await page.locator(ticket(3)).first().getAttribute("data-order");
    await page.locator(`[data-testid=order][data-order="${id}"]`).waitFor();
    assert.deepEqual(problems, []);
  });

  test("the theme can be chosen, and is remembered", async (t) => {
    const { page } = await open(t, { colorScheme: "light" });
    const paper = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const light = await paper();
    await page.getByTestId("theme").click();
    await page.getByTestId("theme").click();
    assert.notEqual(await paper(), light);
    await page.reload();
    assert.notEqual(await paper(), light);
  });

  test("everything has a name, and no live region speaks without need", async (t) => {
    const { page } = await open(t);
    await connected(page);
    const unnamed = await page.evaluate(() => {
      const controls = document.querySelectorAll("button, a, input, [tabindex='0']");
      return [...controls]
        .filter((node) => !(node.ariaLabel || node.textContent.trim() || node.labels?.length))
        .map((node) => node.outerHTML);
    });
    assert.deepEqual(unnamed, []);
    // States, notices, and the newest order of the till.
    assert.equal(await page.locator("[role=status], [aria-live]").count(), 5);
    const ids = await page.evaluate(() => [...document.querySelectorAll("[id]")].map(({ id }) => id));
    assert.equal(new Set(ids).size, ids.length);
  });

  test("it comes back when the demo does", async (t) => {
    const { page } = await open(t);
    await page.getByLabel("Branch 2").check();
    await page.locator(ticket(2)).first().waitFor();
    await demo.stop("SIGKILL");
    await Promise.all([state(page, "pos", "recovering"), state(page, "admin", "recovering")]);
    demo = await Edge.demo({ SIGNAL_LISTEN: demo.address });
    await connected(page);
    const tickets = await page.locator(ticket(2)).count();
    await until("a further ticket", async () => (await page.locator(ticket(2)).count()) > tickets);
    assert.equal(await page.locator(ticket(1)).count(), 0);
  });

  test("it leaves nothing behind", () => demo.forgotten());
});
