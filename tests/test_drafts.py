"""Drafts by captions alone: on flows whose answer is known, and what the engine makes of them."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice, pairwise
from threading import Event
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import drafts as compared
from benchmarks import flowedit
from editor.baselines import planned_nfe
from editor.drafts import AGAIN, JUMPS, WAYS, Way, draft, drafts, drawn_again, planned
from editor.engine import INVERSION_STEPS
from editor.focus import LOOKS, Focus
from editor.judge import Judge
from editor.particles import mixed
from editor.progress import warnings
from editor.reproduce import rerun
from editor.schedules import evaluations, grid, itinerary
from editor.types import SearchSettings
from editor.ui_parts import ending_line
from rewards.checks import CheckScores
from rewards.preserve import Kept
from rewards.vlm import Calls
from tests.exact import Straight
from tests.test_engine import PLAN, SETTINGS, picture, request

DRAFTED = SETTINGS.but(focus=0.9, draft_jumps=2)
MADE = planned(3, DRAFTED.draft_jumps)
"""NFE of a batch of drafts and the same drawn again."""


class Noisy(Straight):
    """A flow that lands elsewhere by what it starts from."""

    def velocity(self, x, t):
        return super().velocity(x, t) + x.sin()


@pytest.fixture
def latents():
    return torch.randn(3, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_what_both_captions_draw_alike_cancels(latents):
    source, other, _ = latents
    edits, nfe = draft(Straight(other), Straight(other), source, other, 3, 4, 5)
    assert nfe == 2 * 3 * 4
    torch.testing.assert_close(edits, source.expand(3, -1, -1, -1))


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_an_edit_moves_by_what_the_captions_differ(latents, shift):
    """d' = d + min(1, pull (t - s) / (1 - s)) (D - d) of the edit's own d and the captions' D, whatever noise is.

    It ends at D, as the last jump goes all the way.
    """
    source, wanted, there = latents
    edits, _ = draft(Straight(wanted), Straight(there), source, wanted, 3, 4, 5, shift)
    torch.testing.assert_close(edits, (source + wanted - there).expand(3, -1, -1, -1))


@pytest.mark.parametrize("way", [flowedit.WAY, Way(0.3, 2.0), Way(0.2, 100.0, 0.5)])
def test_a_jump_goes_as_much_farther_as_the_way_pulls_and_no_farther_than_the_end(latents, way):
    """Where the captions differ by t b at time t, whatever x is, a jump adds min(pull (t - s), 1 - s) s b."""

    class Late(Straight):
        def __call__(self, x, s, t):
            return x + (t - s) * s * self.image

    source, wanted, there = latents
    edits, _ = draft(Late(wanted), Late(there), source, wanted, 2, 4, 5, ways=(way,))
    times = grid(way.first, 1.0, 4)
    share = sum(min(way.pull * (t - s), 1 - s) * s for s, t in pairwise(times))
    torch.testing.assert_close(edits, (source + share * (wanted - there)).expand(2, -1, -1, -1))


def test_drafts_take_the_ways_in_turn(latents):
    source, own, there = latents
    flows = Noisy(own), Noisy(there)
    first, _ = draft(*flows, source, own, 2, 4, 5, ways=WAYS[:1])
    edits, nfe = draft(*flows, source, own, 3, 4, 5)
    assert (len(edits), nfe) == (3, 2 * 3 * 4)
    assert torch.equal(edits[:2], first)
    assert torch.equal(draft(*flows, source, own, 1, 4, 5)[0], draft(*flows, source, own, 1, 4, 5, ways=WAYS[:1])[0])


def test_noise_is_of_the_seed_and_differs_among_edits(latents):
    def edits(seed):
        return draft(Noisy(latents[1]), Straight(latents[2]), latents[0], latents[1], 3, 4, seed)[0]

    assert torch.equal(edits(1), edits(1))
    assert not torch.equal(edits(1), edits(2))
    assert not torch.equal(edits(1)[0], edits(1)[1])


@pytest.mark.parametrize("fresh", [0.0, 0.25, 1.0])
def test_a_way_keeps_its_share_of_the_source_s_own_noise(latents, fresh):
    """Where only the edit's map heeds what it starts from, x_s = s x_1 + (1 - s) (sqrt(1 - rho^2) own + rho fresh)."""

    class Seen(Straight):
        seen = None

        def __call__(self, x, s, t):
            self.seen = x if self.seen is None else self.seen
            return super().__call__(x, s, t)

    source, own, there = latents
    wanted, s = Seen(source), 0.3
    draft(wanted, Straight(there), source, own, 400, 4, 5, ways=(Way(s, 1.0, fresh),))
    noise = (wanted.seen - s * source) / (1 - s)
    torch.testing.assert_close(noise.mean(0), (1 - fresh**2) ** 0.5 * own[0], atol=0.2 * fresh + 1e-6, rtol=0)
    assert float(noise.std(0).mean()) == pytest.approx(fresh, abs=0.01)


