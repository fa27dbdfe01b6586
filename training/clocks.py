"""The clock world's pictures: analog clocks with every attribute known.

The hands of a quarter of them stand near ten past ten, as in photographs of clocks, so that an edit of the time
has a bias to overcome. Lengths are in units of the picture's side, angles in radians clockwise from twelve.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from random import Random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (208, 38, 44),
    "orange": (243, 138, 28),
    "yellow": (246, 218, 62),
    "green": (42, 150, 68),
    "blue": (42, 84, 205),
    "purple": (126, 58, 168),
    "pink": (247, 156, 190),
    "brown": (122, 74, 42),
    "black": (26, 26, 30),
    "white": (246, 245, 241),
    "grey": (138, 141, 146),
}
SHAPES = ("round", "square", "octagonal")
MARKS = ("ticks", "dots", "Arabic numerals", "Roman numerals")
PARTS = ("rim", "face", "hands", "background")
ROMAN = ("XII", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI")
SUPERSAMPLING = 3
GONE = (0.01, 0.01)
"""Length and width of a hand that is not to be seen."""


@dataclass(frozen=True)
class Clock:
    """What a picture shows (the first ten) and how (the rest, which no edit changes)."""

    hour: int
    """0 to 11."""
    minute: int
    """0 to 59."""
    shape: str
    rim: str
    face: str
    hands: str
    background: str
    marks: str
    second_hand: bool
    x: float
    """Centre; 0.5 is the middle."""
    y: float
    radius: float
    """Of the circle inside the outline, rim included."""
    rim_width: float
    """Share of the radius."""
    hour_hand: tuple[float, float]
    """Length and width as shares of the dial's radius."""
    minute_hand: tuple[float, float]
    tail: float
    """How far the hands reach behind the centre, as a share of the dial's radius."""
    second: int
    """Where the second hand stands, 0 to 59."""
    tint: tuple[tuple[int, int, int], ...]
    """Shift of each part's colour, in 8-bit steps: rim, face, hands, background."""
    light: tuple[float, float]
    """Direction in radians and depth in [0, 1] of the light's gradient."""
    shadow: tuple[float, float, float]
    """Offset x, y and darkness of the shadow."""
    blur: float
    """Standard deviation in pixels of a 128 px picture."""
    grain: float
    """Standard deviation of the noise, in [0, 1] units."""
    seed: int

    @property
    def time(self) -> str:
        return clock_time(60 * self.hour + self.minute)

    @property
    def minutes(self) -> int:
        """Minutes since twelve, 0 to 719."""
        return 60 * self.hour + self.minute

    @property
    def dial(self) -> float:
        """Radius inside the rim."""
        return self.radius * (1 - self.rim_width)


def clock_time(minutes: int) -> str:
    """Minutes since twelve as H:MM on a twelve-hour dial: 0 is 12:00."""
    hour, minute = divmod(minutes % 720, 60)
    return f"{hour or 12}:{minute:02d}"


def distance(a: str, b: str) -> float:
    """Distance of two named colours in RGB, in 8-bit steps."""
    return math.dist(COLOURS[a], COLOURS[b])


def legible(rim: str, face: str, hands: str, background: str) -> bool:
    """True when every part stands out from its neighbour."""
    return distance(hands, face) > 140 and distance(rim, face) > 70 and distance(rim, background) > 70


