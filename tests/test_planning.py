"""The measurement of plans: its sentences are none of the training's, and perfect replies count as perfect."""

from __future__ import annotations

import json
import re
from random import Random
from types import SimpleNamespace

import pytest
import torch

from benchmarks.planning import KINDS, alone, elsewhere, minutes_of, parsed, plans, refusals
from training import clock_language as language
from training import clocks
from training.world import TUNE

SHOWN = [clocks.sample(TUNE + 40_000 + i) for i in range(len(KINDS))]
LISTS = (language.OBJECTS, language.MANNERS, language.DEEDS, language.QUALITIES, language.SEASONS, language.ACTS)
TRAINED = {word for words in LISTS for phrase in words for word in phrase.split()} - {"a"}


class Planner:
    """A VLM that answers the questions it is asked in turn, each batch from its own list."""

    def __init__(self, *said):
        self.said, self.models = [text for batch in said for text in batch], self
        self.vlm = SimpleNamespace(answers=self._answers)
        self.vlm.planner = self.vlm

    def _answers(self, images, prompts, longest):
        now, self.said = self.said[: len(prompts)], self.said[len(prompts) :]
        return now


def perfect():
    return [language.request(c, Random(i), KINDS[i]).reply for i, c in enumerate(SHOWN)]


def times(shift=0):
    return [clocks.clock_time(c.minutes + shift) for c in SHOWN]


def test_no_sentence_of_elsewhere_has_a_word_of_the_training_lists():
    sentences = elsewhere()
    assert len(set(sentences)) == len(sentences) >= 140
    assert sum(sentence.endswith("?") for sentence in sentences) >= 12
    for sentence in sentences:
        words = set(re.findall(r"[a-z]+", sentence.lower()))
        assert not words & TRAINED, sentence
        assert not {word.removesuffix("s") for word in words} & TRAINED, sentence
        assert not words & {"clock", "hands", "hand", "rim", "dial", "numerals"}, sentence


def test_perfect_replies_are_exact_in_every_kind():
    found = plans(Planner(perfect(), times()), SHOWN)
    assert set(found.values()) == {1.0}
    assert {f"{kind}, checks exact" for kind in KINDS} <= set(found)


def test_a_relative_plan_from_a_misread_clock_misses_by_as_much():
    """A VLM that reads two minutes too late aims two minutes too late: within three minutes, not within one."""
    late = [language.with_time(c, c.minutes + 2) for c in SHOWN]
    said = [language.request(c, Random(i), KINDS[i]).reply for i, c in enumerate(late)]
    found = plans(Planner(said, times(2)), SHOWN)
    assert found["relative, checks exact"] == 0.0
    assert found["relative, aims within 1 min"] == 0.0
    assert found["relative, aims within 3 min"] == 1.0
    assert found["relative, checks exact where the clock is read within 3 min"] == 0.0
    assert "relative, checks exact where the clock is read within 1 min" not in found


@pytest.mark.parametrize("heeds", [False, True])
def test_guesses_are_counted_and_their_replies_compared(heeds):
    """A planner that takes three passes for a reply, and one where it is told what that is like."""
    text = torch.nn.Identity()

    def answer(image, prompt, longest, like):
        for _ in range(1 if like else 3):
            text(image)
        return like if heeds else prompt

    vlm = SimpleNamespace(planner=SimpleNamespace(text=text, answer=answer))
    found = alone(SimpleNamespace(models=SimpleNamespace(vlm=vlm)), SHOWN)
    assert (found["passes without guesses"], found["passes with them"], found["the same text"]) == (3, 1, not heeds)
    assert not text._forward_hooks


def test_what_is_no_json_object_is_no_plan():
    assert parsed("[1]") == parsed("{") == parsed("4") == {}
    assert plans(Planner(["nonsense"] * len(SHOWN), ["?"] * len(SHOWN)), SHOWN)["exact"] == 0.0


def test_refusals_are_counted_over_the_sentences():
    said = [json.dumps({"refuse": "no"}), "nonsense", language.REFUSAL, language.REFUSAL]
    assert refusals(Planner(said), SHOWN[:2], elsewhere()[:4]) == {"refused out of language": 0.75}


def test_times_are_read_from_text_or_not_at_all():
    assert (minutes_of("12:05"), minutes_of("4:45"), minutes_of("noon"), minutes_of("4:75")) == (5, 285, None, None)
