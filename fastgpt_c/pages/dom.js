// What the scripts of all pages share: elements, tooltips, shades, and the arrow keys.

// ---- Elements ----

/** @typedef {Record<string, string | number | null>} Attributes */

/** element("td", {class: "text"}, "GELU"): attributes of null are left out; children are nodes or texts.
 * @template {keyof HTMLElementTagNameMap} Name
 * @param {Name} name
 * @param {Attributes} attributes
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[Name]} */
export function element(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** The same for SVG.
 * @template {keyof SVGElementTagNameMap} Name
 * @param {Name} name
 * @param {Attributes} attributes
 * @param {...(Node | string)} children
 * @returns {SVGElementTagNameMap[Name]} */
export function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

/** @template {Element} Kind
 * @param {Kind} node
 * @param {Attributes} attributes
 * @param {(Node | string)[]} children
 * @returns {Kind} */
function filled(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) if (value !== null) node.setAttribute(key, String(value));
  node.append(...children);
  return node;
}

/** @param {string} id
 * @returns {HTMLElement} */
export function byId(id) {
  const node = document.getElementById(id);
  if (!node) throw new Error(`the page has no element #${id}`);
  return node;
}

/** @param {string} id
 * @returns {HTMLSelectElement} */
export function selectById(id) { return /** @type {HTMLSelectElement} */ (byId(id)); }

// ---- Tooltips: the same text for the mouse, for the keyboard and for screen readers ----

const tooltip = element("div", {id: "tooltip", role: "tooltip", hidden: ""});
document.body.append(tooltip);

// Of each described node what its tooltip says; one listener of the document serves all of them.
/** @type {WeakMap<Element, () => string>} */
const descriptions = new WeakMap();

/** text() is asked when the tooltip is to be seen; lines are cut by "\n".
 * @param {Element} node
 * @param {() => string} text */
export function describe(node, text) { descriptions.set(node, text); }

/** @param {EventTarget | null} target
 * @returns {{node: Element, text: string} | null} */
function described(target) {
  for (let node = target instanceof Element ? target : null; node; node = node.parentElement) {
    const text = descriptions.get(node);
    if (text) return {node, text: text()};
  }
  return null;
}

const TALL = 60; // pixels: below and above a node of more, a tooltip would be far from the mouse

/** The tooltip stands below what it is about, or above it, and covers neither that nor, in a table, what is left of it.
 * @param {{node: Element, text: string}} about
 * @param {number} x
 * @param {number} pointerY */
function showTooltip({node, text}, x, pointerY) {
  tooltip.textContent = text;
  tooltip.hidden = false;
  const box = node.getBoundingClientRect(), {width, height} = tooltip.getBoundingClientRect();
  const isTall = box.height > TALL, above = isTall ? pointerY : box.top, below = isTall ? pointerY : box.bottom;
  const fits = below + 10 + height <= innerHeight;
  tooltip.style.left = Math.max(4, Math.min(x, innerWidth - width - 8)) + "px";
  tooltip.style.top = (fits ? below + 10 : Math.max(4, above - height - 10)) + "px";
}

export function hideTooltip() { tooltip.hidden = true; }

document.addEventListener("mousemove", event => {
  const about = described(event.target);
  if (about) showTooltip(about, event.clientX + 14, event.clientY);
  else hideTooltip();
});
document.documentElement.addEventListener("mouseleave", hideTooltip);
document.addEventListener("focusin", event => {
  const about = described(event.target);
  if (!about) return;
  const box = about.node.getBoundingClientRect();
  about.node.setAttribute("aria-label", about.text);
  showTooltip(about, box.left, box.bottom);
});
document.addEventListener("focusout", hideTooltip);
document.addEventListener("keydown", event => { if (event.key === "Escape") hideTooltip(); });

// ---- Tables that are wider than the page: the side fades behind which there is more ----

