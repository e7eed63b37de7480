const n_tokens = data.tokens.length;
const text = id => data.texts[id];
const input = t => data.inputs[t]; // whole characters, also of tokens that are parts of one
const layerName = level => level === 0 ? "embeddings" : "layer " + level;

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

// choose(x, y) where a cell of the table is clicked, or Enter pressed on it.  rows [n][any length] of cells.
function whenChosen(table, rows, choose) {
  const go = event => {
    const cell = event.target.closest("td"), y = rows.findIndex(row => row.includes(cell));
    if (y >= 0) choose(rows[y].indexOf(cell), y);
  };
  table.addEventListener("click", go);
  table.addEventListener("keydown", event => { if (event.key === "Enter") go(event); });
}

function select(rows, x, y) {
  for (const row of rows) for (const node of row) node.setAttribute("aria-selected", "false");
  rows[y][x].setAttribute("aria-selected", "true");
}

const PEEK = 24; // pixels of the neighbour that are seen, too

// Moves the table's own window, not the page, so that the cell is in it.
function scrollTo(cell) {
  const window = cell.closest(".scroll"), outside = window.getBoundingClientRect(), box = cell.getBoundingClientRect();
  const labels = cell.parentElement.firstElementChild.getBoundingClientRect().width;
  if (box.left < outside.left + labels) window.scrollLeft += box.left - outside.left - labels - PEEK;
  if (box.right > outside.right) window.scrollLeft += box.right - outside.right + PEEK;
}

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
  return node;
}));

function drawGrid() {
  const heading = element("tr", {}, element("th", {}, ""), ...data.tokens.map((_, t) => element("th", {scope: "col"}, input(t))));
  const rows = cells.map((row, level) => element("tr", {}, element("th", {scope: "row"}, layerName(level)), ...row));
  byId("grid").setAttribute("role", "grid");
  byId("grid").append(element("thead", {}, heading), element("tbody", {}, ...rows));
  walkable(cells);
  whenChosen(byId("grid"), cells, (t, level) => keep(level, t));
  byId("by-likeliest").addEventListener("click", () => shadeBy(false));
  byId("by-answer").addEventListener("click", () => shadeBy(true));
}

function shadeBy(answer) {
  byId("by-likeliest").setAttribute("aria-pressed", String(!answer));
  byId("by-answer").setAttribute("aria-pressed", String(answer));
  cells.forEach((row, level) => row.forEach((node, t) =>
    shade(node, answer ? data.answer_probability[level][t] : data.probability[level][t][0])));
}

// Shows the ten likeliest tokens of a cell beside the grid, until another one is chosen.
function keep(level, t) {
  select(cells, t, level);
  const rows = data.best[level][t].map((id, i) => {
    const p = data.probability[level][t][i], bar = element("span", {class: "bar"});
    shade(bar, p);
    return element("tr", {}, element("td", {}, String(i + 1)), element("td", {class: "text"}, text(id)),
                   element("td", {}, percent(p)), element("td", {}, bar));
  });
  byId("kept").replaceChildren(element("h3", {}, titleOf(level, t)), element("table", {}, element("tbody", {}, ...rows)));
  scrollTo(cells[level][t]);
}

// ---- Attention ----

const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const VALUE = new Uint8Array(128);
for (let i = 0; i < DIGITS.length; i++) VALUE[DIGITS.charCodeAt(i)] = i;

// A weight is the square of a number of 12 bits, in two digits of base 64; rows of a head, 1, 2 ... weights long, stand
// one after the other.
function weight(head, query, key) {
  const at = query * (query + 1) + 2 * key;
  const root = (VALUE[head.charCodeAt(at)] << 6 | VALUE[head.charCodeAt(at + 1)]) / 4095;
  return root * root;
}

let layer = 0, head = 0, byRow = true;
const chosen = () => data.attention[layer][head];

// weights [n_tokens][up to the token itself] of a head, each as its colour has it, in [0, 1].
function shadesOf(head) {
  return data.tokens.map((_, query) => {
    const row = Array.from({length: query + 1}, (_, key) => weight(head, query, key)), largest = Math.max(...row);
    return row.map(w => byRow ? w / (largest || 1) : Math.sqrt(w));
  });
}

const looks = data.tokens.map((_, query) => data.tokens.slice(0, query + 1).map((_, key) => {
  const node = element("td", {class: "shade"});
  describe(node, () => "token " + (query + 1) + " " + input(query) + " looks at token " + (key + 1) + " " + input(key)
                       + "\n" + percent(weight(chosen(), query, key)));
  return node;
}));

