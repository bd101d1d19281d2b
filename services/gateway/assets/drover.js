// What the pages' scripts share: the interface, live messages, times as people say them.

const { tenant, csrf } = document.body.dataset;

/** A path of the REST interface about this session's tenant. */
export function api(path, query = {}) {
  const search = new URLSearchParams(query).toString();
  return `/api/v1/tenants/${tenant}/${path}${search && `?${search}`}`;
}

/** JSON of a GET, or null where there is nothing. */
export async function get(path, query) {
  const answer = await fetch(api(path, query), { headers: { "x-drover-csrf": csrf } });
  if (answer.status === 401) location.reload();
  return answer.ok ? answer.json() : null;
}

/** What `state` of a stream hears. */
export const LIVE = "Live";
export const CONNECTING = "Connecting";
export const SIGNED_OUT = "Signed out";

const RETRY_MS = 3000;
/** A page that was away for longer, asleep for example, does not ask for all that came meanwhile. */
const AWAY_MS = 300_000;

/** The status by which the server answers a stream now; 0 if it does not. */
async function statusOf(url) {
  const stop = new AbortController();
  try {
    return (await fetch(url, { signal: stop.signal })).status;
  } catch {
    return 0;
  } finally {
    stop.abort();
  }
}

/**
 * Live messages: calls `message` for each and `dropped` with what was left out, {records, reason}; `state` hears how it is.
 * A stream that ends goes on behind its last event. After SIGNED_OUT nothing comes.
 */
export function follow(query, { message, dropped = () => {}, state = () => {} }) {
  let source;
  let last = ""; // the id of the last event
  let heard = Date.now();
  const url = () => api("stream", last ? { ...query, from: last } : query);
  const telling = (tell) => (event) => {
    last = event.lastEventId;
    heard = Date.now();
    tell(JSON.parse(event.data));
  };
  const open = () => {
    source = new EventSource(url());
    source.onopen = () => state(LIVE);
    source.onmessage = telling(message);
    source.addEventListener("dropped", telling(dropped));
    source.addEventListener("place", telling(() => {}));
    source.onerror = () => {
      source.close(); // the browser by itself does not say why it was refused
      state(CONNECTING);
      setTimeout(again, RETRY_MS);
    };
  };
  const again = async () => {
    const status = await statusOf(url());
    if (status === 401) {
      state(SIGNED_OUT);
      return;
    }
    if (last && (status === 400 || Date.now() - heard > AWAY_MS)) {
      last = "";
      dropped({ reason: status === 400 ? "reset" : "away" });
    }
    open();
  };
  open();
  addEventListener("pagehide", () => source.close());
}

/** The scalars of a JSON payload by name; nested members are joined by dots, elements of arrays numbered, as in storage. */
export function scalars(payload) {
  let value;
  try {
    value = JSON.parse(payload);
  } catch {
    return new Map();
  }
  const found = new Map();
  const walk = (node, name) => {
    if (node !== null && typeof node === "object") {
      const place = (key) => (Array.isArray(node) ? `${name}[${key}]` : name ? `${name}.${key}` : key);
      for (const [key, member] of Object.entries(node)) walk(member, place(key));
    } else if (node !== null) {
      found.set(name || "value", node);
    }
  };
  walk(value, "");
  return found;
}

/** `just now`, `5 min ago`, or a date. */
export function ago(iso) {
  const seconds = Math.max(0, (Date.now() - Date.parse(iso)) / 1000);
  if (seconds < 5) return "just now";
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return new Date(iso).toLocaleDateString(undefined, { dateStyle: "medium" });
}

/** Says every `<time>` below `root` as people do; the exact time is its title. */
export function tellTimes(root = document) {
  for (const time of root.querySelectorAll("time[datetime]:not([data-exact])")) {
    time.textContent = ago(time.dateTime);
    time.title = new Date(time.dateTime).toLocaleString();
  }
}

/** A number as a reading: at most six significant digits. */
export function reading(value) {
  return typeof value === "number" ? String(Number(value.toPrecision(6))) : String(value);
}

/** An element with a class and text. */
export function element(name, className, text = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

const LEFT_OUT = {
  slow: "this page read too slowly",
  retention: "the log does not keep them any more",
  reset: "the log is not the one it was",
  away: "this page was away for too long",
};

/** A list of messages, the newest first, at most `limit`. */
export function messageList(list, note, limit = 100) {
  const add = (item) => {
    list.prepend(item);
    while (list.children.length > limit) list.lastElementChild.remove();
    note.hidden = true;
  };
  return {
    message({ time, topic, device, payload, payloadBase64 }, withDevice = false) {
      const item = document.createElement("li");
      const at = element("time", "", new Date(time).toLocaleTimeString());
      at.dateTime = time;
      at.dataset.exact = "";
      const where = withDevice && device ? `${device} · ${topic}` : topic;
      item.append(at, element("span", "topic", where), element("code", "", payload ?? `base64:${payloadBase64}`));
      add(item);
    },
    dropped({ records, reason }) {
      const item = document.createElement("li");
      item.append(element("span", "left-out", `${records ?? "Some"} messages were left out: ${LEFT_OUT[reason] ?? reason}`));
      add(item);
    },
  };
}

/** Shows how a stream is. */
export function streamState(status) {
  return (state) => {
    status.textContent = state;
    status.toggleAttribute("data-live", state === LIVE);
  };
}
