// A curve over a span that ends now, drawn by uPlot in the page's colours: the averages of steps of time, as the history has them.

/* global uPlot */
const MOVE_MS = 1000;
const HEIGHT = 260;
/** Steps of a span, about. */
const STEPS = 600;
const dark = matchMedia("(prefers-color-scheme: dark)");

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** The width of a step of a span, both in seconds. */
export function stepOf(seconds) {
  return Math.max(1, Math.round(seconds / STEPS));
}

export class Curve {
  #place;
  #plot = null;
  #label = "";
  #seconds = 300;
  #steps = new Map(); // by start in seconds since 1970, a multiple of the width: how many numbers, and their average
  #newest = "";
  #due = false;

  constructor(place) {
    this.#place = place;
    new ResizeObserver(() => this.#plot?.setSize({ width: place.clientWidth, height: HEIGHT })).observe(place);
    dark.addEventListener("change", () => this.#make());
    setInterval(() => this.#draw(), MOVE_MS);
  }

  isEmpty() {
    return this.#steps.size === 0;
  }

  /** Shows the last `seconds` of `label`; what it has stays if that is in the same steps. */
  show(label, seconds) {
    if (label !== this.#label || stepOf(seconds) !== stepOf(this.#seconds)) this.clear();
    this.#label = label;
    this.#seconds = seconds;
    if (this.#plot === null) this.#make();
    this.#draw();
  }

  clear() {
    this.#steps.clear();
    this.#newest = "";
  }

  /** Steps of the history: [start in seconds since 1970, count, average]. Of one that is here already, what counts more numbers stays. */
  put(steps) {
    for (const [start, count, average] of steps) {
      if (count >= (this.#steps.get(start)?.count ?? 0)) this.#steps.set(start, { count, average });
    }
    this.#draw();
  }

  /** A new number: it goes into its step. */
  add(time, value) {
    const step = stepOf(this.#seconds);
    const start = Math.floor(time / step) * step;
    const before = this.#steps.get(start) ?? { count: 0, average: 0 };
    const count = before.count + 1;
    this.#steps.set(start, { count, average: before.average + (value / count - before.average / count) }); // no sum that could overflow
    this.#newest = value;
    if (this.#due) return;
    this.#due = true;
    requestAnimationFrame(() => this.#draw());
  }

  /** What uPlot draws: times and values, oldest first. */
  #data() {
    const steps = [...this.#steps].sort(([one], [other]) => one - other);
    return [steps.map(([start]) => start), steps.map(([, { average }]) => average)];
  }

  #draw() {
    this.#due = false;
    const from = Date.now() / 1000 - this.#seconds;
    for (const start of this.#steps.keys()) if (start < from) this.#steps.delete(start);
    if (!this.#plot) return;
    const [times, values] = this.#data();
    this.#plot.setData([times, values]);
    Object.assign(this.#place.dataset, { points: times.length, last: values.at(-1) ?? "", newest: this.#newest });
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
    }, this.#data(), this.#place);
  }
}

/** The least and the most of the y axis, with room above and below. */
function margins(low, high) {
  if (low === null || high === null) return [0, 1];
  const room = (high - low) * 0.12 || Math.max(Math.abs(high) * 0.05, 0.5);
  return [low - room, high + room];
}
