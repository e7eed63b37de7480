// The texts of the page: a tree of branches, each the beginning of its parent and tokens of its own.

/** @typedef {import("./types.js").Token} Token */
/** @typedef {import("./types.js").Branch} Branch */

export class Tree {
  /** @type {Branch[]} */ branches = [{parent: null, at: 0, tokens: []}];
  current = 0;

  /** All tokens of a branch, from the beginning of the text.
   * @param {number} index
   * @returns {Token[]} */
  line(index = this.current) {
    const {parent, at, tokens} = this.branches[index];
    return parent === null ? tokens : [...this.line(parent).slice(0, at), ...tokens];
  }

  /** Makes a branch that shares the first `at` tokens of another, and makes it the current one.
   * @param {number} at
   * @param {number} from
   * @returns {number} its index */
  branch(at, from = this.current) {
    const {parent, at: begins} = this.branches[from];
    if (parent !== null && at <= begins) return this.branch(at, parent); // it shares nothing that is from's own
    this.branches.push({parent: from, at, tokens: []});
    this.current = this.branches.length - 1;
    return this.current;
  }

  /** Continues the first `at` tokens of the current line: in place where nothing that was drawn would be lost and no other
   * branch needs it, else as a new branch.
   * @param {number} at */
  cutOrBranch(at) {
    const branch = this.branches[this.current], own = at - branch.at;
    const isNeeded = this.branches.some(other => other.parent === this.current && other.at > at);
    if (own < 0 || isNeeded || branch.tokens.slice(own).some(token => !token.typed)) this.branch(at);
    else branch.tokens.length = own;
  }

  /** @param {Token[]} tokens */
  append(tokens) { this.branches[this.current].tokens.push(...tokens); }

  /** How many tokens two lines have in common at their beginning.
   * @param {number} a
   * @param {number} b */
  shared(a, b) { return commonLength(this.line(a).map(token => token.id), this.line(b).map(token => token.id)); }
}

/** @param {number[]} a
 * @param {number[]} b */
export function commonLength(a, b) {
  let n = 0;
  while (n < a.length && n < b.length && a[n] === b[n]) n++;
  return n;
}

/** The log-probability of tokens together, and how many have one.
 * @param {Token[]} tokens
 * @returns {{sum: number, n: number}} */
export function logProbability(tokens) {
  const known = tokens.flatMap(token => token.logprob ?? []);
  return {sum: known.reduce((a, b) => a + b, 0), n: known.length};
}
