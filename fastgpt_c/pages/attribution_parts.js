// What made the answer: bars of the parts that added most to a logit (#parts), a map of all heads (#added), and of the
// head that was chosen what it added by the token that it read (#read).

import {byId, describe, element, walkable} from "./dom.js";
import {SignedMap, largestOf, shadeSigned, signed} from "./signed_map.js";

/** What fastgpt_c/analysis/attribution.py reports.
 * @typedef {object} Attribution
 * @property {number} answer  the token whose logit it is
 * @property {number | null} against  the token whose logit was taken off
 * @property {number} logit
 * @property {number} token_embed
 * @property {number} pos_embed
 * @property {number} ln_f_bias
 * @property {number[][]} heads  [n_layer][n_head]
 * @property {number[]} attn_bias  [n_layer]
 * @property {number[]} feed_forward  [n_layer]
 * @property {number[]} ff_bias  [n_layer]
 * @property {number[][][]} sources  [n_layer][n_head][n_tokens] */

const N_BARS = 12;

/** Each part by its name, the strongest first.
 * @param {Attribution} data
 * @returns {[string, number][]} */
export function partsOf(data) {
  /** @param {number[]} numbers */
  const sum = numbers => numbers.reduce((a, b) => a + b, 0);
  /** @type {[string, number][]} */
  const parts = [["token embedding", data.token_embed], ["position embedding", data.pos_embed],
                 ["biases", sum(data.attn_bias) + sum(data.ff_bias) + data.ln_f_bias]];
  data.heads.forEach((row, l) => row.forEach((added, h) => parts.push([`head ${l}.${h}`, added])));
  data.feed_forward.forEach((added, l) => parts.push([`feed-forward ${l}`, added]));
  return parts.sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
}

export class AttributionParts {
  /** @type {Attribution | null} */ data = null;
  /** @type {string[]} */ inputs = [];
  /** @type {(layer: number, head: number) => void} */ onChoose = () => undefined;

  constructor() {
    this.map = new SignedMap(byId("added"), (x, y) => this.chooseCell(x, y));
  }

  /** @param {Attribution} data
   * @param {string[]} inputs  what to show of each token */
  show(data, inputs) {
    [this.data, this.inputs] = [data, inputs];
    this.drawBars(data);
    const names = data.heads[0].map((_, h) => String(h));
    this.map.show({
      corner: "head", rows: data.heads.map((_, l) => "layer " + l), columns: [...names, "feed-forward"],
      values: data.heads.map((row, l) => [...row, data.feed_forward[l]]),
      textOf: (y, x) => (x < names.length ? `head ${y}.${x}` : `feed-forward ${y}`) + "\n"
                        + signed(x < names.length ? data.heads[y][x] : data.feed_forward[y]),
    });
  }

  /** @param {Attribution} data */
  drawBars(data) {
    const parts = partsOf(data), most = Math.abs(parts[0][1]) || 1, shown = parts.slice(0, N_BARS);
    const rest = parts.slice(N_BARS).reduce((sum, [, added]) => sum + added, 0);
    /** @type {[string, number][]} */
    const lines = rest || parts.length > N_BARS ? [...shown, [`all ${parts.length - N_BARS} others`, rest]] : shown;
    const rows = lines.map(([name, added]) => {
      const bar = element("span", {class: added < 0 ? "bar surprise" : "bar"});
      bar.style.setProperty("--p", String(Math.min(1, Math.abs(added) / most)));
      return element("tr", {}, element("td", {class: "text"}, name), element("td", {}, signed(added)), element("td", {}, bar));
    });
    const total = element("tr", {class: "total"}, element("td", {class: "text"}, "together"), element("td", {}, signed(data.logit)), element("td", {}));
    byId("parts").replaceChildren(element("tbody", {}, ...rows, total));
  }

  /** @param {number} x
   * @param {number} y */
  chooseCell(x, y) {
    if (this.data && x < this.data.heads[y].length) this.choose(y, x);
  }

  /** Shows what a head added, by the token that it read.
   * @param {number} layer
   * @param {number} head */
  choose(layer, head) {
    const data = this.data;
    if (!data) return;
    this.map.select(head, layer);
    const sources = data.sources[layer][head], most = largestOf([sources]);
    const tokens = sources.map((added, t) => {
      const node = element("span", {class: "token", role: "img"}, this.inputs[t]);
      shadeSigned(node, added, most);
      describe(node, () => `head ${layer}.${head} read token ${t + 1} ${this.inputs[t]}\nwhich added ${signed(added)}`);
      return node;
    });
    const text = element("p", {class: "tokens"}, ...tokens);
    byId("read").replaceChildren(element("h3", {}, `What head ${layer}.${head} read, and what that added: ${signed(data.heads[layer][head])}`), text);
    walkable([tokens]);
    this.onChoose(layer, head);
  }
}
