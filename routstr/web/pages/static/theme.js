// Runs before the first paint, so that a chosen theme never flashes; app.js has the switch.
(() => {
  try {
    const chosen = localStorage.getItem("routstr.theme");
    if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
  } catch {
    // Storage is refused: the system's theme it is.
  }
})();