def test_a_draft_drawn_again_is_noised_half_way_and_goes_on_under_the_wanted_caption(latents):
    """Where the map adds (t - s) b, whatever x is, z becomes AGAIN z + (1 - AGAIN) (e + b) with standard normal e."""

    class Steady(Straight):
        def __call__(self, x, s, t):
            return x + (t - s) * self.image

    edits, image, _ = latents
    edits = edits.expand(3, -1, -1, -1)
    again, nfe = drawn_again(Steady(image), edits, 5)
    assert nfe == 3 * JUMPS
    noise = (again - AGAIN * edits) / (1 - AGAIN) - image
    assert float(noise.std()) == pytest.approx(1.0, abs=0.1)
    assert float(noise.mean()) == pytest.approx(0.0, abs=0.1)
    assert torch.equal(again, drawn_again(Steady(image), edits, 5)[0])
    assert not torch.equal(again, drawn_again(Steady(image), edits, 6)[0])


def test_more_drafts_change_none_of_the_first_ones_of_a_way(latents):
    source, own, there = latents
    flows = Noisy(own), Noisy(there)
    few, many = (draft(*flows, source, own, count, 3, 5)[0] for count in (2, 6))
    assert torch.equal(few, many[[0, 3]])
    assert not torch.equal(many[0], many[1])


def test_a_batch_is_drafts_and_the_same_drawn_again_and_the_next_is_of_other_noise(latents):
    source, own, there = latents
    flows = Noisy(own), Noisy(there)
    batches = drafts(*flows, source, own, 3, 4, 5, 1.0)
    for turn in range(2):
        batch, nfe = next(batches)
        first, _ = draft(*flows, source, own, 3, 4, mixed(5, 2 * turn))
        assert nfe == planned(3, 4) == 3 * (2 * 4 + JUMPS)
        assert torch.equal(batch, torch.cat([first, drawn_again(flows[0], first, mixed(5, 2 * turn + 1))[0]]))
    assert not any(torch.equal(batch, other) for other, _ in islice(drafts(*flows, source, own, 3, 4, 6, 1.0), 2))


# In the engine -------------------------------------------------------------------------------------------------------


@pytest.fixture
def told(monkeypatch):
    """Captions tell of the edit and suffice for it, though the source itself does not meet the plan."""
    monkeypatch.setattr("editor.focus.LEAST_TOLD", 0.0)
    monkeypatch.setattr("editor.judge.MET", 0.0)
    unmet = Judge.look_again
    monkeypatch.setattr(Judge, "look_again", lambda judge, *rest: unmet(judge, *rest) or doubt(judge))


@pytest.fixture
def untold(monkeypatch):
    """Captions tell of part of the edit."""
    monkeypatch.setattr("editor.focus.LEAST_TOLD", 0.0)
    monkeypatch.setattr("editor.judge.MET", 1.0)


def doubt(judge: Judge) -> None:
    judge.source = judge.source._replace(met=False)


