"""Sentences near the studio's language: heard in its words, and plans that say something else are refused."""

from random import Random

import pytest

from rewards.base import Check, Plan
from rewards.literal import misread
from rewards.plan import STUDIO, parse, worked_out
from rewards.spoken import in_digits, shift
from training import clock_language as language
from training import clocks
from training.clock_orders import shift_order, spoken

WORDS = STUDIO.vocabulary


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("set it to 5", "set it to 5:00"),
        ("Set it to five, and make the rim red", "Set it to 5:00, and make the rim red"),
        ("make it 5.", "make it 5:00."),
        ("I want it to show three please", "I want it to show 3:00 please"),
        ("5 pm", "set it to 5:00"),
        ("noon please", "set it to 12:00 please"),
        ("make it 20 to 6", "make it 5:40"),
        ("twenty minutes past six", "set it to 6:20"),
        ("a quarter of one", "set it to 12:45"),
        ("set it to 445", "set it to 4:45"),
        ("set it to 16h45", "set it to 4:45"),
        ("16.45", "set it to 4:45"),
        ("the time should be 0:30", "the time should be 12:30"),
        ("exactly 11:23 pm", "exactly 11:23 pm"),
        ("4:45!", "4:45!"),
        ("add ten minutes", "ten minutes later"),
        ("take off half an hour", "half an hour earlier"),
        ("2 hours ago", "2 hours earlier"),
        ("set it 5 minutes later", "set it 5 minutes later"),
        ("make it 5 past 25", "make it 5 past 25"),
        ("set it to 25:70", "set it to 25:70"),
        ("set it to 12", "set it to 12:00"),
        ("use dots, 12 of them", "use dots, 12 of them"),
        ("change it from 10 to 5", "change it to 5:00"),
        ("turn the hands from ten past ten to twenty past three", "turn the hands to 3:20"),
        ("half past four and no second hand", "set it to 4:30 and no second hand"),
        ("add a second hand", "add a second hand"),
        ("add an hour hand", "add an hour hand"),
        ("add a minute hand and half an hour", "add a minute hand and half an hour"),
        ("set the second hand to 12", "set the second hand to 12"),
    ],
)
def test_times_are_heard_in_digits(said, meant):
    assert in_digits(said) == meant.replace("4:45!", "set it to 4:45!")


def test_every_time_that_people_say_is_heard():
    for minutes in range(720):
        hour, minute = divmod(minutes, 60)
        for seed in range(6):
            said = spoken(minutes, Random(seed))
            heard = in_digits(f"make it {said}").replace(".", ":")
            assert f"{hour or 12}:{minute:02d}" in heard.split(), said


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ("make the frame blue!", "make the rim blue"),
        ("put Roman numbers on the dial", "put Roman numerals on the dial"),
        ("paint the dial gray", "paint the face grey"),
        ("digits", "use Arabic numerals"),
        ("change the numbers to Roman numerals", "change the marks to Roman numerals"),
        ("change the rim from black to blue", "change the rim to blue"),
        ("make the rim blue, not black, and set it to 5", "make the rim blue, and set it to 5:00"),
        ("make it 4:45, but keep the white face as it is", "make it 4:45"),
        ("change the red face to green", "change the face to green"),
        ("make the white face blue and the rim red", "make the face blue and the rim red"),
        ("the red face should be green", "the red face should be green"),
        ("make both hands blue", "make the hands blue"),
        ("set it to 4:45 and leave everything else as it is", "set it to 4:45"),
        ("leave everything as it is", "leave everything as it is"),
    ],
)
def test_other_words_are_heard_as_those_that_the_planner_knows(said, heard):
    assert WORDS.heard(said) == heard


def plan_of(*asked, source="a round clock with a red rim, a white face and black hands, showing 10:09"):
    return Plan(tuple(Check(*one) for one in asked), source=source)


RIM = ("What colour is the rim?", "blue")
FACE = ("What colour is the face?", "yellow")
TIME = ("What time does the clock show?", "10:09")


@pytest.mark.parametrize(
    ("said", "plan", "why"),
    [
        ("make the rim blue", plan_of(RIM), ""),
        ("Make the red rim blue.", plan_of(RIM), ""),
        ("make the red face blue", plan_of(RIM), "about “rim”"),
        ("make the clock blue", plan_of(RIM), "about “rim”"),
        ("remove the rim", plan_of(RIM), "about “blue”"),
        ("make the rim blue, the face yellow and the hands green", plan_of(RIM, FACE), "left out “green”"),
        ("turn the clock into a circle", plan_of(("What shape is the clock?", "round")), ""),
        ("set it to 10:09", plan_of(TIME), ""),
        ("half an hour later", plan_of(TIME), ""),
        ("change nothing", plan_of(TIME), ""),
        ("set it to 25:70", plan_of(TIME), "did not understand 25:70"),
        ("make the rim the same colour as the face", plan_of(TIME), "took this for 10:09"),
        ("no second hand", plan_of(("Does the clock have no second hand?", "yes")), ""),
        ("take away the second hand", plan_of(("Does the clock have no second hand?", "yes")), ""),
        ("set the second hand to 12", plan_of(("Does the clock have no second hand?", "yes")), "about “no”"),
        ("make the rim blue and add a second hand", plan_of(RIM), "left out “second”"),
        ("move the clock by a second", plan_of(("Does the clock have a second hand?", "yes")), "about “hand”"),
    ],
)
def test_a_plan_that_says_something_else_than_the_sentence_is_told(said, plan, why):
    found = misread(plan, said, WORDS)
    assert why in found
    assert bool(found) == bool(why)


def test_no_perfect_plan_of_the_world_is_taken_for_a_misreading():
    for seed in range(3000):
        wanted = language.request(clocks.sample(seed), Random(seed))
        if wanted.kind != "refuse":
            plan = parse(worked_out(wanted.reply))
            assert misread(plan, WORDS.heard(wanted.instruction), WORDS) == "", wanted.instruction


@pytest.mark.parametrize(
    ("said", "minutes"),
    [
        ("half an hour later", 30),
        ("a quarter of an hour earlier", 15),
        ("an hour and a half later", 90),
        ("one and a half hours earlier", 90),
        ("two hours and a half later", 150),
        ("an hour and 20 minutes later", 80),
        ("1 hour 10 minutes later", 70),
        ("seven minutes later", 7),
        ("move it forward by twenty-five minutes", 25),
        ("12 hours later and the rim red", 720),
        ("later", None),
        ("ten minutes later, no, two hours", None),
    ],
)
def test_lengths_of_time_are_read(said, minutes):
    assert shift(said) == minutes


def test_every_shift_of_the_world_is_read():
    for seed in range(2000):
        minutes, order = shift_order(Random(seed))
        assert shift(order) == abs(minutes), order


def test_a_plan_adds_what_the_sentence_says():
    assert worked_out("10:09 + 0:20", shift("an hour and 20 minutes later")) == "11:29"
    assert worked_out("10:09 - 0:30", shift("3 minutes earlier")) == "10:06"
    assert worked_out("10:09 + 1:00", shift("a bit later")) == "11:09"