export function showWhetherThereIsMore() {
  for (const node of document.querySelectorAll(".scroll"))
    node.classList.toggle("more", node.scrollLeft + node.clientWidth < node.scrollWidth - 1);
}
document.addEventListener("scroll", showWhetherThereIsMore, {capture: true, passive: true});
addEventListener("resize", showWhetherThereIsMore);
addEventListener("load", showWhetherThereIsMore);

const PEEK = 48; // pixels of the neighbour that are seen, too: as many as fade (base.css)

/** Moves the table's own window, not the page, so that the cell is in it.
 * @param {Element} cell */
export function scrollIntoTable(cell) {
  const table = cell.closest(".scroll"), heading = cell.parentElement?.firstElementChild;
  if (!table || !heading) return;
  const outside = table.getBoundingClientRect(), box = cell.getBoundingClientRect();
  const labels = heading.getBoundingClientRect().width;
  if (box.left < outside.left + labels) table.scrollLeft += box.left - outside.left - labels - PEEK;
  if (box.right > outside.right) table.scrollLeft += box.right - outside.right + PEEK;
}

// ---- Arrow keys ----

/** @type {Record<string, (x: number, y: number) => [number, number]>} */
const MOVES = {
  ArrowLeft: (x, y) => [x - 1, y], ArrowRight: (x, y) => [x + 1, y], ArrowUp: (x, y) => [x, y - 1],
  ArrowDown: (x, y) => [x, y + 1], Home: (_, y) => [0, y], End: (_, y) => [Infinity, y],
};

/** @typedef {HTMLElement | SVGElement} Focusable */
/** @type {WeakMap<EventTarget, {rows: Focusable[][], x: number, y: number}>} */
const places = new WeakMap();

/** One stop of the Tab key for rows of nodes; arrows, Home and End move inside.
 * @param {Focusable[][]} rows  [n][any length] */
export function walkable(rows) {
  rows.forEach((row, y) => row.forEach((node, x) => { node.tabIndex = -1; places.set(node, {rows, x, y}); }));
  const first = rows.find(row => row.length > 0);
  if (first) first[0].tabIndex = 0;
}

document.addEventListener("keydown", event => {
  const place = event.target && places.get(event.target), move = MOVES[event.key];
  if (!place || !move) return;
  event.preventDefault();
  const [x, y] = move(place.x, place.y), row = place.rows[y];
  const to = row && row[Math.max(0, Math.min(x, row.length - 1))];
  if (!to) return;
  place.rows[place.y][place.x].tabIndex = -1;
  to.tabIndex = 0;
  to.focus();
});

// ---- Cells: shaded by a number, one of them selected ----

/** @param {HTMLElement} node
 * @param {number} p  0 ... 1 */
export function shade(node, p) { node.style.setProperty("--p", String(p)); }

/** @param {number} p */
export function percent(p) {
  if (p > 0 && p < 0.001) return "<0.1%";
  return (100 * p).toFixed(1) + "%";
}

/** choose(x, y) where a cell of the table is clicked, or Enter pressed on it.
 * @param {HTMLElement} table
 * @param {() => HTMLElement[][]} rows  [n][any length] of cells, asked at each choice
 * @param {(x: number, y: number) => void} choose */
export function whenChosen(table, rows, choose) {
  /** @param {Event} event */
  const go = event => {
    const cell = /** @type {Element} */ (event.target).closest("td");
    if (!cell) return;
    const all = rows(), y = all.findIndex(row => row.includes(cell));
    if (y >= 0) choose(all[y].indexOf(cell), y);
  };
  table.addEventListener("click", go);
  table.addEventListener("keydown", event => { if (event.key === "Enter") go(event); });
}

/** @param {HTMLElement[][]} rows
 * @param {number} x
 * @param {number} y */
export function selectCell(rows, x, y) {
  for (const row of rows) for (const node of row) node.setAttribute("aria-selected", "false");
  rows[y][x].setAttribute("aria-selected", "true");
}
