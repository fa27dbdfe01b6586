"""Sentences that the clock world cannot do, some of them near its language: what the planner must refuse."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from training.clock_looks import article
from training.clock_orders import FIVES, NUMBER_WORDS
from training.clocks import COLOURS, PARTS, SHAPES

OBJECTS = (
    "cat dog house car tree bird boat mountain river bridge hat guitar cup table chair sofa lamp horse sheep cow "
    "train plane bicycle flower rose garden beach moon star robot dragon castle pizza cake apple banana carrot book "
    "window door man woman child face mask shirt dress shoe street city forest lake sea cloud sky sun snowman "
    "elephant lion fish whale butterfly candle vase bottle phone computer keyboard camera painting statue piano "
    "violin drum truck bus taxi ship rocket planet island desert volcano waterfall bear wolf fox owl hammer bucket "
    "airport tower church palace bedroom garage pillow blanket mattress drawer oven fridge toaster kettle knife bowl "
    "jar basket bag wallet sock boot coat button zipper necklace ring sword shield arrow bow drone ambulance scooter "
    "skateboard wheel engine brake tyre petrol battery bulb lantern torch candlestick chandelier comb brush soap "
    "towel razor needle thread pencil notebook envelope stamp parcel magazine map globe compass telescope microscope "
    "magnet campfire trail glacier canyon swamp cave cliff pond stream shore reef pebble boulder crystal diamond "
    "nugget coin banknote cheque ticket recipe noodle rice bread butter honey jam salad steak sausage bacon onion "
    "garlic potato tomato pepper lemon grape cherry melon pear peach mango pineapple coconut walnut almond pumpkin "
    "cabbage lettuce spinach rabbit squirrel deer moose goat pig chicken duck goose swan eagle hawk seagull crow toad "
    "snake lizard turtle shark dolphin crab lobster shrimp spider ant bee wasp beetle worm snail nurse doctor teacher "
    "farmer soldier pirate ghost zombie vampire fairy giant dwarf knight king baby boy girl grandmother choir trumpet "
    "flute harp banjo microphone speaker headphone television remote printer scanner laptop tablet server website "
    "password email invoice contract meeting deadline salary budget tax"
).split()
MANNERS = (
    "watercolour oil painting pencil sketch cartoon anime photograph pixel art impressionism pop art film "
    "noir charcoal mosaic engraving comic"
).split()
DEEDS = ("smile", "cry", "jump", "dance", "sleep", "run", "fly", "swim", "laugh", "wave", "sing", "wink")
QUALITIES = (
    "happy sad older younger bigger smaller taller shiny transparent wooden metal golden furry wet broken rusty "
    "beautiful scary modern antique blurry sharp angry bored brave busy calm cheap clever cold cosy crooked curly "
    "cute dark deep dirty dull dusty elegant empty expensive fancy fast fat fluffy foggy frozen funny gentle glossy "
    "greasy grumpy heavy hollow hot huge icy juicy lazy lonely loose loud lucky mad messy muddy narrow noisy nervous "
    "pale peaceful plain polite proud quiet rough royal salty shallow shy silly sleepy slim slow smooth soft sour "
    "spicy steep sticky stiff strong sunny sweet tall tame tasty thick thin tidy tiny tired tough ugly warm weak "
    "weird wide wild wise woolly young"
).split()
ACTS = (
    "kick boil knit polish bend shake squeeze peel tickle feed wash plant harvest sharpen tilt mirror brighten darken "
    "soften resize blend duplicate trace decorate inflate freeze burn carve wrap tow scrub accept answer arrest "
    "arrange attack bake bless borrow bounce break breathe buy call catch chase chew chop collect compare complain "
    "cook count cross cure deliver deny describe design destroy dig discuss divide drag drink drive earn eat embrace "
    "encourage enjoy enter escape explore fetch fight film follow forgive fry gather greet grind grow guard guess "
    "heal heat hire hug hunt hurry identify ignore imagine improve invite juggle kiss knock launch learn lend lick "
    "listen load lock measure mix obey pack park pass pay pick plan plough pray predict press print promise protect "
    "publish pull punch push rake rebuild recommend record rent repair rescue rinse roast rob scare scratch search "
    "sell sew shout shovel sketch skip smell sneeze solve spell spin splash spray squash steal stir stitch study "
    "summarise swallow sweep teach tear throw tidy trap trim type unlock visit wake walk warn weave whisper whistle "
    "wipe yell"
).split()
"""What can be done to other things than clocks."""
TELLING = frozenset(
    {*COLOURS, *PARTS, *SHAPES, *NUMBER_WORDS, *FIVES.values()}
    | set(
        "clock time hand second circle octagon shape marks ticks dots arabic roman numerals past to quarter half noon "
        "midnight minutes hour hours later earlier forward back".split()
    )
)
"""Words that an order of the clock world cannot be without, in small letters."""
LETTERS = "abcdefghijklmnopqrstuvwxyz"
ONSETS = "b bl br c ch cl d dr f fl g gl gr h j k l m n p ph pl pr qu r s sc sh sk sl sn sp st sw t th tr v w z".split()
VOWELS = "a ai au e ea ee i o oa oo ou u y".split()
ENDS = ("", "", "", *"b ck d f g l ll m n nd ng p r rn rt s sh st t x".split())
"""Of invented words' syllables."""
PARTICLES = "the of and to a in is it that for on with as at by an be this so if but or not no you we he".split()
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
    "{act} the {o}",
    "{act} the {part}",
    "{act} the {o} and the {p}",
    "let the {o} {d}",
    "let the {o} {act}",
    "make the {o} more {q}",
    "the {o} and the {p}",
    "is the {o} {q}?",
    "where is the {o}?",
)
INVENTED = 0.35
"""Share of the sentences about things whose names nobody knows: a word that was never seen is no clock's either."""
NONSENSE = 0.12
"""Share of what is no sentence at all."""


