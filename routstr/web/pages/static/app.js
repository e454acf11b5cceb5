// What every page can do with a script: copy, save, dialogs, theme, toasts, live parts, and the
// question before a secret that is shown once is left behind. Pages are whole without it.
(() => {
  "use strict";

  const TOAST_MS = 5000;
  const COPIED_MS = 1600;
  const IDLE_MS = 600000;
  const THEME = "routstr.theme";
  const page = document.documentElement;

  function each(root, selector, act) {
    if (root.matches?.(selector)) act(root);
    root.querySelectorAll(selector).forEach(act);
  }

  // ── toasts ────────────────────────────────────────────────────────────────────────────────
  function toast(text, kind = "ok") {
    const box = document.createElement("div");
    box.className = `toast ${kind}`;
    box.textContent = text;
    document.getElementById("toasts").append(box);
    leaveLater(box);
  }

  function leaveLater(box) {
    setTimeout(() => box.remove(), TOAST_MS);
  }

  // ── copy and save ─────────────────────────────────────────────────────────────────────────
  async function copied(text) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      return copiedBySelection(text);
    }
  }

  // A page on plain HTTP has no clipboard of its own.
  function copiedBySelection(text) {
    const field = document.createElement("textarea");
    const host = document.querySelector("dialog[open]") ?? document.body;
    const before = document.activeElement;
    field.value = text;
    field.readOnly = true;
    field.className = "hush";
    host.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    before?.focus?.();
    return done;
  }

  async function copy(button) {
    const from = button.dataset.copyFrom && document.querySelector(button.dataset.copyFrom);
    const text = from ? (from.value ?? from.textContent) : button.dataset.copy;
    if (!(await copied(text))) {
      toast("This browser does not let a page copy: select the text instead.", "bad");
      return;
    }
    button.closest("[data-once]")?.setAttribute("data-kept", "");
    feedback(button, "Copied");
  }

  function feedback(button, word) {
    const label = button.querySelector("[data-word]") ?? button;
    if (button.dataset.says !== undefined) return;
    button.dataset.says = label.textContent;
    label.textContent = word;
    button.classList.add("copied");
    setTimeout(() => {
      label.textContent = button.dataset.says;
      delete button.dataset.says;
      button.classList.remove("copied");
    }, COPIED_MS);
  }

  function save(button) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([`${button.dataset.text}\n`], { type: "text/plain" }));
    link.download = button.dataset.save;
    link.click();
    URL.revokeObjectURL(link.href);
    button.closest("[data-once]")?.setAttribute("data-kept", "");
  }

  // ── theme ─────────────────────────────────────────────────────────────────────────────────
  function switchTheme() {
    const isDark = page.dataset.theme
      ? page.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    page.dataset.theme = isDark ? "light" : "dark";
    try {
      localStorage.setItem(THEME, page.dataset.theme);
    } catch {
      // Storage is refused: the choice holds for this page.
    }
    page.dispatchEvent(new CustomEvent("routstr:theme"));
  }

  // ── dialogs ───────────────────────────────────────────────────────────────────────────────
  function opens(control) {
    const dialog = document.getElementById(control.dataset.opens);
    if (!dialog || dialog.open) return;
    dialog.showModal();
    dialog.querySelector("input:not([type=hidden]), select, textarea")?.focus();
  }

  // ── parts that come to life when the page does, or when htmx brings them ──────────────────
  function revive(root) {
    each(root, "[data-copy], [data-copy-from], [data-save], [data-theme-switch]", (control) => {
      control.hidden = false;
    });
    each(root, "[data-toast]", leaveLater);
    each(root, "[data-csrf]", (form) => {
      form.setAttribute("hx-headers", JSON.stringify({ "X-CSRF-Token": form.dataset.csrf }));
    });
  }

  document.addEventListener("click", (event) => {
    const control = event.target.closest?.(
      "[data-copy], [data-copy-from], [data-save], [data-theme-switch], [data-opens], [data-closes]",
    );
    if (!control) {
      if (event.target.nodeName === "DIALOG" && event.target.open) event.target.close();
      return;
    }
    if (control.dataset.copy !== undefined || control.dataset.copyFrom) copy(control);
    else if (control.dataset.save) save(control);
    else if (control.dataset.themeSwitch !== undefined) switchTheme();
    else {
      event.preventDefault();
      if (control.dataset.opens) opens(control);
      else control.closest("dialog")?.close();
    }
  });

  // A link that looks like a button is pressed by the space bar as one.
  document.addEventListener("keydown", (event) => {
    if (event.key !== " " || !event.target.matches?.("a[role=button]")) return;
    event.preventDefault();
    event.target.click();
  });

  // Another place is pressed, or Escape: the menu of a phone closes.
  document.addEventListener("pointerdown", (event) => {
    for (const menu of document.querySelectorAll("[data-menu][open]")) {
      if (!menu.contains(event.target)) menu.open = false;
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    for (const menu of document.querySelectorAll("[data-menu][open]")) menu.open = false;
  });

  // One press, one form: the second would only be told that the first is under way.
  document.addEventListener("submit", (event) => {
    if (event.target.dataset.sent !== undefined) {
      event.preventDefault();
      return;
    }
    if (event.target.method === "post") event.target.dataset.sent = "";
  });
  window.addEventListener("pageshow", () => {
    each(document, "form[data-sent]", (form) => delete form.dataset.sent);
  });

  // A filter that is changed is applied; its button is for those without a script.
  document.addEventListener("change", (event) => {
    event.target.closest?.("form[data-auto]")?.requestSubmit();
  });

  function isUnkept() {
    return document.querySelector("[data-once]:not([data-kept])") !== null;
  }

  window.addEventListener("beforeunload", (event) => {
    if (isUnkept()) event.preventDefault();
  });

  // ── live: the server says what changed, htmx fetches those parts again ────────────────────
  // A page that nobody touches stops asking, so that a forgotten session comes to its end.
  function listen() {
    const path = document.querySelector("[data-live]")?.dataset.live;
    if (!path) return;
    const dot = document.querySelector("[data-live-dot]");
    let source = null;
    let touchedAt = Date.now();
    const tell = (word) => {
      if (!dot) return;
      dot.hidden = false;
      dot.textContent = word;
      dot.classList.toggle("on", word === "Live");
    };
    const stop = (word) => {
      source?.close();
      source = null;
      tell(word);
    };
    const start = () => {
      source = new EventSource(path);
      source.addEventListener("open", () => tell("Live"));
      source.addEventListener("error", () => {
        if (source?.readyState === EventSource.CLOSED) stop("Not live: load the page again");
        else tell("Reconnecting");
      });
      source.addEventListener("changed", (event) => {
        if (Date.now() - touchedAt > IDLE_MS) stop("Paused");
        else if (!document.hidden) event.data.split(" ").forEach(refresh);
      });
    };
    const touched = () => {
      touchedAt = Date.now();
      if (!source && dot?.textContent === "Paused") start();
    };
    for (const name of ["pointerdown", "pointermove", "keydown"]) {
      document.addEventListener(name, touched, { passive: true });
    }
    window.addEventListener("pagehide", () => source?.close());
    start();
  }

  function refresh(name) {
    const isInUse = document.getElementById(name)?.querySelector("details[open], :focus-visible");
    if (!isInUse) document.body.dispatchEvent(new CustomEvent(`live-${name}`));
  }

  document.addEventListener("htmx:afterSettle", (event) => revive(event.target));
  document.addEventListener("htmx:responseError", () => {
    toast("The node did not take that. Nothing was changed.", "bad");
  });
  document.addEventListener("DOMContentLoaded", () => {
    revive(document);
    if (location.hash.length > 1) {
      const target = document.getElementById(location.hash.slice(1));
      if (target?.nodeName === "DIALOG") target.showModal();
    }
    listen();
  });

  window.routstr = { toast, copied, revive };
})();
