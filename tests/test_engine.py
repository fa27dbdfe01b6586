"""The engine's promises, on the real engine over untrained networks."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from threading import Event
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from editor import images, progress
from editor.baselines import METHODS, planned_nfe
from editor.engine import CLIMBS, FARTHER, INVERSION_STEPS, Editor
from editor.focus import COPIES, LOOKS, TIMES, Focus
from editor.judge import LOST, MET, Judge
from editor.models import Models
from editor.progress import rank, warnings
from editor.registration import warning
from editor.reproduce import rerun
from editor.types import MAX_INSTRUCTION, Candidate, EditError, EditRequest, SearchSettings, Stays, Stopped
from rewards.base import Check, Plan
from rewards.plan import keep_checks
from rewards.preserve import Layout
from rewards.vlm import Calls

PLAN = Plan(
    (Check("Is the rim red?"), Check("What time does the clock show?", "4:45", 2.0)), "a red clock", ("a face",),
    "a blue clock",
)  # fmt: skip
SETTINGS = SearchSettings(particles=3, steps=4, strength=0.6, corrections=0, seed=5)


def picture(width: int = 40, height: int = 32) -> Image.Image:
    ramp = np.linspace(20, 230, width * height * 3).reshape(height, width, 3)
    return Image.fromarray(ramp.astype(np.uint8))


def request(**changes) -> EditRequest:
    return replace(
        EditRequest(image=picture(), instruction="make the rim red", plan=PLAN, settings=SETTINGS), **changes
    )


def test_an_edit_goes_from_plan_to_candidates_at_the_size_of_the_source(tiny_editor):
    updates = list(tiny_editor.edit(request()))
    assert [u.stage for u in updates] == ["plan", "invert", *["search"] * (len(updates) - 3), "done"]
    last = updates[-1]
    assert last.best.size == last.roundtrip.size == (40, 32)
    assert len(last.candidates) in (3, 4)
    assert [c.score for c in last.candidates] == sorted((c.score for c in last.candidates), reverse=True)
    assert [r.check for r in last.checks] == list(PLAN.checks)
    assert all(0 <= p <= 1 for r in last.checks for p in (r.before, r.after))
    assert all(len(u.previews) == 3 and u.previews[0].size == (32, 32) for u in updates if u.stage == "search")


def test_a_focused_edit_shows_where_it_acts_and_a_mask_takes_its_place(tiny_editor, monkeypatch):
    monkeypatch.setattr("editor.focus.LEAST_TOLD", 0.0)
    monkeypatch.setattr("editor.judge.MET", 0.0)
    focused = SETTINGS.but(focus=0.9)
    updates = list(tiny_editor.edit(request(settings=focused)))
    assert [u.stage for u in updates][:4] == ["plan", "invert", "locate", "search"]
    back, found, *_, last = (u.cost.nfe for u in updates[1:])
    assert found - back == LOOKS + 2 * COPIES * len(TIMES)
    assert last - found == planned_nfe(focused)
    last = updates[-1]
    assert last.focus.size == (40, 32)
    lit, source = (np.asarray(image, float) for image in (last.focus, picture()))
    assert (lit <= source + 1).all()
    assert (lit >= source / 4 - 1).all()
    assert list(tiny_editor.edit(request()))[-1].focus is None
    half = Image.new("L", (40, 32))
    half.paste(255, (0, 0, 20, 32))
    assert list(tiny_editor.edit(request(settings=focused, mask=half)))[-1].focus is None


@pytest.mark.parametrize("told", [True, False])
def test_what_no_caption_tells_of_is_sought_from_farther_back_where_the_rest_is_held(tiny_editor, told, monkeypatch):
    monkeypatch.setattr("editor.focus.LEAST_TOLD", 0.0 if told else 1.0)
    monkeypatch.setattr("editor.judge.MET", 0.0)

    def start(settings: SearchSettings, plan: Plan = PLAN, mask: Image.Image | None = None) -> float:
        asked = request(plan=plan, settings=settings, mask=mask)
        return next(u.t for u in tiny_editor.edit(asked) if u.stage == "search")

    focused, near, far = SETTINGS.but(focus=0.9), SETTINGS.start, FARTHER * SETTINGS.start
    everywhere = Image.new("L", (40, 32), 255)
    assert start(focused) == start(focused, mask=everywhere) == pytest.approx(near if told else far)
    for silent in (PLAN.caption, ""):
        assert start(focused, replace(PLAN, source=silent)) == pytest.approx(far)
    assert start(SETTINGS) == start(focused.but(method="fmtt-sampling")) == pytest.approx(near)


@pytest.mark.parametrize("told", [True, False])
def test_what_no_caption_tells_of_is_searched_at_least_twice(tiny_editor, told, monkeypatch):
    monkeypatch.setattr("editor.focus.LEAST_TOLD", 0.0 if told else 1.0)
    monkeypatch.setattr("editor.judge.MET", 0.0)
    settings = SETTINGS.but(focus=0.9, searches=3, least=2, restart=0.5, sure=0.0)
    *_, last = tiny_editor.edit(request(settings=settings))
    assert last.diagnostics["searches"] == (1 if told else 2)
    *_, last = tiny_editor.edit(request(settings=settings.but(focus=0.0)))
    assert last.diagnostics["searches"] == 1, "nobody looked whether a caption tells"


@pytest.mark.parametrize("told", [True, False])
def test_only_what_no_caption_tells_of_hurries_to_its_end(tiny_editor, told, monkeypatch):
    monkeypatch.setattr("editor.focus.LEAST_TOLD", 0.0 if told else 1.0)
    monkeypatch.setattr("editor.judge.MET", 0.0)
    seen, search = [], METHODS["fmtt"]
    monkeypatch.setitem(METHODS, "fmtt", lambda *run: seen.append(run[-1].last_jumps) or search(*run))
    for focus in (0.9, 0.0):
        list(tiny_editor.edit(request(settings=SETTINGS.but(focus=focus, last_jumps=1))))
    assert seen == [None if told else 1, None]


def test_changes_that_earned_nothing_are_undone_at_the_end_unless_the_run_was_stopped_or_samples(tiny_editor):
    undone, calm = SETTINGS.but(undo=1.0), SETTINGS.but(undo=0.0)
    *_, last = tiny_editor.edit(request(settings=undone))
    *_, plain = tiny_editor.edit(request(settings=calm))
    assert last.changed == 0.0, "with the whole gain to give up nothing stays changed"
    assert last.best.tobytes() == picture().tobytes()
    assert last.score == pytest.approx(last.source_score, abs=1e-4)
    assert [c.score for c in last.candidates[1:]] == [c.score for c in plain.candidates]
    assert last.cost.nfe == plain.cost.nfe
    assert last.cost.decodes > plain.cost.decodes
    assert plain.changed is None
    assert stopped_at("search", tiny_editor, settings=undone)[-1].changed is None
    *_, drawn = tiny_editor.edit(request(settings=undone.but(method="fmtt-sampling", corrections=1, renoise=1.0)))
    assert drawn.changed is None


def test_nothing_changes_where_the_source_passes_every_check(tiny_editor, monkeypatch):
    monkeypatch.setattr("editor.judge.MET", 0.0)
    updates = list(tiny_editor.edit(request(settings=SETTINGS.but(undo=0.02))))
    last = updates[-1]
    assert last.changed == 0.0
    assert last.best.tobytes() == picture().tobytes()
    assert len(last.candidates) > 1, "what was found can still be chosen"
    assert [u.stage for u in updates].count("search") == 1, "nobody waits for what is there"
    assert not last.stopped


def test_a_stop_leaves_a_source_that_passes_every_check_as_it_is(tiny_editor, monkeypatch):
    monkeypatch.setattr("editor.judge.MET", 0.0)
    *_, last = stopped_at("search", tiny_editor, settings=SETTINGS.but(undo=0.02))
    assert last.stopped
    assert last.best.tobytes() == picture().tobytes()


def test_the_source_stays_where_it_passes_every_check_without_memory_for_gradients_too(tiny_editor, monkeypatch):
    monkeypatch.setattr("editor.judge.MET", 0.0)
    monkeypatch.setattr(Models, "gradient", False)
    updates = list(tiny_editor.edit(request(settings=SETTINGS.but(undo=0.02))))
    assert updates[-1].untouched
    assert [u.stage for u in updates].count("search") == 1
    monkeypatch.setattr("editor.judge.MET", 1.0)
    *_, last = tiny_editor.edit(request(settings=SETTINGS.but(undo=0.02)))
    assert (last.untouched, last.changed) == (False, None), "putting back in part needs gradients"


def test_what_puts_back_too_much_to_meet_the_plan_is_left_out(tiny_editor, monkeypatch):
    scored = Judge._scored

    def judged(judge, decoded, *args, **named):
        moved = (decoded - judge.preserve.source).abs().amax((1, 2, 3))
        return scored(judge, decoded, *args, **named)._replace(met=moved > 1e-3)

    monkeypatch.setattr(Judge, "_scored", judged)
    *_, last = tiny_editor.edit(request(settings=SETTINGS.but(undo=1.0)))
    assert last.candidates[0].met, "with the whole gain given up it would be the source"
    assert last.changed > 0.9
    assert len({c.place for c in last.candidates}) == len(last.candidates), "none stands there without its changes"


def test_a_stop_while_changes_are_undone_is_none(tiny_editor, monkeypatch):
    stop, least = Event(), progress.least_change

    def slow(*arguments):
        stop.set()
        return least(*arguments)

    monkeypatch.setattr(progress, "least_change", slow)
    *_, last = tiny_editor.edit(request(settings=SETTINGS.but(undo=0.5)), stop)
    assert not last.stopped, "a recipe that stops there would undo nothing"
    assert last.changed is not None


@pytest.mark.parametrize(("said", "same"), [("4:45", True), ("4:46", False)])
def test_nothing_changes_where_the_eyes_that_plan_read_what_is_asked_for(tiny_editor, monkeypatch, said, same):
    """The judge's own open answer is less likely than not here, and its yes or no is not asked."""
    planner = tiny_editor.models.vlm.planner
    monkeypatch.setattr(planner, "answers", lambda images, questions, calls: [said] * len(questions))
    plan = replace(PLAN, checks=PLAN.checks[1:])
    *_, last = tiny_editor.edit(request(settings=SETTINGS.but(undo=0.02), plan=plan))
    assert last.checks[0].before < 0.5
    assert (last.best.tobytes() == picture().tobytes()) is same
    assert last.candidates[0].met is same


