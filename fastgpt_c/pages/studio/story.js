// The editor: what is typed becomes tokens of the tree, and the model continues them until it stops or is stopped.

import * as requests from "./requests.js";
import {commonLength} from "./tree.js";

/** @typedef {import("./types.js").Token} Token */
/** @typedef {import("./types.js").Transport} Transport */
/** @typedef {import("./state.js").State} State */

const PAUSE = 500; // ms without a key, after which what was typed becomes tokens

/** What the story tells the page.
 * @typedef {object} Listener
 * @property {() => void} changed  another text, all of it
 * @property {(tokens: Token[]) => void} grew
 * @property {(says: string) => void} status
 * @property {(busy: boolean) => void} busy
 * @property {(error: unknown) => void} failed */

export class Story {
  text = ""; // of the current line, as the editor had it when it last became tokens
  /** @type {AbortController | null} */ stopper = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ timer;
  lastSeed = 0;
  n_ctx = Infinity; // until the model is known
  /** @type {Promise<void>} */ settling = Promise.resolve();

  /** @param {HTMLTextAreaElement} editor
   * @param {Transport} transport
   * @param {State} state
   * @param {Listener} listener */
  constructor(editor, transport, state, listener) {
    this.editor = editor;
    this.transport = transport;
    this.state = state;
    this.listener = listener;
    editor.addEventListener("input", () => {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.settle().catch(listener.failed), PAUSE);
    });
  }

  get isBusy() { return this.stopper !== null; }

  ids() { return this.state.tree.line().map(token => token.id); }

  /** What was typed becomes tokens: one settling after the other. */
  settle() {
    clearTimeout(this.timer);
    this.settling = this.settling.catch(() => undefined).then(() => this.settleNow());
    return this.settling;
  }

  async settleNow() {
    const typed = this.editor.value, {tree} = this.state;
    if (this.isBusy || typed === this.text) return;
    const line = this.ids(), continues = this.text !== "" && typed.startsWith(this.text);
    const ids = continues ? [...line, ...await this.transport.tokenize(typed.slice(this.text.length))]
      : typed === "" ? [] : await this.transport.tokenize(typed);
    const at = commonLength(line, ids), tokens = await this.described(ids);
    tree.cutOrBranch(at);
    tree.append(tokens.slice(at));
    this.text = typed;
    this.state.place = null;
    this.listener.changed();
  }

  /** Tokens with texts and, as many as are scored, log-probabilities.
   * @param {number[]} ids
   * @returns {Promise<Token[]>} */
  async described(ids) {
    const scored = ids.slice(0, requests.MOST_TOKENS), others = ids.slice(requests.MOST_TOKENS);
    const texts = Promise.all(others.map(id => this.transport.detokenize([id])));
    return [...(scored.length > 0 ? await this.transport.score(scored) : []),
      ...(await texts).map((text, i) => ({id: others[i], text, logprob: null, typed: true}))];
  }

  /** Shows the current line of the tree in the editor. */
  async open() {
    const ids = this.ids();
    this.text = this.editor.value = ids.length > 0 ? await this.transport.detokenize(ids) : "";
    this.listener.changed();
  }

  /** Fills in what a state from an address does not say of its tokens. */
  async describeTree() {
    const {tree} = this.state;
    for (const [index, branch] of tree.branches.entries()) {
      const described = await this.described(tree.line(index).map(token => token.id));
      branch.tokens.forEach((token, i) => {
        const {text, logprob} = described[branch.at + i];
        Object.assign(token, {text, logprob});
      });
    }
  }

  /** A new branch after the first `at` tokens, with the token of the reader's choice or one that is drawn, and on.
   * @param {number} at
   * @param {number | null} id */
  async branchAt(at, id) {
    if (this.isBusy) return;
    await this.settle();
    const {tree} = this.state;
    tree.branch(at);
    if (id !== null) tree.append((await this.described([...this.ids(), id])).slice(-1));
    this.state.place = null;
    await this.open();
    await this.write();
  }

  request() {
    const {sampling, max_tokens, seed} = this.state, ids = this.ids();
    return requests.completion(ids, sampling, Math.max(1, Math.min(max_tokens, this.n_ctx - ids.length)), seed ?? this.lastSeed);
  }

  /** Continues the text. */
  async write() {
    if (this.isBusy) return;
    await this.settle();
    const n = this.ids().length;
    if (n === 0) return this.listener.status("Type a beginning first.");
    if (n >= this.n_ctx) return this.listener.status(`The text has ${n} tokens, all that the model can read.`);
    this.lastSeed = crypto.getRandomValues(new Uint32Array(1))[0];
    this.stopper = new AbortController();
    this.editor.readOnly = true;
    this.listener.busy(true);
    try {
      this.listener.status(await this.read(this.stopper.signal));
    } finally {
      this.stopper = null;
      this.editor.readOnly = false;
      this.text = this.editor.value;
      this.listener.busy(false);
      this.listener.changed();
    }
  }

  /** @param {AbortSignal} signal
   * @returns {Promise<string>} how it ended */
  async read(signal) {
    const began = performance.now();
    let n = 0, finish = "stopped";
    try {
      for await (const chunk of this.transport.complete(this.request(), signal)) {
        n += chunk.tokens.length;
        this.state.tree.append(chunk.tokens);
        this.editor.value += chunk.text;
        this.editor.scrollTop = this.editor.scrollHeight;
        this.listener.grew(chunk.tokens);
        this.listener.status(`${counted(n)}, ${rate(n, began)}`);
        if (chunk.finish) finish = chunk.finish === "length" ? "" : "the model ended the text";
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    }
    return [counted(n), rate(n, began), finish].filter(Boolean).join(", ");
  }

  stop() { this.stopper?.abort(); }
}

/** @param {number} n */
const counted = n => `${n} token${n === 1 ? "" : "s"}`;

/** @param {number} n
 * @param {number} began */
const rate = (n, began) => `${(1000 * n / Math.max(performance.now() - began, 1)).toFixed(0)} a second`;