def run(editor, settings, stop=None, **changes):
    updates = list(editor.edit(request(settings=settings, **changes), stop))
    return updates, [u for u in updates if u.stage == "search"]


def test_drafts_are_the_first_step_and_count(tiny_editor, told):
    plain, _ = run(tiny_editor, DRAFTED.but(draft_jumps=0))
    updates, steps = run(tiny_editor, DRAFTED)
    assert [u.stage for u in updates][:5] == ["plan", "invert", "locate", "search", "search"]
    assert [u.message for u in steps[:2]] == ["Drafted by captions alone", "Drafted more, with more room as well"]
    assert steps[2].message == f"Searching: step 2 of {1 + len(itinerary(DRAFTED))}"
    assert [u.drafted for u in steps] == [True, True] + [False] * (len(steps) - 2)
    assert [u.step for u in steps] == list(range(len(steps)))
    assert updates[-1].cost.nfe == plain[-1].cost.nfe + 2 * MADE, "none sufficed: there were more"
    assert [len(rewards) for rewards in updates[-1].history] == [6, 12] + [3] * (len(steps) - 2)
    assert updates[-1].history[2:] == plain[-1].history, "the search is the same, from the source itself"
    assert [parents == () for parents in updates[-1].parents] == [step <= 2 for step in range(len(steps))]
    assert sum(c.place[0] <= 1 for c in updates[-1].candidates) == 1, "the best draft can be chosen too"


def test_there_are_other_drafts_where_the_budget_allows_for_a_search_as_well(tiny_editor, told, monkeypatch):
    seeds = []
    monkeypatch.setattr("editor.drafts.draft", lambda *args: seeds.append(args[6]) or draft(*args))
    once = planned_nfe(DRAFTED.but(least=1, last_jumps=None, searches=1))
    for spare, rounds in ((0, 2), (-1, 1)):
        seeds.clear()
        _, steps = run(tiny_editor, DRAFTED.but(budget=2 * MADE + once + spare))
        assert [len(step.previews) for step in steps if step.drafted] == [6, 12][:rounds]
        assert len(set(seeds)) == rounds, "of other noise"


def test_there_may_be_more_drafts_or_fewer_than_candidates(tiny_editor, told):
    plain, _ = run(tiny_editor, DRAFTED.but(draft_jumps=0))
    for count in (1, 5):
        updates, steps = run(tiny_editor, DRAFTED.but(drafts=count))
        assert [len(step.previews) for step in steps if step.drafted] == [2 * count, 4 * count], (
            "and the same drawn again"
        )
        assert updates[-1].cost.nfe == plain[-1].cost.nfe + 2 * planned(count, DRAFTED.draft_jumps)
        assert updates[-1].history[2:] == plain[-1].history


def test_a_draft_that_surely_meets_all_needs_no_search(tiny_editor, told, monkeypatch):
    monkeypatch.setattr("editor.judge.SUFFICES", 0.0)
    monkeypatch.setattr("editor.judge.CERTAIN", 0.0)
    updates, steps = run(tiny_editor, DRAFTED)
    assert len(steps) == 1
    last = updates[-1]
    assert "A draft that captions alone made was enough" in ending_line(last)
    assert "draft" not in ending_line(run(tiny_editor, SETTINGS)[0][-1])
    assert all(c.met for c in last.candidates)
    assert len(last.candidates) == 6
    assert not last.stopped
    assert last.cost.nfe == updates[2].cost.nfe + MADE
    undone, _ = run(tiny_editor, DRAFTED.but(undo=1.0))
    assert undone[-1].best.tobytes() == picture().tobytes(), "what a draft changed for nothing is undone too"


