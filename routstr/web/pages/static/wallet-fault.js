// An error as people can use it: who caused it, whether money moved, and the one next step.

import { Failure, WHO } from "./wallet-api.js";
import { el, fill, show } from "./wallet-dom.js";

/** The box that says it. What is no Failure is a fault of this page's own. */
export function faultBox(error) {
  const known = error instanceof Failure ? error : new Failure({
    message: "This page made a mistake.", who: "node", next: "Load the page again; your key stays.",
  });
  if (known !== error) console.error(error);
  const message = /[.!?]$/.test(known.message) ? known.message : `${known.message}.`;
  return el("div", { class: "banner bad fault", role: "alert" },
    el("div", { class: "say" }, el("div", {},
      el("p", {}, el("strong", {}, `${WHO[known.who]}: `), message),
      el("p", { class: "small" }, el("strong", {}, known.money), ` ${known.next}`))));
}

/** Show it in `place`, or clear `place` when there is no error. */
export function tellFault(place, error) {
  fill(place, error ? faultBox(error) : []);
  show(place, Boolean(error));
}
