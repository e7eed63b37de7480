const n_tokens = data.tokens.length;
const text = id => data.texts[id];
const input = t => text(data.tokens[t]);
const layerName = level => level === 0 ? "embeddings" : "layer " + (level - 1);

function percent(p) {
  if (p > 0 && p < 0.001) return "<0.1%";
  return (100 * p).toFixed(1) + "%";
}

function shade(node, p) { node.style.setProperty("--p", p); }

// ---- Surprisal: a heat strip over the text ----

const most = Math.max(1, ...data.surprisal);

function surpriseOf(t) {
  if (t === 0) return input(0) + "\nthe first token: nothing is before it";
  const bits = data.surprisal[t - 1], said = data.best[data.n_layer][t - 1][0];
  const lines = [input(t), bits.toFixed(2) + " bits, a probability of " + percent(2 ** -bits)];
  if (said !== data.tokens[t]) lines.push("the model's answer was " + text(said));
  return lines.join("\n");
}

function drawText() {
  const tokens = data.tokens.map((_, t) => {
    const node = element("span", {class: "token shade surprise", role: "img"}, input(t));
    shade(node, t === 0 ? 0 : data.surprisal[t - 1] / most);
    describe(node, () => surpriseOf(t));
    return node;
  });
  byId("text").append(...tokens);
  byId("most").textContent = most.toFixed(1) + " bits";
  walkable([tokens]);
}

// ---- The grid: layers x positions ----

function titleOf(level, t) {
  return layerName(level) + ", after token " + (t + 1) + " " + input(t);
}

function cellText(level, t) {
  const lines = data.best[level][t].map((id, i) => percent(data.probability[level][t][i]) + "  " + text(id));
  const answer = text(data.best[data.n_layer][t][0]);
  const own = percent(data.answer_probability[level][t]) + ", rank " + data.answer_rank[level][t];
  return [titleOf(level, t), ...lines, "the last layer's answer " + answer + ": " + own].join("\n");
}

const cells = data.best.map((row, level) => row.map((best, t) => {
  const node = element("td", {class: "shade", role: "gridcell", "aria-selected": "false"}, text(best[0]));
  describe(node, () => cellText(level, t));
  node.addEventListener("click", () => keep(level, t));
  node.addEventListener("keydown", event => { if (event.key === "Enter") keep(level, t); });
  return node;
}));

function drawGrid() {
  const heading = element("tr", {}, element("th", {}, ""), ...data.tokens.map((_, t) => element("th", {scope: "col"}, input(t))));
  const rows = cells.map((row, level) => element("tr", {}, element("th", {scope: "row"}, layerName(level)), ...row));
  byId("grid").setAttribute("role", "grid");
  byId("grid").append(element("thead", {}, heading), element("tbody", {}, ...rows));
  walkable(cells);
  byId("by-likeliest").addEventListener("click", () => shadeBy(false));
  byId("by-answer").addEventListener("click", () => shadeBy(true));
}

function shadeBy(answer) {
  byId("by-likeliest").setAttribute("aria-pressed", String(!answer));
  byId("by-answer").setAttribute("aria-pressed", String(answer));
  cells.forEach((row, level) => row.forEach((node, t) =>
    shade(node, answer ? data.answer_probability[level][t] : data.probability[level][t][0])));
}

// Shows the ten likeliest tokens of a cell under the grid, until another one is chosen.
function keep(level, t) {
  for (const row of cells) for (const node of row) node.setAttribute("aria-selected", "false");
  cells[level][t].setAttribute("aria-selected", "true");
  const rows = data.best[level][t].map((id, i) => {
    const p = data.probability[level][t][i], bar = element("span", {class: "bar"});
    shade(bar, p);
    return element("tr", {}, element("td", {}, String(i + 1)), element("td", {class: "text"}, text(id)),
                   element("td", {}, percent(p)), element("td", {}, bar));
  });
  byId("kept").replaceChildren(element("h3", {}, titleOf(level, t)), element("table", {}, element("tbody", {}, ...rows)));
}

// ---- Attention of one head ----

const chosen = () => data.attention[byId("layer").value][byId("head").value];

const looks = data.tokens.map((_, query) => data.tokens.slice(0, query + 1).map((_, key) => {
  const node = element("td", {class: "shade"});
  describe(node, () => "token " + (query + 1) + " " + input(query) + " looks at token " + (key + 1) + " " + input(key)
                       + "\n" + percent(chosen()[query][key]));
  return node;
}));

function drawAttention() {
  for (const [id, n] of [["layer", data.n_layer], ["head", data.n_head]]) {
    for (let i = 0; i < n; i++) byId(id).append(element("option", {value: i}, String(i)));
    byId(id).addEventListener("change", shadeAttention);
  }
  const heading = data.tokens.map((_, t) => element("th", {scope: "col"}, element("span", {}, input(t))));
  const rows = looks.map((row, t) => element("tr", {}, element("th", {scope: "row"}, input(t)), ...row));
  byId("attention").append(element("thead", {}, element("tr", {}, element("th", {}, ""), ...heading)),
                           element("tbody", {}, ...rows));
  walkable(looks);
  shadeAttention();
}

// By the root: attention is often thin, and what is thin should be seen.
function shadeAttention() {
  const weights = chosen();
  looks.forEach((row, query) => row.forEach((node, key) => shade(node, Math.sqrt(weights[query][key]))));
}

byId("facts").textContent = `${data.model}, ${data.type}: ${data.n_layer} layers of ${data.n_head} heads; `
  + `after ${n_tokens} ${n_tokens === 1 ? "token" : "tokens"} the answer is ${text(data.answer)}`;
drawText();
drawGrid();
shadeBy(false);
keep(data.n_layer, n_tokens - 1);
drawAttention();
