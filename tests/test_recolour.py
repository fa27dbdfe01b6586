"""Changes of colours alone: on edits whose answer is known, laid into pictures, and beside drafts."""

from __future__ import annotations

from dataclasses import replace
from html import unescape
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from benchmarks.cases import make
from benchmarks.trials import psnr, verdict
from editor import images
from editor.engine import EFFORTS
from editor.finish import Canvas, Landed
from editor.focus import Focus
from editor.judge import FADED, WIPED, Judge
from editor.models import Models
from editor.palette import DIMMED, MOST, OTHER, Change, pieces, proposals, regions, repainted, without
from editor.recolour import GRID, Fit, colour_maps, faded, recoloured
from editor.report import report_of
from editor.types import EditRequest, Scored, SearchSettings
from editor.ui_parts import OWN_EDGES, ending_line, final_cards
from rewards.base import Check
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


def numpy_of(images):
    return images.permute(0, 2, 3, 1).numpy()


# Maps of colours ------------------------------------------------------------------------------------------------------


def test_the_source_itself_is_left_alone():
    source = ring(RED)
    maps = colour_maps(source, source)
    assert maps.shape == (1, 12, GRID, GRID)
    torch.testing.assert_close(recoloured(source, maps), source, atol=1e-5, rtol=0)


def test_soft_edges_become_mixtures_of_the_new_colours():
    source, answer = (F.avg_pool2d(ring(c, side=2 * GRID), 2) for c in (RED, BLUE))
    wanted = ring(BLUE)
    shown = recoloured(source, colour_maps(source, wanted))
    assert error(wanted, answer) > 0.03, "whose edges are hard"
    assert error(shown, answer) < error(wanted, answer) / 3


def test_many_wanted_pictures_share_one_factorisation_of_plain_least_squares():
    source, wanted = ring(RED), torch.cat([ring(BLUE), ring(BLACK), ring(RED, face=BLUE)])
    shown = recoloured(source, Fit(source)(wanted))
    for one, answer in zip(shown.split(1), wanted.split(1), strict=True):
        assert error(one, answer) < 0.03
        assert error(one, answer) < error(source, answer) / 5


def test_the_edges_of_what_is_taken_away_fade_and_those_of_what_changes_colour_do_not():
    bare, hand, other = ring(RED), ring(RED), ring(RED)
    hand[..., 63:65, 64:84], other[..., 63:65, 64:84] = (torch.tensor(c)[:, None, None] for c in (BLUE, BLACK))
    assert float(faded(hand, colour_maps(hand, bare))) > WIPED
    assert float(faded(hand, colour_maps(hand, other))) <= FADED
    assert float(faded(bare, colour_maps(bare, ring(BLUE)))) <= FADED


def test_maps_found_at_a_small_size_serve_any():
    small, large = ring(RED), ring(RED, side=4 * GRID)
    maps = colour_maps(large, ring(BLUE, side=4 * GRID))
    assert maps.shape[-2:] == (GRID, GRID)
    assert error(recoloured(large, maps), ring(BLUE, side=4 * GRID)) < 0.05
    assert error(recoloured(small, maps), ring(BLUE)) < 0.05


# Regions and colours --------------------------------------------------------------------------------------------------


def test_a_region_is_all_that_has_one_colour():
    found = regions(numpy_of(ring(RED))[0])
    assert len(found) == 3
    assert (sum(region.astype(int) for region in found) == 1).all()
    rim = max(found, key=lambda region: region[64, 18])
    assert (rim == (np.linalg.norm(numpy_of(ring(RED))[0] - RED, axis=-1) < 0.01)).all()


def test_pieces_of_a_region_hang_together():
    found = regions(numpy_of(ring(RED))[0])
    marks = max(found, key=lambda region: region[32, 64])
    parts = pieces(marks)
    assert len(parts) == 4
    assert (sum(part.astype(int) for part in parts) == marks).all()
    rim = max(found, key=lambda region: region[64, 18])
    assert pieces(rim) == [], "it hangs together as a whole"