// All heads, small: a pixel of a map is the strongest of what it stands for.
const N_PIXELS = 32;
const n_cells = Math.min(n_tokens, N_PIXELS);
const maps = data.attention.map((heads, l) => heads.map((_, h) => {
  const node = element("td", {role: "gridcell", "aria-selected": "false"}, element("canvas", {width: n_cells, height: n_cells}));
  describe(node, () => "layer " + (l + 1) + ", head " + (h + 1));
  return node;
}));

function rgbOf(name) {
  const probe = element("span", {style: `color: var(--${name})`});
  document.body.append(probe);
  const rgb = getComputedStyle(probe).color.match(/[\d.]+/g).slice(0, 3).map(Number);
  probe.remove();
  return rgb;
}

function drawMap(node, head, paper, heat) {
  const context = node.firstElementChild.getContext("2d"), image = context.createImageData(n_cells, n_cells);
  const most = new Float32Array(n_cells * n_cells);
  shadesOf(head).forEach((row, query) => row.forEach((p, key) => {
    const at = Math.floor(query * n_cells / n_tokens) * n_cells + Math.floor(key * n_cells / n_tokens);
    most[at] = Math.max(most[at], p);
  }));
  most.forEach((p, i) => {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = paper[c] + p * (heat[c] - paper[c]);
    image.data[4 * i + 3] = 255;
  });
  context.putImageData(image, 0, 0);
}

function drawMaps() {
  const paper = rgbOf("card"), heat = rgbOf("heat");
  maps.forEach((row, l) => row.forEach((node, h) => drawMap(node, data.attention[l][h], paper, heat)));
}

function drawHeads() {
  const heading = Array.from({length: data.n_head}, (_, h) => element("th", {scope: "col"}, String(h + 1)));
  const rows = maps.map((row, l) => element("tr", {}, element("th", {scope: "row"}, "layer " + (l + 1)), ...row));
  byId("heads").setAttribute("role", "grid");
  byId("heads").append(element("thead", {}, element("tr", {}, element("th", {}, "head"), ...heading)), element("tbody", {}, ...rows));
  walkable(maps);
  whenChosen(byId("heads"), maps, (h, l) => look(l, h));
  drawMaps();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawMaps);
}

function drawAttention() {
  for (const [id, n] of [["layer", data.n_layer], ["head", data.n_head]]) {
    for (let i = 1; i <= n; i++) byId(id).append(element("option", {value: i}, String(i)));
    byId(id).addEventListener("change", () => look(byId("layer").value - 1, byId("head").value - 1));
  }
  const heading = data.tokens.map((_, t) => element("th", {scope: "col"}, element("span", {}, input(t))));
  const rows = looks.map((row, t) => element("tr", {}, element("th", {scope: "row"}, input(t)), ...row));
  byId("attention").append(element("thead", {}, element("tr", {}, element("th", {}, ""), ...heading)),
                           element("tbody", {}, ...rows));
  walkable(looks);
  byId("by-row").addEventListener("click", () => scaleBy(true));
  byId("by-all").addEventListener("click", () => scaleBy(false));
  look(0, 0);
}

// Shows one head large.
function look(l, h) {
  [layer, head] = [l, h];
  byId("layer").value = l + 1;
  byId("head").value = h + 1;
  select(maps, h, l);
  shadeAttention();
}

function scaleBy(row) {
  byRow = row;
  byId("by-row").setAttribute("aria-pressed", String(row));
  byId("by-all").setAttribute("aria-pressed", String(!row));
  drawMaps();
  shadeAttention();
}

// Of the row's largest in proportion; of 100% by the root, for attention is often thin, and what is thin should be seen.
function shadeAttention() {
  shadesOf(chosen()).forEach((row, query) => row.forEach((p, key) => shade(looks[query][key], p)));
  byId("full").textContent = byRow ? "the row's largest" : "100%, with 25% half way";
}

byId("facts").textContent = `${data.model}, ${data.type}: ${data.n_layer} layers of ${data.n_head} heads; `
  + `after ${n_tokens} ${n_tokens === 1 ? "token" : "tokens"} the answer is ${text(data.answer)}`;
drawText();
drawGrid();
shadeBy(false);
keep(data.n_layer, n_tokens - 1);
drawHeads();
drawAttention();