def test_where_a_draft_passes_and_none_is_certain_there_are_two_more_batches_and_no_search(
    tiny_editor, told, monkeypatch
):
    monkeypatch.setattr("editor.judge.SUFFICES", 0.0)
    monkeypatch.setattr("editor.judge.CERTAIN", 1.0)
    for budget, batches in ((None, 3), (3 * MADE, 3), (3 * MADE - 1, 2), (2 * MADE - 1, 1)):
        updates, steps = run(tiny_editor, DRAFTED.but(budget=budget))
        assert [len(step.previews) for step in steps] == [6, 12, 12][:batches]
        drafted = sorted((score for scores in updates[-1].history for score in scores), reverse=True)
        assert [candidate.score for candidate in updates[-1].candidates] == drafted[:6]
        assert len({candidate.place for candidate in updates[-1].candidates}) == 6
        assert updates[-1].cost.nfe == updates[2].cost.nfe + batches * MADE


def test_later_drafts_have_more_room_and_earlier_ones_stay_as_they_were_judged(tiny_editor, told, monkeypatch):
    monkeypatch.setattr("editor.judge.SUFFICES", 0.0)
    monkeypatch.setattr("editor.judge.CERTAIN", 1.0)
    confine, drafted, masks, moved, kept = Judge.confine, Judge.drafted, [], [], []

    def corner(judge, focus, settings):
        mask = torch.zeros_like(focus.mask)
        mask[..., 0, 0] = 1
        confine(judge, focus._replace(mask=mask), settings)

    def noted(judge, latents):
        masks.append(judge.mask)
        moved.append((latents != judge.latents).any(1))
        scored = drafted(judge, latents)
        return scored._replace(reward=scored.reward + 1e3 * (len(masks) == 1))

    def all_of_it(score, edit, source, *_):
        kept.append((edit != source).any(1))
        return edit

    monkeypatch.setattr(Judge, "confine", corner)
    monkeypatch.setattr(Judge, "drafted", noted)
    monkeypatch.setattr("editor.progress.least_change", all_of_it)
    _, steps = run(tiny_editor, DRAFTED.but(undo=0.5))
    assert [int(mask.sum()) for mask in masks[:3]] == [1, 4, 4], "the next places around, once"
    assert steps[-1].best_so_far.place[0] == 0
    assert [len(batch) for batch in moved[:3]] == [6, 12, 12]
    for near, roomy in (batch.split(6) for batch in moved[1:3]):
        assert (near.sum((1, 2)) <= 1).all()
        assert (roomy.sum((1, 2)) > 1).all()
    assert kept[0].sum() == 1


def test_a_mask_of_the_users_own_leaves_no_more_room(tiny_editor):
    found, mask = tiny_editor.invert(picture(), 0.4), Image.new("L", picture().size, 0)
    mask.paste(255, (0, 0, 16, 16))
    for own in (None, mask):
        judge = Judge.of(
            tiny_editor.models, PLAN, found.square, found.latents, found.before, own, SearchSettings(), Calls()
        )
        told = torch.zeros(1, 1, *found.latents.shape[-2:])
        told[..., 0, 0] = 1
        judge.confine(Focus(told, torch.zeros_like(found.before[:, :1])), SearchSettings())
        before = judge.mask.clone()
        assert len(judge.roomier(found.latents + 1)) == (1 if own else 2)
        assert torch.equal(judge.mask, before) == (own is not None)
        judge.narrow()
        assert torch.equal(judge.mask, before)


@pytest.mark.parametrize("undo", [0.0, 1.0])
def test_a_draft_that_is_the_result_is_not_doubted_where_a_search_would_have_to_be_surer(
    tiny_editor, untold, monkeypatch, undo
):
    monkeypatch.setattr(Judge, "_surely", lambda _, scored: scored._replace(met=scored.checks[:, 0] >= 0))
    updates, steps = run(tiny_editor, DRAFTED.but(sure=1.0, undo=undo))
    assert len(steps) == 1
    assert updates[-1].candidates[0].met
    assert "may not show" not in warnings(updates[-1].candidates[0])


