"""The methods of the benchmark with their settings at each budget, kept as data in `presets.json`.

A preset names a key of `editor.baselines.METHODS`, or "flowedit" of `benchmarks.flowedit`, the settings that it needs,
and for each budget of network evaluations how many particles and steps it takes. What it leaves out is as in the
balanced effort, so that all methods are judged alike, and those of `METHODS` start alike.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from editor.engine import EFFORTS
from editor.types import SearchSettings

PRESETS = Path(__file__).with_name("presets.json")


@lru_cache(maxsize=1)
def presets() -> dict[str, dict[str, Any]]:
    """Every method by the name it has in the tables."""
    return json.loads(PRESETS.read_text())


def budgets(name: str) -> tuple[int, ...]:
    """The budgets that a method has settings for, ascending."""
    return tuple(sorted(map(int, presets()[name]["budgets"])))


def settings(name: str, budget: int, seed: int = 0) -> SearchSettings:
    """The settings of a method at a budget. Raises ValueError when there are none."""
    known = presets()
    if name not in known:
        raise ValueError(f"There is no method {name!r}: choose from {', '.join(known)}.")
    if str(budget) not in known[name]["budgets"]:
        raise ValueError(f"{name} has no settings for {budget} NFE: choose from {', '.join(known[name]['budgets'])}.")
    return EFFORTS["balanced"].but(**known[name]["settings"] | known[name]["budgets"][str(budget)], seed=seed)
