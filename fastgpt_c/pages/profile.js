// The page of `fastgpt-c profile --html`.

import {byId, describe, element, svg, walkable} from "./dom.js";

// A report of fastgpt_c/profiling/report.py.
const data = JSON.parse(byId("data").textContent);
const OPS = ["embed", "ln_1", "qkv", "attention", "attn_proj", "ln_2", "fc", "gelu", "proj", "ln_f", "lm_head", "sample",
  "other"];
const roof = data.roofline;
const phases = Object.keys(data.phases).filter(name => data.phases[name].n_steps > 0);
let phase = phases[phases.length - 1];
let order = {key: "ns", falling: true};
let width = 0; // of the charts: as many units as there are pixels, so that texts keep their size

const sum = numbers => numbers.reduce((a, b) => a + b, 0);
const nSteps = () => data.phases[phase].n_steps;
const ms = ns => (ns / 1e6 / nSteps()).toFixed(3); // a step
const roundPercent = share => (100 * share).toFixed(1) + "%";
const ofRoof = share => share === null ? "" : share >= 1.0005 ? ">100%" : roundPercent(share); // above it means nothing
const ofPhase = rows => rows.filter(row => row.phase === phase);
const counted = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;
const part = (op, attributes) => svg("rect", {class: "part " + op, ...attributes});

// ---- What was run ----

function summary() {
  const {model, machine} = data;
  const best = roof ? `  Ceiling of this machine: ${(roof.read_bytes_per_second / 1e9).toFixed(1)} GB/s, ` +
    peaks().map(peak => `${peak.rate.toFixed(0)} GFLOP/s ${peak.kind}`).join(", ") + "." : "";
  return `${model.name || "A model"}, ${model.type}, ${(model.n_params / 1e6).toFixed(1)} million parameters, ` +
    `n_layer ${model.n_layer}, n_embd ${model.n_embd}; ${counted(data.n_threads, "thread")} on ${machine.cpu || "an unknown CPU"} ` +
    `(${machine.kernels}), fastgpt-c ${data.version}.` + best;
}

function phaseButton(name) {
  const {n_steps, n_tokens, ns} = data.phases[name];
  const button = element("button", {type: "button", "data-phase": name},
    name, element("b", {}, `${(1e9 * n_tokens / ns).toFixed(1)} tokens/s`),
    element("span", {}, `${counted(n_tokens, "token")} in ${counted(n_steps, "step")}, ${(ns / 1e6 / n_steps).toFixed(3)} ms a step`));
  button.addEventListener("click", () => { phase = name; draw(); });
  return button;
}

// ---- Layers ----

// [{name, parts: [record]}] from the top to the bottom of the model.
function layerRows() {
  const names = {embed: "embed", ln_f: "output", lm_head: "output", sample: "sample", other: "other"};
  const rows = new Map([["embed", []]]);
  for (let l = 0; l < data.model.n_layer; l++) rows.set("layer " + l, []);
  for (const name of ["output", "sample", "other"]) rows.set(name, []);
  for (const r of ofPhase(data.records)) rows.get(r.layer < 0 ? names[r.op] : "layer " + r.layer).push(r);
  return [...rows].map(([name, parts]) => ({name, parts})).filter(row => row.parts.length > 0);
}

function recordText(name, r, total) {
  const rates = r.bytes ? `\n${(r.bytes / r.ns).toFixed(1)} GB/s, ${(r.operations / r.ns).toFixed(1)} GFLOP/s` : "";
  return `${name}, ${r.op}\n${ms(r.ns)} ms a step, ${roundPercent(r.ns / total)} of the time${rates}`;
}

