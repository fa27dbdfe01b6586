"""A judge that learns how well hands are drawn: pictures of bad ones, what is wanted of them, and what stays."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

from editor import images
from rewards import planner
from rewards.vlm import VLM
from tests.test_vlm_training import Rendered
from tests.tiny_vlm import tiny_qwen25
from training import clock_language as language
from training import clocks, grade
from training.bent import WAYS, bare, bent
from training.clocks import Clock
from training.found import Dial
from training.grade import BAD, BOTTOM, GOOD, TOP
from training.graded import KINDS, Graded
from training.harness import Length
from training.world import TRAIN

QUESTIONS = ["Is the rim red?", "Does the clock show 4:45?"]


class Whole:
    """A codec that loses nothing."""

    class vae:
        device = torch.device("cpu")

    def encode(self, picture: torch.Tensor) -> torch.Tensor:
        return picture

    def render(self, latents: torch.Tensor) -> torch.Tensor:
        return latents


def pixels(clock: Clock) -> np.ndarray:
    return np.asarray(clocks.render(clock), np.float32)


@pytest.mark.parametrize("way", WAYS)
def test_every_way_spoils_hands_and_leaves_all_else(way: object) -> None:
    spoilt = 0
    for seed in range(TRAIN, TRAIN + 12):
        clock = clocks.sample(seed)
        change = pixels(clock) - pixels(bare(clock))
        found = way(clock, change, Random(seed))
        assert (found.shape, found.dtype) == (change.shape, np.float32)
        side = (np.arange(128) + 0.5) / 128
        away = np.hypot(side[None] - clock.x, side[:, None] - clock.y)
        assert np.abs(found[away > 1.45 * clock.dial]).max() < 12
        spoilt += np.abs(found - change).mean() > 0.01
    assert spoilt >= 4


def test_a_bent_clock_is_the_same_each_time_and_some_are_whole() -> None:
    shown = [clocks.sample(seed) for seed in range(TRAIN, TRAIN + 60)]
    made = [bent(clock, Random(clock.seed)) for clock in shown]
    again = [bent(clock, Random(clock.seed)) for clock in shown]
    assert all(a.tobytes() == b.tobytes() for a, b in zip(made, again, strict=True))
    whole = sum(a.tobytes() == clocks.render(c).tobytes() for a, c in zip(made, shown, strict=True))
    assert 1 <= whole < 30


def test_the_error_tells_bent_hands_from_straight_ones_and_other_times() -> None:
    clock = clocks.sample(TRAIN + 5)
    dial = Dial(clock, Whole())

    def error(shown: Clock, minutes: int, slack: int = 0) -> float:
        return dial.error(images.to_unit(clocks.render(shown))[0], minutes, slack=slack)

    assert error(clock, clock.minutes) < 1e-6
    assert error(clock, clock.minutes + 2) > 0.02
    assert error(clock, clock.minutes + 2, slack=2) < 1e-6
    assert error(clock, clock.minutes + 200) > 0.9
    assert error(bare(clock), clock.minutes) > 0.9
    errors = []
    for seed in range(TRAIN, TRAIN + 40):
        one = clocks.sample(seed)
        picture = images.to_unit(bent(one, Random(seed)))[0]
        errors.append(Dial(one, Whole()).error(picture, one.minutes, decoded=False))
    assert sum(e < GOOD for e in errors) >= 8
    assert sum(GOOD < e < BAD for e in errors) >= 8


def test_grades_fall_evenly_with_the_error() -> None:
    errors = torch.tensor([0.0, GOOD, (GOOD + BAD) / 2, BAD, 2.0])
    assert torch.allclose(grade.grade(errors), torch.tensor([TOP, TOP, 0.0, BOTTOM, BOTTOM]), atol=1e-5)


def test_log_odds_may_go_beyond_both_ends() -> None:
    odds = torch.tensor([TOP + 3, TOP - 3, BOTTOM - 3, BOTTOM + 3, 1.0])
    wanted = torch.tensor([TOP, TOP, BOTTOM, BOTTOM, 1.0])
    assert grade.off(odds, wanted).gt(0).tolist() == [False, True, False, True, False]


def test_pictures_on_disk_come_back(tmp_path: Path) -> None:
    graded = some(3)
    graded.save(tmp_path / "a.npz")
    graded.save(tmp_path / "b.npz")
    found = Graded.load(tmp_path)
    assert found.pixels.shape == (6, 128, 128, 3)
    assert found.errors.tolist() == [*graded.errors, *graded.errors]
    with pytest.raises(FileNotFoundError, match="run python -m training"):
        Graded.load(tmp_path / "none")


def some(count: int) -> Graded:
    shown = [clocks.sample(TRAIN + seed) for seed in range(count)]
    pictures = np.stack([np.asarray(clocks.render(clock)) for clock in shown])
    numbers = [clock.seed for clock in shown], [clock.minutes for clock in shown], np.linspace(0, 1, count)
    return Graded(pictures, *map(np.array, numbers))


@pytest.fixture
def store(tmp_path: Path) -> grade.Store:
    for kind in KINDS:
        some(5).save(tmp_path / "graded" / kind / "0.npz")
    return grade.Store(tmp_path / "graded")


def test_questions_ask_for_the_time_that_a_picture_was_to_show() -> None:
    clock = clocks.sample(TRAIN)
    asked = (clock.minutes + 100) % 720
    time = language.with_time(clock, asked).time
    clear, bad = (grade.about(clock.seed, asked, error, Random(0)) for error in (0.1, 0.9))
    assert time in clear[0].text
    assert not any(time in question.text for question in clear[1:3])
    assert (clear[3].answer, bad[3].answer) == (time, "none")


def judging(tmp_path: Path, matrices: str) -> VLM:
    """A VLM with a random adapter for plans over these matrices."""
    vlm = VLM(*tiny_qwen25())
    model = planner.twin(vlm.model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model.add_adapter(grade.LoraConfig(r=4, target_modules=matrices, init_lora_weights=False), planner.FOLDER)
    vlm.plan_with(model)
    return vlm


def test_a_training_moves_the_judge_and_leaves_the_plans(
    tmp_path: Path, store: grade.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grade, "Source", Rendered)
    monkeypatch.setattr(grade, "Store", lambda: store)
    vlm = judging(tmp_path, grade.MATRICES)
    shown = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    before, plans = vlm.log_odds(shown, QUESTIONS), vlm.planner.log_odds(shown, QUESTIONS)
    grade.learn_grades(vlm, tmp_path / "run", Length(24), batch=6, lr=0.03)
    assert (vlm.log_odds(shown, QUESTIONS) - before).abs().max() > 1e-3
    assert torch.allclose(vlm.planner.log_odds(shown, QUESTIONS), plans, atol=1e-3)
    grade.save(vlm, tmp_path / "out")
    again = VLM.load(tmp_path / "out")
    assert torch.allclose(again.log_odds(shown, QUESTIONS), vlm.log_odds(shown, QUESTIONS), atol=0.1)
    assert torch.allclose(again.planner.log_odds(shown, QUESTIONS), plans, atol=0.1)


def test_an_adapter_over_other_matrices_is_refused(
    tmp_path: Path, store: grade.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grade, "Source", Rendered)
    monkeypatch.setattr(grade, "Store", lambda: store)
    with pytest.raises(ValueError, match="same matrices"):
        grade.learn_grades(judging(tmp_path, r".*\.q_proj"), tmp_path / "run", Length(6), batch=6)


def test_batches_are_made_alike_elsewhere(store: grade.Store) -> None:
    vlm = VLM(*tiny_qwen25())
    make = partial(grade.lesson, vlm, Rendered(), store, 8)
    one, other = (make(torch.Generator().manual_seed(1)) for _ in range(2))
    assert one.rows == other.rows
    assert torch.equal(one.wanted, other.wanted)
    assert (one.wanted[:, 1:] == BOTTOM).all()
