"""The command line as a user types it, over untrained networks."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from threading import Event

import numpy as np
import pytest
from PIL import Image

from editor import __main__ as cli
from editor import images, recipe
from editor.console import stoppable
from editor.engine import Editor
from editor.finish import Landed
from editor.judge import Judge
from editor.recipe import Recipe, encode_result, read_recipe, save_result
from editor.registration import Offset
from editor.types import EditError, EditRequest, SearchSettings
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
    wanted = {"score", "checks", "nfe", "vlm_calls", "decodes", "seconds", "seed", "method", "profile", "offset"}
    assert told["met"] == (told["warning"] == "")
    assert wanted <= set(told)
    assert (told["seed"], told["method"]) == (9, "best-of-n")
    assert [set(c) for c in told["checks"]] == [{"question", "expected", "weight", "before", "after"}] * 2
    with Image.open(target) as written:
        assert written.size == (40, 32)
    assert read_recipe(target).plan == PLAN
    assert "edit" in err


def test_a_result_that_lies_off_its_source_is_warned_about(tiny, clock, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Landed, "offset", lambda self: Offset(0.75, -1.0))
    edit = ("edit", clock, "make the rim red", "-o", str(tmp_path / "out.png"), "--particles", "2", "--steps", "2")
    status, out, err = run(capsys, *edit, "--json")
    assert status == 0
    assert json.loads(out)["offset"] == [0.75, -1.0]
    assert json.loads(out)["warning"] in err
    assert "1.2 pixels off" in err


@pytest.mark.parametrize("met", [True, False])
def test_a_result_that_does_not_surely_meet_its_plan_is_warned_about(tiny, clock, tmp_path, capsys, monkeypatch, met):
    monkeypatch.setattr("editor.judge.MET", 0.0 if met else 1.0)
    confine = Judge.confine
    monkeypatch.setattr(Judge, "confine", lambda self, f, *rest: confine(self, f._replace(suffices=True), *rest))
    edit = ("edit", clock, "make the rim red", "-o", str(tmp_path / "out.png"), "--particles", "2", "--steps", "2")
    status, out, err = run(capsys, *edit, "--json")
    assert status == 0
    told = json.loads(out)
    assert told["met"] == met
    for said in (told["warning"], err):
        assert ("may not show what you asked for" in said) != met


def test_score_prints_log_odds_and_probability(tiny, clock, capsys):
    status, out, _ = run(capsys, "score", clock, "Is the rim red?", "Does the clock show 4:45?", "--json")
    assert status == 0
    rows = json.loads(out)["answers"]
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


def test_a_plan_from_a_file_is_used_as_it_stands(tiny, clock, tmp_path, capsys):
    own = replace(PLAN, checks=(Check("Is the rim green?", weight=2.0),))
    (tmp_path / "plan.json").write_text(json.dumps(own.to_json()))
    edit = ("edit", clock, "a green rim", "--particles", "2", "--steps", "2", "-o", str(tmp_path / "out.png"))
    status, out, err = run(capsys, *edit, "--plan", str(tmp_path / "plan.json"), "--json")
    assert status == 0, err
    assert Plan.from_json(json.loads(out)["plan"]) == own == read_recipe(tmp_path / "out.png").plan
    for text, says in (('{"checks": []}', "at least one check"), ("no plan", "plan.json' can't be used")):
        (tmp_path / "plan.json").write_text(text)
        status, _, err = run(capsys, *edit, "--plan", str(tmp_path / "plan.json"))
        assert (status, says in err) == (2, True)


@pytest.fixture
def interruptible():
    """Ctrl-C as in the foreground of a shell, wherever the tests run."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_in_the_background_of_a_shell_ctrl_c_is_not_for_an_edit(interruptible):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stoppable() as stop:
        signal.raise_signal(signal.SIGINT)
    assert not stop.is_set()


def test_ctrl_c_keeps_the_best_so_far(interruptible, tiny, clock, tmp_path, capsys, monkeypatch):
    edit = Editor.edit

    def interrupted(self, request, stop=None):
        for update in edit(self, request, stop):
            yield update
            if update.stage == "search" and update.step == 0:
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Editor, "edit", interrupted)
    before = signal.getsignal(signal.SIGINT)
    arguments = ("edit", clock, "make the rim red", "-o", str(tmp_path / "out.png"), "--particles", "2", "--steps", "6")
    status, _, err = run(capsys, *arguments)
    assert status == cli.INTERRUPTED
    assert "Stopping: the best so far is kept." in err
    assert read_recipe(tmp_path / "out.png").stopped is not None
    assert signal.getsignal(signal.SIGINT) is before
    monkeypatch.setattr(Editor, "plan", lambda *_: signal.raise_signal(signal.SIGINT))
    status, out, err = run(capsys, "plan", clock, "make the rim red")
    assert (status, out, err) == (cli.INTERRUPTED, "", "Interrupted.\n")


