// The console in a real Chromium, as a person uses it. Prints what was seen as JSON; the test judges it.
// console.cjs SERVER MQTT LINK TOKEN FOLDER MOVES: the gateway, the port of MQTT, a one-time link, an admin token, where
// pictures go, and how many messages the curve is watched for, one a second.
const { chromium } = require("playwright-core");
const { once } = require("node:events");
const net = require("node:net");
const { setTimeout: sleep } = require("node:timers/promises");

const [server, mqtt, link, token, folder, moves] = process.argv.slice(2);
const FLEET = 50;
/** Messages of `curveMoves`, and those that then come at once. */
const MOVES = Number(moves);
const BURST = 40;
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const seen = { errors: [], within_ms: [], states: [] };

async function rest(method, path, body) {
  const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" };
  const answer = await fetch(`${server}/api/v1/${path}`, { method, headers, body: body && JSON.stringify(body) });
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`);
  return answer.json();
}

async function update(key, fields) {
  const answer = await fetch(`${server}/update?api_key=${key}`, { method: "POST", body: new URLSearchParams(fields) });
  if (!answer.ok) throw new Error(`update: ${answer.status}`);
  return Number(await answer.text());
}

/** Connects a device by MQTT 3.1.1; what it answers disconnects it. */
async function attach(device, key) {
  const text = (value) => Buffer.concat([Buffer.from([value.length >> 8, value.length & 255]), Buffer.from(value)]);
  const head = Buffer.from([4, 0xc2, 0, 60]); // level 4; user name, password, clean session; keep alive 60 s
  const body = Buffer.concat([text("MQTT"), head, text(device), text(device), text(key)]);
  const length = body.length < 128 ? [body.length] : [(body.length & 127) | 128, body.length >> 7];
  const socket = net.connect(Number(mqtt), "127.0.0.1");
  socket.on("error", (error) => seen.errors.push(`mqtt: ${error}`));
  socket.write(Buffer.concat([Buffer.from([0x10, ...length]), body]));
  const [ack] = await once(socket, "data");
  if (ack[0] !== 0x20 || ack[3] !== 0) throw new Error(`${device} got ${ack.toString("hex")} for its CONNECT`);
  return () => socket.end(Buffer.from([0xe0, 0]));
}

/** Devices that publish by HTTP once a second until `stop`. */
async function fleet() {
  const keys = [];
  for (let i = 0; i < FLEET; i += 1) keys.push((await rest("POST", "devices", { metadata: { name: `fleet-${String(i).padStart(2, "0")}` } })).token);
  let running = true;
  const work = keys.map(async (key, i) => {
    for (let n = 0; running; n += 1) {
      const round = sleep(1000);
      await update(key, { field1: (20 + 5 * Math.sin((n + i) / 4)).toFixed(2), field2: 100 + n, status: "ok" });
      await round;
    }
  });
  const stop = async () => {
    running = false;
    await Promise.all(work);
  };
  return { keys, stop };
}

function watch(page, what) {
  page.on("console", (message) => message.type() === "error" && seen.errors.push(`${what}: ${message.text()}`));
  page.on("pageerror", (error) => seen.errors.push(`${what}: ${error}`));
}

async function picture(page, name) {
  await page.screenshot({ path: `${folder}/${name}.png`, fullPage: true });
}

/** Bytes that the network brought for a page that nothing was kept of, until it shows `part`. */
async function weigh(context, url, part) {
  const page = await context.newPage();
  const client = await context.newCDPSession(page);
  let bytes = 0;
  await client.send("Network.enable");
  await client.send("Network.setCacheDisabled", { cacheDisabled: true });
  client.on("Network.dataReceived", ({ encodedDataLength, dataLength }) => (bytes += encodedDataLength || dataLength));
  await page.goto(url);
  await page.locator(part).first().waitFor();
  await page.close();
  return bytes;
}

async function connectByName(page) {
  await page.goto(`${server}/connect`);
  await page.locator("#name:focus").waitFor(); // a page has loaded before `autofocus` has moved the focus
  await page.keyboard.type("lamp-1");
  await page.keyboard.press("Enter");
  await page.locator("#arrival").waitFor();
  seen.tabs = await page.getByRole("tab").allTextContents();
  await page.getByRole("tab").first().focus();
  await page.keyboard.press("ArrowRight");
  seen.second_program = await page.locator("[role=tabpanel]:visible code").textContent();
  await page.keyboard.press("ArrowLeft");
  await picture(page, "connect-light");
  const key = await page.locator("#token").textContent();
  seen.entry = await update(key, { field1: "5", field2: "on" });
  await page.locator("#arrival[data-state=arrived]").waitFor();
  seen.arrival = await page.locator("#arrival-text").textContent();
  await page.locator("#arrival-link").click();
  return key;
}

async function curveMoves(page, key) {
  await page.goto(`${server}/devices/lamp-1`);
  await page.locator("#stream-state[data-live]").waitFor();
  const chart = page.locator("#chart canvas");
  for (let n = 1; n <= MOVES; n += 1) {
    const value = 20 + 4 * Math.sin(n / 2) + n / 10;
    const text = value.toFixed(3);
    const began = Date.now();
    await update(key, { field1: text, field2: "on" });
    await page.locator(`#chart[data-newest="${Number(text)}"]`).waitFor({ timeout: 10_000 });
    seen.within_ms.push(Date.now() - began);
    await sleep(1000); // the next one is in another step
  }
  seen.points = Number(await page.locator("#chart").getAttribute("data-points"));
  seen.now = await page.locator("#now").textContent();
  seen.messages = await page.locator("#messages li").count();
  seen.drawn = await chart.evaluate((canvas) => canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some((byte) => byte !== 0));
}

