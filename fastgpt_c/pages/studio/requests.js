// The requests of the page: what it sends, and what "copy as" shows.

/** @typedef {import("./types.js").Request} Request */
/** @typedef {import("./types.js").Sampling} Sampling */

export const MOST_TOKENS = 512; // that a server scores or inspects

/** @param {string | number[]} prompt
 * @param {Sampling} sampling
 * @param {number} max_tokens
 * @param {number} seed
 * @returns {Request} */
export function completion(prompt, sampling, max_tokens, seed) {
  return {method: "POST", path: "/v1/completions", body: {prompt, max_tokens, ...sampling, seed}};
}

/** The same as the page itself asks for it: token by token, with ids and log-probabilities.
 * @param {Request} request
 * @returns {Request} */
export function streamed(request) {
  return {...request, body: {...request.body, stream: true, logprobs: 0, return_token_ids: true}};
}

/** @param {string | number[]} prompt
 * @param {"lens" | "attention" | "next"} what
 * @returns {Request} */
export function inspection(prompt, what) {
  return {method: "POST", path: "/v1/inspect", body: {prompt, include: [what]}};
}

/** What each part of the model adds to the logit of a token after the prompt.
 * @param {string | number[]} prompt
 * @param {number | null} answer  null for the likeliest
 * @returns {Request} */
export function parts(prompt, answer) {
  return {method: "POST", path: "/v1/inspect", body: {prompt, include: ["parts"], ...(answer === null ? {} : {answer})}};
}

/** @param {string | number[]} prompt
 * @returns {Request} */
export function scores(prompt) { return {method: "POST", path: "/v1/score", body: {prompt}}; }

/** @type {Request} */
export const METRICS = {method: "GET", path: "/metrics"};
