"""What an edit of the benchmark gave and what it cost."""

from __future__ import annotations

from typing import NamedTuple

from PIL import Image

from editor.engine import Editor
from editor.types import EditRequest


class Outcome(NamedTuple):
    """What an edit gave and what it cost; scores are None where no VLM was asked."""

    image: Image.Image
    score: float | None = None
    source_score: float | None = None
    least: float | None = None
    """The least probability that the VLM gives a check of the plan."""
    nfe: int = 0
    """Of the search; the way back to its start, and to find out where to act, is counted in `inversion_nfe`."""
    inversion_nfe: int = 0
    vlm_calls: int = 0
    decodes: int = 0
    seconds: float = 0.0


def edited(editor: Editor, request: EditRequest) -> Outcome:
    """The edit as a user gets it. Raises EditError for one that broke off, whatever came of it until then."""
    carried = spent = 0
    for update in editor.edit(request):
        carried += (update.cost.nfe - spent) * (update.stage in ("invert", "locate"))
        spent = update.cost.nfe
    cost = update.whole().cost
    return Outcome(
        update.best.convert("RGB"), update.score, update.source_score, min(c.after for c in update.checks),
        cost.nfe - carried, carried, cost.vlm_calls, cost.decodes, cost.seconds,
    )  # fmt: skip