def test_a_mask_of_grey_acts_once(tiny_editor):
    """Held, judged and put back, a change goes through it several times; only the composite is to halve it."""
    found, grey = tiny_editor.invert(picture(), 0.4), Image.new("L", picture().size, 128)
    judge = Judge.of(tiny_editor.models, PLAN, found.square, found.latents, found.before, grey, SETTINGS, Calls())
    changed = found.latents + 1
    torch.testing.assert_close(judge.within(changed), changed)


def test_the_eyes_that_plan_are_not_asked_where_the_judge_says_no(tiny_editor, monkeypatch):
    found = tiny_editor.invert(picture(), 0.4)
    judge = Judge.of(tiny_editor.models, PLAN, found.square, found.latents, found.before, None, SETTINGS, Calls())
    judge.source = judge.source._replace(checks=(0.4, 0.1, 0.9), met=False)
    monkeypatch.setattr(tiny_editor.models.vlm.planner, "answers", lambda *_, **__: pytest.fail("asked"))
    judge.look_again(tiny_editor.models.vlm.planner)
    assert not judge.source.met


@pytest.mark.parametrize(
    ("restart", "why"), [(0.0, "anew, since no candidate surely met the checks"), (0.4, "from the best end")]
)
def test_a_search_that_begins_again_says_so_and_keeps_the_best_of_all(tiny_editor, monkeypatch, restart, why):
    monkeypatch.setattr("editor.judge.MET", 1.0)
    updates = list(tiny_editor.edit(request(settings=SETTINGS.but(searches=2, restart=restart))))
    steps = [u for u in updates if u.stage == "search"]
    half = len(steps) // 2
    assert steps[half - 1].message == f"Searching: step {half - 1} of {half - 1}"
    assert steps[half].message == f"Search 2, {why}: step {half} of {2 * half - 1}"
    assert updates[-1].score >= max(max(u.scores) for u in steps) - 1e-4


