// The tabs that show the server at work, from its metrics, once a second while they are seen.

import {byId, describe, element, shade, svg} from "../dom.js";
import {parse, total} from "./metrics.js";

/** @typedef {import("./metrics.js").Sample} Sample */

const PERIOD = 1000; // ms
const N_KEPT = 60; // readings

/** @typedef {object} Reading
 * @property {number} time  ms
 * @property {Sample[]} samples */

/** What the server tab shows: a title, and a number of the last reading and the one before.
 * @type {[string, (now: Reading, before: Reading) => number | null, (value: number) => string][]} */
const FIGURES = [
  ["requests at work", now => total(now.samples, "num_requests_running"), String],
  ["requests in the queue", now => total(now.samples, "num_requests_waiting"), String],
  ["rows of the last step", now => total(now.samples, "step_rows"), String],
  ["new tokens a second", (now, before) => rate(now, before, "generation_tokens_total"), value => value.toFixed(0)],
  ["prompt tokens a second", (now, before) => rate(now, before, "prompt_tokens_total"), value => value.toFixed(0)],
  ["prompt tokens found in caches", now => hits(now.samples), value => (100 * value).toFixed(0) + "%"],
];

/** @param {Reading} now
 * @param {Reading} before
 * @param {string} name */
function rate(now, before, name) {
  const a = total(before.samples, name), b = total(now.samples, name), seconds = (now.time - before.time) / 1000;
  return a === null || b === null ? null : seconds > 0 ? Math.max(0, b - a) / seconds : 0;
}

/** @param {Sample[]} samples */
function hits(samples) {
  const found = total(samples, "prefix_cache_hits_total"), asked = total(samples, "prefix_cache_queries_total");
  return found === null || asked === null ? null : asked > 0 ? found / asked : 0;
}

export class Live {
  /** @type {Reading[]} */ readings = [];
  /** @type {ReturnType<typeof setTimeout> | undefined} */ timer;
  /** @type {"time" | "server" | null} */ tab = null;

  /** @param {import("./types.js").Transport} transport
   * @param {(error: unknown) => void} failed */
  constructor(transport, failed) {
    this.transport = transport;
    this.failed = failed;
    document.addEventListener("visibilitychange", () => this.show(this.tab));
  }

  /** Reads while one of its tabs is seen; null stops it.
   * @param {"time" | "server" | null} tab */
  show(tab) {
    clearTimeout(this.timer);
    this.tab = tab;
    if (tab !== null && !document.hidden) this.read().catch(this.failed);
  }

  async read() {
    const samples = parse(await this.transport.metrics());
    this.readings = [...this.readings, {time: performance.now(), samples}].slice(-N_KEPT);
    if (this.tab === "server") this.drawServer();
    if (this.tab === "time") drawTime(samples, this.readings[0].samples);
    clearTimeout(this.timer);
    if (this.tab !== null && !document.hidden) this.timer = setTimeout(() => this.show(this.tab), PERIOD);
  }

  drawServer() {
    const pairs = this.readings.map((now, i) => [now, this.readings[Math.max(0, i - 1)]]);
    byId("figures").replaceChildren(...FIGURES.flatMap(([title, value, written]) => {
      const values = pairs.map(([now, before]) => value(now, before));
      const last = values[values.length - 1];
      if (last === null) return [];
      return [element("div", {class: "figure"}, element("span", {class: "faint"}, title), element("b", {}, written(last)),
                      sparkline(values.map(value => value ?? 0)))];
    }));
  }
}

/** @param {number[]} values */
function sparkline(values) {
  const most = Math.max(...values, 1e-9), right = N_KEPT - values.length;
  const points = values.map((value, i) => `${right + i},${(21 - 20 * value / most).toFixed(2)}`).join(" ");
  return svg("svg", {class: "spark", viewBox: `0 0 ${N_KEPT - 1} 22`, preserveAspectRatio: "none", "aria-hidden": "true"},
             svg("polyline", {points}));
}

/** Seconds of each op, the longest first.
 * @param {Sample[]} samples
 * @param {string} phase
 * @returns {Map<string, number>} */
function secondsByOp(samples, phase) {
  const found = samples.filter(({name, labels}) => name === "fastgpt:op_seconds_total" && labels.phase === phase);
  return new Map(found.map(({labels, value}) => [labels.op, value]));
}

/** Bars of what was spent since the first reading that is kept, or, if nothing was, since the server started.
 * @param {Sample[]} now
 * @param {Sample[]} before */
function drawTime(now, before) {
  byId("times").replaceChildren(...["decode", "prefill"].map(phase => {
    const ends = secondsByOp(now, phase), begins = secondsByOp(before, phase);
    const lately = [...ends].map(([op, seconds]) => /** @type {[string, number]} */ ([op, seconds - (begins.get(op) ?? 0)]));
    const isIdle = lately.every(([, seconds]) => seconds <= 0), rows = isIdle ? [...ends] : lately;
    const whole = rows.reduce((sum, [, seconds]) => sum + seconds, 0);
    return element("div", {}, element("h3", {}, phase === "decode" ? "New tokens" : "Prompts"),
      element("p", {class: "faint"}, whole === 0 ? "nothing yet" : `${written(whole)} ${isIdle ? "since the server started" : "in the last minute"}`),
      element("div", {class: "bars"}, ...(whole === 0 ? [] : rows.sort((a, b) => b[1] - a[1]).flatMap(row => opBar(row, whole)))));
  }));
}

/** @param {number} seconds */
const written = seconds => seconds < 1 ? (1000 * seconds).toFixed(1) + " ms" : seconds.toFixed(2) + " s";

/** @param {[string, number]} row
 * @param {number} whole */
function opBar([op, seconds], whole) {
  const bar = element("span", {class: "bar"}), share = (100 * seconds / whole).toFixed(1) + "%";
  shade(bar, seconds / whole);
  const name = element("span", {}, op);
  describe(name, () => `${op}\n${written(seconds)}, ${share} of the time`);
  return [name, bar, element("span", {class: "number"}, share)];
}