def test_ctrl_c_before_there_is_a_picture_writes_none(interruptible, tiny, clock, tmp_path, capsys, monkeypatch):
    invert = Editor.invert
    monkeypatch.setattr(Editor, "invert", lambda *it: [signal.raise_signal(signal.SIGINT), invert(*it)][1])
    status, out, err = run(capsys, "edit", clock, "make the rim red", "-o", str(tmp_path / "out.png"))
    assert (status, out) == (cli.INTERRUPTED, "")
    assert err.endswith("The run was stopped before there was a picture: yours is as it was.\n")
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["plan", "nowhere.png", "make it red"], "no file"),
        (["edit", "CLOCK", "make it red", "-o", "nowhere/x.png"], "no folder 'nowhere'"),
        (["edit", "CLOCK", "make it red", "-o", "x.jpg"], "ends in .png"),
        (["edit", "CLOCK", "make it red", "-o", "x.png", "--plan", "nowhere.json"], "No such file"),
        (["edit", "CLOCK", "make it red", "-o", "CLOCK"], "'clock.png' would be overwritten"),
        (["roundtrip", "CLOCK", "-o", "CLOCK"], "'clock.png' would be overwritten"),
        (["roundtrip", "CLOCK", "-o", "nowhere/x.png"], "no folder 'nowhere'"),
        (["roundtrip", "CLOCK", "-o", "x.png", "--strength", "2"], "strength"),
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


def test_the_bar_tells_what_goes_on_and_ends_full(tiny, clock, tmp_path, capsys):
    edit = ("edit", clock, "make the rim red", "-o", str(tmp_path / "out.png"), "--particles", "2", "--steps", "2")
    status, _, err = run(capsys, *edit, "--method", "prompt-only")
    assert status == 0
    assert "Carried the picture back" in err
    assert "100%" in err


def test_a_table_is_not_written_over_by_its_own_summary(tiny, clock, tmp_path, capsys):
    table = tmp_path / "summary.csv"
    table.write_text(f"image,instruction\n{clock},make it red\n")
    status, _, err = run(capsys, "batch", str(table), "-o", str(tmp_path))
    assert (status, "The table would be written over" in err) == (2, True)
    assert table.read_text().startswith("image,")
    status, _, err = run(capsys, "batch", str(tmp_path / "nowhere"), "make it red", "-o", str(tmp_path / "out"))
    assert (status, "no folder or table" in err) == (2, True)


def test_what_cannot_be_written_is_refused_before_the_run(tiny, clock, tmp_path, capsys):
    (tmp_path / "out.png").mkdir()
    status, _, err = run(capsys, "edit", clock, "make it red", "-o", str(tmp_path / "out.png"))
    assert (status, "give -o the name of a file" in err) == (2, True)
    status, _, err = run(capsys, "edit", clock, "make it red", "-o", str(tmp_path / ("a" * 252 + ".png")))
    assert (status, "give -o the name of a file" in err) == (2, True)
    status, _, err = run(capsys, "edit", str(tmp_path / ("a" * 252 + ".png")), "make it red", "-o", "out.png")
    assert (status, "can't be read" in err) == (2, True)


@pytest.mark.parametrize(
    "plan",
    [
        "[" * 100_000,
        '{"checks": [{"question": "?", "weight": 1' + "0" * 400 + "}]}",
        '{"checks": [{"question": "?"}], "caption": "a clock \\udcff"}',
        '{"checks": [{"question": "Is it \\ud83d?"}]}',
    ],
)
def test_a_hostile_plan_is_one_sentence(tiny, clock, tmp_path, capsys, plan):
    (tmp_path / "plan.json").write_text(plan)
    edit = ("edit", clock, "make it red", "-o", str(tmp_path / "out.png"))
    status, _, err = run(capsys, *edit, "--plan", str(tmp_path / "plan.json"))
    assert (status, "can't be used" in err, "Traceback" in err) == (2, True, False)


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


def test_an_edit_that_breaks_off_saves_the_best_so_far_and_says_why(tiny, clock, tmp_path, capsys, monkeypatch):
    edit, target = Editor.edit, tmp_path / "out.png"

    def broken(self, request, stop=None):
        *updates, last = edit(self, request, stop)
        yield from [*updates, replace(last, broken="The score is not finite.", stopped=True)]

    monkeypatch.setattr(Editor, "edit", broken)
    status, out, err = run(capsys, "edit", clock, "a red rim", "-o", str(target), "--particles", "2", "--json")
    assert status == 2
    assert "The score is not finite." in err
    assert json.loads(out)["broken"] == "The score is not finite."
    assert read_recipe(target).stopped is not None


# ---------------------------------------------------------------------------------------------------------- reproduce


