"use strict";
const data = JSON.parse(document.getElementById("data").textContent);

// ---- Elements ----

// element("td", {class: "text"}, "GELU"): attributes of null are left out; children are nodes or texts.
function element(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function filled(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) if (value !== null) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function byId(id) { return document.getElementById(id); }

// ---- Tooltips: the same text for the mouse, for the keyboard and for screen readers ----

const tooltip = element("div", {id: "tooltip", role: "tooltip", hidden: ""});
document.body.append(tooltip);

// Of each described node what its tooltip says; one listener of the document serves all of them.
const descriptions = new WeakMap();

// text() is asked when the tooltip is to be seen; lines are cut by "\n".
function describe(node, text) { descriptions.set(node, text); }

function described(node) {
  while (node && !descriptions.has(node)) node = node.parentElement;
  return node;
}

const TALL = 60; // pixels: below and above a node of more, a tooltip would be far from the mouse

// The tooltip stands below what it is about, or above it, and covers neither that nor, in a table, what is left of it.
function showTooltip(node, x, pointerY) {
  tooltip.textContent = descriptions.get(node)();
  tooltip.hidden = false;
  const box = node.getBoundingClientRect(), {width, height} = tooltip.getBoundingClientRect();
  const isTall = box.height > TALL, above = isTall ? pointerY : box.top, below = isTall ? pointerY : box.bottom;
  const fits = below + 10 + height <= innerHeight;
  tooltip.style.left = Math.max(4, Math.min(x, innerWidth - width - 8)) + "px";
  tooltip.style.top = (fits ? below + 10 : Math.max(4, above - height - 10)) + "px";
}

function hideTooltip() { tooltip.hidden = true; }

document.addEventListener("mousemove", event => {
  const node = described(event.target);
  if (node) showTooltip(node, event.clientX + 14, event.clientY);
  else hideTooltip();
});
document.documentElement.addEventListener("mouseleave", hideTooltip);
document.addEventListener("focusin", event => {
  const node = described(event.target);
  if (!node) return;
  const box = node.getBoundingClientRect();
  node.setAttribute("aria-label", descriptions.get(node)());
  showTooltip(node, box.left, box.bottom);
});
document.addEventListener("focusout", hideTooltip);
document.addEventListener("keydown", event => { if (event.key === "Escape") hideTooltip(); });

// ---- Tables that are wider than the page: the side fades behind which there is more ----

function showWhetherThereIsMore() {
  for (const node of document.querySelectorAll(".scroll"))
    node.classList.toggle("more", node.scrollLeft + node.clientWidth < node.scrollWidth - 1);
}
document.addEventListener("scroll", showWhetherThereIsMore, {capture: true, passive: true});
addEventListener("resize", showWhetherThereIsMore);
addEventListener("load", showWhetherThereIsMore);

// ---- Arrow keys ----

const MOVES = {
  ArrowLeft: (x, y) => [x - 1, y], ArrowRight: (x, y) => [x + 1, y], ArrowUp: (x, y) => [x, y - 1],
  ArrowDown: (x, y) => [x, y + 1], Home: (x, y) => [0, y], End: (x, y) => [Infinity, y],
};
const places = new WeakMap(); // node -> {rows, x, y}

// One stop of the Tab key for rows of nodes; arrows, Home and End move inside.  rows [n][any length] of nodes.
function walkable(rows) {
  rows.forEach((row, y) => row.forEach((node, x) => { node.tabIndex = -1; places.set(node, {rows, x, y}); }));
  const first = rows.find(row => row.length > 0);
  if (first) first[0].tabIndex = 0;
}

document.addEventListener("keydown", event => {
  const place = places.get(event.target);
  if (!place || !MOVES[event.key]) return;
  event.preventDefault();
  const [x, y] = MOVES[event.key](place.x, place.y), row = place.rows[y];
  const to = row && row[Math.max(0, Math.min(x, row.length - 1))];
  if (!to) return;
  event.target.tabIndex = -1;
  to.tabIndex = 0;
  to.focus();
});