@pytest.mark.parametrize("told", [True, False])
def test_what_no_caption_tells_of_is_met_where_a_yes_is_sure_and_an_open_answer_likely(tiny_editor, told):
    found = tiny_editor.invert(picture(), 0.4)
    latents = torch.randn(24, *found.latents.shape[1:], generator=torch.Generator().manual_seed(0))
    everywhere = Focus(torch.ones(1, 1, *latents.shape[-2:]), torch.ones(1, 1, *found.before.shape[-2:]), told)
    for check in (Check("Is the rim red?"), Check("What time does the clock show?", "4:45")):

        def judged(sure, check=check):
            settings = SETTINGS.but(sure=sure)
            judge = Judge.of(
                tiny_editor.models, Plan((check,)), found.square, found.latents, found.before, None, settings, Calls()
            )
            judge.confine(everywhere, settings)
            return judge

        likely = judged(0.5)(latents).checks[:, 0]
        for bar in (0.0, float(likely.median()), 1.0):
            judge = judged(bar)
            assert torch.equal(judge(latents).met, likely > (0.5 if told or check.is_open else bar))
            assert torch.equal(judge.asked(latents).met, likely > 0.5), "what the captions suffice for is not so strict"
            lost = torch.zeros(24, dtype=torch.bool) if check.is_open else likely < LOST
            assert judge(latents).lost is None if told else torch.equal(judge(latents).lost, lost)
            met, surety, _ = (torch.tensor(column) for column in zip(*judge(latents).order(), strict=True))
            wanted = torch.where(met, likely.logit(), 0) if not told else torch.zeros(24)
            assert torch.allclose(surety, wanted, atol=1e-3)


