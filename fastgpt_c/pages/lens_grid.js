// The logit lens: a grid of layers x positions, each cell the likeliest next token if the model ended there; and beside
// it, of the cell that was chosen last, the ten likeliest.  It fills #grid, #kept, #by-likeliest and #by-answer.

import {byId, describe, element, percent, scrollIntoTable, selectCell, shade, walkable, whenChosen} from "./dom.js";

/** What the grid shows: a report of fastgpt_c/analysis/logit_lens.py, with one label a token.
 * @typedef {object} LensData
 * @property {number} n_layer
 * @property {number[]} tokens
 * @property {string[]} inputs  what to show of each token
 * @property {Record<string, string>} texts  of each token that occurs
 * @property {number[][][]} best  [n_layer + 1][n_tokens][10]
 * @property {number[][][]} probability  theirs
 * @property {number[][]} answer_probability  [n_layer + 1][n_tokens]
 * @property {number[][]} answer_rank */

/** @param {number} level */
export const layerName = level => level === 0 ? "embeddings" : "layer " + (level - 1);

export class LensGrid {
  /** @type {LensData | null} */ data = null;
  /** @type {HTMLElement[][]} */ cells = [];
  byAnswer = false;
  /** @type {(level: number, t: number) => void} */ onKeep = () => undefined;

  constructor() {
    whenChosen(byId("grid"), () => this.cells, (t, level) => this.keep(level, t));
    byId("by-likeliest").addEventListener("click", () => this.shadeBy(false));
    byId("by-answer").addEventListener("click", () => this.shadeBy(true));
    byId("grid").setAttribute("role", "grid");
  }

  /** @param {LensData} data */
  show(data) {
    this.data = data;
    this.cells = data.best.map((row, level) => row.map((_, t) => this.cell(data, level, t)));
    const heading = element("tr", {}, element("th", {scope: "col"}, "after"), ...data.tokens.map((_, t) => element("th", {scope: "col"}, data.inputs[t])));
    const rows = this.cells.map((row, level) => element("tr", {}, element("th", {scope: "row"}, layerName(level)), ...row));
    byId("grid").replaceChildren(element("thead", {}, heading), element("tbody", {}, ...rows));
    walkable(this.cells);
    this.shadeBy(this.byAnswer);
  }

  /** @param {LensData} data
   * @param {number} level
   * @param {number} t */
  cell(data, level, t) {
    const node = element("td", {class: "shade", role: "gridcell", "aria-selected": "false"}, data.texts[data.best[level][t][0]]);
    describe(node, () => cellText(data, level, t));
    return node;
  }

  /** @param {boolean} answer */
  shadeBy(answer) {
    const data = this.data;
    if (!data) return;
    this.byAnswer = answer;
    byId("by-likeliest").setAttribute("aria-pressed", String(!answer));
    byId("by-answer").setAttribute("aria-pressed", String(answer));
    this.cells.forEach((row, level) => row.forEach((node, t) =>
      shade(node, answer ? data.answer_probability[level][t] : data.probability[level][t][0])));
  }

  /** Shows the ten likeliest tokens of a cell beside the grid, until another one is chosen.
   * @param {number} level
   * @param {number} t */
  keep(level, t) {
    const data = this.data;
    if (!data) return;
    selectCell(this.cells, t, level);
    const rows = data.best[level][t].map((id, i) => {
      const p = data.probability[level][t][i], bar = element("span", {class: "bar"});
      shade(bar, p);
      return element("tr", {}, element("td", {}, String(i + 1)), element("td", {class: "text"}, data.texts[id]),
                     element("td", {}, percent(p)), element("td", {}, bar));
    });
    byId("kept").replaceChildren(element("h3", {}, titleOf(data, level, t)), element("table", {}, element("tbody", {}, ...rows)));
    scrollIntoTable(this.cells[level][t]);
    this.onKeep(level, t);
  }
}

/** @param {LensData} data
 * @param {number} level
 * @param {number} t */
function titleOf(data, level, t) {
  return layerName(level) + ", after token " + (t + 1) + " " + data.inputs[t];
}

/** @param {LensData} data
 * @param {number} level
 * @param {number} t */
function cellText(data, level, t) {
  const lines = data.best[level][t].map((id, i) => percent(data.probability[level][t][i]) + "  " + data.texts[id]);
  const answer = data.texts[data.best[data.n_layer][t][0]];
  const own = percent(data.answer_probability[level][t]) + ", rank " + data.answer_rank[level][t];
  return [titleOf(data, level, t), ...lines, "the last layer's answer " + answer + ": " + own].join("\n");
}