/** Steps of the last `seconds` of a number as REST tells them, on the grid of the console. */
async function stepsOf(device, field, seconds, step) {
  const from = Math.ceil((Date.now() / 1000 - seconds) / step) * step * 1000;
  return (await rest("GET", `devices/${device}/telemetry?field=${field}&from=${from}&step=${step}s`)).items;
}

/** The steps of the lamp's hour once storage has so many messages of it. */
async function lampHour(messages) {
  let stored;
  for (let looks = 0; looks < 300; looks += 1) {
    const steps = await stepsOf("lamp-1", "field1", 3600, 6);
    stored = steps.reduce((sum, { count }) => sum + count, 0);
    if (stored === messages) return steps;
    await sleep(100);
  }
  throw new Error(`${stored} of ${messages} messages are stored`);
}

function drawn(page) {
  return page.locator("#chart").evaluate(({ dataset }) => ({ points: Number(dataset.points), last: Number(dataset.last) }));
}

/** Messages that come fast are drawn as the history tells of them: one point a step, its average. */
async function curveFolds(page, key) {
  await lampHour(1 + MOVES); // one was of `connectByName`
  const hour = page.waitForResponse((answer) => answer.url().includes("step=6s"));
  await page.locator(".ranges button", { hasText: "1 h" }).click();
  seen.pressed = await page.locator(".ranges button[aria-pressed=true]").textContent();
  await hour;
  await page.locator("#chart:not([data-points='0'])").waitFor();
  for (let n = 1; n <= BURST; n += 1) await update(key, { field1: n / 2, field2: "on" });
  await page.locator(`#chart[data-newest="${BURST / 2}"]`).waitFor();
  const steps = await lampHour(1 + MOVES + BURST);
  seen.folded = { drawn: await drawn(page), told: { points: steps.length, last: steps.at(-1).average } };
  await page.locator(".ranges button", { hasText: "5 min" }).click();
  await page.locator("#chart[data-last]:not([data-last=''])").waitFor();
}

/** Another number is chosen, and its curve is drawn and moves. */
async function choosesField(page) {
  await page.goto(`${server}/devices/fleet-00`);
  await page.locator("#stream-state[data-live]").waitFor();
  const before = await page.locator("#values [aria-pressed=true]").getAttribute("data-field");
  await page.locator('#values [data-field="field2"]').click();
  await page.locator('#chart[data-newest]:not([data-newest=""])').waitFor();
  const first = await drawn(page);
  await page.waitForFunction((last) => Number(document.getElementById("chart").dataset.last) > last, first.last);
  const after = await page.locator("#values [aria-pressed=true]").getAttribute("data-field");
  seen.chosen = { fields: [before, after, await page.locator("#now-field").textContent()], first: first.last, points: (await drawn(page)).points };
}

/** The server's answers about a span have at most so many steps from now on. */
async function inPagesOf(page, limit) {
  await page.unroute(/\/telemetry\?/);
  await page.route(/\/telemetry\?/, (route) => {
    const url = new URL(route.request().url());
    url.searchParams.set("limit", limit);
    return route.continue({ url: url.href });
  });
}

/** A history that comes in several answers is read to its end; where it is too long the page says how far it was read. */
async function readsOn(page) {
  let steps = [];
  for (; steps.length < 20; await sleep(500)) steps = await stepsOf("fleet-00", "field1", 300, 1);
  await inPagesOf(page, Math.ceil(steps.length / 5));
  await page.goto(`${server}/devices/fleet-00`);
  const reaches = (least) => Number(document.getElementById("chart").dataset.points) >= least;
  await page.waitForFunction(reaches, steps.length - 5, { timeout: 5_000 }); // some have left the span; by live messages alone it takes longer
  const note = page.locator("#chart-note");
  await note.waitFor({ state: "hidden" });
  await inPagesOf(page, 1);
  await page.reload();
  await note.filter({ hasText: "history is drawn until" }).waitFor();
  const newest = await page.locator("#chart").getAttribute("data-newest");
  await page.waitForFunction((before) => document.getElementById("chart").dataset.newest !== before, newest);
  seen.note_of_part = await note.isVisible();
  await page.unroute(/\/telemetry\?/);
}

