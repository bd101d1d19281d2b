// A report of drover-load in a real Chromium: wide and on a phone, light and dark. Prints what was seen as JSON; the test judges it.
// report.cjs FILE FOLDER: the page, and where pictures go.
const { chromium } = require("playwright-core");
const { pathToFileURL } = require("node:url");

const [file, folder] = process.argv.slice(2);
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const LOOKS = [
  ["light", { viewport: { width: 1280, height: 800 }, colorScheme: "light" }],
  ["dark", { viewport: { width: 1280, height: 800 }, colorScheme: "dark" }],
  ["phone", { viewport: { width: 390, height: 844 }, colorScheme: "light", deviceScaleFactor: 2, isMobile: true, hasTouch: true }],
];

/** What can be seen of the page, in CSS pixels. Runs in the page. */
function seen() {
  const letters = [];
  for (const element of document.querySelectorAll("main *")) {
    const isText = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
    if (!isText || element.getClientRects().length === 0) continue;
    const drawing = element.closest("svg");
    const scale = drawing ? drawing.getBoundingClientRect().width / drawing.viewBox.baseVal.width : 1;
    letters.push(parseFloat(getComputedStyle(element).fontSize) * scale);
  }
  const faults = [];
  for (const drawing of document.querySelectorAll("svg")) {
    const frame = drawing.getBoundingClientRect();
    const labels = [...drawing.querySelectorAll("text")].map((text) => [text.textContent, text.getBoundingClientRect()]);
    labels.forEach(([label, box], at) => {
      const name = `${label} of ${drawing.getAttribute("aria-label")}`;
      if (box.left < frame.left - 1 || box.right > frame.right + 1) faults.push(`${name} is cut off`);
      for (const [other, its] of labels.slice(at + 1)) {
        const wide = Math.min(box.right, its.right) - Math.max(box.left, its.left);
        const high = Math.min(box.bottom, its.bottom) - Math.max(box.top, its.top);
        if (wide > 2 && high > 2) faults.push(`${name} lies over ${other}`);
      }
    });
  }
  return {
    too_wide_px: document.documentElement.scrollWidth - innerWidth,
    letters_px: Math.min(...letters),
    faults,
    drawings: document.querySelectorAll("figure svg").length,
    verdict: document.querySelector(".verdict").textContent,
    judged: document.querySelectorAll(".judged tr").length,
    background: getComputedStyle(document.body).backgroundColor,
  };
}

async function run() {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: FLAGS });
  const looks = {};
  for (const [look, options] of LOOKS) {
    const context = await browser.newContext(options);
    const page = await context.newPage();
    const [errors, asked] = [[], []];
    page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
    page.on("request", (request) => asked.push(request.url()));
    await page.goto(pathToFileURL(file).href);
    looks[look] = { ...(await page.evaluate(seen)), errors, asked: asked.length };
    await page.screenshot({ path: `${folder}/${look}.png`, fullPage: true });
    await context.close();
  }
  await browser.close();
  console.log(JSON.stringify(looks));
}

run().catch((error) => {
  console.error(error);
  process.exit(1);
});
