() => {
  document.documentElement.lang = "en";

  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || document.fullscreenElement) return;
    const stop = document.querySelector("#stop");
    if (stop && stop.offsetParent !== null) stop.click();
  });

  // In one column the candidates are far below the button: go there once a run begins.
  let watched = false;
  new MutationObserver(() => {
    const searching = document.querySelector("#candidates .card:not([data-index])") !== null;
    if (searching && !watched && window.innerWidth <= 760) {
      document.querySelector("#right").scrollIntoView({ behavior: "smooth" });
    }
    watched = searching;
  }).observe(document.body, { childList: true, subtree: true });
}
