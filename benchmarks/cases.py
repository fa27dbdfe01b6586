"""ClockBench's cases: a clock that training never sees, an instruction, and the clock that answers it perfectly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from random import Random

from PIL import Image

from benchmarks.judge import LOOKS, Reading, minutes_off
from rewards.base import Plan
from rewards.plan import parse, worked_out
from training.clock_world import CLOCKS
from training.clocks import Clock
from training.world import Request

CYCLE = ("time", "relative", "rim", "shape", "time", "two", "face", "nothing", "marks", "time", "relative", "hands",
         "three", "time", "background", "two", "second hand", "time", "relative", "nothing")  # fmt: skip
"""Kinds in the order of the cases: any run of cases holds them in about these shares."""
KINDS = tuple(dict.fromkeys(CYCLE))
FARTHER = 10
"""Minutes that every change of the time exceeds, so that an edit that does nothing never succeeds."""
KEPT_TIME = 3
"""Minutes within which a time counts as unmoved."""


@dataclass(frozen=True)
class Case:
    """One edit with its perfect answer."""

    index: int
    """Place in the benchmark; the seed of the edit as well."""
    source: Clock
    request: Request
    target: Clock

    @property
    def kind(self) -> str:
        return self.request.kind

    @property
    def image(self) -> Image.Image:
        return CLOCKS.render(self.source)

    @property
    def answer(self) -> Image.Image:
        return CLOCKS.render(self.target)

    @property
    def plan(self) -> Plan:
        """The perfect plan."""
        return parse(worked_out(self.request.reply))

    @property
    def changed(self) -> tuple[str, ...]:
        """The attributes that change, by their names in `Clock`; "time" for hour and minute."""
        return tuple(attribute.replace(" ", "_") for attribute, _ in self.request.changes)

    def success(self, reading: Reading, minutes: float) -> bool:
        """Whether every attribute that should change did: looks exactly, the time to within so many minutes.

        "Change nothing" succeeds when nothing moved.
        """
        if not self.changed:
            return not self.moved(reading)
        return all(
            minutes_off(reading.time, self.target.minutes) <= minutes
            if name == "time" else getattr(reading, name) == getattr(self.target, name)
            for name in self.changed
        )  # fmt: skip

    def moved(self, reading: Reading) -> tuple[str, ...]:
        """The attributes that should have stayed and did not."""
        stays = [name for name in LOOKS if name not in self.changed]
        moved = [name for name in stays if getattr(reading, name) != getattr(self.source, name)]
        if "time" not in self.changed and minutes_off(reading.time, self.source.minutes) > KEPT_TIME:
            moved.append("time")
        return tuple(moved)


def cases(first: int, total: int, kinds: Sequence[str] = KINDS) -> list[Case]:
    """The first `total` cases of these kinds from the seed `first` on; a case is the same whichever kinds are asked."""
    return list(islice((case for case in _all(first) if case.kind in kinds), total))


def _all(first: int) -> Iterator[Case]:
    for index in count():
        yield make(first, index)


def make(first: int, index: int) -> Case:
    """The case of this index: the first draw that moves the time far enough, if it moves it."""
    kind, source = CYCLE[index % len(CYCLE)], CLOCKS.sample(first + index)
    rng = Random(f"case {first + index}")
    while True:
        request = CLOCKS.request(source, rng, kind)
        target = CLOCKS.apply(source, request)
        still = any(attribute == "time" for attribute, _ in request.changes)
        if not still or minutes_off(target.minutes, source.minutes) > FARTHER:
            return Case(index, source, request, target)
