// A request as a command or a program, ready to run: it takes a key from the environment, never from the page.

/** @typedef {import("./types.js").Request} Request */

/** @param {string} text */
const quoted = text => "'" + text.replaceAll("'", "'\\''") + "'";

/** @param {Request} request
 * @param {string} origin
 * @param {boolean} withKey */
export function asCurl({path, body}, origin, withKey) {
  const lines = [`curl -sS ${quoted(origin + path)}`];
  if (withKey) lines.push('-H "Authorization: Bearer $FASTGPT_API_KEY"');
  if (body) lines.push("-H 'Content-Type: application/json'", `-d ${quoted(JSON.stringify(body))}`);
  return lines.join(" \\\n  ") + "\n";
}

/** What a program does with the answer of a path.
 * @type {Record<string, string>} */
const USES = {
  "/v1/completions": 'print(answer["choices"][0]["text"])',
  "/v1/inspect": "print(*answer, sep=\"\\n\")",
  "/metrics": "print(answer)",
};

/** @param {Request} request
 * @param {string} origin
 * @param {boolean} withKey */
export function asPython({path, body}, origin, withKey) {
  const read = body ? "json.load(reply)" : "reply.read().decode()";
  const headers = [...(body ? ['"Content-Type": "application/json"'] : []),
    ...(withKey ? ['"Authorization": "Bearer " + os.environ["FASTGPT_API_KEY"]'] : [])];
  return [
    ...(body ? ["import json"] : []), ...(withKey ? ["import os"] : []), "import urllib.request", "",
    ...(body ? [`body = ${literal(body)}`] : []),
    `request = urllib.request.Request(${JSON.stringify(origin + path)}${body ? ", json.dumps(body).encode()" : ""}, headers={${headers.join(", ")}})`,
    "with urllib.request.urlopen(request) as reply:", `    answer = ${read}`, USES[path] ?? "print(answer)", "",
  ].join("\n");
}

/** A value of JSON as Python writes it.
 * @param {unknown} value
 * @returns {string} */
function literal(value) {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value === "object") return `{${Object.entries(value).map(([key, item]) => `${literal(key)}: ${literal(item)}`).join(", ")}}`;
  return JSON.stringify(value).replace(/[^ -~]/gu, c => "\\U" + (c.codePointAt(0) ?? 0).toString(16).padStart(8, "0"));
}