def sample(seed: int) -> Clock:
    """The clock of this seed."""
    rng = Random(f"clock {seed}")
    minutes = (609 + rng.randint(-5, 5)) if rng.random() < 0.25 else rng.randrange(720)
    names = list(COLOURS)
    while True:
        rim, face, hands, background = (rng.choice(names) for _ in PARTS)
        if rng.random() < 0.25:
            face = rng.choice(("white", "white", "black", "grey"))
        if rng.random() < 0.25:
            hands = rng.choice(("black", "white"))
        if legible(rim, face, hands, background):
            break
    radius = rng.uniform(0.33, 0.43)
    room = min(0.06, 0.47 - radius)
    return Clock(
        hour=minutes // 60,
        minute=minutes % 60,
        shape=rng.choice(SHAPES),
        rim=rim,
        face=face,
        hands=hands,
        background=background,
        marks=rng.choice(MARKS),
        second_hand=rng.random() < 0.5,
        x=0.5 + rng.uniform(-room, room),
        y=0.5 + rng.uniform(-room, room),
        radius=radius,
        rim_width=rng.uniform(0.08, 0.17),
        hour_hand=(rng.uniform(0.48, 0.56), rng.uniform(0.10, 0.14)),
        minute_hand=(rng.uniform(0.80, 0.92), rng.uniform(0.06, 0.09)),
        tail=rng.choice((0.0, rng.uniform(0.08, 0.16))),
        second=rng.randrange(60),
        tint=tuple(tuple(rng.randint(-7, 7) for _ in range(3)) for _ in PARTS),
        light=(rng.uniform(0, 2 * math.pi), rng.uniform(0, 0.16)),
        shadow=(rng.uniform(-0.02, 0.02), rng.uniform(0.0, 0.03), rng.choice((0.0, rng.uniform(0.15, 0.4)))),
        blur=rng.choice((0.0, rng.uniform(0.0, 0.6))),
        grain=rng.choice((0.0, rng.uniform(0.0, 0.012))),
        seed=seed,
    )


def ink(face: str) -> tuple[int, int, int]:
    """The colour of the marks: dark on a light face, light on a dark one."""
    r, g, b = COLOURS[face]
    return (40, 40, 44) if 0.299 * r + 0.587 * g + 0.114 * b > 110 else (232, 232, 228)


def _sweep_colour(clock: Clock) -> tuple[int, int, int]:
    """The second hand is red, and where red would not show, ink."""
    near_red = distance("red", clock.face) < 140 or clock.hands == "red"
    return ink(clock.face) if near_red else COLOURS["red"]


def _outline(shape: str, x: float, y: float, radius: float) -> list[tuple[float, float]] | None:
    """Corners of the outline around an inner circle of this radius; None for the circle itself."""
    if shape == "round":
        return None
    sides = {"square": 4, "octagonal": 8}[shape]
    reach = radius / math.cos(math.pi / sides)
    angles = (math.pi / sides + 2 * math.pi * k / sides for k in range(sides))
    return [(x + reach * math.sin(a), y - reach * math.cos(a)) for a in angles]


def _fill(draw: ImageDraw.ImageDraw, shape: str, x: float, y: float, radius: float, colour: object) -> None:
    corners = _outline(shape, x, y, radius)
    if corners is None:
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    else:
        draw.polygon(corners, fill=colour)


def hand_corners(
    x: float, y: float, angle: float, length: float, width: float, tail: float
) -> list[tuple[float, float]]:
    """Corners of a hand: broad at the centre, three fifths as broad at the tip."""
    dx, dy = math.sin(angle), -math.cos(angle)
    half, tip = width / 2, width * 0.3
    return [
        (x - tail * dx - half * dy, y - tail * dy + half * dx),
        (x + length * dx - tip * dy, y + length * dy + tip * dx),
        (x + length * dx + tip * dy, y + length * dy - tip * dx),
        (x - tail * dx + half * dy, y - tail * dy - half * dx),
    ]


@lru_cache(maxsize=256)
def _numeral(text: str, height: int) -> Image.Image:
    """A numeral as a mask."""
    font = ImageFont.load_default(height)
    left, top, right, bottom = font.getbbox(text)
    mask = Image.new("L", (math.ceil(right - left) + 2, math.ceil(bottom - top) + 2), 0)
    ImageDraw.Draw(mask).text((1 - left, 1 - top), text, fill=255, font=font)
    return mask


