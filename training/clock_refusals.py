"""Sentences that the clock world cannot do, some of them near its language: what the planner must refuse."""

from __future__ import annotations

from random import Random

from training.clock_looks import article
from training.clocks import COLOURS, PARTS

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
    "happy sad older younger bigger smaller taller shiny transparent wooden metal golden furry wet broken "
    "rusty beautiful scary modern antique blurry sharp"
).split()
SEASONS = ("winter", "summer", "autumn", "spring", "night", "sunset", "rain", "snow", "fog", "a storm", "christmas")
SENTENCES = (
    "add {a_o}",
    "put {a_o} next to the {p}",
    "make the {o} {c}",
    "make the {o} {q}",
    "remove the {o}",
    "replace the {o} with {a_p}",
    "turn the {o} into {a_p}",
    "make it look like {a_m}",
    "in the style of {m}",
    "make the {o} {d}",
    "let it be {s}",
    "make it {s}",
    "change the season to {s}",
    "make it {q}",
    "draw {a_o}",
    "write {o} on the {p}",
    "zoom in on the {o}",
    "rotate the {o}",
    "crop the {o}",
    "add {a_c} {o} in the background",
    "make the {part} {q}",
    "replace the clock with {a_o}",
    "put {a_o} on the clock",
    "the {o} should be {q}",
    "what is {a_o}?",
    "who painted the {o}?",
    "tell me about the {o}",
    "I like the {o}",
    "hello {o}",
    "{o} {p} {q}",
    "make the {part} like {a_o}",
    "give the {o} {c} {p}s",
    "add a second clock beside the {o}",
    "set the {o} to {s}",
    "hello",
    "make it nicer",
    "upscale the image",
    "turn the clock upside down",
    "add an alarm bell",
    "make the hands longer",
    "make the clock bigger",
    "make the {part} {c} and add {a_o}",
    "set it to {n} {o}s",
    "fix the {o}",
    "swap the {o} and the {p}",
)


def off_topic(rng: Random) -> str:
    """A sentence that the clock world cannot do."""
    o, p = rng.choice(OBJECTS), rng.choice(OBJECTS)
    q, m, d, s = rng.choice(QUALITIES), rng.choice(MANNERS), rng.choice(DEEDS), rng.choice(SEASONS)
    part, c, n = rng.choice(PARTS), rng.choice(list(COLOURS)), rng.randint(13, 99)
    words = {"o": o, "p": p, "q": q, "m": m, "d": d, "s": s, "part": part, "c": c, "n": n}
    with_article = {f"a_{name}": article(words[name]) for name in "opmc"}
    return rng.choice(SENTENCES).format(**words, **with_article)
