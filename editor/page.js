() => {
  document.documentElement.lang = "en";

  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || document.fullscreenElement) return;
    const stop = document.querySelector("#stop");
    if (stop && stop.getClientRects().length) stop.click();
  });

  // What Gradio leaves without a name for those who can't see it.
  const names = {
    "#slider img": ["Before the edit", "After the edit"],
    "#refused img": ["The picture", "What the model makes of it"],
    "#link textarea, #link input": ["Link to this result"],
  };
  const name = () => {
    for (const [selector, said] of Object.entries(names)) {
      document.querySelectorAll(selector).forEach((part, index) => {
        part.setAttribute(part.tagName === "IMG" ? "alt" : "aria-label", said[Math.min(index, said.length - 1)]);
      });
    }
  };

  // In one column the candidates are far below the button: go there once a run begins.
  let watched = false;
  new MutationObserver(() => {
    const searching = document.querySelector("#candidates .card:not([data-index])") !== null;
    if (searching && !watched && window.innerWidth <= 760) {
      document.querySelector("#right").scrollIntoView({ behavior: "smooth" });
    }
    watched = searching;
    name();
  }).observe(document.body, { childList: true, subtree: true });
}
