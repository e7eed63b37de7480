// A table of signed numbers as a heat map: blue for what adds, orange for what takes away, as strong as the largest of all.

import {describe, element, scrollIntoTable, selectCell, shade, walkable, whenChosen} from "./dom.js";

/** @typedef {object} SignedData
 * @property {string} corner  what the headings of the rows are
 * @property {string[]} rows
 * @property {string[]} columns
 * @property {number[][]} values  [row][column]
 * @property {(y: number, x: number) => string} textOf  a cell's tooltip
 * @property {(value: number) => string} [show]  what a cell says; else one decimal */

/** @param {number} x */
export const signed = x => (x < 0 ? "−" : "+") + Math.abs(x).toFixed(2);

/** @param {number[][]} values */
export const largestOf = values => Math.max(...values.flat().map(Math.abs), 1e-9);

/** Shades a node by a number: full colour is `most`.
 * @param {HTMLElement} node
 * @param {number} x
 * @param {number} most */
export function shadeSigned(node, x, most) {
  node.classList.add("shade");
  node.classList.toggle("surprise", x < 0);
  shade(node, Math.min(1, Math.abs(x) / most));
}

export class SignedMap {
  /** @type {HTMLElement[][]} */ cells = [];

  /** @param {HTMLElement} table
   * @param {(x: number, y: number) => void} [choose] */
  constructor(table, choose) {
    this.table = table;
    table.setAttribute("role", "grid");
    table.classList.add("signed");
    if (choose) {
      table.classList.add("chosen");
      whenChosen(table, () => this.cells, choose);
    }
  }

  /** @param {SignedData} data
   * @param {number} most  full colour */
  show(data, most = largestOf(data.values)) {
    this.cells = data.values.map((row, y) => row.map((value, x) => {
      const text = (data.show ?? (number => number.toFixed(1)))(value);
      const node = element("td", {role: "gridcell", "aria-selected": "false"}, text.replace(/^-(?=[0.]*$)/, "").replace("-", "−"));
      shadeSigned(node, value, most);
      describe(node, () => data.textOf(y, x));
      return node;
    }));
    const heading = data.columns.map(name => element("th", {scope: "col"}, element("span", {}, name)));
    const rows = this.cells.map((row, y) => element("tr", {}, element("th", {scope: "row"}, data.rows[y]), ...row));
    this.table.replaceChildren(element("thead", {}, element("tr", {}, element("th", {scope: "col"}, data.corner), ...heading)),
                               element("tbody", {}, ...rows));
    walkable(this.cells);
  }

  /** @param {number} x
   * @param {number} y */
  select(x, y) {
    selectCell(this.cells, x, y);
    scrollIntoTable(this.cells[y][x]);
  }
}
