// The program of a device: tabs by mouse and arrow keys, copying, and the device's first message.
import { SIGNED_OUT, follow } from "./drover.js";

const COPIED_MS = 1500;
const tabs = [...document.querySelectorAll("[role=tab]")];

function select(tab) {
  for (const other of tabs) {
    const chosen = other === tab;
    other.setAttribute("aria-selected", chosen);
    other.tabIndex = chosen ? 0 : -1;
    document.getElementById(other.getAttribute("aria-controls")).hidden = !chosen;
  }
}

const KEYS = { ArrowRight: 1, ArrowLeft: -1 };
tabs.forEach((tab, i) => {
  tab.addEventListener("click", () => select(tab));
  tab.addEventListener("keydown", (event) => {
    const step = KEYS[event.key];
    if (!step) return;
    event.preventDefault();
    const next = tabs[(i + step + tabs.length) % tabs.length];
    select(next);
    next.focus();
  });
});
select(tabs[0]);

function copyBySelection(source) {
  const range = document.createRange();
  range.selectNodeContents(source);
  const selection = getSelection();
  selection.removeAllRanges();
  selection.addRange(range);
  return document.execCommand("copy");
}

for (const button of document.querySelectorAll(".copy")) {
  button.addEventListener("click", async () => {
    const source = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(source.textContent);
    } catch {
      copyBySelection(source); // without TLS only this machine's own pages may use the clipboard
    }
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), COPIED_MS);
  });
}

const arrival = document.getElementById("arrival");
let count = 0;
follow({ filter: "#", device: document.getElementById("connect").dataset.device }, {
  message({ topic, payload, payloadBase64 }) {
    count += 1;
    arrival.dataset.state = "arrived";
    document.getElementById("arrival-title").textContent = count === 1 ? "It is here" : `${count} messages`;
    document.getElementById("arrival-text").textContent = `${topic}  ${payload ?? `base64:${payloadBase64}`}`;
    document.getElementById("arrival-link").hidden = false;
  },
  state(state) {
    if (state === SIGNED_OUT) document.getElementById("arrival-title").textContent = `${SIGNED_OUT}: nothing more is shown here`;
  },
});
