"""Laws of the clock world: pictures, language and plans agree, and nothing leaks from one split to another."""

import inspect
import json
import re
from collections import Counter
from dataclasses import replace
from random import Random

import numpy as np
import pytest

from rewards.plan import Refused, parse, worked_out
from training import clock_language as language
from training import clock_orders, clocks
from training.clock_refusals import invented, off_topic
from training.clock_world import CLOCKS as WORLD
from training.clocks import COLOURS, MARKS, PARTS, SHAPES, Clock
from training.examples import EXAMPLES, FIRST
from training.world import TEST, TRAIN, TUNE, World

CLOCKS = [clocks.sample(TUNE + 7_000 + i) for i in range(150)]
WORDS = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
         "seventeen eighteen nineteen twenty").split()  # fmt: skip
EDITS = [kind for kind in language.KINDS if kind != "refuse"]


# The answers, found anew from the words of the questions and the scene ---


def number(word: str) -> int:
    """A number in words or digits."""
    if word == "twenty-five":
        return 25
    return WORDS.index(word) if word in WORDS else int(word)


def told_time(text: str) -> int:
    """Minutes since twelve of a time as people say it."""
    text = re.sub(r"^exactly | (am|pm)$", "", text.lower())
    if text in ("noon", "midnight"):
        return 0
    if digits := re.fullmatch(r"(\d+)[:.](\d\d)", text):
        return int(digits[1]) % 12 * 60 + int(digits[2])
    if whole := re.fullmatch(r"(\S+) o'clock", text):
        return number(whole[1]) % 12 * 60
    amount, way, hour = re.fullmatch(r"(?:a )?(\S+) (past|to) (\S+)", text).groups()
    minutes = {"quarter": 15, "half": 30}.get(amount) or number(amount)
    return (number(hour) * 60 + (minutes if way == "past" else -minutes)) % 720


def told_shift(text: str) -> int:
    """Minutes by which an order like "half an hour later" moves the time."""
    text = text.lower()
    if "hour and a half" in text:
        amount = 90
    elif "quarter of an hour" in text:
        amount = 15
    elif "half an hour" in text:
        amount = 30
    elif minutes := re.search(r"(\S+) minutes", text):
        amount = number(minutes[1])
    else:
        hours = re.search(r"(\S+) hours?", text)[1]
        amount = 60 * (1 if hours in ("an", "one") else number(hours))
    later, earlier = re.search(r"\b(later|forward|ahead)\b", text), re.search(r"\b(earlier|back|backwards)\b", text)
    assert bool(later) != bool(earlier), text
    return amount if later else -amount


def is_so(statement: str, clock: Clock) -> bool:
    """Whether what a question or a phrase names is what the clock shows."""
    if found := re.search(r"(\d+:\d\d)", statement):
        return found[1] == clock.time
    if "second hand" in statement:
        return clock.second_hand != bool(re.search(r"\b(no|without a) second hand", statement))
    for kind in MARKS:
        if kind in statement:
            return clock.marks == kind
    for shape in SHAPES:
        if re.search(rf"\b{shape}\b", statement):
            return clock.shape == shape
    (colour,) = (c for c in COLOURS if re.search(rf"\b{c}\b", statement))
    (part,) = (p for p in PARTS if p in statement)
    return getattr(clock, part) == colour


def answer(question: str, clock: Clock) -> str:
    """The true answer to a question."""
    if question in language.DESCRIBE:
        return language.description(clock)
    if re.match(r"(Is|Are|Does|Do)\b", question):
        return "yes" if is_so(question, clock) else "no"
    if "time" in question:
        return clock.time
    if "shape" in question:
        return clock.shape
    if re.search(r"colou?r", question):
        return next(getattr(clock, part) for part in PARTS if part in question)
    assert question in language.open_questions("marks")
    return clock.marks


# Pictures ---


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others():
    first, second = clocks.sample(TUNE + 1), clocks.sample(TUNE + 2)
    assert clocks.sample(TUNE + 1) == first != second
    assert clocks.render(first).tobytes() == clocks.render(first).tobytes() != clocks.render(second).tobytes()


def test_a_picture_has_the_wanted_size_and_fills_no_border():
    picture = clocks.render(clocks.sample(TUNE + 3), size=96)
    assert picture.size == (96, 96)
    assert picture.mode == "RGB"
    for clock in CLOCKS:
        assert clock.radius <= min(clock.x, 1 - clock.x, clock.y, 1 - clock.y)


def test_every_value_of_every_attribute_occurs_and_every_clock_is_legible():
    for part in PARTS:
        assert {getattr(c, part) for c in map(clocks.sample, range(TUNE, TUNE + 400))} == set(COLOURS)
    assert {c.shape for c in CLOCKS} == set(SHAPES)
    assert {c.marks for c in CLOCKS} == set(MARKS)
    assert all(clocks.legible(c.rim, c.face, c.hands, c.background) for c in CLOCKS)


