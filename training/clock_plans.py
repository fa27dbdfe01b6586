"""Instructions about a clock with their perfect plans and perfect answers. Plans are written in canonical forms."""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random

from training.clock_looks import ATTRIBUTES, another, caption, description, phrase, value, with_time
from training.clock_orders import NOTHING, attribute_order, dressed, shift_order, time_order
from training.clock_questions import ask_if, open_questions
from training.clock_refusals import garbled, off_topic
from training.clocks import PARTS, Clock, legible
from training.world import Request

KINDS = ("time", "relative", *PARTS, "shape", "marks", "second hand", "two", "three", "nothing", "refuse")
SHARES = (8, 6, 2, 2, 2, 2, 2, 3, 2, 4, 2, 1, 6)
"""How often a request of each kind is drawn."""
ORDERED = ("time", *ATTRIBUTES)
"""What can be changed, in the order of a plan's checks."""
GARBLED = 0.3
"""Share of what is refused that would be an order but for one word."""
REFUSAL = json.dumps({"refuse": "This is not about the looks or the time of the clock."})


def plan(source: Clock, target: Clock, changed: tuple[str, ...], shift: int = 0) -> str:
    """The perfect plan as JSON text, in the layout of `rewards.base.Plan`.

    A time that was asked for by a shift of so many minutes is left as a sum, which `rewards.plan.worked_out` ends.
    """
    checks = json.dumps(_checks(target, changed or ("time",)))
    if shift:
        hours, minutes = divmod(abs(shift), 60)
        sign = "+" if shift > 0 else "-"
        checks = checks.replace(target.time, f"{source.time} {sign} {hours}:{minutes:02d}")
    return json.dumps(
        {
            "source": description(source),
            "checks": json.loads(checks),
            "caption": caption(target),
            "keep": [phrase(target, attribute) for attribute in ORDERED if attribute not in changed],
        }
    )


def _checks(clock: Clock, attributes: tuple[str, ...]) -> list[dict[str, object]]:
    checks: list[dict[str, object]] = []
    for attribute in attributes:
        if attribute != "second hand":
            asked = open_questions(attribute)[0]
            checks.append({"question": asked, "expected": value(clock, attribute), "weight": 2.0})
        checks.append({"question": ask_if(clock, attribute)[0], "expected": "yes", "weight": 1.0})
    return checks


def request(clock: Clock, rng: Random, kind: str | None = None) -> Request:
    """An instruction about this clock with its perfect plan."""
    if kind is None:
        kind = rng.choices(KINDS, SHARES)[0]
    if kind == "refuse":
        strange = garbled(_any_order(clock, rng), rng) if rng.random() < GARBLED else off_topic(rng)
        return Request(dressed([strange], rng), REFUSAL)
    if kind == "nothing":
        return Request(dressed([rng.choice(NOTHING)], rng), plan(clock, clock, ()), (), kind)
    while True:
        wanted = rng.sample(ORDERED, {"two": 2, "three": 3}[kind]) if kind in ("two", "three") else [kind]
        target, orders, shift = clock, [], 0
        for attribute in wanted:
            if attribute == "relative":
                shift, order = shift_order(rng)
                target = with_time(clock, clock.minutes + shift)
            else:
                target, order = _order(target, attribute, rng)
            orders.append(order)
        if len(orders) == 1 or not any(order.endswith("please") for order in orders):
            break
    changed = tuple(sorted(("time" if a == "relative" else a for a in wanted), key=ORDERED.index))
    changes = tuple((a, target.minutes if a == "time" else getattr(target, _field(a))) for a in changed)
    return Request(dressed(orders, rng), plan(clock, target, changed, shift), changes, kind)


def apply(clock: Clock, wanted: Request) -> Clock:
    """The clock after the edit; its render is the perfect answer."""
    for attribute, new in wanted.changes:
        clock = with_time(clock, int(new)) if attribute == "time" else replace(clock, **{_field(attribute): new})
    return clock


def _order(clock: Clock, attribute: str, rng: Random) -> tuple[Clock, str]:
    """A change of one attribute: the changed clock and the order for it."""
    if attribute == "time":
        target = with_time(clock, rng.choice((rng.randrange(720), 5 * rng.randrange(144))))
        return target, time_order(target.minutes, rng)
    while True:
        target = another(clock, attribute, rng)
        if legible(target.rim, target.face, target.hands, target.background):
            return target, attribute_order(target, attribute, rng)


def _any_order(clock: Clock, rng: Random) -> str:
    """An order for one change of any kind."""
    attribute = rng.choice(("relative", *ORDERED))
    return shift_order(rng)[1] if attribute == "relative" else _order(clock, attribute, rng)[1]


def _field(attribute: str) -> str:
    """The attribute's name in `Clock`."""
    return attribute.replace(" ", "_")
