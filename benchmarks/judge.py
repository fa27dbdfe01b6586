"""Reads a clock from its pixels by geometry and colour, knowing where it stands but nothing of what it shows.

It shares nothing with the rewards: no network, no learned number. An edit may have changed every attribute.

    python -m benchmarks.judge [--count N] [--reconstructions] [--json OUT] [--sheet PNG]

measures its own error on clocks that nothing else has seen: clean, blurred, as the studio's autoencoder shows them.
"""

from __future__ import annotations

from typing import NamedTuple

from PIL import Image

from benchmarks.dial import templates, unlit
from benchmarks.hands import find_hands, find_second_hand, hidden
from benchmarks.looks import background_colour, find_marks, find_shape, middle, name_of, rim_colour
from training.clocks import Clock

LEAST_CONFIDENCE = 0.5
"""Share of what has the hands' colour that both hands must explain; under it the time is unreadable."""
LOOKS = ("rim", "face", "hands", "background", "shape", "marks", "second_hand")
"""What a clock looks like, by the names of `Clock` and `Reading`."""


class Reading(NamedTuple):
    """What a picture shows; None where it cannot be read."""

    time: int | None
    """Minutes since twelve, 0 to 719."""
    nearest: int | None
    """The time whose hands explain most, however little that is: what bent hands come nearest to."""
    rim: str | None
    face: str | None
    hands: str | None
    background: str | None
    shape: str
    marks: str | None
    second_hand: bool
    confidence: float
    """Share in [0, 1] of what stands out on the dial that the two hands of the time explain."""


def read(image: Image.Image, layout: Clock) -> Reading:
    """What a square picture of the clock of this layout shows.

    Of `layout` only what no edit changes is used: place, size, light, shadow, lengths of the hands.
    """
    pixels = unlit(image, layout)
    side, fixed = len(pixels), templates(layout, len(pixels))
    seen = fixed.grid.sample(pixels)
    clear = (fixed.grid.radii > 0.3 * fixed.dial) & (fixed.grid.radii < 0.62 * fixed.dial)
    face, rim, background = middle(seen[clear]), rim_colour(pixels, layout), background_colour(pixels, layout)
    found = find_hands(seen, face, fixed, 12 * layout.second)
    sweep = find_second_hand(seen, face, found, fixed, 12 * layout.second)
    rays = [angle for angle in (found and found.minutes % 60 * 12, sweep) if angle is not None]
    return Reading(
        time=found.minutes if found and found.explained >= LEAST_CONFIDENCE else None,
        nearest=found.minutes if found else None,
        rim=name_of(rim), face=name_of(face), hands=name_of(found.colour) if found else None,
        background=name_of(background), shape=find_shape(pixels, layout, (face, rim, background)),
        marks=find_marks(pixels, layout, face, hidden(layout, side, rays)), second_hand=sweep is not None,
        confidence=found.explained if found else 0.0,
    )  # fmt: skip


def minutes_off(found: int | None, wanted: int) -> float:
    """Minutes from one time to another by the shorter way round; infinite where none was found."""
    return float("inf") if found is None else abs((found - wanted + 360) % 720 - 360)


if __name__ == "__main__":
    from benchmarks.judge_error import main

    main()
