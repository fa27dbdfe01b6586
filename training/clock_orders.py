"""Orders that a person may give about a clock: for its time, its looks, or for no change; and their courtesies."""

from __future__ import annotations

from random import Random

from training.clock_looks import article, phrase
from training.clocks import PARTS, Clock

NUMBER_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty"
).split()
FIVES = {5: "five", 10: "ten", 20: "twenty", 25: "twenty-five"}
"""Minutes that are said before "past" and "to"."""
NOUNS = {"round": "circle", "square": "square", "octagonal": "octagon"}

TIME_ORDERS = (
    "set it to {t}",
    "set the clock to {t}",
    "make it {t}",
    "change the time to {t}",
    "make the clock show {t}",
    "the time should be {t}",
    "turn the hands to {t}",
    "move the hands to {t}",
    "it should say {t}",
    "let it be {t}",
    "show {t}",
    "I want it to show {t}",
    "set the time to {t}",
    "make it read {t}",
    "put the hands at {t}",
    "an analog clock showing exactly {t}",
)
SHIFT_ORDERS = (
    "{amount} {later}",
    "make it {amount} {later}",
    "set it {amount} {later}",
    "move the time {forward} by {amount}",
    "turn the clock {forward} by {amount}",
    "move the hands {forward} {amount}",
    "set the clock {forward} {amount}",
    "show the time {amount} {later}",
    "the clock should be {amount} {later}",
)
SHIFTS = (5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60, 60, 90, 120, 180, 240, 300, 360)
"""Minutes."""
AMOUNTS = {
    15: ("a quarter of an hour", "15 minutes", "fifteen minutes"),
    30: ("half an hour", "30 minutes"),
    60: ("one hour", "an hour", "1 hour", "60 minutes"),
    90: ("an hour and a half", "90 minutes"),
}
COLOUR_ORDERS = (
    "make the {it} {c}",
    "paint the {it} {c}",
    "change the {it} to {c}",
    "turn the {it} {c}",
    "give it {a}",
    "I want {a}",
    "the {it} should be {c}",
    "colour the {it} {c}",
    "color the {it} {c}",
    "{a}, please",
    "recolour the {it} {c}",
    "make sure the {it} {be} {c}",
    "change the colour of the {it} to {c}",
)
SHAPE_ORDERS = (
    "make it {s}",
    "make the clock {s}",
    "turn it into {a} clock",
    "change the shape to {s}",
    "it should be {s}",
    "turn the clock into {noun}",
    "give it {a} shape",
    "I want {a} clock",
    "make it {noun}",
)
MARKS_ORDERS = (
    "use {m}",
    "give it {m}",
    "put {m} on the face",
    "change the marks to {m}",
    "mark the hours with {m}",
    "replace the marks by {m}",
    "I want {m}",
    "show {m} on the dial",
    "the hours should have {m}",
)
ADD_SECOND_HAND = (
    "add a second hand",
    "give it a second hand",
    "put in a second hand",
    "I want a second hand",
    "it should have a second hand",
)
DROP_SECOND_HAND = (
    "remove the second hand",
    "take away the second hand",
    "no second hand",
    "drop the second hand",
    "delete the second hand",
    "make it without a second hand",
)
NOTHING = (
    "change nothing",
    "keep the image unchanged",
    "leave it as it is",
    "don't change anything",
    "leave everything as it is",
    "keep it exactly the same",
    "do nothing",
    "no changes, please",
)
VERBS = frozenset(
    "add change color colour crop delete do draw drop fix give keep leave let make mark move paint put recolour "
    "remove replace rotate set show swap take tell turn upscale use write zoom".split()
)
"""First words of the orders that name a deed: "could you" fits before these alone."""


