// Pictures of the demo page for the documents: desktop light and dark, and a phone. Beside them it writes
// of what they were taken, which pictures.test.mjs compares.
//
//   node screenshots.mjs [folder]        default: ../docs/screenshots

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { chromium } from "playwright-core";

import { CHROMIUM, FLAGS } from "./browser.mjs";
import { FOLDER, manifest, manifestPath } from "./pictures.mjs";
import { Edge, until } from "./support.mjs";

const folder = process.argv[2] ?? FOLDER;
const SIZES = { desktop: { width: 1440, height: 860 }, phone: { width: 390, height: 800 } };
const EVENTS_MIN = 24;

mkdirSync(folder, { recursive: true });
// Before the page is opened: what changes meanwhile is not on the pictures.
const { sources } = manifest(folder);
const demo = await Edge.demo();
const browser = await chromium.launch({ executablePath: CHROMIUM, args: FLAGS });
try {
  for (const [size, colorScheme, view] of [
    ["desktop", "light"],
    ["desktop", "dark"],
    ["phone", "light", "POS"],
    ["phone", "dark", "Admin"],
  ]) {
    const viewport = SIZES[size];
    const deviceScaleFactor = size === "phone" ? 2 : 1;
    const context = await browser.newContext({ viewport, colorScheme, deviceScaleFactor, reducedMotion: "reduce" });
    const page = await context.newPage();
    await page.goto(`http://${demo.address}/`);
    const deliveries = page.getByTestId("delivery");
    await until("events to show", async () => (await deliveries.count()) >= EVENTS_MIN);
    if (view) await page.getByRole("link", { name: view }).click();
    // The dark one shows a connection that was lost.
    if (size === "desktop" && colorScheme === "dark") {
      await page.getByTestId("pos-cut").click();
      await page.locator("[data-testid=pos-state][data-state=recovering]").waitFor();
    }
    await page.mouse.move(0, 0);
    await page.screenshot({ path: join(folder, `demo-${size}-${colorScheme}.png`) });
    await context.close();
  }
  const taken = { sources, pictures: manifest(folder).pictures };
  writeFileSync(manifestPath(folder), `${JSON.stringify(taken, null, 2)}\n`);
} finally {
  await browser.close();
  await demo.stop();
}
