"""What is told of a finished run, on the command line, on the page and to programs."""

from __future__ import annotations

from typing import Any

from editor.progress import warnings
from editor.types import EditRequest, EditUpdate


def report_of(request: EditRequest, update: EditUpdate, candidate: int = 0) -> dict[str, Any]:
    """What is to be told of a run that is done and of its best candidate or another one, as JSON data."""
    result = update.candidates[candidate]
    kept = update.kept_by(result)
    checks = [
        {
            "question": r.check.question,
            "expected": r.check.expected,
            "weight": r.check.weight,
            "before": r.before,
            "after": after,
        }
        for r, after in zip(update.checks, result.checks, strict=True)
    ]
    return {
        "checks": checks,
        "kept": [one._asdict() for one in kept],
        "score": result.score,
        "source_score": update.source_score,
        "history": [list(scores) for scores in update.history],
        "parents": [list(parents) for parents in update.parents],
        "place": list(result.place),
        "met": result.met,
        "recoloured": result.recoloured,
        "changed": None if candidate else update.changed,
        "untouched": update.untouched and not candidate,
        "roundtrip_psnr": update.roundtrip_psnr,
        "offset": result.offset and list(result.offset),
        "warning": warnings(result, kept),
        "cost": vars(update.cost),
        "stopped": update.stopped,
        "broken": update.broken,
        "seed": request.settings.seed,
        "method": request.settings.method,
    }