def test_a_draft_that_is_not_sure_does_not_outrank_what_the_search_finds(tiny_editor, told, monkeypatch):
    monkeypatch.setattr("editor.judge.SUFFICES", 1.0)
    scored = Judge.drafted
    monkeypatch.setattr(Judge, "drafted", lambda judge, x: (s := scored(judge, x))._replace(reward=s.reward + 1e3))
    *_, last = run(tiny_editor, DRAFTED)[0]
    assert last.candidates[0].place[0] > 0


def test_a_draft_is_compared_with_what_the_search_finds_by_one_measure(tiny_editor, told, monkeypatch):
    monkeypatch.setattr("editor.judge.MET", 1.0)
    scored = Judge.drafted
    monkeypatch.setattr(Judge, "drafted", lambda judge, x: (s := scored(judge, x))._replace(reward=s.reward + 1e3))
    updates, steps = run(tiny_editor, DRAFTED)
    assert steps[0].score > 900
    assert max(c.score for c in updates[-1].candidates) < 900
    assert not any(c.met for c in updates[-1].candidates)


def test_without_two_captions_a_focus_or_the_search_nothing_is_drafted(tiny_editor, told):
    asked = [(DRAFTED, source) for source in (PLAN.caption, "")]
    asked += [(settings, PLAN.source) for settings in (DRAFTED.but(focus=0.0), DRAFTED.but(method="best-of-n"))]
    for settings, source in asked:
        _, steps = run(tiny_editor, settings, plan=replace(PLAN, source=source))
        assert "Drafted" not in steps[0].message


def test_captions_that_tell_nothing_draft_nothing(tiny_editor, monkeypatch):
    monkeypatch.setattr("editor.focus.LEAST_TOLD", 1.0)
    assert "Drafted" not in run(tiny_editor, DRAFTED)[1][0].message


def test_a_source_that_meets_its_plan_is_not_drafted(tiny_editor, monkeypatch):
    monkeypatch.setattr("editor.judge.MET", 0.0)
    assert "Drafted" not in run(tiny_editor, DRAFTED)[1][0].message


def test_a_stop_after_the_drafts_keeps_the_best_of_them(tiny_editor, told):
    stop, seen = Event(), []
    for update in tiny_editor.edit(request(settings=DRAFTED), stop):
        seen.append(update)
        if update.stage == "search":
            stop.set()
    assert [u.stage for u in seen][-2:] == ["search", "done"]
    assert seen[-1].stopped
    assert seen[-1].best.tobytes() == seen[-2].best_so_far.image.tobytes()


@pytest.mark.parametrize("after", [0, 1])
def test_a_stop_between_drafts_ends_the_run_where_a_rerun_finds_it(tiny_editor, told, monkeypatch, after):
    monkeypatch.setattr("editor.judge.SUFFICES", 0.0)
    monkeypatch.setattr("editor.judge.CERTAIN", 1.0)
    ended = [list(rerun(tiny_editor, request(settings=DRAFTED), after))[-1] for _ in range(2)]
    assert [(last.stopped, last.step) for last in ended] == [(True, after)] * 2
    assert [len(last.history) for last in ended] == [1 + after] * 2
    assert ended[0].best.tobytes() == ended[1].best.tobytes()


def test_drafts_are_paid_for_from_the_budget(tiny_editor, untold):
    free = DRAFTED.but(searches=9, draft_jumps=0)
    once = planned_nfe(free.but(searches=1))
    for spare in (0, MADE):
        twice = once + evaluations(free) + spare
        nfe = [u.cost.nfe for u in run(tiny_editor, DRAFTED.but(searches=9, budget=twice))[0]]
        assert nfe[-1] - nfe[2] == MADE + (2 if spare else 1) * once


