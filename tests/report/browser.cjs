// What a browser says of a page, as JSON: run by test_browser.py.
"use strict";
const fs = require("fs");
const path = require("path");
const [, , page_path, browser_path, modules] = process.argv;
const puppeteer = require(path.join(modules, "puppeteer-core"));
const axe = fs.readFileSync(path.join(modules, "axe-core", "axe.min.js"), "utf8");

(async () => {
  const browser = await puppeteer.launch({ executablePath: browser_path, args: ["--no-sandbox", "--disable-gpu"] });
  const found = { views: [], grounds: {}, sorted: [], folds: {} };
  const colours = (page) => page.evaluate(() => {
    const said = getComputedStyle(document.documentElement);
    return { ink: said.getPropertyValue("--ink").trim(), ground: said.getPropertyValue("--ground").trim() };
  });
  for (const scheme of ["light", "dark"]) {
    for (const width of [360, 768, 1280]) {
      const page = await browser.newPage();
      const complaints = [];
      page.on("console", (it) => { if (["error", "warning"].includes(it.type())) complaints.push(it.text()); });
      page.on("pageerror", (it) => complaints.push(String(it)));
      page.on("requestfailed", (it) => complaints.push(it.url()));
      await page.setViewport({ width, height: 900 });
      await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
      await page.goto("file://" + page_path);
      const sideways = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
      await page.evaluate(axe);
      const audit = await page.evaluate(() => axe.run(document));
      const violations = audit.violations.map((it) => `${it.impact} ${it.id}: ${it.nodes[0].html.slice(0, 200)}`);
      found.grounds[scheme] = await colours(page);
      found.views.push({ name: `${scheme} ${width}`, complaints, sideways, violations });
      await page.close();
    }
  }
  const page = await browser.newPage();
  await page.goto("file://" + page_path);
  for (let i = 0; i < 2; i += 1) {
    const table = "section:last-of-type table.sortable";
    await page.focus(`${table} thead th:nth-child(2) button`);
    await page.keyboard.press("Enter");
    found.sorted.push(await page.$eval(table, (it) => [
      ...[...it.tBodies[0].rows].map((row) => row.cells[0].textContent),
      it.tHead.rows[0].cells[1].getAttribute("aria-sort"),
    ]));
  }
  const open = () => page.$$eval("details[open]", (all) => all.length);
  found.folds.before = await open();
  await page.evaluate(() => dispatchEvent(new Event("beforeprint")));
  found.folds.paper = await open();
  await page.evaluate(() => dispatchEvent(new Event("afterprint")));
  found.folds.after = await open();
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: "dark" }]);
  await page.emulateMediaType("print");
  found.grounds.print = await colours(page);
  found.split = await page.$$eval(".panel", (all) =>
    all.filter((it) => getComputedStyle(it).breakInside !== "avoid").length);
  await browser.close();
  console.log(JSON.stringify(found));
})().catch((error) => { console.error(error); process.exit(1); });
