"""Contact sheets: rows of pictures with their captions."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

SIDE, GAP, LINE = 192, 8, 16
COLUMNS = 8


def sheet(rows: Sequence[Sequence[tuple[Image.Image, str]]], side: int = SIDE) -> Image.Image:
    """Draw rows of (picture, caption), each caption of one line or more, into one picture; single ones share lines.

    The pictures are drawn `side` pixels wide and high.
    """
    if rows and all(len(row) == 1 for row in rows):
        singles = [row[0] for row in rows]
        rows = [singles[k : k + COLUMNS] for k in range(0, len(singles), COLUMNS)]
    font = ImageFont.load_default(11)
    lines = max((caption.count("\n") + 1 for row in rows for _, caption in row), default=1)
    height, width = side + LINE * lines + GAP, side + GAP
    canvas = Image.new("RGB", (width * max(map(len, rows), default=1) + GAP, height * max(len(rows), 1) + GAP), "white")
    draw = ImageDraw.Draw(canvas)
    for i, row in enumerate(rows):
        for j, (picture, caption) in enumerate(row):
            at = (GAP + j * width, GAP + i * height)
            canvas.paste(picture.convert("RGB").resize((side, side), Image.Resampling.LANCZOS), at)
            draw.multiline_text((at[0], at[1] + side + 1), caption, fill="black", font=font, spacing=2)
    return canvas