def off_topic(rng: Random) -> str:
    """A sentence that the clock world cannot do, or none at all."""
    if rng.random() < NONSENSE:
        return rng.choice(_NONSENSE)(rng)
    known = rng.random() >= INVENTED
    o, p = (rng.choice(OBJECTS) if known else invented(rng) for _ in range(2))
    act = rng.choice(ACTS) if known or rng.random() < 0.5 else invented(rng)
    q, m, d, s = rng.choice(QUALITIES), rng.choice(MANNERS), rng.choice(DEEDS), rng.choice(SEASONS)
    part, c, n = rng.choice(PARTS), rng.choice(list(COLOURS)), rng.randint(13, 99)
    words = {"o": o, "p": p, "q": q, "m": m, "d": d, "s": s, "act": act, "part": part, "c": c, "n": n}
    with_article = {f"a_{name}": article(words[name]) for name in "opmc"}
    return rng.choice(SENTENCES).format(**words, **with_article)


def garbled(order: str, rng: Random) -> str:
    """An order of the clock world with one of its telling words, or its time, replaced by a strange one."""
    words = order.split()
    telling = [i for i, word in enumerate(words) if word.strip(".,?").lower() in TELLING or any(map(str.isdigit, word))]
    strange = rng.choice((OBJECTS, QUALITIES, ACTS, None))
    words[rng.choice(telling)] = rng.choice(strange) if strange else invented(rng)
    return " ".join(words)


def invented(rng: Random) -> str:
    """A word that can be spoken and means nothing, of five letters or more."""
    word, letters = "", rng.randint(5, 9)
    while len(word) < letters:
        word += rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(ENDS)
    return word


def _letters(rng: Random) -> str:
    """Keys struck at random, in one to four words."""
    return " ".join("".join(rng.choices(LETTERS, k=rng.randint(4, 9))) for _ in range(rng.randint(1, 4)))


def _numbers(rng: Random) -> str:
    """Many numbers, or one too long for a time."""
    if rng.random() < 0.5:
        return str(rng.randrange(10**5, 10 ** rng.randint(6, 12)))
    return " ".join(str(rng.randrange(100)) for _ in range(rng.randint(4, 8)))


def _particles(rng: Random) -> str:
    """Words that say nothing by themselves."""
    return " ".join(rng.choices(PARTICLES, k=rng.randint(3, 7)))


def _words(rng: Random) -> str:
    """Invented words in a row, or one."""
    return " ".join(invented(rng) for _ in range(rng.randint(1, 5)))


_NONSENSE: tuple[Callable[[Random], str], ...] = (_letters, _numbers, _particles, _words)
