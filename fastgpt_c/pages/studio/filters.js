// From logits to what is drawn from: temperature, top_k, top_p and min_p, in the order of the sampler in C
// (csrc/sampler/filters.c), so that the page shows what the model does.

/** @typedef {import("./types.js").Sampling} Sampling */

// A sum of probabilities may fall short of top_p by this much and is still enough, as in filters.c.
const ROUNDING = 4 * 2 ** -23;

/** The next token: logits of all tokens, and the tokens from the likeliest on. */
export class Distribution {
  /** @param {Float32Array} logits  [n_vocab] */
  constructor(logits) {
    this.logits = logits;
    this.order = Uint32Array.from(logits, (_, id) => id).sort((a, b) => logits[b] - logits[a] || a - b);
    this.logSum = Math.log(sumOf(this.weights(1)));
  }

  /** Of each token, from the likeliest on, how many times as likely as the likeliest it is.
   * @param {number} temperature */
  weights(temperature) {
    const {logits, order} = this, best = logits[order[0]];
    return Float64Array.from(order, id => Math.exp((logits[id] - best) / temperature));
  }

  /** @param {number} id
   * @returns {number} 1 for the likeliest */
  rank(id) { return 1 + this.order.indexOf(id); }

  /** The model's own log-probability.
   * @param {number} id */
  logprob(id) { return this.logits[id] - this.logits[this.order[0]] - this.logSum; }

  /** The probabilities of the likeliest tokens, in the order of `order`, that the filters keep: they sum to 1.
   * @param {Sampling} sampling
   * @returns {Float64Array} [n_kept] */
  kept({temperature, top_k, top_p, min_p}) {
    if (temperature === 0) return Float64Array.of(1);
    const {logits, order} = this, weights = this.weights(temperature);
    let n = top_k > 0 && top_k < weights.length ? top_k : weights.length;
    while (n < weights.length && logits[order[n]] === logits[order[n - 1]]) n++;
    n = enough(weights.subarray(0, n), top_p);
    while (n > 1 && weights[n - 1] < min_p) n--;
    const whole = sumOf(weights.subarray(0, n));
    return weights.slice(0, n).map(weight => weight / whole);
  }
}

/** How many of the first make up the share of all, at least one.
 * @param {Float64Array} weights
 * @param {number} share */
function enough(weights, share) {
  if (share >= 1) return weights.length;
  const wanted = (share - ROUNDING) * sumOf(weights);
  let n = 0, sum = 0;
  while (n < weights.length && (n === 0 || sum < wanted)) sum += weights[n++];
  return n;
}

/** @param {Float64Array} weights */
const sumOf = weights => weights.reduce((a, b) => a + b, 0);

/** Little-endian float32 values from base64.
 * @param {string} text
 * @returns {Float32Array} */
export function floatsOf(text) {
  const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0)), view = new DataView(bytes.buffer);
  return Float32Array.from({length: bytes.length / 4}, (_, i) => view.getFloat32(4 * i, true));
}
