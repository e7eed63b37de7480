// Types that several modules share; there is no code here.

/** A token of a text.
 * @typedef {object} Token
 * @property {number} id
 * @property {string} text  its characters; a part of a character as escapes
 * @property {number | null} logprob  natural logarithm, given the tokens before it; null where that is unknown
 * @property {boolean} typed  by the reader, not drawn by the model */

/** How tokens are drawn, by the names of /v1/completions.
 * @typedef {object} Sampling
 * @property {number} temperature
 * @property {number} top_k
 * @property {number} top_p
 * @property {number} min_p */

/** One line of the tree: the first `at` tokens of its parent, then its own.
 * @typedef {object} Branch
 * @property {number | null} parent
 * @property {number} at
 * @property {Token[]} tokens */

/** @typedef {"branches" | "lens" | "attention" | "parts" | "time" | "server"} Tab */

/** What "copy as" copies: a request, without the key.
 * @typedef {object} Request
 * @property {"GET" | "POST"} method
 * @property {string} path
 * @property {Record<string, unknown>} [body] */

/** @typedef {{id: string, n_ctx: number}} ModelFacts */
/** @typedef {{text: string, tokens: Token[], finish: string | null}} Chunk */

/** What /v1/inspect answers; which of them are there depends on what was asked for.
 * @typedef {import("../lens_grid.js").LensData & import("../attention_maps.js").AttentionData
 *           & {next: {logits: string}, parts: import("./parts.js").Parts}} Inspection */

/** All that the page asks of a model.  http.js asks a server; another implementation may run the model in the browser.
 * @typedef {object} Transport
 * @property {() => Promise<ModelFacts>} model
 * @property {(request: Request, signal: AbortSignal) => AsyncIterable<Chunk>} complete
 * @property {(request: Request) => Promise<Inspection>} inspect
 * @property {(tokens: number[]) => Promise<Token[]>} score  their texts and log-probabilities, as typed
 * @property {(text: string) => Promise<number[]>} tokenize
 * @property {(tokens: number[]) => Promise<string>} detokenize
 * @property {() => Promise<string>} metrics  in Prometheus' text format */

export {};
