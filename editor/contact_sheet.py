"""Contact sheets: what was edited and what became of it, side by side with instruction and score, many to a picture."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from editor import images

SIDE = 192
"""Longest side of a thumbnail in pixels."""
GAP = 12
"""Pixels between pairs."""
CAPTION = 66
"""Height of a caption in pixels: four lines."""
COLUMNS = 3
PER_SHEET = 48
_LETTERS = 66
"""How many fit under a pair."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One edit of a sheet."""

    before: Path
    after: Path
    instruction: str
    source_score: float | None
    """None where it isn't known any more; likewise `score`."""
    score: float | None

    @property
    def caption(self) -> str:
        """File, instruction in at most two lines, scores; in the letters that Pillow's own font can draw."""
        known = self.source_score is not None and self.score is not None
        scores = f"score {self.source_score:.2f} -> {self.score:.2f} (model opinion)" if known else "score not known"
        lines = textwrap.wrap(drawable(self.instruction), _LETTERS, max_lines=2, placeholder=" ...")
        return "\n".join([textwrap.shorten(drawable(self.after.name), _LETTERS, placeholder=" ..."), *lines, scores])


def sheets(pairs: Sequence[Pair]) -> Iterator[Image.Image]:
    """RGB pictures with PER_SHEET pairs each, in order. Raises EditError if a picture can't be read."""
    width, height = 2 * SIDE + 1 + GAP, SIDE + CAPTION + GAP
    font = ImageFont.load_default(12)
    for first in range(0, len(pairs), PER_SHEET):
        shown = pairs[first : first + PER_SHEET]
        columns, rows = min(COLUMNS, len(shown)), -(-len(shown) // COLUMNS)
        sheet = Image.new("RGB", (GAP + columns * width, GAP + rows * height), "white")
        draw = ImageDraw.Draw(sheet)
        for index, pair in enumerate(shown):
            left, top = GAP + index % COLUMNS * width, GAP + index // COLUMNS * height
            _paste(sheet, pair.before, left, top)
            _paste(sheet, pair.after, left + SIDE + 1, top)
            draw.multiline_text((left, top + SIDE + 2), pair.caption, fill="black", font=font, spacing=3)
        yield sheet


def _paste(sheet: Image.Image, path: Path, left: int, top: int) -> None:
    """A thumbnail at the foot of its square, so that captions stand right under pictures of any shape."""
    small = ImageOps.contain(images.load(path).image, (SIDE, SIDE))
    place = (left + (SIDE - small.width) // 2, top + SIDE - small.height)
    sheet.paste(small, place, small if "A" in small.getbands() else None)


def drawable(text: str) -> str:
    """The text in ASCII: accents are dropped and what has no plainer form becomes a question mark."""
    plain = unicodedata.normalize("NFKD", text)
    return "".join(c for c in plain if not unicodedata.combining(c)).encode("ascii", "replace").decode("ascii")
