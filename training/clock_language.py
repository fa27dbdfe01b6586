"""The clock world's language: captions, questions, instructions and their perfect plans.

Captions tell the looks of a clock and never its time: the prompt cannot set the time, the reward must.
Every phrase list holds the canonical form first; plans are written in canonical forms only.
"""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random

from training.clocks import COLOURS, MARKS, PARTS, SHAPES, Clock, legible
from training.world import Question, Request

NUMBER_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty"
).split()
KINDS = ("time", "relative", *PARTS, "shape", "marks", "second hand", "two", "three", "nothing", "refuse")
ATTRIBUTES = (*PARTS, "shape", "marks", "second hand")


def article(words: str) -> str:
    """The words with "a" or "an" before them."""
    return ("an " if words[0].lower() in "aeiou" else "a ") + words


# Looks ---------------------------------------------------------------------------------------------------------------


def caption(clock: Clock, rng: Random | None = None) -> str:
    """The looks of a clock without its time; with `rng` in varied order and words."""
    parts = [f"a {clock.rim} rim", f"a {clock.face} face", f"{clock.hands} hands", clock.marks]
    parts = [article(p[2:]) if p.startswith("a ") else p for p in parts]
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


# Questions -----------------------------------------------------------------------------------------------------------

ASK_TIME = (
    "What time does the clock show?",
    "What time is it?",
    "What is the time on the clock?",
    "Which time do the hands show?",
    "Tell the time.",
)
ASK_IF_TIME = (
    "Does the clock show {t}?",
    "Is it {t}?",
    "Is the time {t}?",
    "Do the hands show {t}?",
    "Does the picture show the time {t}?",
)
DESCRIBE = ("Describe the picture.", "What does the picture show?", "Describe this image.")


def ask_colour(part: str) -> tuple[str, ...]:
    """Open questions for a part's colour."""
    be, it = ("are", "they") if part == "hands" else ("is", "it")
    return (
        f"What colour {be} the {part}?",
        f"What color {be} the {part}?",
        f"Which colour {be} the {part}?",
        f"The {part}: what colour {be} {it}?",
    )


def ask_if(clock: Clock, attribute: str) -> tuple[str, ...]:
    """Yes/no questions that ask whether the attribute is as `clock` has it; canonical first."""
    shows = f"Does the picture show {phrase(clock, attribute)}?"
    if attribute == "time":
        return tuple(q.format(t=clock.time) for q in ASK_IF_TIME)
    if attribute in PARTS:
        be = "Are" if attribute == "hands" else "Is"
        colour = getattr(clock, attribute)
        return (f"{be} the {attribute} {colour}?", shows, f"{be} the clock's {attribute} {colour}?")
    if attribute == "shape":
        return (f"Is the clock {clock.shape}?", shows, f"Is this a {clock.shape} clock?")
    if attribute == "marks":
        return (f"Does the clock have {clock.marks}?", shows, f"Are there {clock.marks} on the face?")
    if clock.second_hand:
        return ("Does the clock have a second hand?", shows, "Is there a second hand?")
    return ("Does the clock have no second hand?", shows, "Is the clock without a second hand?")


def value(clock: Clock, attribute: str) -> str:
    """The short answer to an open question about the attribute."""
    if attribute == "time":
        return clock.time
    if attribute == "second hand":
        return "yes" if clock.second_hand else "no"
    return getattr(clock, attribute)


def open_questions(attribute: str) -> tuple[str, ...]:
    """Open questions for an attribute; canonical first."""
    if attribute == "time":
        return ASK_TIME
    if attribute in PARTS:
        return ask_colour(attribute)
    if attribute == "shape":
        return ("What shape is the clock?", "Which shape does the clock have?")
    if attribute == "marks":
        return ("What marks the hours?", "What is on the face?", "How are the hours marked?")
    return ("Does the clock have a second hand?", "Is there a second hand?")


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


def yes_no(clock: Clock, attribute: str, rng: Random, canonical: float = 0.6) -> Question:
    """A yes/no question, as often true as false."""
    true = rng.random() < 0.5
    asked = ask_if(clock if true else another(clock, attribute, rng), attribute)
    text = asked[0] if rng.random() < canonical else rng.choice(asked)
    return Question(text, "yes" if true else "no")


