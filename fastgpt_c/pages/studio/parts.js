// The tab of parts: what each head and each feed-forward part adds to a token's logit, and from which positions a head
// took it (fastgpt_c/analysis/attribution.py).

import {byId, describe, element, selectCell, shade, walkable, whenChosen} from "../dom.js";
import {label} from "./chips.js";
import * as requests from "./requests.js";

/** @typedef {object} Parts
 * @property {number} answer
 * @property {string} answer_text
 * @property {number} position
 * @property {number} logit
 * @property {number} token_embed
 * @property {number} pos_embed
 * @property {number} ln_f_bias
 * @property {number[][]} heads  [n_layer][n_head]
 * @property {number[]} attn_bias  [n_layer]
 * @property {number[]} feed_forward
 * @property {number[]} ff_bias
 * @property {number[][][]} sources  [n_layer][n_head][n_tokens] */

/** @param {number} value */
const signed = value => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(2);

/** Blue where something is added, orange where it is taken off.
 * @param {HTMLElement} node
 * @param {number} value
 * @param {number} most */
function shadeSigned(node, value, most) {
  node.classList.toggle("surprise", value < 0);
  shade(node, Math.abs(value) / (most || 1));
}

export class PartsTab {
  /** @type {HTMLElement[][]} */ cells = []; // [n_layer][n_head + 1]: the heads, then the feed-forward part
  /** @type {Parts | null} */ parts = null;
  /** @type {string[]} */ inputs = [];
  n_asked = 0;

  /** @param {import("./types.js").Transport} transport
   * @param {import("./state.js").State} state */
  constructor(transport, state) {
    this.transport = transport;
    this.state = state;
    byId("parts").setAttribute("role", "grid");
    whenChosen(byId("parts"), () => this.cells, (x, layer) => this.choose(layer, x));
  }

  /** What is asked for: the token in the chosen place, or the likeliest after the last one.
   * @returns {import("./types.js").Request | null} null where nothing is before it, or too much */
  request() {
    const line = this.state.tree.line(), {place} = this.state, before = line.slice(0, place ?? line.length);
    return before.length === 0 || before.length > requests.MOST_TOKENS ? null : requests.parts(before.map(token => token.id), place === null ? null : line[place].id);
  }

  async show() {
    const request = this.request(), asked = ++this.n_asked;
    byId("parts-view").hidden = request === null;
    byId("parts-empty").hidden = request !== null;
    if (request === null) return;
    const {parts, inputs} = await this.transport.inspect(request);
    if (asked !== this.n_asked) return; // another place was chosen meanwhile
    this.parts = parts;
    this.inputs = inputs;
    this.draw(parts);
  }

  /** @param {Parts} parts */
  draw(parts) {
    const biases = sum(parts.attn_bias) + sum(parts.ff_bias) + parts.ln_f_bias;
    byId("parts-sum").textContent = `The logit of ${label(parts.answer_text)} after token ${parts.position + 1} is ${parts.logit.toFixed(2)}: `
      + `token embedding ${signed(parts.token_embed)}, position ${signed(parts.pos_embed)}, biases ${signed(biases)}, and what is below.`;
    const rows = parts.heads.map((heads, layer) => [...heads, parts.feed_forward[layer]]);
    const most = Math.max(...rows.flat().map(Math.abs));
    this.cells = rows.map((row, layer) => row.map((value, x) => {
      const cell = element("td", {class: "shade", role: "gridcell", "aria-selected": "false"}, signed(value));
      shadeSigned(cell, value, most);
      describe(cell, () => `${this.nameOf(layer, x)}\nadds ${signed(value)} to the logit of ${label(parts.answer_text)}`);
      return cell;
    }));
    const names = [...parts.heads[0].map((_, head) => `head ${head}`), "feed-forward"];
    byId("parts").replaceChildren(
      element("thead", {}, element("tr", {}, element("th", {scope: "col"}, "layer"), ...names.map(name => element("th", {scope: "col"}, name)))),
      element("tbody", {}, ...this.cells.map((row, layer) => element("tr", {}, element("th", {scope: "row"}, String(layer)), ...row))));
    walkable(this.cells);
    this.choose(...strongestHead(parts.heads));
  }

  /** @param {number} layer
   * @param {number} x */
  nameOf(layer, x) { return x < (this.parts?.heads[layer].length ?? 0) ? `layer ${layer}, head ${x}` : `layer ${layer}, feed-forward`; }

  /** Shows from which tokens a head took what it adds.
   * @param {number} layer
   * @param {number} x */
  choose(layer, x) {
    if (!this.parts) return;
    selectCell(this.cells, x, layer);
    const sources = this.parts.sources[layer][x] ?? [], most = Math.max(...sources.map(Math.abs));
    byId("sources-title").textContent = sources.length > 0 ? `${this.nameOf(layer, x)}: from which tokens`
      : `${this.nameOf(layer, x)} reads the last token alone`;
    const chips = sources.map((value, i) => {
      const chip = element("span", {class: "token shade", role: "img", "aria-label": this.inputs[i]}, this.inputs[i].replaceAll("␣", " "));
      shadeSigned(chip, value, most);
      describe(chip, () => `${this.inputs[i]}  token ${i + 1}\n${signed(value)}`);
      return chip;
    });
    byId("sources").replaceChildren(...chips);
    walkable([chips]);
  }
}

/** @param {number[]} values */
const sum = values => values.reduce((a, b) => a + b, 0);

/** @param {number[][]} heads
 * @returns {[number, number]} layer, head */
function strongestHead(heads) {
  const all = heads.flatMap((row, layer) => row.map((value, head) => ({value, layer, head})));
  const {layer, head} = all.reduce((a, b) => Math.abs(b.value) > Math.abs(a.value) ? b : a);
  return [layer, head];
}
