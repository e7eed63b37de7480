// The page of `fastgpt-c patch --html`: what brings back the clean text's answer, by layer and position and by head.

import {byId, describe, element, walkable} from "./dom.js";
import {SignedMap} from "./signed_map.js";

/** What fastgpt_c/cli/patch.py prints.
 * @typedef {object} PatchPage
 * @property {string} model
 * @property {string} type
 * @property {number} n_layer
 * @property {number} n_head
 * @property {string[]} clean_tokens
 * @property {string[]} corrupted_tokens
 * @property {string} answer_text
 * @property {string} against_text
 * @property {number} clean
 * @property {number} corrupted
 * @property {number[][]} resid_pre  [n_layer][n_tokens]
 * @property {number[][]} attn_out  [n_layer][n_tokens]
 * @property {number[][]} ff_out  [n_layer][n_tokens]
 * @property {number[][]} z  [n_layer][n_head] */

/** @type {PatchPage} */
const data = JSON.parse(byId("data").textContent ?? "");
const rows = data.z.map((_, layer) => "layer " + layer);
const changed = data.clean_tokens.map((token, t) => token !== data.corrupted_tokens[t]);

/** @param {number} part */
const percentOf = part => (100 * part).toFixed(1).replace("-", "−") + "%";

/** @param {string} id
 * @param {string[]} tokens
 * @param {string[]} others */
function drawText(id, tokens, others) {
  const nodes = tokens.map((token, t) => {
    const node = element("span", {class: changed[t] ? "token changed" : "token", role: "img"}, token);
    describe(node, () => `token ${t} ${token}` + (changed[t] ? `\nin the other text ${others[t]}` : ""));
    return node;
  });
  byId(id).append(...nodes);
  walkable([nodes]);
}

/** @param {"resid_pre" | "attn_out" | "ff_out"} site */
function drawPositions(site) {
  const values = data[site];
  new SignedMap(byId(site)).show({
    corner: "token", rows, columns: data.corrupted_tokens, values, show: part => (100 * part).toFixed(0),
    textOf: (y, x) => {
      const word = changed[x] ? `${data.clean_tokens[x]} for ${data.corrupted_tokens[x]}` : data.corrupted_tokens[x];
      return `${site} of layer ${y}, token ${x} ${word}\n${percentOf(values[y][x])} of the answer comes back`;
    },
  }, 1);
}

byId("facts").textContent = `${data.model}, ${data.type}: ${data.n_layer} layers of ${data.n_head} heads. The logit of ${data.answer_text} is `
  + `${data.clean.toFixed(2)} above that of ${data.against_text} after the clean text, ${data.corrupted.toFixed(2)} after the corrupted one.`;
drawText("clean", data.clean_tokens, data.corrupted_tokens);
drawText("corrupted", data.corrupted_tokens, data.clean_tokens);
for (const site of /** @type {const} */ (["resid_pre", "attn_out", "ff_out"])) drawPositions(site);
new SignedMap(byId("z")).show({
  corner: "head", rows, columns: data.z[0].map((_, head) => String(head)), values: data.z, show: part => (100 * part).toFixed(0),
  textOf: (y, x) => `head ${y}.${x}\n${percentOf(data.z[y][x])} of the answer comes back`,
}, 1);