def test_light_and_grain_stay_in_proportion_under_another_colour():
    pixels = np.full((8, 8, 3), 0.8)
    pixels[:4] = 0.72
    region = np.ones((8, 8), bool)
    region[0, 0] = False
    dark = Change(region, np.array([0.1, 0.1, 0.1])).of(pixels)
    assert dark[0, 0] == pytest.approx([0.72] * 3), "outside the region"
    assert np.ptp(dark[region]) == pytest.approx(0.08 * DIMMED, abs=0.005)


def test_proposals_are_the_colours_that_drafts_give_a_region_or_bring_in():
    source = ring(RED)
    drafts = numpy_of(torch.cat([ring(BLUE).roll(5, -1), ring(RED)]))
    among = regions(numpy_of(source)[0])
    made = proposals(numpy_of(source)[0], among, drafts)
    rim = max(among, key=lambda region: region[64, 18])
    blue = [change for change in made if np.linalg.norm(change.colour - BLUE) < 0.05]
    assert any(change.region is rim for change in blue)
    for change in made:
        own = np.median(numpy_of(source)[0][change.region], axis=0)
        assert np.linalg.norm(change.colour - own) > OTHER
    assert proposals(numpy_of(source)[0], among, numpy_of(source)) == []


def test_a_picture_of_many_colours_has_so_many_proposals_at_most():
    squares = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    pixels = numpy_of(F.interpolate(squares, size=(GRID, GRID)))
    among = regions(pixels[0])
    assert len(among) > MOST // 3
    assert len(proposals(pixels[0], among, 1 - pixels)) == MOST


def looks(*wanted):
    """A score that is the more, the nearer a picture is to one of these, with one check that holds when it is near."""

    def score(shown):
        apart = torch.stack([(shown - one).square().mean((1, 2, 3)) for one in wanted]).amin(0)
        return Scored(-100 * apart, checks=(apart < 0.001).float()[:, None])

    return score


def test_the_region_that_scores_best_takes_the_colour_wherever_drafts_drew_it():
    source, answer = ring(RED), ring(BLUE)
    least = float(looks(answer)(source).reward[0])
    found = repainted(source, answer.roll(9, -1), looks(answer), 1, least)
    assert error(found, answer) < 0.03


def test_one_piece_of_a_region_changes_where_that_scores_better():
    source, answer = ring(RED), ring(RED)
    answer[..., 61:67, 29:35] = torch.tensor(BLUE)[:, None, None]
    least = float(looks(answer)(source).reward[0])
    found = repainted(source, answer, lambda shown: looks(answer)(shown)._replace(
        reward=1000 * looks(answer)(shown).reward), 1, 1000 * least)  # fmt: skip
    assert error(found, answer) < 0.02


def test_a_region_changes_without_a_piece_where_more_checks_hold_then():
    source, answer = ring(RED), ring(BLUE)
    for shown in (source, answer):
        shown[..., 60:68, 60:68] = torch.tensor(RED)[:, None, None]

    def score(shown):
        near = looks(answer)(shown)
        still = (shown[:, 0, 64, 64] > 0.6).float()
        return near._replace(checks=torch.stack([(near.reward > -1.0).float(), still], 1))

    least = float(score(source).reward[0])
    assert error(repainted(source, answer, score, 1, least), answer) < 0.02
    rim = max(regions(numpy_of(source)[0]), key=lambda region: region[64, 18])
    assert [int(piece.sum()) for piece in pieces(rim)] == [64], "the rim alone is nearly all of it"
    assert [int(rim.sum() - rest.sum()) for rest in without(rim)] == [64]


def test_two_regions_change_one_after_another_and_none_where_nothing_is_gained():
    source, answer = ring(RED, marks=BLUE), ring(BLACK, marks=RED)
    least = float(looks(answer)(source).reward[0])
    found = repainted(source, answer, looks(answer), 1, least)
    assert error(found, answer) < error(source, answer) / 3
    assert repainted(source, answer, looks(source), 1, 0.0) is None
    assert repainted(source, answer * torch.nan, looks(answer), 1, least) is None