/** A device that sends by HTTP moves its "last seen", and its state follows when it connects and leaves. */
async function rowChanges(page, device, key) {
  const row = page.locator(`#devices tr[data-device="${device}"]`);
  const state = async (phase) => {
    await row.locator(`.state[data-phase=${phase}]`).waitFor();
    seen.states.push(await row.locator(".state").textContent());
  };
  await state("Disconnected");
  const before = await row.locator(".seen time").getAttribute("datetime");
  const moved = ([name, before]) => Date.parse(document.querySelector(`#devices tr[data-device="${name}"] .seen time`).dateTime) > Date.parse(before);
  await page.waitForFunction(moved, [device, before]);
  const leave = await attach(device, key);
  await state("Connected");
  leave();
  await state("Disconnected");
}

async function fits(page, look, what) {
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  if (wide > 0) seen.errors.push(`${look}: ${what} is ${wide} px too wide`);
}

async function pictures(browser, state) {
  const looks = [
    ["light", { viewport: { width: 1280, height: 800 }, colorScheme: "light" }],
    ["dark", { viewport: { width: 1280, height: 800 }, colorScheme: "dark" }],
    ["phone", { viewport: { width: 390, height: 844 }, colorScheme: "light", deviceScaleFactor: 2, isMobile: true, hasTouch: true }],
  ];
  for (const [look, options] of looks) {
    const context = await browser.newContext({ ...options, storageState: state });
    const page = await context.newPage();
    watch(page, look);
    await page.goto(`${server}/`);
    await fits(page, look, "the list");
    await picture(page, `devices-${look}`);
    await page.goto(`${server}/connect`);
    await fits(page, look, "connecting");
    for (const device of ["lamp-1", "fleet-00"]) {
      await page.goto(`${server}/devices/${device}`);
      await page.locator("#stream-state[data-live]").waitFor();
      if (device === "fleet-00") await page.waitForFunction(() => Number(document.getElementById("chart").dataset.points) >= 4);
      await fits(page, look, device);
      await picture(page, `${device}-${look}`);
    }
    await page.goto(`${server}/live`);
    await page.locator("#messages li").first().waitFor();
    await fits(page, look, "live");
    await picture(page, `live-${look}`);
    await context.close();
  }
}

/** A live page that is refused, and whose session then ends elsewhere. */
async function signsOut(context) {
  const page = await context.newPage(); // not watched: its browser complains of what is refused
  await page.route(/\/stream\?/, (route) => route.fulfill({ status: 503 }));
  await page.goto(`${server}/live`);
  const state = page.locator("#stream-state");
  await state.filter({ hasText: "Connecting" }).waitFor();
  const other = await context.newPage();
  await other.goto(`${server}/`);
  await other.getByRole("button", { name: "Sign out" }).click();
  await other.locator("main", { hasText: "drover open" }).waitFor();
  await page.unroute(/\/stream\?/);
  await state.filter({ hasText: "Signed out" }).waitFor();
  seen.signed_out = true;
}

async function run() {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: FLAGS });
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
  const page = await context.newPage();
  const answer = await page.goto(`${server}/`);
  seen.stranger = { status: answer.status(), says_how: (await page.textContent("main")).includes("drover open") };
  await picture(page, "sign-in-light");
  watch(page, "page");
  await page.goto(link);
  await page.waitForURL(`${server}/`);
  seen.empty = await page.locator(".empty h2").textContent();
  await picture(page, "empty-light");
  await page.keyboard.press("Tab");
  seen.first_focus = await page.evaluate(() => document.activeElement.textContent);
  const { keys, stop } = await fleet();
  await page.locator('#devices tr[data-device="fleet-00"]').waitFor(); // the page was open before
  const key = await connectByName(page);
  await curveMoves(page, key);
  await curveFolds(page, key);
  await choosesField(page);
  await readsOn(page);
  seen.bytes = {
    device: await weigh(context, `${server}/devices/lamp-1`, "#stream-state[data-live]"),
    list: await weigh(context, `${server}/`, "#devices tbody tr"),
    connect: await weigh(context, `${server}/connect`, "#name"),
  };
  await page.goto(`${server}/`);
  seen.rows = await page.locator("#devices tbody tr").count();
  await rowChanges(page, "fleet-00", keys[0]);
  await page.getByRole("link", { name: "Next page" }).click();
  await page.locator("#devices tbody tr").first().waitFor();
  seen.rows_after = await page.locator("#devices tbody tr").count();
  await pictures(browser, await context.storageState());
  await page.close();
  await signsOut(context);
  await stop();
  await browser.close();
  console.log(JSON.stringify(seen));
}

run().catch((error) => {
  console.error(error, JSON.stringify(seen));
  process.exit(1);
});