function drawLayers() {
  const rows = layerRows(), height = 23, left = 70, right = 60;
  const whole = rows.map(row => sum(row.parts.map(r => r.ns)));
  const scale = (width - left - right) / Math.max(...whole), total = sum(whole);
  const chart = byId("layers"), walk = [];
  chart.setAttribute("viewBox", `0 0 ${width} ${rows.length * height}`);
  chart.replaceChildren(...rows.map((row, y) => {
    let x = left;
    const parts = row.parts.map(r => {
      const node = part(r.op, {x, y: y * height + 2, width: Math.max(r.ns * scale, 0.5), height: height - 5});
      x += r.ns * scale;
      describe(node, () => recordText(row.name, r, total));
      return node;
    });
    walk.push(parts);
    return svg("g", {}, svg("text", {x: left - 8, y: y * height + 15, class: "end"}, row.name), ...parts,
      svg("text", {x: x + 8, y: y * height + 15, class: "strong"}, ms(whole[y])));
  }));
  walkable(walk);
  byId("legend").replaceChildren(...ofPhase(data.ops).map(row =>
    element("span", {}, element("i", {class: "swatch " + row.op}), `${row.op} ${roundPercent(row.share)}`)));
}

// ---- Steps ----

function stepText(step) {
  const parts = Object.entries(step.ops).sort((a, b) => b[1] - a[1]).slice(0, 6);
  const lines = parts.map(([op, ns]) => `${op} ${(ns / 1e6).toFixed(3)}`);
  return `step ${step.step}: ${counted(step.n_tokens, "token")} in ${(step.ns / 1e6).toFixed(3)} ms\n` +
    `sampled in ${(step.sample_ns / 1e6).toFixed(3)} ms\n${lines.join("\n")}`;
}

// About n round numbers from 0 to most.
function ticks(most, n) {
  const rough = most / n, power = 10 ** Math.floor(Math.log10(rough));
  const gap = power * [1, 2, 5, 10].find(factor => factor * power >= rough);
  return Array.from({length: Math.floor(most / gap) + 1}, (_, i) => i * gap);
}

function stepBar(step, x, width, bottom, scale) {
  let y = bottom;
  const parts = OPS.filter(op => step.ops[op]).map(op => {
    y -= step.ops[op] * scale;
    return part(op, {x, y, width, height: step.ops[op] * scale});
  });
  const bar = svg("g", {class: "step"}, ...parts);
  describe(bar, () => stepText(step));
  return bar;
}

function drawTimeline() {
  const steps = ofPhase(data.steps), left = 46, bottom = 194, top = 18;
  byId("timeline-title").textContent = phase === "decode" ? "Token by token" : "Prefill, step by step";
  const most = Math.max(...steps.map(step => step.ns), 1), scale = (bottom - top) / most;
  const room = Math.min((width - left) / Math.max(steps.length, 1), 60);
  const bars = steps.map((step, i) => stepBar(step, left + i * room, Math.max(room - (room > 4 ? 1.5 : 0), 0.5), bottom, scale));
  const unit = svg("text", {class: "end", x: left - 6, y: 10}, "ms");
  const grid = ticks(most / 1e6, 4).map(value => {
    const y = bottom - value * 1e6 * scale;
    return svg("g", {}, svg("line", {class: "grid", x1: left, x2: width, y1: y, y2: y}),
      svg("text", {class: "end", x: left - 6, y: y + 4}, +value.toPrecision(6)));
  });
  byId("timeline").setAttribute("viewBox", `0 0 ${width} ${bottom + 8}`);
  byId("timeline").replaceChildren(unit, ...grid, ...bars);
  walkable([bars]);
}

// ---- Roofline: Williams, Waterman and Patterson 2009 ----

// The arithmetic that products are compared with, and that of all else; rates in GFLOP/s.
function peaks() {
  return [...new Set([roof.arithmetic, "f32"])].map(kind => ({kind, rate: roof[kind + "_operations_per_second"] / 1e9}));
}

function log10Scale(values, from, to) {
  const low = Math.log10(Math.min(...values)) - 0.15, high = Math.log10(Math.max(...values)) + 0.3;
  const at = value => from + (Math.log10(value) - low) / (high - low) * (to - from);
  const marks = [];
  for (let power = Math.ceil(low); power <= Math.floor(high); power++) marks.push(10 ** power);
  return {at, marks, low: 10 ** low, high: 10 ** high};
}

