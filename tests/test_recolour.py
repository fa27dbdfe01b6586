"""Changes of colours alone: on edits whose answer is known, laid into pictures, and in place of drafts."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.cases import make
from benchmarks.trials import psnr, verdict
from editor import images
from editor.engine import EFFORTS
from editor.finish import Canvas, Landed
from editor.judge import FADED, LEFT_OUT, Judge
from editor.models import Models
from editor.recolour import GRID, colour_maps, faded, left_out, recoloured
from editor.report import report_of
from editor.types import EditRequest, SearchSettings
from editor.ui_parts import ending_line
from rewards.checks import CheckScores
from rewards.plan import parse, worked_out
from rewards.preserve import Kept
from rewards.vlm import Calls
from tests.test_engine import PLAN, SETTINGS, picture, request
from training.world import TUNE

RED, BLUE, WHITE, BLACK = (0.8, 0.15, 0.17), (0.16, 0.33, 0.8), (0.96, 0.96, 0.94), (0.1, 0.1, 0.12)


def ring(colour, face=WHITE, marks=BLACK, side=GRID):
    """A ring of a colour around a face with four marks, and where it is, (1, 3, side, side)."""
    across = (torch.arange(side) + 0.5) / side - 0.5
    away = (across[None].square() + across[:, None].square()).sqrt()
    shown = torch.tensor(WHITE)[:, None, None].expand(3, side, side).clone()
    shown[:, away < 0.4] = torch.tensor(colour)[:, None]
    shown[:, away < 0.32] = torch.tensor(face)[:, None]
    for x, y in ((0.5, 0.25), (0.5, 0.75), (0.25, 0.5), (0.75, 0.5)):
        at = (slice(round(y * side) - side // 40, round(y * side) + side // 40),
              slice(round(x * side) - side // 40, round(x * side) + side // 40))  # fmt: skip
        shown[(slice(None), *at)] = torch.tensor(marks)[:, None, None]
    return shown[None]


def error(a, b):
    return float((a - b).square().mean().sqrt())


def test_the_source_itself_is_left_alone():
    source = ring(RED)
    for maps in colour_maps(source, source):
        assert maps.shape == (1, 12, GRID, GRID)
        torch.testing.assert_close(recoloured(source, maps), source, atol=1e-5, rtol=0)


def test_what_was_drawn_aside_in_another_colour_gets_it_in_its_own_place():
    source, answer = ring(RED), ring(BLUE)
    edits = torch.cat([answer.roll(2, -1), answer.roll((-1, 2), (-2, -1))])
    maps, *_ = colour_maps(source, edits)
    shown = recoloured(source, maps)
    for one, edit in zip(shown.split(1), edits.split(1), strict=True):
        assert error(one, answer) < error(edit, answer) / 3
    assert (left_out(source, edits, maps) < LEFT_OUT).all()


def test_marks_that_were_drawn_aside_stay_on_a_face_of_another_colour():
    source, answer = ring(RED, marks=BLACK), ring(RED, face=BLUE)
    edit = answer.roll(2, -1)
    followed, best = (recoloured(source, maps) for maps in colour_maps(source, edit))
    mark = (..., slice(30, 33), slice(62, 66))
    assert error(best[mark], answer[mark]) < error(followed[mark], answer[mark])
    assert error(best, answer) < error(followed, answer)


def test_marks_near_a_rim_of_their_colour_stay_where_the_rim_changes():
    source, answer = ring(BLACK, marks=BLACK), ring(BLUE, marks=BLACK)
    followed, best = (recoloured(source, maps) for maps in colour_maps(source, answer.roll(1, -1)))
    mark = (..., slice(30, 33), slice(62, 66))
    assert error(best[mark], answer[mark]) < 0.05
    assert error(best, answer) < error(followed, answer)


def test_what_is_new_is_not_made_of_colours():
    source = ring(RED)
    edit = source.clone()
    edit[..., 62:66, 64:100] = torch.tensor(BLUE)[:, None, None]
    for maps in colour_maps(source, edit):
        assert float(left_out(source, edit, maps)) > 0.4


def test_the_ghost_of_what_was_taken_away_counts_as_left_out():
    edit = ring(RED)
    source, ghost = edit.clone(), edit.clone()
    source[..., 63:65, 64:84] = torch.tensor(BLUE)[:, None, None]
    whole, *_ = colour_maps(source, edit)
    assert float(left_out(source, edit, whole)) < LEFT_OUT
    ghost[..., 63:65, 64:84] = 0.7 * edit[..., 63:65, 64:84] + 0.3 * source[..., 63:65, 64:84]
    half, *_ = colour_maps(source, ghost)
    assert float(left_out(source, edit, half)) > 0.4


def test_the_edges_of_what_is_taken_away_fade_and_those_of_what_changes_colour_do_not():
    bare, hand, other = ring(RED), ring(RED), ring(RED)
    hand[..., 63:65, 64:84], other[..., 63:65, 64:84] = (torch.tensor(c)[:, None, None] for c in (BLUE, BLACK))
    for edit, gone in ((bare, True), (other, False), (ring(BLUE), True)):
        for maps in colour_maps(hand, edit):
            assert (float(faded(hand, maps)) > FADED) == gone
    for maps in colour_maps(bare, ring(BLUE)):
        assert float(faded(bare, maps)) < FADED


def test_maps_found_at_a_small_size_serve_any():
    small, large = ring(RED), ring(RED, side=4 * GRID)
    maps, *_ = colour_maps(large, ring(BLUE, side=4 * GRID).roll(8, -1))
    assert maps.shape[-2:] == (GRID, GRID)
    assert error(recoloured(large, maps), ring(BLUE, side=4 * GRID)) < 0.05
    assert error(recoloured(small, maps), ring(BLUE)) < 0.05


# Laid into pictures ---------------------------------------------------------------------------------------------------


def as_bytes(image):
    return np.asarray(image).astype(int)


def photograph(size=(300, 200)):
    """A grey picture with fine detail, red on its right half."""
    pixels = np.random.default_rng(0).integers(100, 140, (*size[::-1], 3), dtype=np.uint8)
    pixels[:, size[0] // 2 :, 0] += 100
    return Image.fromarray(pixels)


def blue_for_red(source, side=64):
    """The maps of a source whose red half turns blue, as a model of this size would show it, and where it lies."""
    square, place = images.fit(source, side)
    unit = images.to_unit(square)
    edit = unit.clone()
    right = unit[:, 0] - unit[:, 2] > 0.2
    edit[:, 0][right], edit[:, 2][right] = unit[:, 2][right], unit[:, 0][right]
    return colour_maps(unit, edit)[0][0], place


def test_the_detail_of_a_large_picture_stays_under_its_new_colours():
    source = photograph()
    result = as_bytes(images.recolour(source, *blue_for_red(source)))
    before = as_bytes(source)
    assert (result[:, :100] == before[:, :100]).all(), "where nothing changes pixels stay bit for bit"
    inner = (slice(10, 190), slice(170, 290))
    change = (result - before)[inner].mean((0, 1))
    assert change[0] < -80
    assert change[2] > 80
    detail = [(a - a.mean((0, 1)))[inner][..., 1].ravel() for a in (result, before)]
    assert np.corrcoef(*detail)[0, 1] > 0.95


def test_a_mask_and_alpha_hold_under_new_colours():
    source = photograph().convert("RGBA")
    alpha = Image.new("L", source.size, 255)
    alpha.paste(90, (0, 0, 60, 200))
    source.putalpha(alpha)
    mask = Image.new("L", source.size)
    mask.paste(255, (150, 0, 300, 100))
    result = images.recolour(source, *blue_for_red(source), mask)
    assert result.getchannel("A").tobytes() == alpha.tobytes()
    before, after = (as_bytes(image.convert("RGB")) for image in (source, result))
    assert (after[100:] == before[100:]).all()
    assert after[20:80, 180:280, 2].mean() > before[20:80, 180:280, 2].mean() + 60


def test_a_landing_of_colours_alone_is_laid_over_the_sources_own_pixels():
    source = photograph()
    maps, place = blue_for_red(source)
    square = images.to_unit(images.fit(source, place.size)[0])[0]
    landed = Landed(Canvas(source, square, place, None), square, maps)
    assert landed.image().tobytes() == images.recolour(source, maps, place).tobytes()
    assert landed.preview().size == source.size
    moved = landed.offset()
    assert moved is None or max(abs(moved.x), abs(moved.y)) < 1


# In place of drafts ---------------------------------------------------------------------------------------------------


@pytest.fixture
def judge(tiny_editor, monkeypatch):
    """A judge whose drafts are what they decode to, and that takes all for the plan that is not as the source is."""
    found = tiny_editor.invert(picture(), 0.4)
    judge = Judge.of(
        tiny_editor.models, PLAN, found.square, found.latents, found.before, None, SearchSettings(), Calls()
    )
    judge.square = judge.before = ring(RED)
    monkeypatch.setattr(judge, "decoded", lambda latents: latents)
    judge.layout = lambda shown: Kept(torch.zeros(len(shown)), torch.zeros(len(shown)))
    judge.preserve = lambda shown: torch.zeros(len(shown))
    count = len(judge.checks.checks)

    def evaluate(shown):
        blue = (shown[:, 2] - shown[:, 0]).amax((1, 2))
        said = (blue > 0.3).float()[:, None].expand(-1, count) * 0.9
        return CheckScores(blue, said)

    judge.checks = SimpleNamespace(checks=judge.checks.checks, evaluate=evaluate)
    return judge


def test_colours_in_the_sources_shapes_take_a_drafts_place(judge):
    source, answer = ring(RED), ring(BLUE)
    aside = answer.roll(2, -1)
    new = source.clone()
    new[..., 62:66, 64:100] = torch.tensor(BLUE)[:, None, None]
    drafts = torch.cat([aside, source, source, new])
    scored = judge.drafted(drafts)
    assert scored.met.tolist() == [True, False, False, True]
    assert [bool(one.isnan().any()) for one in scored.maps] == [False, True, True, True]
    assert error(scored.images[:1], answer) < error(aside, answer) / 3
    assert torch.equal(scored.images[1:], drafts[1:])
    assert scored.best() == 0


def test_colours_that_do_not_meet_the_plan_leave_the_draft(judge):
    aside = ring(BLUE).roll(2, -1)
    evaluate = judge.checks.evaluate
    judge.checks.evaluate = lambda shown: CheckScores(
        evaluate(shown).reward, evaluate(shown).probabilities * (shown == aside).all().float()
    )
    scored = judge.drafted(aside)
    assert scored.met.tolist() == [True]
    assert scored.maps.isnan().all()
    assert torch.equal(scored.images, aside)


def test_colours_of_which_the_judge_is_less_sure_leave_the_draft(judge):
    aside, evaluate = ring(BLUE).roll(2, -1), judge.checks.evaluate
    for said, taken in ((0.95, True), (0.93, True), (0.85, False)):
        judge.checks.evaluate = lambda shown, said=said: CheckScores(
            evaluate(shown).reward, evaluate(shown).probabilities / 0.9 * (0.95 if torch.equal(shown, aside) else said)
        )
        assert bool(judge.drafted(aside).maps.isnan().any()) != taken


def test_drafts_that_are_not_finite_are_left_to_who_asks(judge):
    broken = ring(BLUE)
    broken[..., 5, 5] = torch.nan
    scored = judge.drafted(torch.cat([broken, ring(BLUE).roll(2, -1)]))
    assert [bool(one.isnan().any()) for one in scored.maps] == [True, False]


def test_colours_of_what_a_search_found_have_to_be_as_sure_as_it(judge):
    aside = ring(BLUE).roll(2, -1)
    for sure, taken in ((None, True), (0.85, True), (0.95, False)):
        judge.sure = sure
        scored = judge.found(aside)
        assert bool(scored.maps.isnan().any()) != taken
        assert torch.equal(scored.images, aside) != taken


@pytest.mark.parametrize("coloured", [True, False])
def test_colours_take_a_results_place_without_memory_for_gradients_too(tiny_editor, monkeypatch, coloured):
    monkeypatch.setattr(Models, "gradient", False)
    monkeypatch.setattr("editor.judge.LEFT_OUT", 1e9 if coloured else -1.0)
    monkeypatch.setattr(Judge, "_surely", lambda judge, scored: scored._replace(met=scored.reward > -1e9))
    monkeypatch.setattr("editor.judge.SUFFICES", 0.0)
    *_, last = tiny_editor.edit(request(settings=SETTINGS.but(undo=0.01)))
    assert last.candidates[0].recoloured == coloured
    assert (last.changed is None) != coloured
    assert not any(candidate.recoloured for candidate in last.candidates[1:])


def test_the_page_says_that_only_colours_changed(tiny_editor):
    *_, last = tiny_editor.edit(request(settings=SETTINGS))
    assert "Only colours changed" not in ending_line(replace(last, changed=0.5))
    recoloured = replace(last.candidates[0], recoloured=True)
    assert "Only colours changed" in ending_line(replace(last, changed=0.5, candidates=(recoloured,)))
    assert report_of(request(), replace(last, candidates=(recoloured,)))["recoloured"]


@pytest.mark.slow
def test_a_rim_gets_its_colour_in_the_pictures_own_shapes(studio):
    case = make(TUNE, 3562)
    plan = parse(worked_out(case.request.reply))
    wanted = EditRequest(
        image=case.image, instruction=case.request.instruction, plan=plan, settings=EFFORTS["fast"].but(seed=1)
    )
    *_, last = studio.edit(wanted)
    assert last.candidates[0].recoloured
    assert psnr(last.best, case.answer) > 28
    assert verdict(case, last.best, "")["success_3"]