def questions(clock: Clock, rng: Random) -> list[Question]:
    """Open and yes/no questions about every attribute, the time more often."""
    asked = [Question(rng.choice(DESCRIBE), description(clock))]
    for attribute in ("time", *ATTRIBUTES):
        forms = open_questions(attribute)
        if attribute != "second hand":
            text = forms[0] if rng.random() < 0.6 else rng.choice(forms)
            asked.append(Question(text, value(clock, attribute)))
        asked.append(yes_no(clock, attribute, rng))
    asked += [yes_no(clock, "time", rng) for _ in range(3)]
    return asked


# Instructions --------------------------------------------------------------------------------------------------------


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
    if minute % 5 == 0 and minute not in (0, 15, 30, 45):
        amount = NUMBER_WORDS[minute if minute <= 20 else 20] if minute <= 20 else None
        if minute == 25:
            amount = "twenty-five"
        if amount:
            forms += [f"{amount} past {word(this)}"] * 2
        late = 60 - minute
        amount = "twenty-five" if late == 25 else NUMBER_WORDS[late] if late <= 20 else None
        if amount:
            forms += [f"{amount} to {word(following)}"] * 2
    return rng.choice(forms)


def time_order(minutes: int, rng: Random) -> str:
    """An order to show an absolute time."""
    t = spoken(minutes, rng)
    return rng.choice(
        (
            f"set it to {t}",
            f"set the clock to {t}",
            f"make it {t}",
            f"change the time to {t}",
            f"make the clock show {t}",
            f"the time should be {t}",
            f"turn the hands to {t}",
            f"move the hands to {t}",
            f"it should say {t}",
            f"let it be {t}",
            f"show {t}",
            f"I want it to show {t}",
            f"set the time to {t}",
            f"make it read {t}",
            f"put the hands at {t}",
            f"an analog clock showing exactly {t}",
        )
    )


def shift_order(rng: Random) -> tuple[int, str]:
    """A shift of the time in minutes and an order for it."""
    minutes = rng.choice((5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60, 60, 90, 120, 180, 240, 300, 360))
    hours = minutes // 60
    amounts = {
        15: ["a quarter of an hour", "15 minutes", "fifteen minutes"],
        30: ["half an hour", "30 minutes"],
        60: ["one hour", "an hour", "1 hour", "60 minutes"],
        90: ["an hour and a half", "90 minutes"],
    }
    if minutes in amounts:
        amount = rng.choice(amounts[minutes])
    elif minutes >= 120:
        amount = rng.choice((f"{NUMBER_WORDS[hours]} hours", f"{hours} hours"))
    else:
        words = f"{NUMBER_WORDS[minutes]} minutes" if minutes <= 20 else f"{minutes} minutes"
        amount = rng.choice((f"{minutes} minutes", words))
    later = rng.random() < 0.5
    way = ("later", "forward", "ahead") if later else ("earlier", "back", "backwards")
    order = rng.choice(
        (
            f"{amount} {way[0]}",
            f"make it {amount} {way[0]}",
            f"set it {amount} {way[0]}",
            f"move the time {way[1]} by {amount}",
            f"turn the clock {way[1]} by {amount}",
            f"move the hands {way[1]} {amount}",
            f"set the clock {way[1]} {amount}",
            f"show the time {amount} {way[0]}",
            f"the clock should be {amount} {way[0]}",
        )
    )
    return (minutes if later else -minutes), order


