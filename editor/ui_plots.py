"""The plots of a run as SVG strings: they follow the page's colours, need no script and say what they show."""

from __future__ import annotations

from collections.abc import Callable, Sequence

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 190, 44, 12, 14, 28

Rewards = Sequence[Sequence[float]]
"""Of every candidate at every step."""


def curve(history: Rewards, source: float | None, steps: int) -> str:
    """The reward of the best candidate over the steps, in the band between the best and the worst one.

    Nothing where one step was all.
    """
    if not history or max(len(history) - 1, steps) < 1:
        return ""
    steps = max(steps, len(history) - 1)
    low, high = _range([v for scores in history for v in scores] + [v for v in (source,) if v is not None])

    def place(step: int, value: float) -> tuple[float, float]:
        height = (HEIGHT - TOP - BOTTOM) * (value - low) / (high - low)
        return LEFT + (WIDTH - LEFT - RIGHT) * step / steps, HEIGHT - BOTTOM - height

    best, worst, mean = (
        [place(step, pick(scores)) for step, scores in enumerate(history)]
        for pick in (max, min, lambda scores: sum(scores) / len(scores))
    )
    parts = [*_grid(low, high, steps, place), _shape("polygon", "band", best + worst[::-1])]
    if source is not None:
        parts.append(_shape("polyline", "source", [place(0, source), place(steps, source)]))
    parts += [_shape("polyline", "mean", mean), _shape("polyline", "best", best)]
    parts.append(f'<circle class="best" cx="{best[-1][0]:.1f}" cy="{best[-1][1]:.1f}" r="4"/>')
    last = history[-1]
    said = f"After {len(history) - 1} of {steps} steps the best reward is {max(last):.2f}, the worst {min(last):.2f}"
    legend = "".join(f'<b class="{name}">{name}</b>' for name in ("best", "mean", "spread", "source"))
    return _figure("Reward", f"<small>model opinion</small>{legend}", (WIDTH, HEIGHT), said, parts)


def _range(values: Sequence[float]) -> tuple[float, float]:
    margin = 0.08 * (max(values) - min(values)) or 0.5
    return min(values) - margin, max(values) + margin


def _grid(low: float, high: float, steps: int, place: Callable[[int, float], tuple[float, float]]) -> list[str]:
    lines, digits = [], 1 if high - low > 2 else 2
    for value in (low + (high - low) * k / 4 for k in range(5)):
        _, y = place(0, value)
        lines.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        lines.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.{digits}f}</text>')
    for step in sorted({0, steps // 2, steps}):
        lines.append(f'<text x="{place(step, low)[0]:.1f}" y="{HEIGHT - 8}" text-anchor="middle">{step}</text>')
    return lines


def ancestry(history: Rewards, parents: Sequence[Sequence[int]], chosen: tuple[int, int]) -> str:
    """Every candidate at every step as a dot, joined to its parent; the line that led to the chosen one stands out.

    `parents[k]` belongs to step k of `history`, empty where a search begins; those of step 0 are not drawn. `chosen` is
    a step and a candidate.
    """
    if len(history) < 2 or len(parents) != len(history):
        return ""
    step, first = chosen
    line = {(step, first)}
    while step and parents[step]:
        step, first = step - 1, parents[step][first]
        line.add((step, first))

    def place(step: int, row: int) -> tuple[float, float]:
        return 20 + 560 * step / (len(history) - 1), 14.0 + 18 * row

    edges = [
        _shape("polyline", "best" if (step, row) in line else "edge", [place(step - 1, parent), place(step, row)])
        for step in range(1, len(history))
        for row, parent in enumerate(parents[step])
    ]
    dots = [
        f'<circle class="{"best" if (step, row) in line else "dot"}" r="3.5" cx="{place(step, row)[0]:.1f}" '
        f'cy="{place(step, row)[1]}"><title>step {step}, candidate {row + 1}: {score:.2f}</title></circle>'
        for step, scores in enumerate(history)
        for row, score in enumerate(scores)
    ]
    rows = max(len(scores) for scores in history)
    said = f"The result descends from candidate {first + 1} of {rows} at step {step}"
    legend = "<small>which candidate came from which</small>"
    return _figure("Ancestry", legend, (600, 18 * rows + 12), said, edges + dots)


def _shape(tag: str, kind: str, points: Sequence[tuple[float, float]]) -> str:
    return f'<{tag} class="{kind}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'


def _figure(title: str, legend: str, size: tuple[int, int], said: str, parts: Sequence[str]) -> str:
    return (
        f'<figure class="plot"><figcaption><h2>{title}</h2>{legend}</figcaption>'
        f'<svg viewBox="0 0 {size[0]} {size[1]}" role="img" aria-label="{said}">{"".join(parts)}</svg></figure>'
    )
