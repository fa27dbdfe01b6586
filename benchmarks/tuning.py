"""Settings of the search tried on clocks that no benchmark judges: `python -m benchmarks.tuning --edits 4 VARIATION`.

A variation is "effort" or "effort,name=value,...", such as "balanced,guidance=0.5,preserve=8": what it changes in that
effort of `editor.engine.EFFORTS`. Prints two rows of Markdown for each: for edits of times, and of colours.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import fields, replace
from pathlib import Path

from benchmarks.studio import edits
from editor.engine import EFFORTS, Editor
from editor.models import Models, load_profile
from editor.runtime import prepare
from editor.types import SearchSettings
from training.world import TUNE

FIRST = TUNE + 500


def variation(text: str) -> SearchSettings:
    """The settings of a variation. Raises ValueError with a sentence."""
    effort, *changes = text.split(",")
    if effort not in EFFORTS:
        raise ValueError(f"There is no effort {effort!r}: begin with one of {', '.join(EFFORTS)}.")
    found = EFFORTS[effort]
    for change in changes:
        name, _, value = change.partition("=")
        if name not in {field.name for field in fields(found)}:
            raise ValueError(f"There is no setting {name!r}: see editor.types.SearchSettings.")
        own = isinstance(getattr(found, name), str)
        try:
            found = found.but(**{name: value if own else json.loads(value)})
        except json.JSONDecodeError as error:
            raise ValueError(f"{name} needs a number, true, false or null, not {value!r}.") from error
    return found


def studio(vlm: Path | None) -> Editor:
    """The studio, with the VLM of a folder in place of its own judge if one is named."""
    models = load_profile("studio")
    place = replace(models.place, vlm=vlm or models.place.vlm)
    return Editor(Models(models.profile, place, models.hardware))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("variations", nargs="+")
    parser.add_argument("--edits", type=int, default=4, help="of each kind")
    parser.add_argument("--vlm", type=Path, help="a folder in place of the studio's own judge")
    parser.add_argument("--threads", type=int)
    chosen = parser.parse_args()
    try:
        wanted = [(text, variation(text)) for text in chosen.variations]
    except ValueError as error:
        parser.error(str(error))
    prepare(chosen.threads)
    editor = studio(chosen.vlm)
    for text, settings in wanted:
        for kind in ("time", "colour"):
            found = edits(editor, chosen.edits, kind, settings, FIRST)
            figures = ", ".join(f"{name} {value:.3g}" for name, value in found.items())
            print(f"| {text} | {kind} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