def spoken(minutes: int, rng: Random) -> str:
    """A time as people write or say it."""
    hour, minute = divmod(minutes % 720, 60)
    this, following = hour or 12, (hour + 1) % 12 or 12
    word = (lambda n: NUMBER_WORDS[n]) if rng.random() < 0.7 else str
    forms = [f"{this}:{minute:02d}"] * 3 + [
        f"{this}.{minute:02d}",
        f"exactly {this}:{minute:02d}",
        f"{this}:{minute:02d} {rng.choice(('am', 'pm'))}",
    ]
    if minute == 0:
        forms += [f"{word(this)} o'clock"] * 3
    if minute == 0 and this == 12:
        forms += ["noon", "midnight"]
    if minute == 15:
        forms += [f"quarter past {word(this)}", f"a quarter past {word(this)}"] * 2
    if minute == 30:
        forms += [f"half past {word(this)}"] * 4
    if minute == 45:
        forms += [f"quarter to {word(following)}", f"a quarter to {word(following)}"] * 2
    if minute in FIVES:
        forms += [f"{FIVES[minute]} past {word(this)}"] * 2
    if 60 - minute in FIVES:
        forms += [f"{FIVES[60 - minute]} to {word(following)}"] * 2
    return rng.choice(forms)


def time_order(minutes: int, rng: Random) -> str:
    """An order to show an absolute time."""
    t = spoken(minutes, rng)
    return rng.choice(TIME_ORDERS).format(t=t)


def shift_order(rng: Random) -> tuple[int, str]:
    """A shift of the time in minutes and an order for it."""
    minutes = rng.choice(SHIFTS)
    if minutes in AMOUNTS:
        amount = rng.choice(AMOUNTS[minutes])
    elif minutes >= 120:
        amount = rng.choice((f"{NUMBER_WORDS[minutes // 60]} hours", f"{minutes // 60} hours"))
    else:
        words = f"{NUMBER_WORDS[minutes]} minutes" if minutes <= 20 else f"{minutes} minutes"
        amount = rng.choice((f"{minutes} minutes", words))
    ahead = rng.random() < 0.5
    later, forward = ("later", "forward") if ahead else ("earlier", "back")
    order = rng.choice(SHIFT_ORDERS).format(amount=amount, later=later, forward=forward)
    return (minutes if ahead else -minutes), order


def attribute_order(clock: Clock, attribute: str, rng: Random) -> str:
    """An order to make the attribute what it is in `clock`."""
    if attribute in PARTS:
        words = {"c": getattr(clock, attribute), "it": attribute, "a": phrase(clock, attribute)}
        return rng.choice(COLOUR_ORDERS).format(be="are" if attribute == "hands" else "is", **words)
    if attribute == "shape":
        shape = clock.shape
        return rng.choice(SHAPE_ORDERS).format(s=shape, a=article(shape), noun=article(NOUNS[shape]))
    if attribute == "marks":
        return rng.choice(MARKS_ORDERS).format(m=clock.marks)
    return rng.choice(ADD_SECOND_HAND if clock.second_hand else DROP_SECOND_HAND)


def courtesies(order: str) -> tuple[str, ...]:
    """The courtesies that fit an order, to be formatted with it; none where it is a question, a greeting or has one.

    "Could you" takes a deed ("make the rim red"), no wish ("the rim should be red") and no phrase ("one hour later").
    """
    first = order.split()[0]
    if order.endswith(("?", "please")) or order.startswith(("hello", "I like")):
        return ()
    if first in VERBS:
        return ("please {}", "{}, please", "can you {}", "could you {}?", "now {}")
    if first == "don't":
        return ("please {}", "{}, please", "now {}")
    return ("{}, please", "now {}") if first in ("I", "it", "the") else ("{}, please",)


def dressed(orders: list[str], rng: Random) -> str:
    """The orders as one sentence with a courtesy that fits them all, capitals and a full stop, as people add them."""
    order = orders[0]
    if len(orders) > 1:
        order = rng.choice((" and ", ", and ", ", then ")).join([", ".join(orders[:-1]), orders[-1]])
    fitting = [words for words in courtesies(orders[0]) if all(words in courtesies(other) for other in orders)]
    if rng.random() < 0.15 and fitting:
        order = rng.choice(fitting).format(order)
    if rng.random() < 0.5:
        order = order[0].upper() + order[1:]
    return order + "." if rng.random() < 0.25 and order[-1] not in ".?" else order
