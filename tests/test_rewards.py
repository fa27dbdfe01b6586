"""Laws of rewards: one number per image, a batch is a stack of singles, gradients, known scales."""

from __future__ import annotations

import ast
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from editor.images import to_unit
from rewards.base import Check, Plan
from rewards.checks import (
    LIMIT,
    MAX_JITTERS,
    SAID,
    CheckReward,
    CheckScores,
    Limit,
    from_log_probability,
    jittered,
    softened,
)
from rewards.preserve import GRID, Kept, Layout, Preserve, outside
from rewards.vlm import VLM, Calls
from tests.tiny_vlm import tiny_qwen3, tiny_qwen25
from training import clocks
from training.clocks import SHAPES, Clock
from training.world import TUNE

CHECKS = (
    Check("Is the rim red?", "yes", 2.0),
    Check("Does the picture show Roman numerals?", "no"),
    Check("What time does the clock show?", "4:45", 0.5),
)


@pytest.fixture(scope="module")
def vlm() -> VLM:
    return VLM(*tiny_qwen25())


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_the_reward_is_the_weighted_mean_of_signed_softened_log_odds(vlm: VLM, images: torch.Tensor) -> None:
    yes_no = vlm.log_odds(images, [c.question for c in CHECKS[:2]])
    log_p = vlm.log_likelihood(images, [CHECKS[2].question], ["4:45"])[:, 0]
    scores = torch.stack([yes_no[:, 0], -yes_no[:, 1], log_p - torch.log1p(-log_p.exp())], 1)
    expected = (2 * softened(scores[:, 0]) + softened(scores[:, 1]) + softened(scores[:, 2]) / 2) / 3.5
    said = CheckReward(vlm, CHECKS).evaluate(images)
    torch.testing.assert_close(said.reward, expected, atol=1e-4, rtol=1e-4)
    probabilities = torch.stack([yes_no[:, 0].sigmoid(), 1 - yes_no[:, 1].sigmoid(), log_p.exp()], 1)
    torch.testing.assert_close(said.probabilities, probabilities, atol=1e-5, rtol=1e-4)


def test_an_open_answer_counts_until_it_is_likelier_than_all_others(vlm, images, monkeypatch) -> None:
    reward = CheckReward(vlm, CHECKS)

    def told(log_odds: float) -> CheckScores:
        monkeypatch.setattr(reward, "log_odds", lambda x: torch.tensor([0.5, 0.5, log_odds]).expand(len(x), 3))
        return reward.evaluate(images)

    assert (told(-1.0).reward < told(SAID).reward).all()
    torch.testing.assert_close(told(SAID).reward, told(6.0).reward)
    torch.testing.assert_close(told(6.0).probabilities[:, 2], torch.tensor(6.0).sigmoid().expand(3))


