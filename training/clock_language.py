"""The clock world's language under one name: looks, questions, orders and perfect plans; see the modules it joins."""

from training.clock_looks import ATTRIBUTES, another, article, caption, description, phrase, value, with_time
from training.clock_orders import NOTHING, courtesies, shift_order, spoken, time_order
from training.clock_plans import KINDS, REFUSAL, apply, plan, request
from training.clock_questions import (
    ASK_IF_TIME,
    ASK_TIME,
    DESCRIBE,
    ask_colour,
    ask_if,
    open_questions,
    questions,
    yes_no,
)
from training.clock_refusals import ACTS, DEEDS, MANNERS, OBJECTS, QUALITIES, SEASONS, off_topic
from training.clocks import PARTS
from training.world import Question

__all__ = [
    "ACTS",
    "ASK_IF_TIME",
    "ASK_TIME",
    "ATTRIBUTES",
    "DEEDS",
    "DESCRIBE",
    "KINDS",
    "MANNERS",
    "NOTHING",
    "OBJECTS",
    "PARTS",
    "QUALITIES",
    "REFUSAL",
    "SEASONS",
    "Question",
    "another",
    "apply",
    "article",
    "ask_colour",
    "ask_if",
    "caption",
    "courtesies",
    "description",
    "off_topic",
    "open_questions",
    "phrase",
    "plan",
    "questions",
    "request",
    "shift_order",
    "spoken",
    "time_order",
    "value",
    "with_time",
    "yes_no",
]
