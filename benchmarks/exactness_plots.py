"""The figures of `benchmarks.exactness`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter
from torch import Tensor

COLOURS = {"transport": "tab:blue", "euler-maruyama": "tab:orange", "exact": "tab:gray"}
MARKERS = {2: "o", 16: "s", 256: "^"}


def draw(gaussian: list[dict[str, Any]], clouds: dict[str, Tensor], folder: Path) -> None:
    """Write exactness-gaussian.png and exactness-laws.png into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    draw_errors(gaussian).savefig(folder / "exactness-gaussian.png", dpi=80)
    draw_clouds(clouds).savefig(folder / "exactness-laws.png", dpi=80)


def draw_errors(rows: list[dict[str, Any]]) -> Figure:
    """Errors of mean and log Z against steps, and of the mean against particles."""
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    by_steps, log_z, by_particles = figure.subplots(1, 3)
    for d in sorted({row["d"] for row in rows}):
        most = max(row["particles"] for row in rows if row["d"] == d)
        for rule, colour in COLOURS.items():
            mine = [row for row in rows if row["d"] == d and row["discretisation"] == rule]
            style = {"color": colour, "marker": MARKERS[d], "label": f"{rule}, d = {d}", "markersize": 4}
            stepped = sorted((r for r in mine if r["particles"] == most and r["steps"]), key=lambda r: r["steps"])
            for axes, key in ((by_steps, "mean_error"), (log_z, "log_z_error")):
                if stepped:
                    axes.plot([r["steps"] for r in stepped], [r[key] for r in stepped], **style)
            counted = sorted((r for r in mine if r["steps"] in (0, 8)), key=lambda r: r["particles"])
            by_particles.plot([r["particles"] for r in counted], [r["mean_error"] for r in counted], **style)
    _label(by_steps, "time steps", "error of the mean")
    _label(log_z, "time steps", "error of log Z")
    _label(by_particles, "particles (8 steps)", "error of the mean")
    by_particles.legend(fontsize=6)
    return figure


def _label(axes: Axes, x: str, y: str) -> None:
    axes.set(xlabel=x, ylabel=y, yscale="log")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.grid(alpha=0.3, which="both")


def draw_clouds(clouds: dict[str, Tensor]) -> Figure:
    """Where the particles ended: the mixture by look-ahead and mode, the ring by look-ahead."""
    shown = [name for name in clouds if name.startswith("mixture")]
    rings = [name for name in clouds if name.startswith("ring")]
    longest = max((name.rsplit(", ", 1)[1] for name in rings if name != "ring, exact"), key=int)
    shown += [name for name in rings if name == "ring, exact" or name.endswith(f"euler-maruyama, {longest}")]
    columns = 5
    lines = -(-len(shown) // columns)
    figure = Figure(figsize=(2.6 * columns, 2.5 * lines), layout="constrained")
    grid = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axes in grid:
        axes.set_axis_off()
    for axes, name in zip(grid, shown, strict=False):
        x, reach = clouds[name], 6 if name.startswith("mixture") else 3
        axes.set_axis_on()
        axes.scatter(x[:, 0], x[:, 1], s=3, alpha=0.4)
        axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        axes.set_title(name, fontsize=8)
    return figure
