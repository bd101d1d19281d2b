// One device: last values, a curve of the chosen one that moves as data comes in, live messages.
import { ago, element, follow, get, messageList, reading, scalars, streamState, tellTimes } from "./drover.js";
import { Curve, stepOf } from "./curve.js";

const STATE_EVERY_MS = 3000;
/** Answers that a history is read in at most; each is of up to a million points, summed up in steps. */
const PAGES_MAX = 10;
const STEPS_A_PAGE = 1000;
const TITLES = { Connected: "Connected", Disconnected: "Disconnected", NeverSeen: "Never connected", Disabled: "Disabled" };
const head = document.getElementById("device");
const device = head.dataset.device;
const values = document.getElementById("values");
const now = document.getElementById("now");
const nowField = document.getElementById("now-field");
const note = document.getElementById("chart-note");
const curve = new Curve(document.getElementById("chart"));
let chosen = null;
let seconds = 300;
let loads = 0;
let cut = false; // the history ends early, and the note says where

function button(field) {
  for (const known of values.children) if (known.dataset.field === field) return known;
  const made = element("button", "value");
  made.type = "button";
  made.dataset.field = field;
  made.append(element("span", "field", field), element("span", "reading"), document.createElement("time"));
  const after = [...values.children].find((known) => known.dataset.field > field);
  values.insertBefore(made, after ?? null);
  document.getElementById("no-values").hidden = true;
  return made;
}

function showValue(field, value, time) {
  const shown = button(field);
  const numeric = typeof value === "number";
  shown.toggleAttribute("data-number", numeric);
  shown.disabled = !numeric;
  shown.querySelector(".reading").textContent = reading(value);
  const at = shown.querySelector("time");
  at.dateTime = time;
  at.textContent = ago(time);
  if (numeric && chosen === null) choose(field);
  if (field === chosen && numeric) now.textContent = reading(value);
}

/** Reads the history into the curve, page by page; the last call counts. */
async function load() {
  const [field, span] = [chosen, seconds];
  if (field === null) return;
  loads += 1;
  const [mine, step] = [loads, stepOf(span)];
  curve.show(field, span);
  cut = false;
  const from = Math.ceil((Date.now() / 1000 - span) / step) * step; // steps begin where those of the curve do
  const query = { field, from: from * 1000, step: `${step}s`, limit: STEPS_A_PAGE };
  let reached;
  for (let page = 0; page < PAGES_MAX; page += 1) {
    const found = await get(`devices/${encodeURIComponent(device)}/telemetry`, query);
    if (mine !== loads) return;
    if (!found && reached) return tell(`History cannot be read on; it is drawn until ${when(reached)}.`, reached);
    if (!found) return tell("History cannot be read now; the curve begins with what comes.");
    curve.put(found.items.map(({ time, count, average }) => [Date.parse(time) / 1000, count, average]));
    if (!found.nextPageToken) return tell("No number in this span yet.");
    query.pageToken = found.nextPageToken;
    reached = found.nextFrom;
  }
  tell(`The device has sent more in this span than is read here: history is drawn until ${when(reached)}.`, reached);
}

function when(iso) {
  return new Date(iso).toLocaleString();
}

/** A note, which gives way to a curve unless the history ends early, at `reached`. */
function tell(text, reached = null) {
  cut = Boolean(reached);
  note.textContent = text;
  note.hidden = !cut && !curve.isEmpty();
}

function choose(field) {
  chosen = field;
  for (const shown of values.children) shown.setAttribute("aria-pressed", shown.dataset.field === field);
  const last = button(field);
  now.textContent = last.querySelector(".reading").textContent || "–";
  nowField.textContent = field;
  load();
}

values.addEventListener("click", (event) => {
  const shown = event.target.closest(".value[data-number]");
  if (shown) choose(shown.dataset.field);
});

const ranges = document.querySelectorAll(".ranges button");
for (const range of ranges) {
  range.addEventListener("click", () => {
    seconds = Number(range.dataset.seconds);
    for (const other of ranges) other.setAttribute("aria-pressed", other === range);
    load();
  });
}

for (const shown of values.children) {
  shown.querySelector(".reading").textContent = shown.hasAttribute("data-number") ? reading(Number(shown.dataset.value)) : shown.dataset.value;
}
const first = values.querySelector("[data-number]");
if (first) choose(first.dataset.field);
tellTimes();

function heard(time) {
  const shown = document.getElementById("heard");
  shown.hidden = false;
  shown.querySelector("time").dateTime = time;
  shown.querySelector("time").textContent = ago(time);
}

const list = messageList(document.getElementById("messages"), document.getElementById("no-messages"));
follow({ filter: "#", device }, {
  message(message) {
    list.message(message);
    heard(message.time);
    for (const [field, value] of scalars(message.payload ?? "")) {
      showValue(field, value, message.time);
      if (field === chosen && typeof value === "number") {
        curve.add(Date.parse(message.time) / 1000, value);
        note.hidden = !cut;
      }
    }
  },
  dropped(left) {
    list.dropped(left);
    curve.clear(); // what was left out is in the history
    load();
  },
  state: streamState(document.getElementById("stream-state")),
});

setInterval(async () => {
  if (document.hidden) return;
  const found = await get(`devices/${encodeURIComponent(device)}`);
  if (!found) return;
  const state = head.querySelector(".state");
  if (state.dataset.phase !== found.status.phase) document.getElementById("since")?.remove(); // it told of the former phase
  state.dataset.phase = found.status.phase;
  state.textContent = TITLES[found.status.phase] ?? found.status.phase;
}, STATE_EVERY_MS);
