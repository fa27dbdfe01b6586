"""The time and the second hand of a clock, from what stands out on circles around its centre."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from benchmarks.dial import ANGLES, BLURS, Templates, centre
from benchmarks.looks import CONTRAST, coverage, middle, name_of
from training.clocks import COLOURS, Clock, ink

CANDIDATES = 24
"""Times whose hands are compared with the picture exactly: the best by a quicker measure that ignores overlaps."""
LEAST_LINE = 0.15
"""Coverage of a ray beyond that of its sides which makes a second hand; without one it is 0.07 at most."""
LEAST_ROWS = 3
"""Circles on which a second hand must be told from what lies under it."""
LEAST_CLEAR = 0.25
"""Share of a ray that must be clear of the other hands for a second hand to be seen at an unknown angle."""


class Hands(NamedTuple):
    """The hour and the minute hand as they were found."""

    minutes: int
    """Since twelve, 0 to 719."""
    colour: np.ndarray
    coverage: np.ndarray
    """Of both hands on the circles of the templates: (radii, ANGLES)."""
    explained: float
    """Share of what has the hands' colour that they explain, in [0, 1]."""



def find_hands(seen: np.ndarray, face: np.ndarray, fixed: Templates, known: int) -> Hands | None:
    """The hour and the minute hand that explain best what stands out from the face; None where nothing does.

    A second hand at the angle `known` may hide the hand that it lies on: its pixels count as hands where that
    explains the picture better. Hands drawn beside where any would be leave nothing to unmix but the face: then their
    colour is what stands out most.
    """
    away = np.linalg.norm(seen - face, axis=-1)
    inner = fixed.grid.radii < 0.45 * fixed.dial
    strong = np.zeros(away.shape, dtype=bool)
    strong[inner] = away[inner] > max(CONTRAST, 0.6 * np.quantile(away[inner], 0.97))
    if strong[inner].mean() < 0.01:
        return None
    first = middle(seen[strong])
    minutes, share = _likelier(seen, face, first, fixed, known)
    colour, template = unmixed(seen, face, minutes, fixed)
    if np.linalg.norm(colour - face) < CONTRAST:
        return Hands(minutes, first, fixed.at(minutes), share)
    minutes, explained = _likelier(seen, face, colour, fixed, known)
    return Hands(minutes, colour, template, explained)


def _likelier(
    seen: np.ndarray, face: np.ndarray, colour: np.ndarray, fixed: Templates, known: int
) -> tuple[int, float]:
    """The time by what has the hands' colour, with or without what a second hand covers, and the share explained."""
    shown = coverage(seen, face, colour)
    turn = 2 * np.pi * (np.arange(ANGLES) - known) / ANGLES
    near = (np.cos(turn) > 0) & (abs(fixed.grid.radii[:, None] * np.sin(turn)) < 2)
    covered = [coverage(seen[near], ground, sweep) for sweep in sweep_colours(face) for ground in (face, colour)]
    both = shown.copy()
    both[near] = np.max([shown[near], *covered], axis=0)
    return max(best_time(shown, fixed), best_time(both, fixed), key=lambda found: found[1])


def unmixed(seen: np.ndarray, face: np.ndarray, minutes: int, fixed: Templates) -> tuple[np.ndarray, np.ndarray]:
    """The hands' colour without what blur mixes into it of the face's, and their coverage, by least squares.

    For every blur: seen = face + coverage (colour - face), fitted again without the fifth of the places that fit worst,
    where something else may lie. The blur that fits best decides.
    """
    weight = fixed.weight * (fixed.at(minutes, -1) > 0.05)
    here = weight > 0
    weight, change, fits = weight[here], (seen - face)[here], []
    for sharpness in range(len(BLURS)):
        share, kept = fixed.at(minutes, sharpness)[here], weight
        for _ in range(3):
            colour = (kept * share) @ change / max(float(kept @ share**2), 1e-6)
            misfit = np.linalg.norm(change - share[:, None] * colour, axis=1)
            kept = weight * (misfit <= np.quantile(misfit, 0.8))
        fits.append((float(kept @ misfit**2), face + colour, fixed.at(minutes, sharpness)))
    _, colour, template = min(fits, key=lambda fit: fit[0])
    return colour, template


