// "Copy as Python" and "copy as curl", of the request behind a view.

import {element} from "../dom.js";
import {asCurl, asPython} from "./snippets.js";

/** @typedef {import("./types.js").Request} Request */

/** Puts two buttons into each element with data-copies; its value names the view.
 * @param {(view: string) => Promise<Request> | Request} requestOf
 * @param {() => boolean} hasKey
 * @param {(says: string) => void} status */
export function addCopyButtons(requestOf, hasKey, status) {
  for (const place of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-copies]"))) {
    const view = place.dataset.copies ?? "";
    place.append("copy as");
    for (const [name, write] of /** @type {const} */ ([["Python", asPython], ["curl", asCurl]])) {
      const button = element("button", {type: "button", class: "quiet", "aria-label": `copy as ${name}: ${view}`}, name);
      button.addEventListener("click", async () => {
        const text = write(await requestOf(view), location.origin, hasKey());
        await copied(text);
        status(`Copied: ${text.split("\n").length - 1} lines of ${name}.`);
      });
      place.append(button);
    }
  }
}

/** The clipboard belongs to secure pages alone; a page over plain HTTP from another machine selects the text by itself.
 * @param {string} text */
async function copied(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = element("textarea", {readonly: "", "aria-hidden": "true"});
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}
