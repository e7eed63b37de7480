// The tabs that look inside: the logit lens, and attention.

import {AttentionMaps} from "../attention_maps.js";
import {byId, showWhetherThereIsMore} from "../dom.js";
import {LensGrid} from "../lens_grid.js";
import * as requests from "./requests.js";

/** @typedef {import("./types.js").Inspection} Inspection */
/** @typedef {import("./state.js").State} State */

const MOST_ATTENTION = 128; // tokens of a large map

export class Looking {
  /** What was asked for last, by tab: the ids, and the answer.
   * @type {Map<string, {ids: string, answer: Promise<Inspection>}>} */
  asked = new Map();

  /** @param {import("./types.js").Transport} transport
   * @param {State} state
   * @param {() => void} changed */
  constructor(transport, state, changed) {
    this.transport = transport;
    this.state = state;
    this.grid = new LensGrid();
    this.maps = new AttentionMaps();
    this.maps.layer = state.layer;
    this.maps.head = state.head;
    this.maps.onLook = (layer, head) => {
      Object.assign(state, {layer, head});
      changed();
    };
  }

  ids() { return this.state.tree.line().slice(0, requests.MOST_TOKENS).map(token => token.id); }

  /** Shows a tab's view of the present text.
   * @param {"lens" | "attention"} tab */
  async show(tab) {
    const ids = this.ids();
    byId(tab + "-view").hidden = ids.length === 0;
    byId(tab + "-empty").hidden = ids.length > 0;
    if (ids.length === 0) return;
    const answer = await this.inspected(tab, ids);
    if (this.ids().join() !== ids.join()) return; // the text has changed meanwhile
    if (tab === "lens") this.showLens(answer);
    else this.showAttention(answer);
    showWhetherThereIsMore();
  }

  /** @param {"lens" | "attention"} tab
   * @param {number[]} ids */
  inspected(tab, ids) {
    const known = this.asked.get(tab);
    if (known?.ids === ids.join()) return known.answer;
    const answer = this.transport.inspect(requests.inspection(ids, tab));
    this.asked.set(tab, {ids: ids.join(), answer});
    answer.catch(() => this.asked.delete(tab));
    return answer;
  }

  /** @param {Inspection} data */
  showLens(data) {
    if (this.grid.data === data) return;
    this.grid.show(data);
    this.grid.keep(data.n_layer, this.state.place === null ? data.tokens.length - 1 : Math.max(0, this.state.place - 1));
  }

  /** @param {Inspection} data */
  showAttention(data) {
    if (this.maps.data === data) return;
    const first = Math.max(0, data.inputs.length - MOST_ATTENTION);
    this.maps.show(data, first);
    byId("attention-note").textContent = first > 0 ? `The last ${MOST_ATTENTION} of ${data.inputs.length} tokens are shown.` : "";
  }
}
