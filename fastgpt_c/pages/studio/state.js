// What the address says after #: the tree with its token ids, what is chosen, and how tokens are drawn.

import {Tree} from "./tree.js";

/** @typedef {import("./types.js").Token} Token */
/** @typedef {import("./types.js").Tab} Tab */

/** @typedef {object} State
 * @property {Tree} tree
 * @property {Tab} tab
 * @property {number | null} place  the token whose choices are shown; null is the one after the last
 * @property {number | null} other  the branch that is compared
 * @property {number} layer
 * @property {number} head
 * @property {import("./types.js").Sampling} sampling
 * @property {number} max_tokens
 * @property {number | null} seed  null for a fresh one each time */

/** @type {Tab[]} */
export const TABS = ["branches", "lens", "attention", "parts", "time", "server"];

/** @returns {State} */
export function freshState() {
  return {tree: new Tree(), tab: "branches", place: null, other: null, layer: 0, head: 0,
    sampling: {temperature: 0.8, top_k: 0, top_p: 0.95, min_p: 0}, max_tokens: 40, seed: null};
}

/** @param {State} state
 * @returns {string} */
export function encode(state) {
  const {tree, sampling} = state, fields = new URLSearchParams();
  if (tree.line().length > 0 || tree.branches.length > 1)
    fields.set("text", tree.branches.map(({parent, at, tokens}) => `${parent ?? ""}_${at}_${runs(tokens)}`).join("-"));
  if (tree.current > 0) fields.set("at", String(tree.current));
  const fresh = freshState();
  for (const name of /** @type {const} */ (["tab", "place", "other", "layer", "head", "max_tokens", "seed"]))
    if (state[name] !== fresh[name]) fields.set(name, String(state[name]));
  for (const name of /** @type {const} */ (["temperature", "top_k", "top_p", "min_p"]))
    if (sampling[name] !== fresh.sampling[name]) fields.set(name, String(sampling[name]));
  return fields.toString();
}

/** Ids of typed and of drawn tokens, in turns.
 * @param {Token[]} tokens */
function runs(tokens) {
  let typed = true, text = "";
  for (const token of tokens) {
    if (token.typed !== typed) text += "~";
    else if (text !== "") text += ".";
    text += token.id;
    typed = token.typed;
  }
  return text;
}

/** What an address says; what it does not say, or says wrongly, is as in a fresh state.  Tokens have only their ids.
 * @param {string} text
 * @returns {State} */
export function decode(text) {
  const fields = new URLSearchParams(text), state = freshState();
  const tree = treeOf(fields.get("text") ?? "");
  if (tree) state.tree = tree;
  const n = state.tree.branches.length;
  state.tree.current = whole(fields.get("at"), 0, n - 1) ?? 0;
  state.tab = TABS.find(tab => tab === fields.get("tab")) ?? state.tab;
  state.place = whole(fields.get("place"), 0, state.tree.line().length - 1);
  state.other = whole(fields.get("other"), 0, n - 1);
  state.layer = whole(fields.get("layer"), 0, 1000) ?? 0;
  state.head = whole(fields.get("head"), 0, 1000) ?? 0;
  state.max_tokens = whole(fields.get("max_tokens"), 1, 100000) ?? state.max_tokens;
  state.seed = whole(fields.get("seed"), 0, Number.MAX_SAFE_INTEGER);
  const {sampling} = state;
  sampling.temperature = real(fields.get("temperature"), 2) ?? sampling.temperature;
  sampling.top_k = whole(fields.get("top_k"), 0, 1000000) ?? sampling.top_k;
  sampling.top_p = real(fields.get("top_p"), 1) ?? sampling.top_p;
  sampling.min_p = real(fields.get("min_p"), 1) ?? sampling.min_p;
  return state;
}

/** @param {string | null} text
 * @param {number} least
 * @param {number} most */
function whole(text, least, most) {
  const value = text !== null && /^\d{1,16}$/.test(text) ? Number(text) : NaN;
  return value >= least && value <= most ? value : null;
}

/** @param {string | null} text
 * @param {number} most */
function real(text, most) {
  const value = text !== null && /^\d*\.?\d+$/.test(text) ? Number(text) : NaN;
  return value <= most ? value : null;
}

/** @param {string} text
 * @returns {Tree | null} */
function treeOf(text) {
  const tree = new Tree();
  tree.branches = [];
  for (const [index, part] of text.split("-").entries()) {
    const found = /^(\d*)_(\d{1,6})_([\d.~]*)$/.exec(part);
    if (!found) return null;
    const parent = index === 0 ? null : whole(found[1], 0, index - 1), at = Number(found[2]);
    if (index === 0 ? at !== 0 : parent === null || at > tree.line(parent).length) return null;
    tree.branches.push({parent, at, tokens: tokensOf(found[3])});
  }
  return tree;
}

/** @param {string} text
 * @returns {Token[]} */
function tokensOf(text) {
  return text.split("~").flatMap((run, i) => run.split(".").filter(id => id !== "")
    .map(id => ({id: Number(id), text: "", logprob: null, typed: i % 2 === 0})));
}
