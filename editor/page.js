() => {
  document.documentElement.lang = "en";

  // Escape stops a run, unless it closes an enlarged picture or a list, leaves a cell, or is for an input method;
  // Enter starts no second run beside one.
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || event.defaultPrevented || event.isComposing) return;
    if (document.fullscreenElement || document.querySelector(".fullscreen, [role='listbox']")) return;
    const stop = document.querySelector("#stop");
    if (stop && stop.getClientRects().length) stop.click();
  });
  document.addEventListener("keypress", (event) => {
    if (event.key !== "Enter" || !event.target.closest?.("#instruction")) return;
    if (document.querySelector("#run").disabled) event.stopPropagation();
  }, true);

  // What Gradio leaves without a name for those who can't see it.
  const names = {
    "#slider img": ["Before the edit", "After the edit"],
    "#refused img": ["The picture", "What came of it"],
    "#link textarea, #link input": ["Link to this result"],
  };
  const hints = { "#stop": "Keeps the best so far (Escape)" };
  const name = () => {
    for (const [selector, said] of Object.entries(names)) {
      document.querySelectorAll(selector).forEach((part, index) => {
        part.setAttribute(part.tagName === "IMG" ? "alt" : "aria-label", said[Math.min(index, said.length - 1)]);
      });
    }
    for (const [selector, said] of Object.entries(hints)) {
      document.querySelector(selector)?.setAttribute("title", said);
    }
  };

  // What has just come may be out of sight, in one column or from a card at the foot: go to the candidates once a run
  // begins, and to another result; but take nobody away who is writing or scrolling and has asked for nothing since,
  // nor who has only come back.
  let busyAt = 0;
  const noted = (kind, note) => document.addEventListener(kind, note, { capture: true, passive: true });
  for (const kind of ["wheel", "touchmove", "input"]) noted(kind, () => { busyAt = Date.now(); });
  noted("click", () => { busyAt = 0; });
  noted("keydown", (event) => { if (event.key === "Enter") busyAt = 0; });
  const go = () => {
    const right = document.querySelector("#right"), { top } = right.getBoundingClientRect();
    const away = top < -80 || top > window.innerHeight / 2;
    if (away && Date.now() - busyAt > 2000) right.scrollIntoView({ behavior: "smooth" });
  };
  let watched = false, result = window.location.search.includes("edit=") ? null : "";
  new MutationObserver(() => {
    const searching = document.querySelector("#candidates .card:not([data-index])") !== null;
    const shown = [...document.querySelectorAll("#slider img")].at(-1)?.src ?? result;
    const another = shown !== result && (result !== "" || watched);
    if ((searching && !watched) || another) go();
    [watched, result] = [searching, shown];
    name();
  }).observe(document.body, { childList: true, subtree: true, attributes: true, attributeFilter: ["src"] });
}