def test_hands_differ_from_every_face_they_may_stand_on():
    values = {name: np.array(rgb) for name, rgb in COLOURS.items()}
    for hands in COLOURS:
        faces = [face for face in COLOURS if clocks.distance(hands, face) > 140]
        assert len(faces) >= 4
        for face in faces:
            assert np.abs(values[hands] - values[face]).max() > 70


def test_a_quarter_of_the_clocks_show_about_ten_past_ten():
    near = sum(abs(clocks.sample(TUNE + i).minutes - 609) <= 5 for i in range(1000)) / 1000
    assert 0.21 < near < 0.32


def test_the_splits_do_not_meet():
    assert TRAIN + 10**8 < TUNE < TUNE + 10**8 < TEST
    starts = [{replace(clocks.sample(first + i), seed=0) for i in range(100)} for first in (TRAIN, TUNE, TEST)]
    assert len(set.union(*starts)) == 300
    assert FIRST >= TEST + 100_000
    assert len(EXAMPLES) < 1000


# The world as one object ---


def make_case(world: World, seed: int):
    """What a training or a benchmark does with a world, through the protocol alone."""
    scene, rng = world.sample(seed), Random(seed)
    wanted = world.request(scene, rng)
    asked = [question.text for question in world.questions(scene, rng)]
    told = (world.caption(scene), world.caption(scene, rng), world.description(scene))
    return world.name, scene, wanted, world.render(world.apply(scene, wanted), 64).tobytes(), asked, told


def test_the_clocks_are_a_world_and_say_what_their_modules_say():
    signatures = {name: inspect.signature(method) for name, method in vars(World).items() if inspect.isfunction(method)}
    methods = {name: signature for name, signature in signatures.items() if not name.startswith("_")}
    assert set(methods) == {"sample", "render", "caption", "description", "questions", "request", "apply"}
    for name, signature in methods.items():
        assert list(inspect.signature(getattr(WORLD, name)).parameters) == list(signature.parameters)[1:]
    name, scene, wanted, rendered, asked, told = make_case(WORLD, TUNE + 11)
    rng = Random(TUNE + 11)
    assert (name, scene) == ("clocks", clocks.sample(TUNE + 11))
    assert wanted == language.request(scene, rng)
    assert asked == [question.text for question in language.questions(scene, rng)]
    assert told == (language.caption(scene), language.caption(scene, rng), language.description(scene))
    assert rendered == clocks.render(language.apply(scene, wanted), 64).tobytes()


# Language ---


def test_questions_are_answered_truly_and_yes_is_half_of_the_answers():
    replies = Counter()
    for seed, clock in enumerate(CLOCKS):
        for asked in language.questions(clock, Random(seed)):
            assert asked.answer == answer(asked.text, clock), asked
            replies[asked.answer] += 1
    assert 0.45 < replies["yes"] / (replies["yes"] + replies["no"]) < 0.55


def test_captions_never_tell_the_time():
    for seed, clock in enumerate(CLOCKS):
        other = language.with_time(clock, clock.minutes + 137)
        for rng in (lambda: None, lambda seed=seed: Random(seed)):
            said = language.caption(clock, rng())
            assert said == language.caption(other, rng())
            assert not re.search(r"\d|:|clock show|o'clock|past|quarter|half|time", said)


@pytest.mark.parametrize("minutes", range(0, 720, 5))
def test_a_spoken_time_means_its_minutes(minutes):
    rng = Random(minutes)
    for moment in (minutes, minutes + rng.randint(1, 4)):
        for _ in range(25):
            said = language.spoken(moment, rng)
            assert told_time(said) == moment, said


def test_an_order_of_a_relative_time_means_its_shift():
    rng = Random(5)
    for _ in range(500):
        shift, order = language.shift_order(rng)
        assert told_shift(order) == shift, order


ORDERS = [order for name in ("TIME_ORDERS", "SHIFT_ORDERS", "COLOUR_ORDERS", "SHAPE_ORDERS", "MARKS_ORDERS",
                             "ADD_SECOND_HAND", "DROP_SECOND_HAND", "NOTHING")
          for order in getattr(clock_orders, name)]  # fmt: skip


def test_courtesies_fit_the_orders_they_dress():
    """ "Could you the clock should be on a red background?" was once an instruction."""
    deeds = [order for order in ORDERS if "could you {}?" in language.courtesies(order)]
    assert len(deeds) > 50
    for order in deeds:
        assert not re.match(r"(the|it|I|an?|no|don't|\{\w+\}) ", order), order
    for order in set(ORDERS) - set(deeds):
        assert re.match(r"(the|it|I|an?|no|don't|\{\w+\}),? ", order), order
        assert "can you {}" not in language.courtesies(order)
    assert language.courtesies("the rim should be red") == ("{}, please", "now {}")
    assert language.courtesies("one hour later") == ("{}, please",)
    for polite in ("a red rim, please", "what is a cat?", "hello"):
        assert language.courtesies(polite) == ()