@pytest.mark.parametrize("jitters", [0, 2])
def test_a_batch_is_a_stack_of_singles(vlm: VLM, images: torch.Tensor, jitters: int) -> None:
    reward = CheckReward(vlm, CHECKS, jitters, seed=5)
    apart = torch.cat([reward(image[None]) for image in images])
    torch.testing.assert_close(reward(images), apart, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("limit", [Limit(1, 1), Limit(2, 1), Limit(2, 4), Limit(4, 99), Limit(99, 5), Limit(99, 99)])
@pytest.mark.parametrize("make", [tiny_qwen25, tiny_qwen3])
def test_a_limit_cuts_the_passes_and_changes_neither_values_nor_gradients(make, limit, images, monkeypatch) -> None:
    model, processor = make()
    vlm, images = VLM(model.double(), processor), images.double().requires_grad_()
    whole = CheckReward(vlm, CHECKS, jitters=1, seed=5).evaluate(images)
    expected = torch.autograd.grad(whole.reward.sum(), images)
    features, score, sizes = vlm.features, vlm.score, []

    def see(shown: torch.Tensor) -> object:
        assert len(shown) <= limit.images
        return features(shown)

    def ask(seen, rows, calls=None) -> torch.Tensor:  # type: ignore[no-untyped-def]
        sizes.append(len(seen.tokens) * len(rows[0]))
        return score(seen, rows, calls)

    monkeypatch.setattr(vlm, "features", see)
    monkeypatch.setattr(vlm, "score", ask)
    calls = Calls()
    parts = CheckReward(vlm, CHECKS, 1, 5, calls, limit).evaluate(images)
    torch.testing.assert_close(parts, whole, rtol=1e-6, atol=1e-7)
    found = torch.autograd.grad(parts.reward.sum(), images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)
    assert max(sizes) <= max(limit.pairs, min(limit.images, 6))
    assert calls.count == 6 * len(CHECKS), "recomputing a pass is not a call"
    with torch.no_grad():
        again = CheckReward(vlm, CHECKS, 1, 5, limit=limit)(images)
        torch.testing.assert_close(again, whole.reward.detach(), rtol=1e-6, atol=1e-7)


def test_the_gradient_reaches_the_pixels_and_the_probabilities_carry_none(vlm: VLM, images: torch.Tensor) -> None:
    images.requires_grad_()
    said = CheckReward(vlm, CHECKS, jitters=1).evaluate(images)
    said.reward.sum().backward()
    assert images.grad is not None
    assert (images.grad.flatten(1).norm(dim=1) > 0).all()
    assert not said.probabilities.requires_grad


def test_following_the_gradient_raises_the_reward(vlm: VLM, images: torch.Tensor) -> None:
    reward = CheckReward(vlm, CHECKS)
    images.requires_grad_()
    before = reward(images)
    (gradient,) = torch.autograd.grad(before.sum(), images)
    step = 0.05 * gradient / gradient.flatten(1).norm(dim=1)[:, None, None, None]
    assert (reward(images.detach() + step) > before).all()


def test_jitters_are_drawn_from_the_seed_and_keep_the_image_first(images: torch.Tensor) -> None:
    copies = jittered(images, 3, seed=1)
    assert copies.shape == (12, 3, 64, 64)
    assert torch.equal(copies[:3], images)
    assert torch.equal(copies, jittered(images, 3, seed=1))
    assert not torch.equal(copies, jittered(images, 3, seed=2))
    assert 0.005 < (copies[3:6] - images).abs().mean() < 0.3
    smooth = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)
    assert (jittered(smooth, 3, seed=1)[1:] - smooth).abs().mean() < 0.06


def test_calls_count_every_check_of_every_copy(vlm: VLM, images: torch.Tensor) -> None:
    calls = Calls()
    CheckReward(vlm, CHECKS, jitters=2, calls=calls)(images)
    assert calls.count == 3 * 3 * 3


