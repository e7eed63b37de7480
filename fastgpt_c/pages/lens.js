// The page of `fastgpt-c lens --html`: one text, how surprising it was, the logit lens, and attention.

import {AttributionParts, partsOf} from "./attribution_parts.js";
import {AttentionMaps} from "./attention_maps.js";
import {byId, describe, element, percent, shade, walkable} from "./dom.js";
import {HeadSwitch} from "./head_switch.js";
import {LensGrid} from "./lens_grid.js";

/** @typedef {import("./lens_grid.js").LensData & import("./attention_maps.js").AttentionData
 *            & {without: import("./head_switch.js").Without, attribution: import("./attribution_parts.js").Attribution, model: string, type: string, answer: number, surprisal: number[]}} LensPage */

/** @type {LensPage} */
const data = JSON.parse(byId("data").textContent ?? "");
const most = Math.max(1, ...data.surprisal);

/** @param {number} t */
function surpriseOf(t) {
  if (t === 0) return data.inputs[0] + "\nthe first token: nothing is before it";
  const bits = data.surprisal[t - 1], said = data.best[data.n_layer][t - 1][0];
  const lines = [data.inputs[t], bits.toFixed(2) + " bits, a probability of " + percent(2 ** -bits)];
  if (said !== data.tokens[t]) lines.push("the model's answer was " + data.texts[said]);
  return lines.join("\n");
}

function drawText() {
  const tokens = data.tokens.map((_, t) => {
    const node = element("span", {class: "token shade surprise", role: "img", "aria-label": data.inputs[t]}, data.inputs[t]);
    shade(node, t === 0 ? 0 : data.surprisal[t - 1] / most);
    describe(node, () => surpriseOf(t));
    return node;
  });
  byId("text").append(...tokens);
  byId("most").textContent = most.toFixed(1) + " bits";
  walkable([tokens]);
}

/** Says what is taken apart, and chooses the head that did most. */
function showQuestion() {
  const {answer, against, logit} = data.attribution, than = against === null ? "0" : "that of " + data.texts[against];
  byId("question").textContent = `The logit of ${data.texts[answer]} is ${logit.toFixed(2)} above ${than}. `
    + "That is a sum of what each head and each feed-forward part added, with the scale of the last norm held. "
    + "Click a head, or press Enter, to see which tokens it read.";
  const best = partsOf(data.attribution).find(([name]) => name.startsWith("head "));
  if (best) parts.choose(...headOf(best[0]));
}

/** @param {string} name  "head 3.1"
 * @returns {[number, number]} */
function headOf(name) {
  const [layer, head] = name.slice(5).split(".").map(Number);
  return [layer, head];
}

const n_tokens = data.tokens.length;
byId("facts").textContent = `${data.model}, ${data.type}: ${data.n_layer} layers of ${data.n_head} heads; `
  + `after ${n_tokens} ${n_tokens === 1 ? "token" : "tokens"} the answer is ${data.texts[data.answer]}`;
drawText();
const grid = new LensGrid();
grid.show(data);
grid.keep(data.n_layer, n_tokens - 1);
const maps = new AttentionMaps(), parts = new AttributionParts();
maps.show(data);
parts.show(data.attribution, data.inputs);
const head_switch = new HeadSwitch(data);
parts.onChoose = (layer, head) => { maps.look(layer, head); head_switch.choose(layer, head); };
showQuestion();
