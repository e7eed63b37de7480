// What the model would say next without the head that was chosen (#off switches it), beside what it says with it
// (#without).

import {byId, element, percent, shade} from "./dom.js";

/** What fastgpt_c/patching/switched_off.py reports.
 * @typedef {object} Without
 * @property {number[][][]} best  [n_layer][n_head][5]
 * @property {number[][][]} probability  theirs
 * @property {number[][]} answer  [n_layer][n_head], of the answer */

/** @typedef {{without: Without, answer: number} & import("./lens_grid.js").LensData} SwitchData */

export class HeadSwitch {
  layer = 0;
  head = 0;
  isOff = false;

  /** @param {SwitchData} data */
  constructor(data) {
    this.data = data;
    byId("off").addEventListener("click", () => { this.isOff = !this.isOff; this.show(); });
  }

  /** @param {number} layer
   * @param {number} head */
  choose(layer, head) {
    [this.layer, this.head] = [layer, head];
    this.show();
  }

  show() {
    const {data, layer, head} = this, n_tokens = data.tokens.length;
    byId("off").setAttribute("aria-pressed", String(this.isOff));
    byId("off").textContent = this.isOff ? `Head ${layer}.${head} is off` : `Switch head ${layer}.${head} off`;
    if (!this.isOff) return byId("without").replaceChildren();
    const before = data.best[data.n_layer][n_tokens - 1], p_before = data.probability[data.n_layer][n_tokens - 1];
    const after = data.without.best[layer][head], p_after = data.without.probability[layer][head];
    const rows = after.map((id, i) => element("tr", {}, ...this.cells(before[i], p_before[i]), ...this.cells(id, p_after[i])));
    const heading = element("tr", {}, element("th", {class: "text", colspan: 3, scope: "col"}, "with all heads"),
                            element("th", {class: "text", colspan: 3, scope: "col"}, `without head ${layer}.${head}`));
    const answer = element("p", {class: "faint"}, `${data.texts[data.answer]}: ${percent(p_before[0])} with it, ${percent(data.without.answer[layer][head])} without it`);
    byId("without").replaceChildren(answer, element("table", {}, element("thead", {}, heading), element("tbody", {}, ...rows)));
  }

  /** @param {number} id
   * @param {number} p */
  cells(id, p) {
    const bar = element("span", {class: "bar"});
    shade(bar, p);
    return [element("td", {class: "text"}, this.data.texts[id]), element("td", {}, percent(p)), element("td", {}, bar)];
  }
}
