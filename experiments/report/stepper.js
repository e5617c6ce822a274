// A slider for the gradient step: of the parts that belong to a step, only those of the chosen step are shown.
"use strict";
(() => {
  const slider = document.getElementById("steps"), output = document.getElementById("steps-value");
  const parts = document.querySelectorAll("[data-step]");
  function show() {
    for (const part of parts) part.toggleAttribute("hidden", part.dataset.step !== slider.value);
    const count = Number(slider.value);
    output.textContent = count === 0 ? "before adaptation" : `after ${count} gradient step${count === 1 ? "" : "s"}`;
  }
  slider.addEventListener("input", show);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.target === slider && event.key.startsWith("Arrow")) return;  // the browser moves it
    const digit = /^[0-9]$/.test(event.key) ? Number(event.key) : NaN;
    const moved = { ArrowLeft: Number(slider.value) - 1, ArrowRight: Number(slider.value) + 1 }[event.key] ?? digit;
    if (Number.isNaN(moved)) return;
    slider.value = moved;
    show();
  });
  show();
})();
