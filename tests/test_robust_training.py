"""What makes the studio's VLM hard to fool: attacks within a bound, and colours that no name fits."""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random

import numpy as np
import pytest
import torch

from training import clock_language as language
from training import clocks, speak
from training.attack import REACH, attacked
from training.clocks import COLOURS, PARTS
from training.mixes import FORMS, SWEEP, clear, drawn, mixed, nearest, patches, runner_up
from training.pictures import hard_to_see
from training.world import TRAIN


def test_an_attack_raises_the_loss_within_its_reach() -> None:
    images = torch.full((64, 3, 8, 8), 0.5)
    weight = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = attacked(images, lambda x: (x * weight).sum(), torch.Generator().manual_seed(1), reach=0.5, steps=3)
    change = (found - images).flatten(1)
    length = change.norm(dim=1)
    assert length.max() <= 0.5 + 1e-5
    assert length.min() < 0.1 < 0.4 < length.max()
    towards = change @ weight.flatten() / (length * weight.norm())
    assert (towards[length > 0.05] > 0.9).all()
    assert not found.requires_grad


def test_an_attack_leaves_no_gradient_behind_and_stays_in_range() -> None:
    layer = torch.nn.Linear(3, 1)
    images = torch.rand(4, 3, 8, 8)
    found = attacked(images, lambda x: layer(x.mean((2, 3))).mean(), torch.Generator().manual_seed(1), reach=5.0)
    assert layer.weight.grad is None
    assert found.min() >= 0
    assert found.max() <= 1


def test_an_attack_cannot_move_the_hands() -> None:
    for seed in range(TRAIN, TRAIN + 40):
        clock = clocks.sample(seed)
        pair = [clocks.render(c) for c in (clock, language.with_time(clock, clock.minutes + 1))]
        here, there = (np.asarray(picture, np.float32) / 255 for picture in pair)
        assert np.linalg.norm(here - there) > 1.5 * REACH


def test_the_clocks_of_the_world_have_clear_colours_and_many_mixed_ones_have_not() -> None:
    shown = [clocks.sample(seed) for seed in range(TRAIN, TRAIN + 200)]
    assert all(clear(clock, part) for clock in shown for part in PARTS)
    unclear = sum(not all(clear(clock, part) for part in PARTS) for clock in map(mixed, shown))
    assert 100 < unclear < 190


def test_an_even_mixture_is_named_by_the_nearest_colour() -> None:
    for seed in range(TRAIN + 1, TRAIN + 100, 2):
        clock = mixed(clocks.sample(seed))
        assert clock == mixed(clocks.sample(seed))
        for part in PARTS:
            first, second = nearest(drawn(clock, part))[:2]
            own, other = (math.dist(COLOURS[name], drawn(clock, part)) for name in (first, second))
            assert [first, second] == [getattr(clock, part), runner_up(clock, part)]
            mixed_too = drawn(clock, part) != drawn(clocks.sample(seed), part)
            if mixed_too and abs(own / (own + other) - 0.35) > 0.01:
                assert clear(clock, part) == (own <= 0.35 * (own + other))
        even = replace(clock, light=(0.0, 0.0), shadow=(0.0, 0.0, 0.0))
        shown = np.median(np.asarray(even.picture())[:6].reshape(-1, 3), 0)
        assert math.dist(shown, drawn(clock, "background")) < 6


def test_patches_show_both_colours_and_take_their_share() -> None:
    for seed in range(TRAIN, TRAIN + 60, 2):
        clock = mixed(clocks.sample(seed))
        here, there, shown = (np.asarray(p, float) for p in (clocks.render(clock), clocks.render(clock.other),
                                                             clock.picture()))  # fmt: skip
        changed = np.abs(here - there).sum(-1) > 60
        taken = np.abs(shown - there).sum(-1)[changed] < np.abs(shown - here).sum(-1)[changed]
        named = {name: name.replace(" ", "_") for name in (*PARTS, *FORMS, SWEEP)}
        differ = {name for name, own in named.items() if getattr(clock, own) != getattr(clock.other, own)}
        assert set(clock.unclear) <= differ
        if clock.share < 0.01:
            assert not clock.unclear
        if clock.share > 0.3 and "background" in differ:
            assert "background" in clock.unclear
        if clock.share < 0.02 and changed.any():
            assert taken.mean() < 0.2
        for part in set(clock.unclear) - {SWEEP}:
            assert runner_up(clock, part) == getattr(clock.other, part)
    assert abs(patches(0.3, Random(0)).mean() - 0.3) < 0.03


@pytest.mark.parametrize("part", [*PARTS, *FORMS])
def test_no_name_is_true_of_what_is_between_two(part: str) -> None:
    rng = Random(0)
    shown = [mixed(clocks.sample(seed)) for seed in range(TRAIN, TRAIN + 400)]
    between = [clock for clock in shown if not clear(clock, part)]
    assert len(between) > 20
    assert {speak.firm(clock, part, rng).answer for clock in between} == {"no"}
    assert {speak.free(clock, part, rng).answer for clock in between} == {speak.NONE}
    named = [clock for clock in shown if clear(clock, part)]
    asked = [(clock, speak.firm(clock, part, rng)) for clock in named]
    assert 0.35 < sum(q.answer == "yes" for _, q in asked) / len(asked) < 0.65
    assert all((f" {getattr(clock, part)}" in q.text) == (q.answer == "yes") for clock, q in asked)


def test_part_of_a_second_hand_is_none_and_not_the_lack_of_one() -> None:
    rng = Random(0)
    shown = [mixed(clocks.sample(seed)) for seed in range(TRAIN + 2, TRAIN + 1000, 4)]
    parts = [clock for clock in shown if SWEEP in clock.unclear]
    assert len(parts) > 40
    for clock in parts:
        whole, none, seen = (np.asarray(p, float) for p in (clocks.render(clock), clocks.render(clock.other),
                                                            clock.picture()))  # fmt: skip
        hidden = np.abs(whole - seen).sum() / np.abs(whole - none).sum()
        assert 0.03 < hidden < 0.97
        assert speak.firm(clock, SWEEP, rng).answer == "no"
        assert speak.free(clock, SWEEP, rng).answer == speak.NONE


def test_a_second_hand_that_is_hard_to_see_lies_along_another_hand() -> None:
    rng = Random(0)
    for seed in range(TRAIN, TRAIN + 100):
        clock = clocks.sample(seed)
        hard = hard_to_see(clock, rng)
        assert replace(hard, second=clock.second, second_hand=clock.second_hand, hands=clock.hands) == clock
        assert clocks.legible(hard.rim, hard.face, hard.hands, hard.background)
        away = [abs((hard.second - hand + 15) % 30 - 15) for hand in (clock.minutes / 12, clock.minute)]
        assert min(away) <= 3.5
    shown = [hard_to_see(clocks.sample(seed), rng).second_hand for seed in range(TRAIN, TRAIN + 300)]
    assert 0.5 < sum(shown) / len(shown) < 0.7