def _draw_marks(canvas: Image.Image, draw: ImageDraw.ImageDraw, clock: Clock, x: float, y: float, dial: float) -> None:
    colour = ink(clock.face)
    for k in range(12):
        angle = 2 * math.pi * k / 12
        dx, dy = math.sin(angle), -math.cos(angle)
        if clock.marks == "ticks":
            inner, width = (0.80, 0.055) if k % 3 == 0 else (0.86, 0.035)
            draw.line(
                (x + inner * dial * dx, y + inner * dial * dy, x + 0.96 * dial * dx, y + 0.96 * dial * dy),
                fill=colour,
                width=max(1, round(width * dial)),
            )
        elif clock.marks == "dots":
            size = (0.055 if k % 3 == 0 else 0.036) * dial
            cx, cy = x + 0.88 * dial * dx, y + 0.88 * dial * dy
            draw.ellipse((cx - size, cy - size, cx + size, cy + size), fill=colour)
        else:
            text = ROMAN[k] if clock.marks == "Roman numerals" else str(k or 12)
            mask = _numeral(text, round((0.24 if clock.marks == "Roman numerals" else 0.27) * dial))
            reach = 0.82 * dial
            at = (round(x + reach * dx - mask.width / 2), round(y + reach * dy - mask.height / 2))
            canvas.paste((*colour, 255), at, mask)


def _draw_clock(clock: Clock, side: int) -> Image.Image:
    """The clock alone, RGBA, side x side."""
    colours = {
        part: tuple(min(255, max(0, c + d)) for c, d in zip(COLOURS[getattr(clock, part)], shift, strict=True))
        for part, shift in zip(PARTS, clock.tint, strict=True)
    }
    canvas = Image.new("RGBA", (side, side), (*colours["rim"], 0))
    draw = ImageDraw.Draw(canvas)
    x, y, radius, dial = clock.x * side, clock.y * side, clock.radius * side, clock.dial * side
    _fill(draw, clock.shape, x, y, radius, (*colours["rim"], 255))
    _fill(draw, clock.shape, x, y, dial, (*colours["face"], 255))
    _draw_marks(canvas, draw, clock, x, y, dial)
    hour = 2 * math.pi * clock.minutes / 720
    minute = 2 * math.pi * clock.minute / 60
    for angle, (length, width) in ((hour, clock.hour_hand), (minute, clock.minute_hand)):
        corners = hand_corners(x, y, angle, length * dial, width * dial, clock.tail * dial)
        draw.polygon(corners, fill=(*colours["hands"], 255))
    boss = 0.07 * dial
    draw.ellipse((x - boss, y - boss, x + boss, y + boss), fill=(*colours["hands"], 255))
    if clock.second_hand:
        angle = 2 * math.pi * clock.second / 60
        corners = hand_corners(x, y, angle, 0.9 * dial, 0.034 * dial, 0.2 * dial)
        draw.polygon(corners, fill=(*_sweep_colour(clock), 255))
    return canvas


def render(clock: Clock, size: int = 128) -> Image.Image:
    """The picture, RGB, size x size pixels; the same bytes every time."""
    clear = _draw_clock(clock, size * SUPERSAMPLING).reduce(SUPERSAMPLING)
    colour = tuple(min(255, max(0, c + d)) for c, d in zip(COLOURS[clock.background], clock.tint[3], strict=True))
    picture = Image.new("RGB", (size, size), colour)
    dx, dy, dark = clock.shadow
    if dark:
        shade = Image.new("L", (size, size), 0)
        _fill(
            ImageDraw.Draw(shade),
            clock.shape,
            (clock.x + dx) * size,
            (clock.y + dy) * size,
            clock.radius * size,
            round(255 * dark),
        )
        picture.paste((0, 0, 0), (0, 0), shade.filter(ImageFilter.GaussianBlur(0.02 * size)))
    picture.paste(clear, (0, 0), clear)
    if clock.blur:
        picture = picture.filter(ImageFilter.GaussianBlur(clock.blur * size / 128))
    direction, depth = clock.light
    ramp = np.linspace(-0.5, 0.5, size, dtype=np.float32)
    light = 1 - depth / 2 + depth * (math.cos(direction) * ramp[None, :] + math.sin(direction) * ramp[:, None])
    pixels = np.asarray(picture, dtype=np.float32) * light[:, :, None]
    if clock.grain:
        noise = np.random.default_rng(clock.seed).standard_normal(pixels.shape, dtype=np.float32)
        pixels += 255 * clock.grain * noise
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
