"""The command line as a user types it, over untrained networks."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from editor import __main__ as cli
from editor.engine import Editor
from editor.recipe import read_recipe
from editor.types import EditError
from rewards.base import Check, Plan

PLAN = Plan((Check("Is the rim red?"), Check("Does the clock show 4:45?")), "a clock with a red rim", ("a white face",))


@pytest.fixture
def clock(tmp_path):
    path = tmp_path / "clock.png"
    Image.fromarray(np.linspace(0, 250, 40 * 32 * 3).reshape(32, 40, 3).astype(np.uint8)).save(path)
    return str(path)


@pytest.fixture
def tiny(tiny_editor, monkeypatch):
    """The untrained engine in place of the studio; it plans as if it could."""
    monkeypatch.setattr(Editor, "load", classmethod(lambda cls, name, vlm=None: tiny_editor))
    monkeypatch.setattr(cli, "prepare", lambda: None)
    monkeypatch.setattr(Editor, "_plan", lambda self, image, instruction, calls: PLAN)
    return tiny_editor


def run(capsys, *arguments: str):
    """(exit status, standard output, standard error)."""
    status = cli.main(arguments)
    out, err = capsys.readouterr()
    return status, out, err


def test_plan_prints_one_json_object(tiny, clock, capsys):
    status, out, _ = run(capsys, "plan", clock, "make the rim red", "--json")
    assert status == 0
    assert Plan.from_json(json.loads(out)) == PLAN


def test_edit_writes_the_picture_with_its_recipe_and_tells_all(tiny, clock, tmp_path, capsys):
    target = tmp_path / "out.png"
    status, out, err = run(
        capsys, "edit", clock, "make the rim red", "-o", str(target), "--particles", "2", "--steps", "2", "--seed", "9",
        "--strength", "0.5", "--method", "best-of-n", "--json",
    )  # fmt: skip
    assert status == 0, err
    told = json.loads(out)
    wanted = {"score", "checks", "nfe", "vlm_calls", "decodes", "seconds", "seed", "method", "profile"}
    assert wanted <= set(told)
    assert (told["seed"], told["method"]) == (9, "best-of-n")
    assert [set(c) for c in told["checks"]] == [{"question", "expected", "before", "after"}] * 2
    with Image.open(target) as written:
        assert written.size == (40, 32)
    assert read_recipe(target).plan == PLAN
    assert "edit" in err


def test_score_prints_log_odds_and_probability(tiny, clock, capsys):
    status, out, _ = run(capsys, "score", clock, "Is the rim red?", "Does the clock show 4:45?", "--json")
    assert status == 0
    rows = json.loads(out)
    assert [r["question"] for r in rows] == ["Is the rim red?", "Does the clock show 4:45?"]
    for row in rows:
        assert row["probability"] == pytest.approx(1 / (1 + np.exp(-row["log_odds"])))


def test_roundtrip_writes_the_picture_at_its_size(tiny, clock, tmp_path, capsys):
    target = tmp_path / "back.png"
    status, out, _ = run(capsys, "roundtrip", clock, "-o", str(target), "--json")
    assert status == 0
    with Image.open(target) as written:
        assert written.size == (40, 32)
    assert json.loads(out)["inversion_psnr"] > 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["plan", "nowhere.png", "make it red"], "no file"),
        (["edit", "CLOCK", " ", "-o", "x.png"], "one sentence"),
        (["edit", "CLOCK", "make it red", "-o", "x.png", "--strength", "7"], "strength"),
        (["edit", "CLOCK", "make it red", "-o", "x.png", "--mask", "nowhere.png"], "no file"),
        (["score", "CLOCK", " "], "words"),
    ],
)
def test_bad_input_is_exit_status_2_and_one_sentence(tiny, clock, capsys, arguments, says):
    status, out, err = run(capsys, *[clock if a == "CLOCK" else a for a in arguments])
    assert status == 2
    assert out == ""
    sentence = err.strip().splitlines()[-1]
    assert says in sentence
    assert "Traceback" not in err


def test_a_picture_that_is_not_one_is_refused(tiny, tmp_path, capsys):
    fake = tmp_path / "clock.png"
    fake.write_text("I am no picture")
    status, _, err = run(capsys, "plan", str(fake), "make the rim red")
    assert status == 2
    assert "not a picture" in err


def test_errors_of_the_engine_reach_the_user(tiny, clock, capsys, monkeypatch):
    def refuse(self, request, stop=None):
        raise EditError("Choose another picture.")

    monkeypatch.setattr(Editor, "edit", refuse)
    status, _, err = run(capsys, "edit", clock, "make the rim red", "-o", "x.png")
    assert status == 2
    assert err.strip().endswith("Choose another picture.")