@pytest.fixture
def masks(tmp_path):
    """Two masks for the clock: soft and hard."""
    soft = np.tile(np.linspace(0, 250, 40).astype(np.uint8), (32, 1))
    Image.fromarray(soft).save(tmp_path / "soft.png")
    Image.fromarray(np.where(soft > 100, 255, 0).astype(np.uint8)).save(tmp_path / "hard.png")
    return {name: str(tmp_path / f"{name}.png") for name in ("soft", "hard")}


@pytest.fixture
def made(tiny, clock, tmp_path, capsys):
    """Makes an edit of the clock; the path of its result."""

    def make(*more):
        path = str(tmp_path / "result.png")
        small = ("--particles", "2", "--steps", "2", "--seed", "9")
        status, _, err = run(capsys, "edit", clock, "make the rim red", "-o", path, *small, *more)
        assert status == 0, err
        return path

    return make


def reproduce(capsys, result, source, out, *more):
    return run(capsys, "reproduce", result, "--source", source, "-o", str(out), "--json", *more)


@pytest.mark.parametrize("mask", [None, "soft", "hard"])
def test_a_result_is_reproduced_to_the_byte(made, clock, masks, tmp_path, capsys, mask):
    result, again = made(*(["--mask", masks[mask]] if mask else [])), tmp_path / "again.png"
    status, out, err = reproduce(capsys, result, clock, again)
    assert status == 0, err
    assert again.read_bytes() == (tmp_path / "result.png").read_bytes()
    told = json.loads(out)
    assert (told["same"], told["same_bytes"], told["changed"], told["seed"]) == (True, True, [], 9)


def test_a_stopped_run_and_another_candidate_are_reproduced(tiny, clock, tmp_path, capsys):
    settings = SearchSettings(particles=3, steps=3, keep=3, seed=4, jitters=1)
    request, stop = EditRequest(image=images.load(clock).image, instruction="make it red", settings=settings), Event()
    for last in tiny.edit(request, stop):
        if last.stage == "search" and last.step == 1:
            stop.set()
    written = Recipe.of(request, last, tiny.profile.name, 1)
    assert written.stopped == 1
    save_result(tmp_path / "result.png", last.candidates[1].image, written)
    status, out, err = reproduce(capsys, str(tmp_path / "result.png"), clock, tmp_path / "again.png")
    assert status == 0, err
    assert json.loads(out)["same_bytes"]


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        ({"versions": {"torch": "1.0", "no such package": "2", "": "3"}}, 0, "torch 1.0"),
        ({"versions": {"weights": "of before"}}, 0, "weights of before"),
        ({"held": ""}, 0, "earlier version"),
        ({"held": "bfloat16, VLM in nf4"}, 0, "made in bfloat16, VLM in nf4, and here it is float32, everything whole"),
        ({"result": "0" * 64}, 1, "picture differs"),
        ({"source": "0" * 64}, 2, "another picture"),
        ({"profile": "flux"}, 2, "profile"),
        ({"profile": "nobody's"}, 2, "no profile"),
        ({"candidate": 77}, 2, "candidate 78"),
    ],
)
def test_what_differs_is_said(made, clock, tmp_path, capsys, change, status, says):
    result, changed = made(), str(tmp_path / "changed.png")
    with Image.open(result) as picture:
        save_result(changed, picture, replace(read_recipe(result), **change))
    more = ["--profile", "studio"] if change.get("profile") == "flux" else []
    found, out, err = reproduce(capsys, changed, clock, tmp_path / "again.png", *more)
    assert (found, (tmp_path / "again.png").exists()) == (status, status < 2), err
    assert says in err
    assert "Traceback" not in err
    assert (out == "") == (status == 2)


def test_a_result_without_a_recipe_cannot_be_reproduced(tiny, clock, tmp_path, capsys):
    stripped = tmp_path / "stripped.png"
    with Image.open(clock) as picture:
        stripped.write_bytes(encode_result(picture, None))
    for path, says in ((str(stripped), "only the AI mark"), (clock, "no recipe"), ("nowhere.png", "no file")):
        status, _, err = reproduce(capsys, path, clock, tmp_path / "again.png")
        assert status == 2
        assert says in err


def test_a_mask_too_large_for_the_recipe_is_asked_for(made, clock, masks, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(recipe, "MAX_MASK", 50)
    result, again = made("--mask", masks["soft"]), tmp_path / "again.png"
    assert read_recipe(result).mask_png is None
    for more, wanted, says in (
        ([], 2, "give it with --mask"),
        (["--mask", masks["hard"]], 2, "another one"),
        (["--mask", masks["soft"]], 0, ""),
    ):
        status, _, err = reproduce(capsys, result, clock, again, *more)
        assert status == wanted
        assert says in err
    result = made()
    status, _, err = reproduce(capsys, result, clock, again, "--mask", masks["soft"])
    assert (status, "without a mask" in err) == (2, True)
