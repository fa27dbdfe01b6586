"""Questions about a clock with their true answers. Every list holds the canonical form first: plans ask in these."""

from __future__ import annotations

from random import Random

from training.clock_looks import ATTRIBUTES, another, description, phrase, value
from training.clocks import PARTS, Clock
from training.world import Question

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
        return (f"Is the clock {clock.shape}?", shows, f"Is this {phrase(clock, 'shape')}?")
    if attribute == "marks":
        return (f"Does the clock have {clock.marks}?", shows, f"Are there {clock.marks} on the face?")
    if clock.second_hand:
        return ("Does the clock have a second hand?", shows, "Is there a second hand?")
    return ("Does the clock have no second hand?", shows, "Is the clock without a second hand?")


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


def yes_no(clock: Clock, attribute: str, rng: Random, canonical: float = 0.6) -> Question:
    """A yes/no question, as often true as false; in the canonical form at least with that probability."""
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