def best_time(shown: np.ndarray, fixed: Templates) -> tuple[int, float]:
    """The time whose hands, minute and hour in agreement, are nearest to `shown`, and the share of it they explain.

    Squared error over all 720 times by Fourier transform as if hands didn't overlap; exactly for the best of these,
    as sharp as they explain most.
    """
    weight, weighed = fixed.weight, fixed.weight * shown
    times, best = np.arange(720), (-np.inf, 0)
    for sharpness, (hour, minute) in enumerate(fixed.hands):
        gain = _gains(weight, weighed, hour)[times] + _gains(weight, weighed, minute)[times % 60 * 12]
        for minutes in np.argsort(-gain)[:CANDIDATES].tolist():
            both = fixed.at(minutes, sharpness)
            best = max(best, (2 * float(np.vdot(weighed, both)) - float(np.vdot(weight, both * both)), minutes))
    return best[1], max(0.0, best[0] / max(float(np.vdot(weighed, shown)), 1e-6))


def _gains(weight: np.ndarray, weighed: np.ndarray, template: np.ndarray) -> np.ndarray:
    """How much one hand lowers the squared error, for each of its ANGLES directions."""
    def turned(values: np.ndarray, pattern: np.ndarray) -> np.ndarray:
        product = np.fft.rfft(values, axis=1) * np.fft.rfft(pattern, axis=1).conj()
        return np.fft.irfft(product.sum(0), n=ANGLES)

    return 2 * turned(weighed, template) - turned(weight, template**2)


def find_second_hand(seen: np.ndarray, face: np.ndarray, found: Hands | None, fixed: Templates,
                     known: int) -> int | None:
    """The angle of a thin line of its own colour from the centre outwards; None where there is none.

    Sought first at the angle `known`, over face and hands; then, since an edit may put it elsewhere, at all angles
    that are clear of the hands.
    """
    radii, over = fixed.grid.radii, found.coverage if found else np.zeros(seen.shape[:2])
    ground = np.where(over[..., None] > 0.5, found.colour if found else face, face)
    for colour in sweep_colours(face):
        line = _thin(coverage(seen, ground, colour), radii)
        tells = (np.linalg.norm(ground - colour, axis=-1) > CONTRAST) & (fixed.weight > 0)
        if tells[:, known].sum() >= LEAST_ROWS and np.median(line[tells[:, known], known]) > LEAST_LINE:
            return known
        clear = tells & (_widened(over > 0.02, radii) == 0) & (radii < 0.64 * fixed.dial)[:, None]
        share = np.where(clear, line, 0).sum(0) / np.maximum(clear.sum(0), 1)
        share[clear.mean(0) < LEAST_CLEAR] = 0
        if share.max() > LEAST_LINE:
            return int(share.argmax())
    return None


def sweep_colours(face: np.ndarray) -> list[np.ndarray]:
    """What a second hand over this face may look like: red, or the ink of the marks."""
    choices = (COLOURS["red"], ink(name_of(face) or "grey"))
    return [np.array(colour, dtype=np.float32) for colour in choices]


def _beside(radii: np.ndarray, pixels: float) -> np.ndarray:
    """Indices (radii, ANGLES) of the places so many pixels clockwise of each place."""
    turn = np.rint(pixels / radii * ANGLES / (2 * np.pi)).astype(int)
    return (np.arange(ANGLES)[None, :] + turn[:, None]) % ANGLES


def _thin(shown: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """How much more each place shows than the places three pixels to both sides."""
    sides = [np.take_along_axis(shown, _beside(radii, pixels), axis=1) for pixels in (-3.0, 3.0)]
    return shown - np.maximum(*sides)


def _widened(mask: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """The mask and what lies within two pixels beside it."""
    return np.max([np.take_along_axis(mask, _beside(radii, p), axis=1) for p in (-2.0, -1.0, 0.0, 1.0, 2.0)], axis=0)


def hidden(layout: Clock, side: int, angles: list[int]) -> np.ndarray:
    """True (side, side) where rays at these angles, half a degree each, may cover the marks."""
    row, column = centre(layout, side)
    rows, columns = np.mgrid[:side, :side]
    mask = np.zeros((side, side), dtype=bool)
    for angle in angles:
        dx, dy = np.sin(2 * np.pi * angle / ANGLES), -np.cos(2 * np.pi * angle / ANGLES)
        along = (columns - column) * dx + (rows - row) * dy
        across = (columns - column) * dy - (rows - row) * dx
        mask |= (along > 0) & (abs(across) < 0.05 * layout.dial * side + 1.0)
    return mask
