// The list of devices: state and last seen stay up to date while the page is looked at.
import { get, tellTimes } from "./drover.js";

const EVERY_MS = 3000;
const TITLES = { Connected: "Connected", Disconnected: "Disconnected", NeverSeen: "Never connected", Disabled: "Disabled" };
const table = document.getElementById("devices");

function show(row, { phase, lastSeen }) {
  const state = row.querySelector(".state");
  state.dataset.phase = phase;
  state.textContent = TITLES[phase] ?? phase;
  if (!lastSeen) return;
  const seen = row.querySelector(".seen");
  const time = document.createElement("time");
  time.dateTime = lastSeen;
  seen.replaceChildren(time);
}

async function refresh() {
  if (document.hidden) return;
  const rows = table.tBodies[0].rows;
  const page = await get("devices", { pageSize: rows.length, pageToken: table.dataset.after });
  const found = new Map(page?.items.map((item) => [item.metadata.name, item.status]));
  for (const row of rows) {
    const status = found.get(row.dataset.device);
    if (status) show(row, status);
  }
  tellTimes(table);
}

if (table) setInterval(refresh, EVERY_MS);
