// Where heads look: all heads as small maps (#heads), and one of them large (#attention), chosen there or by #layer and
// #head; full colour is the row's largest weight (#by-row) or 100% (#by-all).

import {byId, describe, element, percent, selectById, selectCell, shade, walkable, whenChosen} from "./dom.js";

/** @typedef {object} AttentionData
 * @property {number} n_layer
 * @property {number} n_head
 * @property {string[]} inputs  what to show of each token
 * @property {string[][]} attention  [n_layer][n_head], packed as fastgpt_c/analysis/logit_lens.py does */

const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const VALUE = new Uint8Array(128);
for (let i = 0; i < DIGITS.length; i++) VALUE[DIGITS.charCodeAt(i)] = i;

/** A weight is the square of a number of 12 bits, in two digits of base 64; rows of a head, 1, 2 ... weights long, stand
 * one after the other.
 * @param {string} head
 * @param {number} query
 * @param {number} key */
export function attentionWeight(head, query, key) {
  const at = query * (query + 1) + 2 * key;
  const root = (VALUE[head.charCodeAt(at)] << 6 | VALUE[head.charCodeAt(at + 1)]) / 4095;
  return root * root;
}

const N_PIXELS = 32; // of a small map: a pixel is the strongest of what it stands for

export class AttentionMaps {
  /** @type {AttentionData | null} */ data = null;
  first = 0; // the first token that is shown
  /** @type {HTMLElement[][]} */ cells = [];
  /** @type {HTMLElement[][]} */ maps = [];
  layer = 0;
  head = 0;
  byRow = true;
  /** @type {(layer: number, head: number) => void} */ onLook = () => undefined;