@pytest.mark.parametrize("told", [True, False])
def test_layout_counts_as_nats_of_reward_and_of_what_captions_do_not_suffice_for_as_surety(tiny_editor, told):
    found, settings = tiny_editor.invert(picture(), 0.4), SETTINGS.but(sure=0.5)
    latents = torch.randn(24, *found.latents.shape[1:], generator=torch.Generator().manual_seed(0))
    everywhere = Focus(torch.ones(1, 1, *latents.shape[-2:]), torch.ones(1, 1, *found.before.shape[-2:]), told)

    def judged(**weights: float) -> Judge:
        plan, weighed = Plan(PLAN.checks[:1]), settings.but(**weights)
        judge = Judge.of(tiny_editor.models, plan, found.square, found.latents, found.before, None, weighed, Calls())
        judge.confine(everywhere, weighed)
        return judge

    plain, judge = judged()(latents), judged(outlines=3.0, drift=5.0)
    moved = Layout(found.before)(plain.images)
    kept = 5.0 * moved.drift + (0.0 if told else 3.0 * moved.outlines)
    assert kept.min() < -0.1
    assert judge.source.reward == pytest.approx(judged().source.reward, abs=1e-4), "the source is where it was"
    assert torch.allclose(judge(latents).reward, plain.reward + kept, atol=1e-4)
    assert plain.met.any()
    assert torch.allclose(judge(latents).surety, plain.surety + (0.0 if told else plain.met * kept), atol=1e-4)
    in_drafts = plain.reward + 5.0 * moved.drift + 3.0 * moved.outlines
    assert torch.allclose(judge.drafted(latents).reward, in_drafts, atol=1e-4), "whether captions suffice or not"
    judge.begin_at(latents[:1], plain.images[:1])
    assert torch.equal(judge.layout(plain.images).outlines, moved.outlines), "whatever drafts change"


def test_candidates_that_meet_the_plan_come_before_those_of_higher_scores():
    rows = ((False, 0, 3.0), (True, 5.0, 1.0), (True, 5.0, 2.0), (True, 9.0, 0.5))
    made = [SimpleNamespace(met=met, surety=surety, score=score) for met, surety, score in rows]
    assert [c.score for c in sorted(made, key=rank, reverse=True)] == [0.5, 2.0, 1.0, 3.0]


def test_the_best_so_far_never_falls(tiny_editor):
    scores = [u.score for u in tiny_editor.edit(request()) if u.score is not None]
    assert all(b >= a for a, b in pairwise(scores))


def test_the_same_request_gives_the_same_bytes(tiny_editor):
    first, second = (list(tiny_editor.edit(request()))[-1] for _ in range(2))
    assert first.best.tobytes() == second.best.tobytes()
    assert first.history == second.history
    other = list(tiny_editor.edit(request(settings=SETTINGS.but(seed=6))))[-1]
    assert other.history != first.history


def stopped_at(stage, editor, **changes):
    """The updates of a run that is stopped as soon as one of this stage has come."""
    stop, seen = Event(), []
    for update in editor.edit(request(**changes), stop):
        seen.append(update)
        if update.stage == stage:
            stop.set()
    return seen