def test_softened_keeps_small_log_odds_and_lets_none_dominate() -> None:
    x = torch.linspace(-60, 60, 2401, dtype=torch.float64, requires_grad=True)
    y = softened(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert (slope > 0).all()
    assert (slope <= 1 + 1e-9).all()
    small = x.abs() < 4
    assert (y - x)[small].abs().max() < 0.02
    assert y.max() <= LIMIT
    assert y.min() > -3.1 * LIMIT
    assert y.diff().max() < 0.051, "no jumps"


def test_log_odds_of_a_probability_are_exact_and_finite() -> None:
    log_p = torch.tensor([-1e9, -50.0, -1.0, -1e-3, 0.0], dtype=torch.float64, requires_grad=True)
    odds = from_log_probability(log_p)
    torch.testing.assert_close(odds[1:4].sigmoid(), log_p[1:4].exp())
    (slope,) = torch.autograd.grad(odds.sum(), log_p)
    assert odds.isfinite().all()
    assert slope.isfinite().all()


def test_nonsense_is_refused(vlm: VLM) -> None:
    with pytest.raises(ValueError, match="at least one check"):
        CheckReward(vlm, ())
    for jitters in (-1, MAX_JITTERS + 1):
        with pytest.raises(ValueError, match="jitters must lie"):
            CheckReward(vlm, CHECKS, jitters)


def test_preserve_costs_half_of_a_log_and_never_lets_go(images: torch.Tensor) -> None:
    reward = Preserve(images[:1], tolerance=0.1)
    assert reward(images[:1]).item() == 0.0
    torch.testing.assert_close(reward(images[:1] + 0.1), torch.tensor([-math.log(2) / 2]))
    torch.testing.assert_close(reward(images[:1] - 0.3), torch.tensor([-math.log(10) / 2]))
    torch.testing.assert_close(reward(images), torch.cat([reward(i[None]) for i in images]))
    moved = images.double().requires_grad_()
    reward(moved)[1].backward()
    assert moved.grad is not None
    apart = images[0].double() - images[1].double()
    expected = apart / (apart.square().mean(0) + 0.01) / apart.numel()
    torch.testing.assert_close(moved.grad[1], expected)
    assert not moved.grad[0].any()


def test_preserve_looks_outside_the_mask_only() -> None:
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., :16] = 1
    source = torch.zeros(1, 8, 8, 8)
    weight = outside(mask, (8, 8))
    assert torch.equal(weight[0, 0], torch.tensor([0.0] * 4 + [1.0] * 4).expand(8, 8))
    reward = Preserve(source, tolerance=0.5, weight=weight)
    inside, out = source.clone(), source.clone()
    inside[..., :4], out[..., 4:] = 3.0, 0.5
    assert reward(inside).item() == 0.0
    torch.testing.assert_close(reward(out), torch.tensor([-math.log(2) / 2]), msg="the mean is over what must stay")


def test_preserve_refuses_nonsense() -> None:
    source = torch.zeros(1, 3, 8, 8)
    with pytest.raises(ValueError, match="tolerance"):
        Preserve(source, tolerance=0.0)
    with pytest.raises(ValueError, match="outside"):
        Preserve(source, weight=torch.ones(1, 1, 4, 4))
    with pytest.raises(ValueError, match="nothing would have to stay"):
        Preserve(source, weight=torch.zeros(1, 1, 8, 8))


def _squares(size: int, low: float, high: float, colours: tuple[float, float]) -> torch.Tensor:
    """A square from `low` to `high`, in shares of the side, in one grey on another: (1, 3, size, size)."""
    side = (torch.arange(size) + 0.5) / size
    inside = ((side > low) & (side < high)).float()
    square = inside[:, None] * inside
    return (colours[0] + (colours[1] - colours[0]) * square).expand(1, 3, size, size)


