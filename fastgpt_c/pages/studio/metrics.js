// Prometheus' text format, as far as the page needs it.

/** @typedef {{name: string, labels: Record<string, string>, value: number}} Sample */

/** @param {string} text
 * @returns {Sample[]} */
export function parse(text) {
  return text.split("\n").flatMap(line => {
    const found = /^([\w:]+)(?:\{(.*)\})? (\S+)/.exec(line);
    return found ? [{name: found[1], labels: labelsOf(found[2] ?? ""), value: numberOf(found[3])}] : [];
  });
}

/** @param {string} text */
function labelsOf(text) {
  const pairs = text.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g);
  return Object.fromEntries([...pairs].map(([, key, value]) => [key, value.replace(/\\(.)/g, (_, c) => c === "n" ? "\n" : c)]));
}

/** @param {string} text */
const numberOf = text => text === "+Inf" ? Infinity : text === "-Inf" ? -Infinity : Number(text);

/** The samples of a name together, null where there are none.
 * @param {Sample[]} samples
 * @param {string} name  without the prefix */
export function total(samples, name) {
  const found = samples.filter(sample => sample.name === "fastgpt:" + name);
  return found.length > 0 ? found.reduce((sum, sample) => sum + sample.value, 0) : null;
}