def test_no_instruction_asks_could_you_of_a_wish():
    asked = []
    for seed, clock in enumerate(CLOCKS):
        for kind in language.KINDS:
            said = language.request(clock, Random(f"courtesy {kind} {seed}"), kind).instruction
            assert said.lower().count("please") <= 1, said
            if found := re.match(r"(could|can) you (\S+)", said.lower()):
                asked.append(found[2])
                assert not re.search(r"should|i want", said.lower()), said
    assert len(asked) > 30
    assert set(asked) <= clock_orders.VERBS


# Requests and plans ---


@pytest.mark.parametrize("kind", EDITS)
def test_request_plan_and_perfect_answer_agree(kind):
    for seed, clock in enumerate(CLOCKS[:60]):
        wanted = language.request(clock, Random(f"{kind} {seed}"), kind)
        target, plan = language.apply(clock, wanted), parse(worked_out(wanted.reply))
        assert wanted.kind == kind
        assert len(wanted.changes) == {"nothing": 0, "two": 2, "three": 3}.get(kind, 1)
        assert plan.source == language.description(clock)
        assert plan.caption == language.caption(target)
        for check in plan.checks:
            assert check.expected == answer(check.question, target), (wanted, check)
        for phrase in plan.keep:
            assert is_so(phrase, clock), (wanted, phrase)
            assert is_so(phrase, target), (wanted, phrase)
        assert len(plan.keep) + len(wanted.changes) == 1 + len(language.ATTRIBUTES)
        assert plan.to_json() == json.loads(worked_out(wanted.reply))
        assert (wanted.reply == worked_out(wanted.reply)) == (kind != "relative")


@pytest.mark.parametrize("kind", EDITS)
def test_the_perfect_answer_changes_what_was_asked_and_nothing_else(kind):
    for seed, clock in enumerate(CLOCKS[:60]):
        wanted = language.request(clock, Random(f"{kind} {seed}"), kind)
        target = language.apply(clock, wanted)
        assert clocks.legible(target.rim, target.face, target.hands, target.background)
        names = {"time": "minutes"}
        for attribute, value in wanted.changes:
            assert getattr(target, names.get(attribute, attribute.replace(" ", "_"))) == value
            if attribute != "time":
                assert getattr(clock, attribute.replace(" ", "_")) != value
        back = {a.replace(" ", "_"): getattr(clock, a.replace(" ", "_")) for a, _ in wanted.changes if a != "time"}
        if any(attribute == "time" for attribute, _ in wanted.changes):
            back |= {"hour": clock.hour, "minute": clock.minute}
        assert replace(target, **back) == clock


def test_relative_requests_move_the_time_by_what_they_say():
    for seed, clock in enumerate(CLOCKS):
        wanted = language.request(clock, Random(seed), "relative")
        assert language.apply(clock, wanted).minutes == (clock.minutes + told_shift(wanted.instruction)) % 720, wanted


def test_colours_and_shapes_are_named_in_their_requests():
    for kind in (*PARTS, "marks"):
        for seed, clock in enumerate(CLOCKS[:40]):
            wanted = language.request(clock, Random(seed), kind)
            ((_, value),) = wanted.changes
            assert str(value).lower() in wanted.instruction.lower(), wanted


def test_refusals_change_nothing_and_cannot_be_read_as_plans():
    for seed in range(60):
        wanted = language.request(CLOCKS[0], Random(seed), "refuse")
        assert wanted.changes == ()
        assert language.apply(CLOCKS[0], wanted) == CLOCKS[0]
        with pytest.raises(Refused):
            parse(wanted.reply)


def test_what_is_refused_has_words_of_all_kinds_and_none_too():
    said = [off_topic(Random(seed)) for seed in range(600)]
    known = {word for objects in (language.OBJECTS, language.ACTS) for word in objects}
    assert sum(bool(known & set(text.split())) for text in said) > 200
    assert sum(text.replace(" ", "").isdecimal() for text in said) > 5
    assert not any(text.isdecimal() and len(text) < 6 for text in said)
    assert len({invented(Random(seed)) for seed in range(300)}) > 290
    assert all(len(invented(Random(seed))) >= 5 for seed in range(300))


def test_kinds_are_drawn_as_a_mixture_of_all():
    rng = Random(3)
    assert {language.request(CLOCKS[0], rng).kind for _ in range(400)} == set(language.KINDS)
