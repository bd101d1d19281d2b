// The list of devices as the server shows it: new ones appear, state and last seen stay up to date, while it is looked at.
import { tellTimes } from "./drover.js";

const EVERY_MS = 3000;
const PARTS = [".state", ".seen"];
const links = (list) => [...list.querySelectorAll("a")].map((link) => link.getAttribute("href"));

/** The list as it is now; null while the server does not answer. */
async function fetched() {
  const answer = await fetch(location.href).catch(() => null);
  if (answer?.status === 401) location.reload();
  if (!answer?.ok) return null;
  return new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("list");
}

/** Devices came or went: all is replaced, and the focus stays at its link. */
function replace(list, now) {
  const focused = list.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  list.replaceWith(now);
  [...now.querySelectorAll("a")].find((link) => link.getAttribute("href") === focused)?.focus();
}

async function refresh() {
  if (document.hidden) return;
  const now = await fetched();
  if (!now) return;
  const list = document.getElementById("list");
  if (links(list).join(" ") === links(now).join(" ")) {
    for (const part of PARTS) {
      const fresh = now.querySelectorAll(part);
      list.querySelectorAll(part).forEach((shown, i) => shown.replaceWith(fresh[i]));
    }
  } else {
    replace(list, now);
  }
  tellTimes(document.getElementById("list"));
}

setInterval(refresh, EVERY_MS);