def test_a_draft_of_part_of_the_plan_takes_the_place_of_the_source(tiny_editor, untold, monkeypatch):
    shifts = torch.tensor([0.5, 1.0, -1.0]).reshape(3, 1, 1, 1)
    monkeypatch.setattr("editor.engine.drafts", lambda flow, other, latents, *rest: iter([(latents + shifts, MADE)]))
    monkeypatch.setattr(Judge, "is_part", lambda judge, checks, image: True)
    updates, steps = run(tiny_editor, DRAFTED.but(undo=1.0))
    assert [u.stage for u in updates][2:6] == ["locate", "search", "locate", "search"]
    assert updates[4].message.startswith("Took the best draft")
    last, draft = updates[-1], steps[0].best_so_far.image.tobytes()
    assert last.best.tobytes() == draft, "all that the search changed was given up, what the draft did was not"
    assert last.best.tobytes() != picture().tobytes()
    assert last.changed > 0
    assert updates[4].cost.nfe - updates[3].cost.nfe == LOOKS + 2 * INVERSION_STEPS
    brighter = np.asarray(updates[4].focus, int) - np.asarray(updates[2].focus, int)
    assert brighter.min() >= -1, "the page shows all places where the edit acts"


def test_a_draft_that_took_the_place_of_the_source_is_judged_from_there_and_as_it_was_drawn(
    tiny_editor, untold, monkeypatch
):
    """What the first focus held to the source comes back with no later one."""
    shifts = torch.tensor([0.5, 1.0, -1.0]).reshape(3, 1, 1, 1)
    monkeypatch.setattr("editor.engine.drafts", lambda flow, other, latents, *rest: iter([(latents + shifts, MADE)]))
    monkeypatch.setattr(Judge, "is_part", lambda judge, checks, image: True)
    halves, confine = [torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])], Judge.confine

    def half(judge, focus, settings):
        mask = halves.pop(0).repeat_interleave(focus.mask.shape[-1] // 2).expand_as(focus.mask)
        confine(judge, focus._replace(mask=mask), settings)

    monkeypatch.setattr(Judge, "confine", half)
    scored = Judge._scored

    def poorly(*args, **named):
        found = scored(*args, **named)
        return found._replace(reward=found.reward.clamp(max=-1e4))

    monkeypatch.setattr(Judge, "_scored", poorly)
    updates, steps = run(tiny_editor, DRAFTED.but(undo=0.0))
    *_, last = updates
    first = steps[0].best_so_far
    chosen = next(c for c in last.candidates if c.place == first.place)
    assert chosen.image.tobytes() == first.image.tobytes()


def test_a_stop_after_a_draft_took_the_place_of_the_source_ends_the_search_where_a_rerun_finds_it(
    tiny_editor, untold, monkeypatch
):
    monkeypatch.setattr(Judge, "is_part", lambda judge, checks, image: True)
    stop, last = Event(), None
    for update in tiny_editor.edit(request(settings=DRAFTED), stop):
        last = update
        if update.message.startswith("Took the best draft"):
            stop.set()
    assert (last.stopped, last.step) == (True, 1)
    again, rerun = Event(), None
    for update in tiny_editor.edit(request(settings=DRAFTED), again):
        rerun = update
        if update.stage == "search" and update.step == last.step:
            again.set()
    assert [c.place for c in rerun.candidates] == [c.place for c in last.candidates]
    assert rerun.best.tobytes() == last.best.tobytes()


def test_part_of_a_plan_is_more_than_the_source_has_and_less_than_all_with_what_must_stay(tiny_editor):
    found = tiny_editor.invert(picture(), 0.4)
    judge = Judge.of(
        tiny_editor.models, PLAN, found.square, found.latents, found.before, None, SearchSettings(), Calls()
    )
    judge.source = SimpleNamespace(checks=(0.2, 0.1, 0.9))

    def is_part(*checks: float) -> bool:
        return judge.is_part(torch.tensor(checks), found.before)

    assert is_part(0.9, 0.1, 0.9)
    assert is_part(0.1, 0.9, 0.9)
    assert not is_part(0.9, 0.9, 0.9), "all of it"
    assert not is_part(0.1, 0.2, 0.9), "none of it"
    assert not is_part(0.9, 0.1, 0.4), "something that must stay did not"
    judge.source = SimpleNamespace(checks=(0.8, 0.1, 0.9))
    assert not is_part(0.9, 0.1, 0.9), "the source has as much"
    judge.source, moved = SimpleNamespace(checks=(0.2, 0.1, 0.9)), Kept(torch.tensor([-0.5]), torch.tensor([-0.2]))
    judge.layout = lambda images: moved
    assert is_part(0.9, 0.1, 0.9), "nobody asks where it is"
    judge.weights = judge.weights._replace(drift=1.0)
    assert not is_part(0.9, 0.1, 0.9), "all of it has moved"


def test_drafts_that_moved_as_a_whole_do_not_suffice(tiny_editor, monkeypatch):
    monkeypatch.setattr("editor.judge.SUFFICES", 0.0)
    found = tiny_editor.invert(picture(), 0.4)
    for weight in (0.0, 1.0):
        settings = SearchSettings(drift=weight)
        judge = Judge.of(tiny_editor.models, PLAN, found.square, found.latents, found.before, None, settings, Calls())
        judge.layout = lambda images: Kept(torch.zeros(2), torch.tensor([-0.2, -0.05]))
        assert judge.drafted(found.latents.expand(2, -1, -1, -1)).met.tolist() == [weight == 0.0, True]


def test_a_draft_has_to_be_sure_of_what_is_wanted_and_to_keep_the_rest(tiny_editor):
    found = tiny_editor.invert(picture(), 0.4)
    judge = Judge.of(
        tiny_editor.models, PLAN, found.square, found.latents, found.before, None, SearchSettings(), Calls()
    )
    rest = len(judge.checks.checks) - judge.wanted
    assert judge.wanted > 0
    assert rest > 0
    pairs = [(0.75, 0.55), (0.65, 0.95), (0.95, 0.45)]
    said = torch.tensor([[wanted] * judge.wanted + [kept] * rest for wanted, kept in pairs])
    judge.checks = SimpleNamespace(checks=judge.checks.checks, evaluate=lambda _: CheckScores(torch.zeros(3), said))
    assert judge.drafted(found.latents.expand(3, -1, -1, -1)).met.tolist() == [True, False, False]


# How they are compared ------------------------------------------------------------------------------------------------


def test_each_kind_of_drafts_is_measured_on_looks_alone(tiny_editor):
    case = next(compared.looks())
    assert case.changed
    assert "time" not in case.changed
    found = list(compared.drafted(tiny_editor, case, 2))
    assert [one.kind for one in found] == [
        kind for kind in (*compared.KINDS, compared.TURNS, compared.AGAIN) for _ in range(2)
    ]
    assert all(one.edit == case.index and one.psnr > 0 for one in found)


def test_the_first_draft_is_one_that_suffices_or_else_has_most_reward():
    rows = [(1, True, 0, 30.0, True, 0.1), (1, False, 1, 20.0, False, 0.9), (2, False, 2, 10.0, False, 0.5),
            (2, True, 3, 20.0, False, 0.4)]  # fmt: skip
    figures = compared.measured([compared.Drafted(edit, "FlowEdit", *rest) for edit, *rest in rows])
    assert figures == {"FlowEdit": {
        "made": 4, "right, %": 50, "moved": 1.5, "PSNR, dB": 20, "edits": 2, "first right": 1,
        "with one that suffices": 1, "of these right": 1, "moved in these": 0,
    }}  # fmt: skip


def test_drafts_and_the_same_drawn_again_are_measured_together_as_well():
    rows = [(compared.TURNS, True, 0, 30.0, False, 0.1), (compared.AGAIN, False, 1, 20.0, True, 0.0)]
    figures = compared.measured([compared.Drafted(1, *row) for row in rows])
    assert list(figures) == [compared.TURNS, compared.AGAIN, compared.BOTH]
    assert [row["first right"] for row in figures.values()] == [1, 0, 0]
    assert figures[compared.BOTH]["made"] == 2
