"""Make the page's example pictures: `python -m training.examples`. Their seeds are never trained on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from training import clocks
from training.world import TEST

FOLDER = Path("assets") / "examples"
FIRST = TEST + 500_000
"""Away from the benchmark's own cases."""

EXAMPLES = (
    ("school-clock", "set it to 4:45", {"shape": "round", "rim": "black", "face": "white", "hands": "black",
                                        "background": "yellow", "marks": "Arabic numerals", "second_hand": True}),
    ("kitchen-clock", "make the face blue", {"shape": "square", "rim": "red", "face": "white", "hands": "black",
                                             "background": "grey", "marks": "dots", "second_hand": False}),
    ("station-clock", "one hour later", {"shape": "round", "rim": "blue", "face": "white", "hands": "black",
                                         "background": "pink", "marks": "ticks", "second_hand": True}),
    ("tower-clock", "quarter to five, please", {"shape": "octagonal", "rim": "brown", "face": "yellow",
                                                "hands": "black", "background": "blue", "marks": "Roman numerals",
                                                "second_hand": False}),
    ("night-clock", "make the rim green", {"shape": "round", "rim": "white", "face": "black", "hands": "white",
                                           "background": "purple", "marks": "Roman numerals", "second_hand": False}),
    ("child-clock", "make the background white", {"shape": "octagonal", "rim": "red", "face": "yellow", "hands": "blue",
                                                  "background": "green", "marks": "Arabic numerals",
                                                  "second_hand": False}),
)  # fmt: skip


def make(folder: Path = FOLDER) -> None:
    """Write the pictures and the list that the page reads."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = []
    for index, (name, instruction, looks) in enumerate(EXAMPLES):
        clock = replace(clocks.sample(FIRST + index), hour=10, minute=9, **looks)
        clocks.render(clock).save(folder / f"{name}.png")
        listed.append({"image": f"{name}.png", "instruction": instruction})
    (folder / "examples.json").write_text(json.dumps(listed, indent=1) + "\n")


if __name__ == "__main__":
    make()