@pytest.mark.parametrize("size", [GRID // 2, GRID, 4 * GRID])
def test_outlines_mind_where_they_are_and_hardly_what_they_part(size: int) -> None:
    source = _squares(size, 0.2, 0.8, (0.1, 0.9))
    layout = Layout(source)

    def reward(images: torch.Tensor) -> torch.Tensor:
        return layout(images).outlines

    assert reward(source).item() == pytest.approx(0.0, abs=1e-4)
    recoloured, inverted = _squares(size, 0.2, 0.8, (0.5, 0.2)), 1 - source
    assert reward(torch.cat([recoloured, inverted])).min() > -0.02
    larger, aside = _squares(size, 0.15, 0.85, (0.1, 0.9)), source.roll(size // 10, -1)
    assert reward(torch.cat([larger, aside])).max() < -0.4
    flat = torch.full_like(source, 0.3)
    assert reward(flat).item() == -1.0


@pytest.mark.parametrize("size", [GRID, 4 * GRID])
def test_a_layout_may_change_in_part_but_not_grow_or_move_as_a_whole(size: int) -> None:
    def shown(clock: Clock) -> torch.Tensor:
        return to_unit(clocks.render(clock).resize((size, size)))

    for source in (clocks.sample(TUNE + 20_000 + i) for i in range(6)):
        layout = Layout(shown(source))
        shape = next(s for s in SHAPES if s != source.shape)
        stays = [
            source, replace(source, shape=shape), replace(source, hour=source.hour + 5), replace(source, rim="pink"),
            replace(source, marks="dots" if source.marks != "dots" else "ticks"), replace(source, background="brown"),
        ]  # fmt: skip
        assert layout(torch.cat([shown(clock) for clock in stays])).drift.min() > -0.03
        moved = [
            replace(source, radius=1.06 * source.radius), replace(source, radius=0.94 * source.radius),
            replace(source, x=source.x + 0.03), replace(source, y=source.y - 0.03, rim="pink"),
        ]  # fmt: skip
        assert layout(torch.cat([shown(clock) for clock in moved])).drift.max() < -0.15
        assert layout(torch.full((1, 3, size, size), 0.3)).drift.item() == 0.0


@pytest.mark.parametrize("kind", Kept._fields)
def test_outlines_and_layout_lead_back_to_where_they_were(kind: str) -> None:
    clock = clocks.sample(TUNE + 20_000)
    larger, aside = replace(clock, radius=1.05 * clock.radius), replace(clock, x=clock.x + 0.03)
    source, *others = (to_unit(clocks.render(c)) for c in (clock, larger, aside))
    layout, moved = Layout(source), torch.cat(others).requires_grad_()

    def reward(images: torch.Tensor) -> torch.Tensor:
        return getattr(layout(images), kind)

    before = reward(moved)
    torch.testing.assert_close(before, torch.cat([reward(i[None]) for i in moved]))
    assert before.max() < -0.1
    (slope,) = torch.autograd.grad(before.sum(), moved)
    assert torch.isfinite(slope).all()
    step = 1e-2 * slope / slope.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
    assert (reward(moved + step) > before).all()
    flat = torch.full_like(source, 0.5).requires_grad_()
    (still,) = torch.autograd.grad(reward(flat).sum(), flat)
    assert not still.any()
    assert reward(source.bfloat16()).dtype == torch.float32


def test_plans_survive_json_and_refuse_nonsense() -> None:
    plan = Plan(CHECKS, caption="A clock.", keep=("a red rim",), source="A clock at 3:15.")
    assert Plan.from_json(plan.to_json()) == plan
    assert [c.is_open for c in CHECKS] == [False, False, True]
    for bad in ({}, [], {"checks": [3]}, {"checks": [{}]}, {"checks": [{"question": "Red?"}], "keep": 3}):
        with pytest.raises(ValueError, match="plan"):
            Plan.from_json(bad)  # type: ignore[arg-type]
    for check in ({"question": " "}, {"question": "?", "weight": -1.0}, {"question": "?" * 301}):
        with pytest.raises(ValueError, match="check"):
            Check(**check)
    with pytest.raises(ValueError, match="at least one check"):
        Plan(())


@pytest.mark.parametrize(("check", "named"), [
    (Check("What colour is the rim?", "blue"), True), (Check("Is the car Navy?"), True),
    (Check("What is the sky like?", "dark red"), True), (Check("Does the clock have no second hand?"), False),
    (Check("Is it bored?"), False), (Check("What time does the clock show?", "4:45"), False), (Check("Is?"), False),
    (Check("Are the hands of the clock light blue?"), True), (Check("What lies there?", "an orange"), False),
    (Check("Is there a red car?"), False), (Check("Is there a car?", "no"), False), (Check("Is it red?", "no"), False),
    (Check("Is the man wearing a hat that is red?"), False), (Check("Is it an orange?"), False),
    (Check("Is there snow on the roof?"), False), (Check("Does the man have a red hat?"), False),
])  # fmt: skip
def test_a_check_names_a_colour_where_it_asks_for_nothing_but_that(check, named):
    assert check.names_colour == named


def test_rewards_stand_alone() -> None:
    """No module of rewards imports the editor, the training or the benchmarks."""
    for path in (Path(__file__).parents[1] / "rewards").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] in ("editor", "training", "benchmarks") for name in names), path
