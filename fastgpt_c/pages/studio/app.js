// The page that fastgpt-c serve shows: it makes the parts, and tells each of what concerns it.

import {byId} from "../dom.js";
import {Branches} from "./branches.js";
import {Chips} from "./chips.js";
import {Choices} from "./choices.js";
import {addCopyButtons} from "./copying.js";
import {httpTransport} from "./http.js";
import {askKey} from "./key.js";
import {Live} from "./live.js";
import {Looking} from "./looking.js";
import {PartsTab} from "./parts.js";
import * as requests from "./requests.js";
import {decode, encode, TABS} from "./state.js";
import {Story} from "./story.js";

/** @typedef {import("./types.js").Tab} Tab */

const state = decode(location.hash.slice(1));
let hasKey = false, written = ""; // what the address says
const transport = httpTransport(async message => {
  const key = await askKey(message);
  hasKey ||= key !== null;
  return key;
});

// ---- The parts ----

const chips = new Chips(byId("text"), (place, byKeyboard) => choose(place, byKeyboard).catch(failed));
const choices = new Choices(transport, state.sampling, {
  picked: id => { branchHere(id).catch(failed); },
  filtered: save,
});
const branches = new Branches(state, {
  opened: branch => open(branch).catch(failed),
  compared: branch => {
    state.other = branch;
    branches.show();
    save();
  },
});
const looking = new Looking(transport, state, save);
const partsTab = new PartsTab(transport, state);
const live = new Live(transport, failed);
const seed = /** @type {HTMLInputElement} */ (byId("seed"));
const editor = /** @type {HTMLTextAreaElement} */ (byId("editor"));
const story = new Story(editor, transport, state, {
  changed: () => { showAll().catch(failed); },
  grew: tokens => chips.add(tokens),
  status: say,
  busy: isBusy => {
    const hides = byId(isBusy ? "write" : "stop"), shows = byId(isBusy ? "stop" : "write"), hadFocus = hides === document.activeElement;
    shows.hidden = false;
    if (hadFocus) shows.focus();
    hides.hidden = true;
    seed.placeholder = String(story.lastSeed);
  },
  failed,
});

/** @param {string} text */
function say(text) {
  byId("status").classList.remove("error");
  byId("status").textContent = text;
}

/** @param {unknown} error */
function failed(error) {
  byId("status").classList.add("error");
  byId("status").textContent = error instanceof Error ? error.message : String(error);
}

// ---- What the reader does ----

/** @param {number | null} place */
async function showChoices(place) {
  state.place = place;
  chips.select(place);
  byId("from-here").hidden = place === null;
  byId("after-last").hidden = place === null;
  save();
  await choices.show(state.tree.line(), place);
}

/** @param {number | null} place
 * @param {boolean} byKeyboard */
async function choose(place, byKeyboard) {
  if (story.isBusy) return;
  await Promise.all([showChoices(place), state.tab === "parts" ? partsTab.show() : null]);
  if (byKeyboard) choices.focus();
}

/** @param {number | null} id */
const branchHere = id => story.branchAt(state.place ?? state.tree.line().length, id);

/** @param {number} branch */
async function open(branch) {
  if (story.isBusy) return;
  await story.settle();
  state.tree.current = branch;
  state.place = null;
  await story.open();
}

/** Everything that depends on the text. */
async function showAll() {
  chips.show(state.tree.line());
  branches.show();
  save();
  await Promise.all([showChoices(state.place), showTab(state.tab)]);
}

// ---- Tabs ----

/** @param {Tab} tab */
async function showTab(tab) {
  state.tab = tab;
  for (const name of TABS) {
    const button = byId("tab-" + name);
    button.setAttribute("aria-selected", String(name === tab));
    button.tabIndex = name === tab ? 0 : -1;
    byId("panel-" + name).hidden = name !== tab;
  }
  save();
  live.show(tab === "time" || tab === "server" ? tab : null);
  if (!story.isBusy && (tab === "lens" || tab === "attention")) await looking.show(tab);
  if (!story.isBusy && tab === "parts") await partsTab.show();
}

byId("tabs").addEventListener("click", event => {
  const tab = TABS.find(name => event.target === byId("tab-" + name));
  if (tab) showTab(tab).catch(failed);
});
byId("tabs").addEventListener("keydown", event => {
  const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
  if (!step) return;
  const tab = TABS[(TABS.indexOf(state.tab) + step + TABS.length) % TABS.length];
  showTab(tab).catch(failed);
  byId("tab-" + tab).focus();
});

// ---- The address ----

function save() {
  written = encode(state);
  history.replaceState(null, "", written === "" ? location.pathname + location.search : "#" + written);
}

addEventListener("hashchange", () => { if (location.hash.slice(1) !== written) location.reload(); });

// ---- Buttons, fields and keys ----

byId("write").addEventListener("click", () => { story.write().catch(failed); });
byId("stop").addEventListener("click", () => story.stop());
byId("from-here").addEventListener("click", () => { branchHere(null).catch(failed); });
byId("after-last").addEventListener("click", () => { choose(null, false).catch(failed); });
document.addEventListener("keydown", event => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    story.write().catch(failed);
  }
  if (event.key === "Escape" && story.isBusy) story.stop();
  else if (event.key === "Escape" && byId("choices-panel").contains(document.activeElement)) chips.focus(state.place);
});

const maxTokens = /** @type {HTMLInputElement} */ (byId("max-tokens"));
maxTokens.value = String(state.max_tokens);
seed.value = state.seed === null ? "" : String(state.seed);
maxTokens.addEventListener("change", () => {
  if (maxTokens.validity.valid) state.max_tokens = maxTokens.valueAsNumber;
  maxTokens.value = String(state.max_tokens);
  save();
});
seed.addEventListener("change", () => {
  state.seed = seed.validity.valid && seed.value !== "" ? seed.valueAsNumber : null;
  seed.value = state.seed === null ? "" : String(state.seed);
  save();
});

addCopyButtons(async view => {
  await story.settle();
  const ids = story.ids(), text = editor.value;
  const prompt = String(await transport.tokenize(text)) === String(ids) ? text : ids; // where text alone says it
  const request = story.request();
  if (view === "story") return {...request, body: {...request.body, prompt}};
  if (view === "choices") return requests.inspection(state.place === null ? prompt : ids.slice(0, state.place), "next");
  if (view === "branches") return requests.scores(prompt);
  if (view === "lens" || view === "attention") return requests.inspection(prompt, view);
  if (view === "parts") return partsTab.request() ?? requests.parts(prompt, null);
  return requests.METRICS;
}, () => hasKey, say);

// ---- The beginning ----

async function begin() {
  const {id, n_ctx} = await transport.model();
  story.n_ctx = n_ctx;
  byId("model").textContent = `${id}, ${n_ctx.toLocaleString("en")} tokens of context`;
  await story.describeTree();
  await story.open();
}

begin().catch(failed);
