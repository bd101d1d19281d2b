// A curve over a span that ends now, drawn by uPlot in the page's colours.

/* global uPlot */
const MOVE_MS = 1000;
const HEIGHT = 260;
const POINTS_MAX = 5000;
const dark = matchMedia("(prefers-color-scheme: dark)");

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

export class Curve {
  #place;
  #plot = null;
  #label = "";
  #seconds = 300;
  #times = [];
  #values = [];
  #due = false;

  constructor(place) {
    this.#place = place;
    new ResizeObserver(() => this.#plot?.setSize({ width: place.clientWidth, height: HEIGHT })).observe(place);
    dark.addEventListener("change", () => this.#make());
    setInterval(() => this.#draw(), MOVE_MS);
  }

  isEmpty() {
    return this.#times.length === 0;
  }

  /** Shows the last `seconds` of `label`; of the same label it keeps the points it has. */
  show(label, seconds) {
    if (label !== this.#label) this.clear();
    this.#label = label;
    this.#seconds = seconds;
    if (this.#plot === null) this.#make();
    this.#draw();
  }

  clear() {
    this.#times = [];
    this.#values = [];
  }

  /** What was before the points it has: [seconds since 1970, number], oldest first. */
  prepend(points) {
    const first = this.#times[0] ?? Infinity;
    const earlier = points.filter(([time]) => time < first);
    this.#times.unshift(...earlier.map(([time]) => time));
    this.#values.unshift(...earlier.map(([, value]) => value));
    this.#draw();
  }

  /** A new point at the end. */
  add(time, value) {
    const last = this.#times.at(-1) ?? -Infinity;
    this.#times.push(Math.max(time, last + 0.001));
    this.#values.push(value);
    if (this.#due) return;
    this.#due = true;
    requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    this.#due = false;
    const from = Date.now() / 1000 - this.#seconds;
    let gone = Math.max(0, this.#times.length - POINTS_MAX);
    while (gone < this.#times.length && this.#times[gone] < from) gone += 1;
    this.#times.splice(0, gone);
    this.#values.splice(0, gone);
    if (!this.#plot) return;
    this.#plot.setData([this.#times, this.#values]);
    this.#place.dataset.points = this.#times.length;
    this.#place.dataset.last = this.#values.at(-1) ?? "";
  }

  #make() {
    this.#plot?.destroy();
    const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    const accent = colour("--accent");
    this.#plot = new uPlot({
      width: this.#place.clientWidth,
      height: HEIGHT,
      legend: { show: false },
      cursor: { y: false, points: { size: 7 } },
      scales: {
        x: { time: true, range: () => [Date.now() / 1000 - this.#seconds, Date.now() / 1000] },
        y: { range: (_, low, high) => margins(low, high) },
      },
      axes: [axis, { ...axis, size: 56 }],
      series: [{}, { stroke: accent, width: 2, fill: `${accent}1f`, points: { size: 5, fill: accent }, spanGaps: true }],
    }, [this.#times, this.#values], this.#place);
  }
}

/** The least and the most of the y axis, with room above and below. */
function margins(low, high) {
  if (low === null || high === null) return [0, 1];
  const room = (high - low) * 0.12 || Math.max(Math.abs(high) * 0.05, 0.5);
  return [low - room, high + room];
}
