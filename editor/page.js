() => {
  document.documentElement.lang = "en";
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || document.fullscreenElement) return;
    const stop = document.querySelector("#stop");
    if (stop && stop.offsetParent !== null) stop.click();
  });
}
