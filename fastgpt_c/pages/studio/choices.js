// What could stand in one place of the text: the 20 likeliest tokens, as the model has them and as the filters leave them.

import {byId, describe, element, percent, shade, walkable} from "../dom.js";
import {label} from "./chips.js";
import {Distribution, floatsOf} from "./filters.js";
import * as requests from "./requests.js";

/** @typedef {import("./types.js").Token} Token */
/** @typedef {import("./types.js").Sampling} Sampling */

const N_SHOWN = 20;
const SLIDERS = /** @type {const} */ (["temperature", "top_k", "top_p", "min_p"]);

export class Choices {
  /** @type {Distribution | null} */ distribution = null;
  /** @type {Record<string, string>} */ texts = {};
  /** @type {Token | null} */ token = null; // the one that stands there
  /** @type {HTMLButtonElement[]} */ buttons = [];
  n_asked = 0;

  /** @param {import("./types.js").Transport} transport
   * @param {Sampling} sampling
   * @param {{picked: (id: number) => void, filtered: () => void}} listener */
  constructor(transport, sampling, listener) {
    this.transport = transport;
    this.sampling = sampling;
    for (const name of SLIDERS) {
      const slider = /** @type {HTMLInputElement} */ (byId(name));
      slider.value = String(sampling[name]);
      slider.addEventListener("input", () => {
        sampling[name] = Number(slider.value);
        this.filter();
        listener.filtered();
      });
    }
    byId("choices").addEventListener("click", event => {
      const button = /** @type {Element} */ (event.target).closest("button");
      if (button) listener.picked(Number(button.dataset.id));
    });
  }

  /** Shows what could follow the tokens before a place.
   * @param {Token[]} line
   * @param {number | null} place  of the token that stands there; null is the place after the last */
  async show(line, place) {
    const before = line.slice(0, place ?? line.length), asked = ++this.n_asked;
    this.token = place === null ? null : line[place];
    byId("choices-title").textContent = this.token ? `Token ${before.length + 1}: ${label(this.token.text)}` : "The next token";
    if (before.length === 0) return this.clear(line.length === 0 ? "Type a beginning, and here is what could follow." :
      "Nothing is before the first token, so the model has no say in it.");
    if (before.length > requests.MOST_TOKENS) return this.clear(`A server looks inside of ${requests.MOST_TOKENS} tokens at most: choose one of those.`);
    const {next, texts} = await this.transport.inspect(requests.inspection(before.map(token => token.id), "next"));
    if (asked !== this.n_asked) return; // another place was chosen meanwhile
    this.texts = texts;
    this.distribution = new Distribution(floatsOf(next.logits));
    this.draw();
  }

  /** @param {string} why */
  clear(why) {
    this.distribution = null;
    byId("choices").replaceChildren();
    byId("kept-tokens").textContent = why;
    this.showValues();
  }

  draw() {
    const distribution = this.distribution;
    if (!distribution) return;
    const ids = [...distribution.order.slice(0, N_SHOWN)], own = this.token?.id;
    if (own !== undefined && !ids.includes(own)) ids.push(own);
    this.buttons = [];
    byId("choices").replaceChildren(...ids.map(id => this.row(distribution, id)));
    walkable(this.buttons.map(button => [button]));
    this.filter();
  }

  /** @param {Distribution} distribution
   * @param {number} id */
  row(distribution, id) {
    const isOwn = id === this.token?.id, text = isOwn && this.token ? label(this.token.text) : this.texts[id];
    const button = element("button", {type: "button", class: "pick", "data-id": id, "aria-current": isOwn ? "true" : null}, text);
    const rank = distribution.rank(id), p = Math.exp(distribution.logprob(id));
    describe(button, () => `${text}  rank ${rank}, id ${id}\nlog-probability ${distribution.logprob(id).toFixed(3)}\n`
      + "Enter or a click continues with it in a new branch");
    this.buttons.push(button);
    return element("tr", {"data-rank": rank}, element("th", {scope: "row", class: "text"}, button), barCell(p), barCell(0));
  }

  /** What the filters leave, at their present values. */
  filter() {
    this.showValues();
    if (!this.distribution) return;
    const kept = this.distribution.kept(this.sampling);
    for (const row of /** @type {NodeListOf<HTMLElement>} */ (byId("choices").querySelectorAll("tr"))) {
      const p = kept[Number(row.dataset.rank) - 1];
      row.classList.toggle("cut", p === undefined);
      row.lastElementChild?.replaceWith(barCell(p));
    }
    const n = this.distribution.order.length;
    byId("kept-tokens").textContent = this.sampling.temperature === 0 ? "At temperature 0 the likeliest token is taken." :
      `Drawn from ${kept.length.toLocaleString("en")} of ${n.toLocaleString("en")} tokens.`;
  }

  showValues() {
    for (const name of SLIDERS) {
      const value = this.sampling[name], isOff = name === "top_p" ? value === 1 : name !== "temperature" && value === 0;
      byId(name + "-value").textContent = isOff ? "off" : String(value);
    }
  }

  focus() { this.buttons[0]?.focus(); }
}

/** @param {number | undefined} p  undefined: nothing is left of it */
function barCell(p) {
  const bar = element("span", {class: "bar"});
  shade(bar, p ?? 0);
  return element("td", {}, element("div", {class: "cell"}, bar, element("span", {}, p === undefined ? "–" : percent(p))));
}