def test_nothing_outside_a_mask_changes_its_colour():
    source, answer = ring(RED), ring(BLUE)
    mask = torch.zeros(1, 1, GRID, GRID)
    mask[..., : GRID // 2] = 1
    found = repainted(source, answer, lambda shown: looks(answer)(shown)._replace(
        reward=100 * looks(answer)(shown).reward), 1, -1e9, mask)  # fmt: skip
    half = (..., slice(GRID // 2, None))
    torch.testing.assert_close(found[half], source[half], atol=1e-6, rtol=0)
    assert error(found[..., : GRID // 2], answer[..., : GRID // 2]) < 0.03


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
    return colour_maps(unit, edit)[0], place


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


# Beside drafts --------------------------------------------------------------------------------------------------------


@pytest.fixture
def judge(tiny_editor, monkeypatch):
    """A judge whose drafts are what they decode to, and that holds for the plan what is blue where the ring is."""
    found = tiny_editor.invert(picture(), 0.4)
    judge = Judge.of(
        tiny_editor.models, PLAN, found.square, found.latents, found.before, None, SearchSettings(), Calls()
    )
    judge.square = judge.before = judge.latents = ring(RED)
    judge.codec = SimpleNamespace(encode=lambda shown: shown, decode=lambda latents: latents)
    judge.layout = lambda shown: Kept(torch.zeros(len(shown)), torch.zeros(len(shown)))
    judge.preserve = lambda shown: torch.zeros(len(shown))
    judge.source = judge.source._replace(reward=0.0)
    said = SimpleNamespace(wanted=0.6, kept=0.9)
    checks = tuple(replace(check, question="Is it red?", expected="yes") for check in judge.checks.checks)

    def evaluate(shown):
        blue = (shown[:, 2] - shown[:, 0])[:, 62:66, 15:22].mean((1, 2)) > 0.3
        odds = torch.tensor([said.wanted] * judge.wanted + [said.kept] * (len(checks) - judge.wanted))
        return CheckScores(2 * blue.float(), blue.float()[:, None] * odds)

    judge.checks = SimpleNamespace(checks=checks, evaluate=evaluate, said=said)
    return judge


def seen(judge, drafts):
    return judge.with_colours(drafts, judge.drafted(drafts))


def test_the_source_in_the_drafts_colours_joins_them_and_comes_first(judge):
    drafts = torch.cat([ring(BLUE).roll(6, -1), ring(RED)])
    latents, scored = seen(judge, drafts)
    assert len(latents) == len(scored.reward) == 3
    assert torch.equal(latents[:2], drafts)
    assert [bool(one.isnan().any()) for one in scored.maps] == [True, True, False]
    assert scored.best() == 2
    assert scored.met.tolist() == [False, False, True], "drafts have to be surer"
    assert error(scored.images[2:], ring(BLUE)) < 0.03
    torch.testing.assert_close(scored.images[2:], recoloured(judge.square, scored.maps[2:]).clamp(0, 1))
    assert judge.certain(scored)


def test_colours_that_the_judge_does_not_see_are_not_met(judge):
    judge.checks.said.wanted = 0.4
    _, scored = seen(judge, ring(BLUE))
    assert scored.met.tolist() == [False, False]
    assert not judge.certain(scored)


def test_what_must_stay_does_where_no_edge_fades_whatever_the_judge_says(judge, monkeypatch):
    judge.checks.said.kept = 0.2
    assert seen(judge, ring(BLUE))[1].met[-1]
    monkeypatch.setattr("editor.judge.FADED", -1.0)
    assert not seen(judge, ring(BLUE))[1].met[-1]
    judge.checks.said.kept = 0.9
    assert seen(judge, ring(BLUE))[1].met[-1]
    monkeypatch.setattr("editor.judge.WIPED", -1.0)
    assert not seen(judge, ring(BLUE))[1].met[-1], "another colour that wipes things out"


def test_what_names_no_colour_is_left_to_drafts(judge):
    judge.checks.checks = (Check("Does the clock have no second hand?"), *judge.checks.checks[1:])
    latents, scored = seen(judge, ring(BLUE))
    assert len(latents) == 1
    assert scored.maps is None


def test_drafts_that_are_not_finite_tell_of_no_colours(judge):
    broken = ring(BLUE)
    broken[..., 5, 5] = torch.nan
    assert len(judge.with_colours(broken, judge._as_draft(ring(BLUE))._replace(images=broken))[0]) == 1
    assert len(seen(judge, torch.cat([ring(RED), ring(BLUE)]))[0]) == 3


def test_a_mask_of_the_users_own_keeps_colours_within(judge):
    judge.mask = torch.zeros(1, 1, GRID, GRID)
    judge.mask[..., : GRID // 2] = 1
    latents, scored = seen(judge, ring(BLUE))
    half = (..., slice(GRID // 2 + 8, None))
    torch.testing.assert_close(latents[1:][half], judge.latents[half])
    torch.testing.assert_close(scored.images[1:][half], judge.square[half], atol=1e-4, rtol=0)


def test_colours_beyond_a_focus_are_in_the_latents_too(judge):
    mask = torch.zeros(1, 1, GRID, GRID)
    mask[..., : GRID // 2] = 1
    judge.focus, judge.mask = Focus(mask, mask), mask
    latents, scored = judge.with_colours(ring(BLUE), judge._as_draft(ring(BLUE)))
    torch.testing.assert_close(latents[1:], scored.images[1:], atol=0.06, rtol=0)
    assert (latents[1:] != judge.latents)[..., GRID // 2 :].any(), "or an edit there would count as none"


@pytest.mark.parametrize("gradient", [True, False])
def test_colours_alone_are_an_edits_end_with_and_without_gradients(tiny_editor, monkeypatch, gradient):
    monkeypatch.setattr(Models, "gradient", gradient)
    monkeypatch.setattr("editor.focus.LEAST_TOLD", 0.0)
    monkeypatch.setattr(Check, "names_colour", True)
    monkeypatch.setattr("editor.judge.repainted", lambda source, *_: 1 - source)
    with_colours = Judge.with_colours

    def met(judge, drafts, scored):
        latents, scored = with_colours(judge, drafts, scored)
        last = torch.arange(len(latents)) == len(latents) - 1
        return latents, scored._replace(met=last, surety=last.to(scored.surety))

    monkeypatch.setattr(Judge, "with_colours", met)
    *updates, last = tiny_editor.edit(request(settings=SETTINGS.but(undo=0.01, focus=0.9, draft_jumps=2)))
    assert last.candidates[0].recoloured
    assert not any(candidate.recoloured for candidate in last.candidates[1:])
    assert last.changed > 0.5
    searched = any(update.stage == "search" and not update.drafted for update in updates)
    assert searched != gradient, "without gradients nobody drafts, and the search's end tells of colours"


def test_the_page_says_that_only_colours_changed(tiny_editor):
    *_, last = tiny_editor.edit(request(settings=SETTINGS))
    assert "Only colours changed" not in ending_line(replace(last, changed=0.5))
    recoloured = replace(last.candidates[0], recoloured=True)
    assert "Only colours changed" in ending_line(replace(last, changed=0.5, candidates=(recoloured,)))
    assert report_of(request(), replace(last, candidates=(recoloured,)))["recoloured"]
    cards = final_cards([recoloured, *last.candidates[1:]], last.plan, 0)
    assert cards.count("own edges<") == 1
    assert f'title="{OWN_EDGES}"' in unescape(cards)


@pytest.mark.slow
@pytest.mark.parametrize(("index", "least"), [(3562, 30), (3531, 40)])
def test_a_rim_and_hands_get_their_colour_in_the_pictures_own_shapes(studio, index, least):
    case = make(TUNE, index)
    plan = parse(worked_out(case.request.reply))
    wanted = EditRequest(
        image=case.image, instruction=case.request.instruction, plan=plan, settings=EFFORTS["fast"].but(seed=1)
    )
    *_, last = studio.edit(wanted)
    assert last.candidates[0].recoloured
    assert last.candidates[0].met
    assert psnr(last.best, case.answer) > least
    assert verdict(case, last.best, "")["success_3"]


@pytest.mark.slow
def test_black_hands_stay_black_on_a_face_that_turns_blue(studio):
    image = Image.open("assets/examples/kitchen-clock.png").convert("RGB")
    wanted = EditRequest(image=image, instruction="make the face blue", settings=EFFORTS["fast"].but(seed=1))
    *_, last = studio.edit(wanted)
    assert last.candidates[0].recoloured
    before, after = as_bytes(image), as_bytes(last.best)
    black = before[40:80, 40:80].max(-1) < 60
    assert black.sum() > 50
    assert np.median(after[40:80, 40:80][black].max(-1)) < 80