def test_stop_ends_within_a_step_and_keeps_the_best(tiny_editor):
    seen = stopped_at("search", tiny_editor)
    assert [u.stage for u in seen] == ["plan", "invert", "search", "done"]
    assert seen[-1].stopped
    assert seen[-1].score == seen[-2].score
    assert seen[-1].best.tobytes() == seen[-2].best_so_far.image.tobytes()


@pytest.mark.parametrize("stage", ["plan", "invert", "locate"])
def test_a_stop_before_there_is_a_picture_ends_the_run_at_once(tiny_editor, stage):
    with pytest.raises(Stopped, match="before there was a picture"):
        stopped_at(stage, tiny_editor, settings=SETTINGS.but(focus=0.9))


def test_a_stop_while_the_picture_is_carried_back_does_not_wait_for_the_rest(tiny_editor, monkeypatch):
    stop, condition, asked = Event(), Models.condition, []

    class Stopping:
        def __init__(self, flow):
            self.flow, self.two_time = flow, flow.two_time

        def velocity(self, x, t):
            stop.set()
            asked.append(t)
            return self.flow.velocity(x, t)

    monkeypatch.setattr(Models, "condition", lambda models, prompt: Stopping(condition(models, prompt)))
    with pytest.raises(Stopped):
        list(tiny_editor.edit(request(), stop))
    assert len(asked) == 1


def test_a_stop_while_places_are_looked_for_does_not_wait_until_they_are_found(tiny_editor, monkeypatch):
    stop, asked, checked = Event(), [], Judge._checked

    def counted(judge, decoded, *rest):
        found = checked(judge, decoded, *rest)
        asked.append(len(decoded))
        if len(asked) == 2:  # the first is the source's
            stop.set()
        return found

    monkeypatch.setattr(Judge, "_checked", counted)
    with pytest.raises(Stopped):
        list(tiny_editor.edit(request(settings=SETTINGS.but(focus=0.9)), stop))
    assert len(asked) == 2


def test_only_the_result_is_composited_at_full_size_until_another_picture_is_asked_for(tiny_editor, monkeypatch):
    sizes, composite = [], images.composite

    def counted(source, *rest):
        sizes.append(source.size)
        return composite(source, *rest)

    monkeypatch.setattr(images, "composite", counted)
    large = picture(1500, 1200)
    *_, last = tiny_editor.edit(request(image=large))
    assert sizes == [(1500, 1200)]
    assert last.best is last.candidates[0].image
    assert last.roundtrip.size == images.at_most(large).size == (1024, 819)
    assert all(max(candidate.preview.size) <= 400 for candidate in last.candidates)
    assert last.candidates[1].image.size == (1500, 1200)
    assert sizes.count((1500, 1200)) == 2


def test_what_must_stay_is_told_of_the_result_and_of_every_candidate(tiny_editor):
    *_, last = tiny_editor.edit(request())
    asked = [f"Does the picture show {stays.thing}?" for stays in last.kept]
    assert asked == [check.question for check in keep_checks(PLAN)]
    odds = tiny_editor.score(picture(), asked)
    assert [s.before for s in last.kept] == pytest.approx([1 / (1 + math.exp(-x)) for x in odds], abs=0.2)
    assert last.kept_by(last.candidates[0]) == last.kept
    for candidate in last.candidates:
        assert [s.after for s in last.kept_by(candidate)] == list(candidate.kept)
        assert len(candidate.checks) == len(PLAN.checks)


@pytest.mark.parametrize(
    ("before", "after", "gone"), [(0.9, 0.1, True), (0.9, 0.5, False), (0.4, 0.1, False), (0.5, 0.49, True)]
)
def test_what_was_there_and_is_no_longer_is_warned_about(before, after, gone):
    result = Candidate(laid=None, score=0.0, checks=(), place=(0, 0), met=True)
    result.__dict__["offset"] = None
    kept = (Stays("a red rim", 0.9, 0.9), Stays("a second hand", before, after))
    assert ("no longer show a second hand, which" in warnings(result, kept)) == gone
    assert bool(warnings(result, kept)) == gone


def test_a_result_at_its_place_raises_no_alarm(tiny_editor):
    *_, last = tiny_editor.edit(request())
    assert warning(last.offset) == ""
    assert last.offset == last.candidates[0].offset


