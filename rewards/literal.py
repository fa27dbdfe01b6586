"""What a VLM of few words makes of a sentence: other words for what it knows, and whether its plan says the same.

Such a VLM takes a sentence that is near its language for one that is of it, and of too long a sentence it leaves out a
part. Both show in the words, since its plans are made of the sentence's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from rewards.base import COLOURS, Plan
from rewards.spoken import in_digits

TIME = re.compile(r"\b(\d{1,2})[:.](\d{2})\b")


@dataclass(frozen=True)
class Vocabulary:
    """The words of the VLM's checks."""

    asks: frozenset[str]
    """Those that questions are made of, whatever they ask for."""
    also: Mapping[str, tuple[str, ...]]
    """Those that instructions say by other words, which the VLM knows."""
    others: Mapping[str, str]
    """Patterns of words that it does not know, with what it says in their place."""
    timeless: frozenset[str]
    """Words of instructions that name no time though the checks do."""

    def heard(self, instruction: str) -> str:
        """The instruction in its words, with times in digits."""
        for pattern, word in self.others.items():
            instruction = re.sub(rf"\b(?:{pattern})\b", word, instruction, flags=re.IGNORECASE)
        return in_digits(instruction.rstrip("! "))


def misread(plan: Plan, instruction: str, vocabulary: Vocabulary) -> str:
    """Why the plan can't be what was asked for, as one sentence that says what to do; empty where nothing tells that.

    Each word of its checks must be in the instruction, but for those that ask; each colour of the instruction in the
    checks, unless it tells which thing is meant ("the red rim"), and so must a second hand; times in digits both ways.
    """
    asked = " ".join(text for check in plan.checks for text in (check.question, check.expected))
    said, checks, there = _words(instruction), _words(asked), _words(plan.source)
    for word in checks:
        if word not in vocabulary.asks and {word, *vocabulary.also.get(word, ())}.isdisjoint(said):
            return f"The VLM took this for a wish about “{word}”, which the sentence does not name: say it otherwise."
    for word, thing in pairwise([*said, ""]):
        named = (word in COLOURS and (word, thing) not in pairwise(there)) or (word, thing) == ("second", "hand")
        if named and word not in checks:
            return f"The VLM left out “{word}”: say each change in a few words, three at most."
    planned, wished = ([(found[0], _minutes(found)) for found in TIME.finditer(text)] for text in (asked, instruction))
    for written, time in wished:
        if time not in dict(planned).values():
            return f"The VLM did not understand {written}: write a time from 1:00 to 12:59."
    for written, time in planned:
        if time not in dict(wished).values() and vocabulary.timeless.isdisjoint(said):
            return f"The VLM took this for {written}, which the sentence does not name: write the time in digits."
    return ""


def _words(text: str) -> list[str]:
    return re.findall("[a-z]+", text.lower())


def _minutes(found: re.Match[str]) -> int:
    """Since twelve, of a time that a dial can show; else a number that none has."""
    hour, minute = int(found[1]), int(found[2])
    return 60 * (hour % 12) + minute if 1 <= hour <= 12 and minute < 60 else -1
