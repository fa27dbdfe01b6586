"""The looks of a clock in words: captions, noun phrases and short answers; and clocks that differ in one attribute.

Captions tell the looks of a clock and never its time: the prompt cannot set the time, the reward must.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

from training.clocks import COLOURS, MARKS, PARTS, SHAPES, Clock

ATTRIBUTES = (*PARTS, "shape", "marks", "second hand")
"""All that can be named beside the time."""


def article(words: str) -> str:
    """The words with "a" or "an" before them."""
    return ("an " if words[0].lower() in "aeiou" else "a ") + words


def caption(clock: Clock, rng: Random | None = None) -> str:
    """The looks of a clock without its time; with `rng` in varied order and words."""
    parts = [article(f"{clock.rim} rim"), article(f"{clock.face} face"), f"{clock.hands} hands", clock.marks]
    sweep = "with a second hand" if clock.second_hand else "without a second hand"
    if rng is not None and rng.random() < 0.5:
        rng.shuffle(parts)
    looks = f"{', '.join(parts[:-1])} and {parts[-1]}"
    head = article(f"{clock.shape} clock")
    if rng is not None and rng.random() < 0.2:
        return f"{sweep}, {head} with {looks} on {article(clock.background)} background"
    return f"{head} with {looks} on {article(clock.background)} background, {sweep}"


def description(clock: Clock) -> str:
    """The canonical caption and the time."""
    return f"{caption(clock)}, showing {clock.time}"


def phrase(clock: Clock, attribute: str) -> str:
    """The attribute as a noun phrase: what a plan keeps."""
    if attribute == "time":
        return f"the time {clock.time}"
    if attribute == "hands":
        return f"{clock.hands} hands"
    if attribute in PARTS:
        return f"{article(getattr(clock, attribute))} {attribute}"
    if attribute == "shape":
        return article(f"{clock.shape} clock")
    if attribute == "marks":
        return clock.marks
    return "a second hand" if clock.second_hand else "no second hand"


def value(clock: Clock, attribute: str) -> str:
    """The short answer to an open question about the attribute."""
    if attribute == "time":
        return clock.time
    if attribute == "second hand":
        return "yes" if clock.second_hand else "no"
    return getattr(clock, attribute)


def with_time(clock: Clock, minutes: int) -> Clock:
    """The clock at so many minutes since twelve."""
    hour, minute = divmod(minutes % 720, 60)
    return replace(clock, hour=hour, minute=minute)


def another(clock: Clock, attribute: str, rng: Random) -> Clock:
    """The clock with another value of the attribute: the hard negatives; legibility aside."""
    if attribute == "time":
        if rng.random() < 0.8:
            return with_time(clock, clock.minutes + rng.choice((-1, 1)) * rng.randint(5, 60))
        return with_time(clock, clock.minutes + rng.randint(60, 660))
    if attribute == "second hand":
        return replace(clock, second_hand=not clock.second_hand)
    values = {"shape": SHAPES, "marks": MARKS}.get(attribute, tuple(COLOURS))
    return replace(clock, **{attribute: rng.choice([v for v in values if v != getattr(clock, attribute)])})