def test_costs_are_counted(tiny_editor):
    settings = SETTINGS.but(method="best-of-n")
    last = list(tiny_editor.edit(request(settings=settings)))[-1]
    rounds = len(last.history)
    questions = len(PLAN.checks) + len(PLAN.keep)
    assert last.cost.decodes == 2 + 3 * rounds
    doubts = [result.check for result in last.checks if result.before <= MET]
    again = len(doubts) if all(check.is_open for check in doubts) else 0
    assert last.cost.vlm_calls == questions * (1 + 3 * rounds) + again, "open answers are asked of the source again"
    assert last.cost.nfe == 4 * INVERSION_STEPS + planned_nfe(settings)
    assert last.cost.seconds > 0


def test_outside_the_mask_the_original_stays_bit_for_bit(tiny_editor):
    mask = Image.new("L", (40, 32), 0)
    mask.paste(255, (0, 0, 20, 32))
    last = list(tiny_editor.edit(request(mask=mask)))[-1]
    before, after = np.asarray(picture()), np.asarray(last.best)
    assert np.array_equal(before[:, 20:], after[:, 20:])
    for candidate in last.candidates:
        assert np.array_equal(before[:, 20:], np.asarray(candidate.image)[:, 20:])


def test_a_mask_that_is_white_all_over_is_none(tiny_editor):
    focused = SETTINGS.but(focus=0.9)
    white, none = (
        list(tiny_editor.edit(request(settings=focused, mask=mask)))[-1]
        for mask in (Image.new("L", (40, 32), 255), None)
    )
    assert white.best.tobytes() == none.best.tobytes()
    assert white.focus is not None


@pytest.mark.parametrize(("seen", "refused"), [(1, True), (2, False)])
def test_a_picture_in_which_what_should_stay_is_not_seen_is_refused(tiny_editor, monkeypatch, seen, refused):
    plan, opinion = replace(PLAN, keep=("a face", "a dial", "a hand")), Judge._opinion

    def sees(self, image):
        found = opinion(self, image)
        return found._replace(checks=(*found.checks[: self.wanted], *(0.9 if i < seen else 0.1 for i in range(3))))

    monkeypatch.setattr(Judge, "_opinion", sees)
    if refused:
        with pytest.raises(EditError, match=r"only 1 of the 3 things .* choose another picture"):
            list(tiny_editor.edit(request(plan=plan)))
    else:
        assert list(tiny_editor.edit(request(plan=plan)))[-1].done


@pytest.fixture
def breaks(monkeypatch):
    """Makes what is scored so many times no number the last time."""

    def at(turn):
        scored, calls = Judge._scored, []

        def broken(self, *arguments, **named):
            calls.append(self)
            found = scored(self, *arguments, **named)
            return found._replace(reward=found.reward * torch.nan) if len(calls) == turn else found

        monkeypatch.setattr(Judge, "_scored", broken)

    return at


def test_an_error_after_there_is_a_picture_ends_the_run_with_the_best_so_far(tiny_editor, breaks, monkeypatch):
    breaks(4)
    seen = list(tiny_editor.edit(request(settings=SETTINGS.but(corrections=1, undo=0.02))))
    last, before = seen[-1], seen[-2]
    assert "finite" in last.broken
    assert last.done
    assert last.stopped
    assert last.best.tobytes() == before.best_so_far.image.tobytes()
    monkeypatch.undo()
    again = list(rerun(tiny_editor, request(settings=SETTINGS.but(corrections=1, undo=0.02)), last.step))
    assert again[-1].best.tobytes() == last.best.tobytes(), "as its recipe says"


def test_an_error_before_there_is_a_picture_is_a_sentence(tiny_editor, breaks):
    breaks(2)
    with pytest.raises(EditError, match="finite"):
        list(tiny_editor.edit(request()))


def test_alpha_is_kept(tiny_editor):
    source = picture().convert("RGBA")
    source.putalpha(77)
    last = list(tiny_editor.edit(request(image=source)))[-1]
    assert last.best.mode == "RGBA"
    assert last.best.getchannel("A").getextrema() == (77, 77)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"instruction": " ", "plan": None}, "one sentence"),
        ({"instruction": "x" * (MAX_INSTRUCTION + 1)}, "too long"),
        ({"instruction": "make it \ud83d"}, "no character"),
        ({"mask": Image.new("L", (9, 9), 255)}, "size of the picture"),
        ({"mask": Image.new("1", (40, 32), 1)}, "must be greyscale"),
        ({"mask": Image.new("L", (40, 32), 0)}, "leaves nothing that may change"),
        ({"mask": Image.new("L", (40, 32), 9)}, "too small for this model"),
        ({"settings": SETTINGS.but(particles=300)}, "particles is 300: choose at most 256"),
        ({"plan": replace(PLAN, checks=(Check("<|im_end|>"),))}, "words"),
        ({"settings": SETTINGS.but(method="magic")}, "no method"),
    ],
)
def test_bad_requests_get_a_sentence(tiny_editor, changes, says):
    with pytest.raises(EditError, match=says):
        list(tiny_editor.edit(request(**changes)))


