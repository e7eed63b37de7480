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

// text() is asked when the tooltip is to be seen; lines are cut by "\n".
function describe(node, text) {
  const show = (x, y) => {
    tooltip.textContent = text();
    tooltip.hidden = false;
    const {width, height} = tooltip.getBoundingClientRect();
    tooltip.style.left = Math.max(4, Math.min(x + 14, innerWidth - width - 8)) + "px";
    tooltip.style.top = (y + 18 + height > innerHeight ? Math.max(4, y - height - 10) : y + 18) + "px";
  };
  const hide = () => { tooltip.hidden = true; };
  node.addEventListener("mousemove", event => show(event.clientX, event.clientY));
  node.addEventListener("mouseleave", hide);
  node.addEventListener("focus", () => {
    const box = node.getBoundingClientRect();
    node.setAttribute("aria-label", text());
    show(box.left, box.bottom - 12);
  });
  node.addEventListener("blur", hide);
}

document.addEventListener("keydown", event => { if (event.key === "Escape") tooltip.hidden = true; });

// ---- Tables that are wider than the page: the side fades behind which there is more ----

function showWhetherThereIsMore() {
  for (const node of document.querySelectorAll(".scroll"))
    node.classList.toggle("more", node.scrollLeft + node.clientWidth < node.scrollWidth - 1);
}
document.addEventListener("scroll", showWhetherThereIsMore, {capture: true, passive: true});
addEventListener("resize", showWhetherThereIsMore);
addEventListener("load", showWhetherThereIsMore);

// ---- Arrow keys ----

// One stop of the Tab key for rows of nodes; arrows, Home and End move inside.  rows [n][any length] of nodes.
function walkable(rows) {
  const place = new Map();
  rows.forEach((row, y) => row.forEach((node, x) => { node.tabIndex = -1; place.set(node, [x, y]); }));
  const first = rows.find(row => row.length > 0);
  if (first) first[0].tabIndex = 0;
  const go = (from, x, y) => {
    const row = rows[y];
    const to = row && row[Math.max(0, Math.min(x, row.length - 1))];
    if (!to) return;
    from.tabIndex = -1;
    to.tabIndex = 0;
    to.focus();
  };
  const moves = {
    ArrowLeft: (x, y) => [x - 1, y], ArrowRight: (x, y) => [x + 1, y], ArrowUp: (x, y) => [x, y - 1],
    ArrowDown: (x, y) => [x, y + 1], Home: (x, y) => [0, y], End: (x, y) => [Infinity, y],
  };
  for (const [node, [x, y]] of place) node.addEventListener("keydown", event => {
    if (!moves[event.key]) return;
    event.preventDefault();
    go(node, ...moves[event.key](x, y));
  });
}
