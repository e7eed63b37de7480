// The tree of branches with their log-probabilities, and two of them side by side.

import {byId, describe, element, walkable} from "../dom.js";
import {chip} from "./chips.js";
import {logProbability} from "./tree.js";

/** @typedef {import("./types.js").Token} Token */
/** @typedef {import("./state.js").State} State */

const BEGINNING = 48; // characters of a branch's own text

/** @param {Token[]} tokens */
function inWords(tokens) {
  const {sum, n} = logProbability(tokens);
  return n === 0 ? "" : `log p ${sum.toFixed(1)}, ${(sum / n).toFixed(2)} a token`;
}

/** @param {Token[]} tokens */
function beginning(tokens) {
  const text = tokens.slice(0, BEGINNING).map(token => token.text).join("").replaceAll("\n", " ").trim();
  return text.length > BEGINNING ? text.slice(0, BEGINNING) + "…" : text || "(empty)";
}

export class Branches {
  /** @param {State} state
   * @param {{opened: (branch: number) => void, compared: (branch: number | null) => void}} listener */
  constructor(state, listener) {
    this.state = state;
    byId("tree").addEventListener("click", event => {
      const button = /** @type {Element} */ (event.target).closest("button"), branch = Number(button?.dataset.branch);
      if (!button) return;
      if (button.classList.contains("compare")) listener.compared(this.state.other === branch ? null : branch);
      else listener.opened(branch);
    });
  }

  show() {
    /** @type {HTMLButtonElement[][]} */ const rows = [];
    byId("tree").replaceChildren(this.list([0], rows));
    walkable(rows);
    this.compare();
  }

  /** @param {number[]} branches
   * @param {HTMLButtonElement[][]} rows  gets the buttons of each line */
  list(branches, rows) {
    return element("ul", {}, ...branches.map(branch => this.item(branch, rows)));
  }

  /** @param {number} index
   * @param {HTMLButtonElement[][]} rows
   * @returns {HTMLLIElement} */
  item(index, rows) {
    const {tree, other} = this.state, {tokens, at, parent} = tree.branches[index];
    const open = element("button", {type: "button", class: "open", "data-branch": index,
      "aria-current": index === tree.current ? "true" : null}, beginning(tokens));
    describe(open, () => `${beginning(tokens)}\n${parent === null ? "" : `from token ${at + 1}, `}${tokens.length} tokens\n`
      + `its own: ${inWords(tokens) || "nothing yet"}\nthe whole text: ${inWords(tree.line(index)) || "nothing yet"}`);
    const compare = element("button", {type: "button", class: "compare", "data-branch": index, "aria-label": `compare with: ${beginning(tokens)}`,
      "aria-pressed": String(other === index)}, "compare");
    const buttons = index === tree.current ? [open] : [open, compare];
    rows.push(buttons);
    const children = tree.branches.flatMap((branch, i) => branch.parent === index ? i : []);
    return element("li", {}, element("div", {class: "branch"}, ...buttons, element("span", {class: "faint"}, inWords(tokens))),
                   ...(children.length > 0 ? [this.list(children, rows)] : []));
  }

  /** Two lines beside each other, from where they part. */
  compare() {
    const {tree, other} = this.state;
    byId("compared").hidden = other === null || other === tree.current;
    if (other === null || other === tree.current) return;
    const shared = tree.shared(tree.current, other), before = tree.line().slice(Math.max(0, shared - 12), shared);
    byId("shared").textContent = shared === 0 ? "They have no beginning in common."
      : `They share ${shared} token${shared === 1 ? "" : "s"}, to “${shared > 12 ? "…" : ""}${before.map(token => token.text).join("")}”`;
    byId("sides").replaceChildren(this.side("this branch", tree.current, shared), this.side("the other", other, shared));
  }

  /** @param {string} title
   * @param {number} index
   * @param {number} shared */
  side(title, index, shared) {
    const tokens = this.state.tree.line(index).slice(shared), chips = tokens.map((token, i) => chip(token, shared + i));
    walkable([chips]);
    return element("div", {}, element("h3", {}, title), element("p", {class: "faint"}, inWords(tokens) || "nothing more"),
                   element("div", {class: "chips"}, ...chips));
  }
}