def attribute_order(clock: Clock, attribute: str, rng: Random) -> str:
    """An order to make the attribute what it is in `clock`."""
    if attribute in PARTS:
        c, it = getattr(clock, attribute), attribute
        a = f"{c} hands" if it == "hands" else f"{article(c)} {it}"
        be = "are" if it == "hands" else "is"
        return rng.choice(
            (
                f"make the {it} {c}",
                f"paint the {it} {c}",
                f"change the {it} to {c}",
                f"turn the {it} {c}",
                f"give it {a}",
                f"I want {a}",
                f"the {it} should be {c}",
                f"colour the {it} {c}",
                f"color the {it} {c}",
                f"{a}, please",
                f"recolour the {it} {c}",
                f"make sure the {it} {be} {c}",
                f"change the colour of the {it} to {c}",
            )
        )
    if attribute == "shape":
        s, noun = clock.shape, {"round": "circle", "square": "square", "octagonal": "octagon"}[clock.shape]
        return rng.choice(
            (
                f"make it {s}",
                f"make the clock {s}",
                f"turn it into {article(s)} clock",
                f"change the shape to {s}",
                f"it should be {s}",
                f"turn the clock into {article(noun)}",
                f"give it {article(s)} shape",
                f"I want {article(s)} clock",
                f"make it {article(noun)}",
            )
        )
    if attribute == "marks":
        m = clock.marks
        return rng.choice(
            (
                f"use {m}",
                f"give it {m}",
                f"put {m} on the face",
                f"change the marks to {m}",
                f"mark the hours with {m}",
                f"replace the marks by {m}",
                f"I want {m}",
                f"show {m} on the dial",
                f"the hours should have {m}",
            )
        )
    if clock.second_hand:
        return rng.choice(
            (
                "add a second hand",
                "give it a second hand",
                "put in a second hand",
                "I want a second hand",
                "it should have a second hand",
            )
        )
    return rng.choice(
        (
            "remove the second hand",
            "take away the second hand",
            "no second hand",
            "drop the second hand",
            "delete the second hand",
            "make it without a second hand",
        )
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

OBJECTS = (
    "cat dog house car tree bird boat mountain river bridge hat guitar cup table chair sofa lamp horse "
    "sheep cow train plane bicycle flower rose garden beach moon star robot dragon castle pizza cake "
    "apple banana carrot book window door man woman child face mask shirt dress shoe street city forest "
    "lake sea cloud sky sun snowman elephant lion fish whale butterfly candle vase bottle phone computer "
    "keyboard camera painting statue piano violin drum truck bus taxi ship rocket planet island desert "
    "volcano waterfall bear wolf fox owl"
).split()
MANNERS = (
    "watercolour oil painting pencil sketch cartoon anime photograph pixel art impressionism pop art film "
    "noir charcoal mosaic engraving comic"
).split()
DEEDS = ("smile", "cry", "jump", "dance", "sleep", "run", "fly", "swim", "laugh", "wave", "sing", "wink")
QUALITIES = (
    "happy",
    "sad",
    "older",
    "younger",
    "bigger",
    "smaller",
    "taller",
    "shiny",
    "transparent",
    "wooden",
    "metal",
    "golden",
    "furry",
    "wet",
    "broken",
    "rusty",
    "beautiful",
    "scary",
    "modern",
    "antique",
    "blurry",
    "sharp",
)
SEASONS = ("winter", "summer", "autumn", "spring", "night", "sunset", "rain", "snow", "fog", "a storm", "christmas")


def off_topic(rng: Random) -> str:
    """A sentence that the clock world cannot do, some of them near its language."""
    o, p = rng.choice(OBJECTS), rng.choice(OBJECTS)
    q, m, d, s = rng.choice(QUALITIES), rng.choice(MANNERS), rng.choice(DEEDS), rng.choice(SEASONS)
    part, c = rng.choice(PARTS), rng.choice(list(COLOURS))
    return rng.choice(
        (
            f"add {article(o)}",
            f"put {article(o)} next to the {p}",
            f"make the {o} {c}",
            f"make the {o} {q}",
            f"remove the {o}",
            f"replace the {o} with {article(p)}",
            f"turn the {o} into {article(p)}",
            f"make it look like {article(m)}",
            f"in the style of {m}",
            f"make the {o} {d}",
            f"let it be {s}",
            f"make it {s}",
            f"change the season to {s}",
            f"make it {q}",
            f"draw {article(o)}",
            f"write {o} on the {p}",
            f"zoom in on the {o}",
            f"rotate the {o}",
            f"crop the {o}",
            f"add {article(c)} {o} in the background",
            f"make the {part} {q}",
            f"replace the clock with {article(o)}",
            f"put {article(o)} on the clock",
            f"the {o} should be {q}",
            f"what is {article(o)}?",
            f"who painted the {o}?",
            f"tell me about the {o}",
            f"I like the {o}",
            f"hello {o}",
            f"{o} {p} {q}",
            f"make the {part} like {article(o)}",
            f"give the {o} {c} {p}s",
            f"add a second clock beside the {o}",
            f"set the {o} to {s}",
            "hello",
            "make it nicer",
            "upscale the image",
            "turn the clock upside down",
            "add an alarm bell",
            "make the hands longer",
            "make the clock bigger",
            f"make the {part} {c} and add {article(o)}",
            f"set it to {rng.randint(13, 99)} {o}s",
            f"fix the {o}",
            f"swap the {o} and the {p}",
        )
    )


def _changed(clock: Clock, attribute: str, rng: Random) -> Clock | None:
    """The clock with a new, legible value of the attribute; None where the draw was not legible."""
    changed = another(clock, attribute, rng)
    return changed if legible(changed.rim, changed.face, changed.hands, changed.background) else None


def _checks(clock: Clock, attributes: tuple[str, ...]) -> list[dict[str, object]]:
    checks: list[dict[str, object]] = []
    for attribute in attributes:
        if attribute != "second hand":
            asked = open_questions(attribute)[0]
            checks.append({"question": asked, "expected": value(clock, attribute), "weight": 2.0})
        checks.append({"question": ask_if(clock, attribute)[0], "expected": "yes", "weight": 1.0})
    return checks


def plan(source: Clock, target: Clock, changed: tuple[str, ...]) -> str:
    """The perfect plan as JSON text, in the layout of `rewards.base.Plan`."""
    kept = [attribute for attribute in ("time", *ATTRIBUTES) if attribute not in changed]
    return json.dumps(
        {
            "source": description(source),
            "checks": _checks(target, changed or ("time",)),
            "caption": caption(target),
            "keep": [phrase(target, attribute) for attribute in kept],
        }
    )


REFUSAL = json.dumps({"refuse": "This is not about the looks or the time of the clock."})


def _order(clock: Clock, attribute: str, rng: Random) -> tuple[Clock, str]:
    """A change of one attribute: the changed clock and the order for it."""
    if attribute == "time":
        target = with_time(clock, rng.choice((rng.randrange(720), 5 * rng.randrange(144))))
        return target, time_order(target.minutes, rng)
    if attribute == "relative":
        shift, order = shift_order(rng)
        return with_time(clock, clock.minutes + shift), order
    while (target := _changed(clock, attribute, rng)) is None:
        pass
    return target, attribute_order(target, attribute, rng)


def _dress(order: str, rng: Random) -> str:
    """Courtesy, capitals and a full stop, as people add them."""
    if rng.random() < 0.15:
        order = rng.choice(("please {}", "{}, please", "can you {}", "could you {}?", "now {}")).format(order)
    if rng.random() < 0.5:
        order = order[0].upper() + order[1:]
    return order + "." if rng.random() < 0.25 and order[-1] not in ".?" else order


def request(clock: Clock, rng: Random, kind: str | None = None) -> Request:
    """An instruction about this clock with its perfect plan."""
    if kind is None:
        kind = rng.choices(KINDS, (8, 6, 2, 2, 2, 2, 2, 3, 2, 4, 2, 1, 6))[0]
    if kind == "refuse":
        return Request(_dress(off_topic(rng), rng), REFUSAL)
    if kind == "nothing":
        return Request(_dress(rng.choice(NOTHING), rng), plan(clock, clock, ()), (), kind)
    count = {"two": 2, "three": 3}.get(kind, 1)
    while True:
        wanted = [kind] if count == 1 else rng.sample(("time", *ATTRIBUTES), count)
        target, orders = clock, []
        for attribute in wanted:
            target, order = _order(target, attribute, rng)
            orders.append(order)
        if all(not order.endswith("please") for order in orders) or count == 1:
            break
    joined = (
        orders[0]
        if count == 1
        else rng.choice((" and ", ", and ", ", then ")).join([", ".join(orders[:-1]), orders[-1]])
    )
    order_of = ("time", *ATTRIBUTES)
    changed = tuple(sorted(("time" if a == "relative" else a for a in wanted), key=order_of.index))
    changes = tuple((a, target.minutes if a == "time" else getattr(target, a.replace(" ", "_"))) for a in changed)
    return Request(_dress(joined, rng), plan(clock, target, changed), changes, kind)


def apply(clock: Clock, wanted: Request) -> Clock:
    """The clock after the edit; its render is the perfect answer."""
    for attribute, new in wanted.changes:
        clock = (
            with_time(clock, int(new)) if attribute == "time" else replace(clock, **{attribute.replace(" ", "_"): new})
        )
    return clock
