"""The measure of image first against question first, over untrained VLMs; and why the editor has one order."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks.question_order import ORDERS, TABLE, Case, cases, log_odds, main, measure, record, row
from rewards.prompt import Question
from rewards.vlm import VLM
from tests.tiny_vlm import tiny_qwen3, tiny_qwen25


@pytest.fixture(params=[tiny_qwen25, tiny_qwen3])
def vlm(request) -> VLM:
    return VLM(*request.param())


def test_image_first_is_the_editors_own_order_and_question_first_another(vlm):
    (case,) = list(cases(1))[:1]
    own = float(vlm.log_odds(case.image[None], [case.question]))
    assert log_odds(vlm, case, ORDERS["image first"]) == pytest.approx(own, abs=1e-3)
    assert log_odds(vlm, case, ORDERS["question first"]) != pytest.approx(own, abs=1e-3)


def test_the_set_has_as_many_true_as_false_statements_and_stays_the_same():
    labelled = list(cases(3))
    assert [case.holds for case in labelled].count(True) == 3
    assert len(labelled) == 6
    assert [case.question for case in labelled] == [case.question for case in cases(3)]


def test_the_figures_are_shares_of_right_answers_and_of_right_rankings(monkeypatch):
    labelled = [Case(torch.zeros(3, 4, 4), text, text < "c") for text in "abcd"]
    odds = {"a": 3.0, "b": 0.5, "c": 1.0, "d": -2.0}
    flip = {ORDERS["image first"]: 1, ORDERS["question first"]: -1}
    monkeypatch.setattr("benchmarks.question_order.log_odds", lambda _, case, order: flip[order] * odds[case.question])
    found = measure(None, labelled)
    assert found["image first"] == {"accuracy": 0.75, "ranking": 0.75}
    assert found["question first"] == {"accuracy": 0.25, "ranking": 0.25}
    assert row(None, labelled)["better"] == "image first"


def test_the_table_keeps_one_row_for_each_model(tmp_path):
    table = tmp_path / "table.json"
    for name, value in (("b", 1), ("a", 2), ("b", 3)):
        record(name, {"questions": value}, table)
    assert json.loads(table.read_text()) == {"a": {"questions": 2}, "b": {"questions": 3}}


def test_the_studios_row_is_recorded_and_puts_the_image_first():
    assert json.loads(TABLE.read_text())["studio"]["better"] == "image first"


def test_an_unknown_vlm_is_one_sentence(capsys):
    assert main(["--vlm", "gpt"]) == 2
    assert "There is no VLM" in capsys.readouterr().err


def test_a_gpu_that_is_too_small_is_one_sentence(monkeypatch, capsys):
    def load(wanted, device):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("benchmarks.question_order.load", load)
    assert main(["--vlm", "Qwen2.5-VL-7B"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("The GPU ran out of memory: close other programs")


def test_a_chat_template_that_asks_before_it_shows_is_refused(vlm):
    """Packed questions share the image: one that stood before it would have to be read with it."""
    vlm.processor.chat_template = (
        "{% for m in messages %}{% for c in m.content %}{% if c.type == 'text' %}{{ c.text }}{% endif %}{% endfor %}"
        "<|vision_start|><|image_pad|><|vision_end|>{% endfor %}"
    )
    with pytest.raises(ValueError, match="must place the image before the question"):
        vlm.prompter.pack([[Question("Is it red?"), Question("Is it blue?")]], 4, torch.device("cpu"))