  constructor() {
    byId("heads").setAttribute("role", "grid");
    whenChosen(byId("heads"), () => this.maps, (h, l) => this.look(l, h));
    for (const id of ["layer", "head"])
      byId(id).addEventListener("change", () => this.look(Number(selectById("layer").value), Number(selectById("head").value)));
    byId("by-row").addEventListener("click", () => this.scaleBy(true));
    byId("by-all").addEventListener("click", () => this.scaleBy(false));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.shadeMaps());
  }

  /** Shows the tokens from first on.
   * @param {AttentionData} data
   * @param {number} first */
  show(data, first = 0) {
    this.data = data;
    this.first = first;
    this.layer = Math.min(this.layer, data.n_layer - 1);
    this.head = Math.min(this.head, data.n_head - 1);
    for (const [id, n] of /** @type {[string, number][]} */ ([["layer", data.n_layer], ["head", data.n_head]]))
      byId(id).replaceChildren(...Array.from({length: n}, (_, i) => element("option", {value: i}, String(i))));
    this.drawMaps(data);
    this.drawLarge(data);
    this.scaleBy(this.byRow);
    this.look(this.layer, this.head);
  }

  nShown() { return this.data ? this.data.inputs.length - this.first : 0; }

  /** weights [n_shown][up to the token itself] of a head, each as its colour has it, in [0, 1].
   * @param {string} head */
  shadesOf(head) {
    return Array.from({length: this.nShown()}, (_, y) => {
      const query = this.first + y;
      const row = Array.from({length: y + 1}, (_, x) => attentionWeight(head, query, this.first + x));
      const largest = Math.max(...row);
      return row.map(w => this.byRow ? w / (largest || 1) : Math.sqrt(w));
    });
  }

  /** @param {AttentionData} data */
  drawMaps(data) {
    const n_cells = Math.min(this.nShown(), N_PIXELS);
    this.maps = data.attention.map((heads, l) => heads.map((_, h) => {
      const node = element("td", {role: "gridcell", "aria-selected": "false"}, element("canvas", {width: n_cells, height: n_cells}));
      describe(node, () => "layer " + l + ", head " + h);
      return node;
    }));
    const heading = Array.from({length: data.n_head}, (_, h) => element("th", {scope: "col"}, String(h)));
    const rows = this.maps.map((row, l) => element("tr", {}, element("th", {scope: "row"}, "layer " + l), ...row));
    byId("heads").replaceChildren(element("thead", {}, element("tr", {}, element("th", {}, "head"), ...heading)), element("tbody", {}, ...rows));
    walkable(this.maps);
  }

  shadeMaps() {
    const paper = rgbOf("card"), heat = rgbOf("heat"), n_cells = Math.min(this.nShown(), N_PIXELS);
    this.maps.forEach((row, l) => row.forEach((node, h) => {
      const canvas = node.querySelector("canvas"), head = this.data?.attention[l][h];
      if (canvas && head !== undefined) drawMap(canvas, strongest(this.shadesOf(head), n_cells), paper, heat);
    }));
  }

  /** @param {AttentionData} data */
  drawLarge(data) {
    const shown = data.inputs.slice(this.first);
    this.cells = shown.map((_, y) => shown.slice(0, y + 1).map((_, x) => this.largeCell(data, this.first + y, this.first + x)));
    const heading = shown.map(input => element("th", {scope: "col"}, element("span", {}, input)));
    const rows = this.cells.map((row, y) => element("tr", {}, element("th", {scope: "row"}, shown[y]), ...row));
    byId("attention").replaceChildren(element("thead", {}, element("tr", {}, element("th", {scope: "col"}, "token"), ...heading)),
                                      element("tbody", {}, ...rows));
    walkable(this.cells);
  }

  /** @param {AttentionData} data
   * @param {number} query
   * @param {number} key */
  largeCell(data, query, key) {
    const node = element("td", {class: "shade"});
    describe(node, () => "token " + (query + 1) + " " + data.inputs[query] + " looks at token " + (key + 1) + " " + data.inputs[key]
                         + "\n" + percent(attentionWeight(data.attention[this.layer][this.head], query, key)));
    return node;
  }

  /** Shows one head large.
   * @param {number} l
   * @param {number} h */
  look(l, h) {
    [this.layer, this.head] = [l, h];
    selectById("layer").value = String(l);
    selectById("head").value = String(h);
    selectCell(this.maps, h, l);
    this.shadeLarge();
    this.onLook(l, h);
  }

  /** @param {boolean} row */
  scaleBy(row) {
    this.byRow = row;
    byId("by-row").setAttribute("aria-pressed", String(row));
    byId("by-all").setAttribute("aria-pressed", String(!row));
    this.shadeMaps();
    this.shadeLarge();
  }

  // Of the row's largest in proportion; of 100% by the root, for attention is often thin, and what is thin should be seen.
  shadeLarge() {
    if (!this.data) return;
    this.shadesOf(this.data.attention[this.layer][this.head]).forEach((row, y) => row.forEach((p, x) => shade(this.cells[y][x], p)));
    byId("full").textContent = this.byRow ? "the row's largest" : "100%, with 25% half way";
  }
}

/** @param {string} name  of a colour
 * @returns {number[]} red, green, blue */
function rgbOf(name) {
  const probe = element("span");
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const rgb = (getComputedStyle(probe).color.match(/[\d.]+/g) ?? []).slice(0, 3).map(Number);
  probe.remove();
  return rgb;
}

/** @param {number[][]} shades  [n][up to the token itself]
 * @param {number} n_cells  of a side
 * @returns {Float32Array} [n_cells * n_cells] */
function strongest(shades, n_cells) {
  const most = new Float32Array(n_cells * n_cells), n = shades.length;
  shades.forEach((row, query) => row.forEach((p, key) => {
    const at = Math.floor(query * n_cells / n) * n_cells + Math.floor(key * n_cells / n);
    most[at] = Math.max(most[at], p);
  }));
  return most;
}

/** @param {HTMLCanvasElement} canvas
 * @param {Float32Array} shades  as many as it has pixels
 * @param {number[]} paper  the colour of 0
 * @param {number[]} heat  that of 1 */
function drawMap(canvas, shades, paper, heat) {
  const context = canvas.getContext("2d");
  if (!context) return;
  const image = context.createImageData(canvas.width, canvas.height);
  shades.forEach((p, i) => {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = paper[c] + p * (heat[c] - paper[c]);
    image.data[4 * i + 3] = 255;
  });
  context.putImageData(image, 0, 0);
}
