() => {
  document.documentElement.lang = "en";

  // Escape stops a run, unless it closes an enlarged picture or leaves a cell; Enter starts no second run beside one.
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || event.defaultPrevented) return;
    if (document.fullscreenElement || document.querySelector(".fullscreen")) return;
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
    "#refused img": ["The picture", "What the model makes of it"],
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
  // begins, and to another result.
  const go = () => {
    const right = document.querySelector("#right"), { top } = right.getBoundingClientRect();
    if (top < -80 || top > window.innerHeight / 2) right.scrollIntoView({ behavior: "smooth" });
  };
  let watched = false, result = null;
  new MutationObserver(() => {
    const searching = document.querySelector("#candidates .card:not([data-index])") !== null;
    const shown = document.querySelector("#slider img")?.src ?? result;
    if ((searching && !watched) || shown !== result) go();
    [watched, result] = [searching, shown];
    name();
  }).observe(document.body, { childList: true, subtree: true, attributes: true, attributeFilter: ["src"] });
}