function pointText({op, intensity, rate, row}) {
  const share = row.roofline === null ? "" : `\n${ofRoof(row.roofline)} of what this machine could do`;
  return `${op}\n${intensity.toPrecision(3)} operations for each byte\n${rate.toFixed(1)} GFLOP/s, ` +
    `${(row.bytes / row.ns).toFixed(1)} GB/s${share}`;
}

// Where the labels of near points stand: in a column beside them, at the left where the chart ends at the right.
function columnOf(dots) {
  const xs = dots.map(d => d.x), ys = dots.map(d => d.y), room = 76, half = 7.5 * dots.length;
  const atRight = Math.max(...xs) + room < width, middle = sum(ys) / ys.length;
  const x = atRight ? Math.max(...xs) + 14 : Math.min(...xs) - 14;
  return {
    x, atRight, top: middle - half,
    box: {left: Math.min(...xs, x - (atRight ? 0 : room)) - 8, right: Math.max(...xs, x + (atRight ? room : 0)) + 8,
      top: Math.min(...ys, middle - half) - 8, bottom: Math.max(...ys, middle + half) + 8},
  };
}

const meet = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;

// Dots whose labels would meet have one column together.
function groupsOf(dots) {
  const groups = dots.map(dot => [dot]);
  for (let i = 0; i < groups.length; i++) for (let j = i + 1; j < groups.length; j++)
    if (meet(columnOf(groups[i]).box, columnOf(groups[j]).box)) {
      groups[i].push(...groups.splice(j, 1)[0]);
      i = j = -1; // anew: the larger group may meet others
      break;
    }
  return groups;
}

// A label for each point, and a line between the two where labels stand in a column.
function placeLabels(points, x, y) {
  const dots = points.map(p => ({op: p.op, x: x.at(p.intensity), y: y.at(p.rate)}));
  return groupsOf(dots).flatMap(group => {
    const column = columnOf(group);
    return group.sort((a, b) => a.y - b.y).flatMap((dot, i) => {
      const middle = column.top + 15 * i + 7.5, end = column.atRight ? column.x - 3 : column.x + 3;
      const line = svg("path", {class: "leader " + dot.op, d: `M${dot.x} ${dot.y}L${end} ${middle}`});
      const label = svg("text", {class: "strong" + (column.atRight ? "" : " end"), x: column.x, y: middle + 4}, dot.op);
      return group.length > 1 ? [line, label] : [label];
    });
  });
}

function roofLines(x, y) {
  const bandwidth = roof.read_bytes_per_second / 1e9, best = Math.max(...peaks().map(peak => peak.rate));
  const from = Math.max(x.low, y.low / bandwidth), to = best / bandwidth;
  const slope = svg("path", {class: "roof", d: `M${x.at(from)} ${y.at(bandwidth * from)}L${x.at(to)} ${y.at(best)}`});
  const flat = peaks().flatMap(({kind, rate}) => [
    svg("path", {class: "roof", d: `M${x.at(rate / bandwidth)} ${y.at(rate)}H${x.at(x.high)}`}),
    svg("text", {class: "end", x: x.at(x.high), y: y.at(rate) - 6}, `${rate.toFixed(0)} GFLOP/s ${kind}`)]);
  const name = svg("text", {x: x.at(from) + 10, y: y.at(bandwidth * from) + 14}, `${bandwidth.toFixed(1)} GB/s`);
  return [slope, ...flat, name];
}

function axes(x, y, bottom) {
  return [
    ...x.marks.map(value => svg("g", {}, svg("line", {class: "grid", x1: x.at(value), x2: x.at(value), y1: 22, y2: bottom}),
      svg("text", {class: "middle", x: x.at(value), y: bottom + 16}, value))),
    ...y.marks.map(value => svg("g", {}, svg("line", {class: "grid", x1: 60, x2: width - 10, y1: y.at(value), y2: y.at(value)}),
      svg("text", {class: "end", x: 54, y: y.at(value) + 4}, value))),
    svg("text", {class: "end", x: width - 10, y: bottom + 34}, "operations for each byte"),
    svg("text", {x: 60, y: 12}, "GFLOP/s"),
  ];
}

