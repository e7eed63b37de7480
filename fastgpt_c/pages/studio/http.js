// The transport that asks the server which sent the page: all of the page's network traffic is here.

import * as requests from "./requests.js";
import {events} from "./sse.js";

/** @typedef {import("./types.js").Request} Request */
/** @typedef {import("./types.js").Token} Token */
/** @typedef {import("./types.js").Chunk} Chunk */

/** An answer that is an error: status 0 where there was no answer. */
export class ServerError extends Error {
  /** @param {number} status
   * @param {string} message */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** @typedef {object} Choice
 * @property {string} text
 * @property {number[]} [token_ids]
 * @property {{tokens: string[], token_logprobs: (number | null)[]} | null} [logprobs]
 * @property {string | null} finish_reason */

/** @param {(message: string) => Promise<string | null>} askKey  asks the reader, null where there is none to be had
 * @returns {import("./types.js").Transport} */
export function httpTransport(askKey) {
  let key = ""; // in memory alone
  /** @type {Promise<string | null> | null} */ let asking = null;

  /** @param {string} message */
  function askOnce(message) {
    asking ??= askKey(message).finally(() => { asking = null; });
    return asking;
  }

  /** @param {Request} request
   * @param {AbortSignal} [signal]
   * @returns {Promise<Response>} */
  async function send(request, signal) {
    const sent = key, response = await fetchOrFail(request, sent, signal);
    if (response.ok) return response;
    const message = await messageOf(response);
    if (response.status !== 401) throw new ServerError(response.status, message);
    if (key === sent) {
      const given = await askOnce(sent === "" ? "" : message);
      if (given === null) throw new ServerError(401, message);
      key = given;
    }
    return send(request, signal);
  }

  /** @param {Request} request
   * @returns {Promise<any>} */
  const json = async request => (await send(request)).json();

  return {
    async model() {
      const {data: [first]} = await json({method: "GET", path: "/v1/models"});
      return {id: first.id, n_ctx: first.max_model_len};
    },
    async *complete(request, signal) {
      const response = await send(requests.streamed(request), signal);
      if (!response.body) throw new ServerError(response.status, "the answer has no body");
      for await (const data of events(response.body)) {
        if (data === "[DONE]") return;
        const event = JSON.parse(data);
        if (event.error) throw new ServerError(response.status, event.error.message);
        if (event.choices.length > 0) yield chunkOf(event.choices[0]);
      }
      throw new ServerError(0, "the connection ended before the text did");
    },
    inspect: json,
    async score(tokens) {
      const {inputs, token_logprobs} = await json(requests.scores(tokens));
      return tokens.map((id, i) => ({id, text: inputs[i].replaceAll("␣", " "), logprob: token_logprobs[i], typed: true}));
    },
    async tokenize(text) {
      return (await json({method: "POST", path: "/tokenize", body: {prompt: text}})).tokens;
    },
    async detokenize(tokens) {
      return (await json({method: "POST", path: "/detokenize", body: {tokens}})).prompt;
    },
    async metrics() { return (await send(requests.METRICS)).text(); },
  };
}

/** @param {Request} request
 * @param {string} key
 * @param {AbortSignal} [signal] */
async function fetchOrFail({method, path, body}, key, signal) {
  /** @type {Record<string, string>} */ const headers = body ? {"content-type": "application/json"} : {};
  if (key !== "") headers.authorization = "Bearer " + key;
  try {
    return await fetch(path, {method, headers, body: body ? JSON.stringify(body) : undefined, signal});
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ServerError(0, "the server does not answer");
  }
}

/** @param {Response} response */
async function messageOf(response) {
  try {
    return String((await response.json()).error.message);
  } catch {
    return `the server answered ${response.status}`;
  }
}

/** @param {Choice} choice
 * @returns {Chunk} */
function chunkOf({text, token_ids = [], logprobs, finish_reason}) {
  const tokens = token_ids.map((id, i) =>
    ({id, text: shown(logprobs?.tokens[i] ?? ""), logprob: logprobs?.token_logprobs[i] ?? null, typed: false}));
  return {text, tokens, finish: finish_reason};
}

/** A token that is no whole characters has OpenAI's name "bytes:\\xe2\\x80".
 * @param {string} name */
const shown = name => name.startsWith("bytes:\\x") ? name.slice(6) : name;
