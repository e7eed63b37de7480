// The dialog that asks for the server's key: it is given to who asked, and kept nowhere else.

import {byId} from "../dom.js";

/** @param {string} message  what was wrong with the last one, "" at first
 * @returns {Promise<string | null>} null where the reader has none */
export function askKey(message) {
  const dialog = /** @type {HTMLDialogElement} */ (byId("key-dialog"));
  const input = /** @type {HTMLInputElement} */ (byId("key"));
  byId("key-message").textContent = message;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise(resolve => {
    dialog.addEventListener("close", () => {
      resolve(dialog.returnValue === "ok" && input.value !== "" ? input.value : null);
      input.value = "";
    }, {once: true});
  });
}