function drawRoofline() {
  const points = ofPhase(data.ops).filter(row => row.operations > 0 && row.ns > 0).map(row =>
    ({op: row.op, row, intensity: row.operations / row.bytes, rate: row.operations / row.ns}));
  const tops = roof ? peaks().map(peak => peak.rate) : [];
  const ridges = tops.map(rate => rate * 1e9 / roof.read_bytes_per_second), bottom = 330;
  const x = log10Scale([...points.map(p => p.intensity), ...ridges], 60, width - 10);
  const y = log10Scale([...points.map(p => p.rate), ...tops], bottom, 22);
  const dots = points.map(p => {
    const dot = svg("circle", {class: "dot " + p.op, cx: x.at(p.intensity), cy: y.at(p.rate), r: 6.5});
    describe(dot, () => pointText(p));
    return dot;
  });
  byId("roofline").setAttribute("viewBox", `0 0 ${width} ${bottom + 40}`);
  byId("roofline").replaceChildren(...axes(x, y, bottom), ...(roof ? roofLines(x, y) : []), ...placeLabels(points, x, y), ...dots);
  walkable([dots]);
  byId("roofline-text").textContent = roof ?
    "Under the slope the memory sets the pace, under a flat line the arithmetic.  What rises above the slope was read from a cache." :
    "What this machine can do was not measured; the points show what was done.";
}

// ---- Table ----

const COLUMNS = [
  ["op", "op", row => row.op, row => row.op],
  ["ns", "ms a step", row => row.ns, row => ms(row.ns)],
  ["share", "share", row => row.share, row => roundPercent(row.share)],
  ["calls", "calls", row => row.calls, row => String(row.calls)],
  ["gb", "GB/s", row => row.bytes / row.ns, row => row.bytes ? (row.bytes / row.ns).toFixed(1) : ""],
  ["gflop", "GFLOP/s", row => row.operations / row.ns, row => row.operations ? (row.operations / row.ns).toFixed(1) : ""],
  ["roofline", "of roofline", row => row.roofline ?? -1, row => ofRoof(row.roofline)],
  ["best", "at best", row => row.roofline_at_best ?? -1, row => ofRoof(row.roofline_at_best)],
];

function heading([key, text]) {
  const button = element("button", {type: "button"}, text);
  button.addEventListener("click", () => {
    order = {key, falling: order.key === key ? !order.falling : key !== "op"};
    drawTable();
    byId("head").querySelector(`[data-key="${key}"] button`).focus();
  });
  const sorted = order.key === key ? (order.falling ? "descending" : "ascending") : null;
  return element("th", {scope: "col", class: key === "op" ? "text" : null, "data-key": key, "aria-sort": sorted}, button);
}

function drawTable() {
  const value = COLUMNS.find(column => column[0] === order.key)[2];
  const compare = (a, b) => (value(a) > value(b)) - (value(a) < value(b));
  const rows = ofPhase(data.ops).sort((a, b) => order.falling ? compare(b, a) : compare(a, b));
  byId("head").replaceChildren(element("tr", {}, ...COLUMNS.map(heading)));
  byId("rows").replaceChildren(...rows.map(row => element("tr", {}, ...COLUMNS.map(([key, , , show]) => key === "op" ?
    element("td", {class: "text"}, element("i", {class: "swatch " + row.op}), row.op) : element("td", {}, show(row))))));
}

// ---- All ----

const room = () => byId("layers").getBoundingClientRect().width;

function draw() {
  width = room();
  for (const button of byId("phases").children) button.setAttribute("aria-pressed", button.dataset.phase === phase);
  drawLayers();
  drawTimeline();
  drawRoofline();
  drawTable();
}

byId("summary").textContent = summary();
byId("phases").append(...phases.map(phaseButton));
if (phase) {
  draw();
  addEventListener("resize", () => { if (room() !== width) draw(); });
}