def test_a_picture_that_the_models_cannot_represent_is_refused_after_its_round_trip_is_shown(tiny_editor):
    strict = Editor(replace(tiny_editor.models, profile=replace(tiny_editor.profile, least_psnr=99.0)))
    updates = strict.edit(request())
    assert next(updates).stage == "plan"
    assert next(updates).roundtrip is not None
    with pytest.raises(EditError, match="cannot represent"):
        next(updates)


def test_an_unreadable_plan_of_the_studio_is_a_refusal_that_names_the_other_profile(tiny_editor):
    with pytest.raises(EditError, match="--profile flux"):
        tiny_editor.plan(picture(), "paint a dog")


def test_sampling_needs_a_map_of_two_times(tiny_editor):
    one_end = Editor(replace(tiny_editor.models, profile=replace(tiny_editor.profile, two_time=False)))
    with pytest.raises(EditError, match="exact sampling"):
        list(one_end.edit(request(settings=SETTINGS.but(method="fmtt-sampling"))))


@pytest.mark.parametrize("method", CLIMBS)
def test_what_is_nothing_without_gradients_is_refused_where_there_is_no_memory_for_them(
    tiny_editor, monkeypatch, method
):
    monkeypatch.setattr(Models, "gradient", False)
    with pytest.raises(EditError, match=f"{method} needs: choose"):
        list(tiny_editor.edit(request(settings=SETTINGS.but(method=method))))


@pytest.mark.parametrize("method", sorted(METHODS.keys() - set(CLIMBS)))
def test_all_others_do_without_gradients(tiny_editor, monkeypatch, method):
    monkeypatch.setattr(Models, "gradient", False)
    monkeypatch.setattr("editor.landing.differentiable", None)
    settings = SETTINGS.but(method=method, corrections=1, renoise=1.0, discretisation="euler-maruyama")
    *_, last = tiny_editor.edit(request(settings=settings))
    assert last.diagnostics.get("gradients", 0) == 0


def test_sampling_an_edit_works_with_the_settings_that_the_searches_have(tiny_editor):
    """No control of the page sets the share of the noise that starts renew."""
    assert 0 < SETTINGS.renoise < 1
    last = list(tiny_editor.edit(request(settings=SETTINGS.but(method="fmtt-sampling"))))[-1]
    assert last.done
    assert len(last.candidates) >= 3
    assert last.diagnostics["length"] >= 0


def test_the_judge_scores_a_batch_as_its_singles_and_its_gradient_stays_inside_the_mask(tiny_editor):
    source = images.to_unit(images.fit(picture(), 32)[0])
    codec = tiny_editor.models.codec
    with torch.no_grad():
        latents = codec.encode(source)
        before = codec.render(latents)
    mask = Image.new("L", (40, 32), 0)
    mask.paste(255, (0, 0, 20, 32))
    judge = Judge.of(tiny_editor.models, PLAN, source, latents, before, mask, SETTINGS, Calls())
    x = (latents + torch.randn(3, *latents.shape[1:], generator=torch.Generator().manual_seed(1))).requires_grad_()
    together = judge(x).reward
    alone = torch.cat([judge(x[i : i + 1]).reward for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    (slope,) = torch.autograd.grad(together.sum(), x)
    assert slope[..., :2].abs().sum() > 0
    assert slope[..., 3:].abs().sum() == 0


def test_memory_that_runs_out_twice_is_a_sentence_after_one_tighter_plan(tiny_editor, monkeypatch):
    tightened = []

    def full(self, request, stop, again=False):
        raise torch.OutOfMemoryError("no room")
        yield

    monkeypatch.setattr(Editor, "_edit", full)
    monkeypatch.setattr(type(tiny_editor.models), "tighten", lambda self: tightened.append(1))
    with pytest.raises(EditError, match="ran out of memory twice"):
        list(tiny_editor.edit(request()))
    assert tightened == [1]
