// A text as chips, one a token, each coloured by its surprisal; one of them may be chosen.

import {describe, element, percent, shade, walkable} from "../dom.js";

/** @typedef {import("./types.js").Token} Token */

export const MOST_BITS = 12; // of the strongest colour, so that colours stay as they are while a text grows

/** @param {number} logprob */
export const bitsOf = logprob => -logprob / Math.LN2;

/** A token's characters, with those that cannot be seen as escapes.
 * @param {string} text */
export function visible(text) {
  return text.replaceAll("\n", "↵").replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}\p{Cs}]/gu,
    c => "\\u" + (c.codePointAt(0) ?? 0).toString(16).padStart(4, "0"));
}

/** The same as a label, in which spaces are seen, too.
 * @param {string} text */
export const label = text => visible(text).replaceAll(" ", "␣");

/** @param {Token} token
 * @param {number} place */
function describing({text, logprob, typed, id}, place) {
  const lines = [`${label(text)}  token ${place + 1}, id ${id}${typed ? ", typed" : ""}`];
  lines.push(logprob === null ? "its probability is not known" :
    `${bitsOf(logprob).toFixed(2)} bits, a probability of ${percent(Math.exp(logprob))}`);
  return lines.join("\n");
}

/** @param {Token} token
 * @param {number} place
 * @returns {HTMLButtonElement} */
export function chip(token, place) {
  const node = element("button", {type: "button", class: "token shade surprise", "data-place": place}, visible(token.text) || "∅");
  shade(node, token.logprob === null ? 0 : Math.min(1, bitsOf(token.logprob) / MOST_BITS));
  describe(node, () => describing(token, place));
  return node;
}

/** Chips, with a line's end where a token has one.
 * @param {Token[]} tokens
 * @param {HTMLElement[]} chips */
const withLineEnds = (tokens, chips) => chips.flatMap((node, i) => tokens[i].text.includes("\n") ? [node, element("br")] : [node]);

export class Chips {
  /** @type {HTMLButtonElement[]} */ nodes = [];

  /** @param {HTMLElement} container
   * @param {(place: number, byKeyboard: boolean) => void} choose */
  constructor(container, choose) {
    this.container = container;
    container.addEventListener("click", event => {
      const node = /** @type {Element} */ (event.target).closest("button");
      if (node) choose(Number(node.dataset.place), event.detail === 0);
    });
  }

  /** @param {Token[]} tokens */
  show(tokens) {
    this.nodes = tokens.map(chip);
    this.container.replaceChildren(...withLineEnds(tokens, this.nodes));
    walkable([this.nodes]);
  }

  /** @param {Token[]} tokens */
  add(tokens) {
    const first = this.nodes.length, added = tokens.map((token, i) => chip(token, first + i));
    this.nodes.push(...added);
    this.container.append(...withLineEnds(tokens, added));
    if (first === 0) walkable([this.nodes]);
    else for (const node of added) node.tabIndex = -1;
  }

  /** @param {number | null} place */
  select(place) {
    this.nodes.forEach((node, i) => node.setAttribute("aria-pressed", String(i === place)));
  }

  /** @param {number | null} place */
  focus(place) { (this.nodes[place ?? this.nodes.length - 1] ?? this.container).focus(); }
}
