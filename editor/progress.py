"""A run as the user sees it: the source as the models see it, the history of rewards, the best landing so far."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from editor import images
from editor.finish import Canvas, Landed
from editor.inversion import RoundTrip
from editor.judge import Judge
from editor.registration import warning
from editor.types import Candidate, CheckResult, Cost, EditRequest, EditUpdate, Images, Latents, Scored, Stays, Step
from editor.undo import least_change
from rewards.plan import kept_things

DOUBT = (
    "This may not show what you asked for, since not every check is surely met: look closely, choose more effort, or "
    "run again with another seed."
)
GONE = (
    "It may no longer show {}, which should have stayed: look at the other candidates, or run again with another seed."
)
UNTOUCHED = "In the model's opinion your picture shows this already, so it stays as it is."


@dataclass(frozen=True)
class Inverted:
    """A source as the models see it, carried back to t0."""

    square: Images
    """(1, 3, S, S): the source in the model's square."""
    placement: images.Placement
    latents: Latents
    """The autoencoder's code of it."""
    before: Images
    """The autoencoder's own reconstruction: edits are measured from here."""
    trip: RoundTrip
    back: Images
    """The round trip as an image: what would remain if the reward asked for nothing."""

    @property
    def psnr(self) -> float:
        """dB of the round trip against the source, at the model's size."""
        return images.psnr(self.back, self.square)

    @property
    def inversion_psnr(self) -> float:
        """dB of the round trip against the autoencoder's reconstruction: the inversion's own error."""
        return images.psnr(self.back, self.before)


@dataclass
class Progress:
    """A search as the user sees it: the history of rewards and the best landing so far."""

    request: EditRequest
    inverted: Inverted
    judge: Judge
    update: EditUpdate
    started: float
    finals: list[Candidate] = field(default_factory=list)
    """Of the last step, in the order of its particles; the best drafts, where there was nothing after them."""
    best: Candidate | None = None
    latents: Latents | None = None
    """Of the best, (1, C, h, w)."""
    spared: Candidate | None = None
    """The best without what it changed for nothing."""
    spent: int = field(init=False)
    """NFE before the search."""
    source: Latents = field(init=False)
    """Of the source itself (1, C, h, w), whatever a draft has taken its place."""
    drafts: int = 0
    """NFE of drafts."""
    batches: int = 0
    """Of drafts: each was a step before those of the search."""
    sketch: Candidate | None = None
    """The best of these, which can be chosen in the end, too."""
    free: Tensor | None = None
    """Where the edit acts, over the pixels (1, 1, S, S); see `editor.focus.Focus`."""

    def __post_init__(self) -> None:
        self.spent, self.source = self.inverted.trip.nfe, self.inverted.latents
        before, mask, place = self.inverted.before[0].cpu(), self.request.mask, self.inverted.placement
        self.canvas = Canvas(self.request.image, before, place, mask)

    def located(self, nfe: int) -> EditUpdate:
        """The update that tells where the edit acts, found out by so many network evaluations.

        Where a mask says it, there is nothing to show.
        """
        self.spent += nfe
        place, focus, shown = self.inverted.placement, self.judge.focus, None
        if focus is not None:
            self.free = focus.free if self.free is None else torch.maximum(self.free, focus.free)
            shown = images.spotlight(images.at_most(self.request.image), self.free[0], place)
        said = "Found out where the picture has to change" if focus else "Found out what captions tell of the change"
        if self.drafts:
            said = "Took the best draft, which shows part of it, and found out where that has to change"
        self.update = replace(self.update, stage="locate", message=said, focus=shown, cost=self._cost(self.spent))
        return self.update

    def drafted(self, edits: Latents, scored: Scored, nfe: int) -> EditUpdate:
        """The update that tells of a batch of drafts (N, C, h, w), made by so many evaluations before any search.

        Of all batches as many drafts as the first one has can be chosen, the best.
        """
        everyone, none = tuple(range(len(edits))), torch.zeros(len(edits), dtype=torch.float64)
        report, earlier = {"drafted": float(1 + self.batches)}, self.finals
        update = self.after(Step(0, 0, 1.0, edits, edits, scored, none, everyone, (), nfe, report))
        self.spent, self.drafts, self.batches = self.spent + nfe, self.drafts + nfe, self.batches + 1
        best = sorted([*earlier, *self.finals], key=rank, reverse=True)
        self.finals, self.sketch = best[: len(earlier) or len(edits)], self.best
        return update

    @torch.no_grad()
    def begun_at_sketch(self) -> None:
        """The best draft has taken the source's place: judge it once more, as what is found from there will be."""
        self.latents = self.judge.latents
        (self.best,) = self._candidates(self.judge(self.latents), [self.best.place])
        self.sketch = self.best

    @torch.no_grad()
    def score_sketch(self) -> None:
        """A search follows: the best draft's score becomes one by the measure of what is found there.

        That the draft is not sure enough stays so.
        """
        (scored,) = self._candidates(self.judge(self.latents), [self.best.place])
        self.best = self.sketch = replace(self.best, score=scored.score)

    def after(self, step: Step) -> EditUpdate:
        """The update that tells of a step."""
        step = step._replace(index=self.batches + step.index, total=self.batches + step.total)
        begins = step.diagnostics.get("searches") != self.update.diagnostics.get("searches")
        parents = () if begins else step.parents
        self.finals = self._candidates(step.scored, [(step.index, i) for i in range(len(step.x))])
        top = max(range(len(self.finals)), key=lambda i: rank(self.finals[i]))
        if self.best is None or rank(self.finals[top]) > rank(self.best):
            self.best, self.latents = self.finals[top], step.lookahead[top : top + 1]
        rewards = tuple(candidate.score for candidate in self.finals)
        self.update = replace(
            self.update, stage="search", message=told(step), step=step.index, steps=step.total,
            t=step.t, previews=tuple(images.to_pil(image) for image in step.scored.images),
            scores=rewards, history=(*self.update.history, rewards), parents=(*self.update.parents, parents),
            best_so_far=self.best, score=self.best.score, source_score=self.judge.source.reward,
            cost=self._cost(self.spent + step.nfe), diagnostics=step.diagnostics,
        )  # fmt: skip
        return self.update

    def undo(self, give_up: float, gradient: bool) -> None:
        """Put the source back where the best candidate's change earned next to nothing; see `editor.undo`.

        All of it, where the source meets every check of the plan already; nothing, where the plan would be met no
        longer, or where colours alone changed. Where there is room for no gradient colours alone are tried instead.
        """
        if self.best.recoloured and not self.judge.source.met:
            self._told_change(self.latents)
            return
        draft, latents = self.update.drafted, self.judge.within(self.latents)
        if self.judge.source.met:
            least = self.source
        elif gradient:
            begun, kept = self.inverted.latents, partial(self.judge.kept, draft=draft)
            least = least_change(kept, latents, begun, give_up, self.request.settings.particles)
        else:
            self._colours_alone(latents)
            return
        with torch.no_grad():
            judged = self.judge.drafted(least) if draft else self.judge(least)
            (spared,) = self._candidates(judged, [self.best.place])
        spared = replace(spared, met=spared.met or self.judge.source.met)
        if spared.met or not self.best.met:
            self.spared, latents = spared, least
        self._told_change(latents)

    @torch.no_grad()
    def _colours_alone(self, latents: Latents) -> None:
        """Put the source with the colours of what was found in its place, where that meets the plan."""
        latents, scored = self.judge.with_colours(latents, self.judge(latents))
        if len(latents) == 2 and scored.met[-1]:
            *_, self.spared = self._candidates(scored, 2 * [self.best.place])
            self._told_change(latents[-1:])

    def _told_change(self, latents: Latents) -> None:
        """Say which share of the places these latents change."""
        changed = float((latents != self.source).any(1).float().mean())
        self.update = replace(self.update, changed=changed, cost=self._cost(self.update.cost.nfe))

    def finished(self, stopped: bool, broken: str = "") -> EditUpdate:
        """The last update: the candidates, best first, and the best draft; `broken` as `EditUpdate` has it.

        An earlier landing that scored best of all is among them.
        """
        drafts = [self.sketch] if self.sketch and all(self.sketch.place != c.place for c in self.finals) else []
        ranked = sorted([*self.finals, *drafts], key=rank, reverse=True)
        if rank(self.best) > rank(ranked[0]):
            ranked.insert(0, self.best)
        if self.spared is not None:
            ranked.insert(0, self.spared)
        best, asked, things = ranked[0], self.update.plan.checks, kept_things(self.update.plan)
        opinions = zip(asked, self.judge.source.checks[: len(asked)], best.checks, strict=True)
        kept = zip(things, self.judge.source.checks[len(asked) :], best.kept, strict=True)
        early = stopped or bool(broken)
        return replace(
            self.update, stage="done", message="Stopped: this is the best so far" if early else "Done",
            best=best.image, best_so_far=None, score=best.score, candidates=tuple(ranked), stopped=early, broken=broken,
            checks=tuple(CheckResult(*opinion) for opinion in opinions), kept=tuple(Stays(*one) for one in kept),
            cost=self._cost(self.update.cost.nfe),
        )  # fmt: skip

    def _candidates(self, scored: Scored, places: list[tuple[int, int]]) -> list[Candidate]:
        """Landings with their scores; the checks of the plan come first among those of the judge."""
        asked = len(self.update.plan.checks)
        maps = (
            [None] * len(places) if scored.maps is None else [None if m.isnan().any() else m.cpu() for m in scored.maps]
        )
        landings = zip(scored.order(), scored.images, maps, scored.checks.tolist(), places, strict=True)
        return [
            Candidate(
                laid=Landed(self.canvas, image.cpu(), coloured), score=reward, checks=tuple(checks[:asked]),
                kept=tuple(checks[asked:]), place=place, met=met, surety=surety, recoloured=coloured is not None,
            )
            for (met, surety, reward), image, coloured, checks, place in landings
        ]  # fmt: skip

    def _cost(self, nfe: int) -> Cost:
        """What was spent so far, with so many network evaluations."""
        seconds = time.monotonic() - self.started
        return Cost(nfe=nfe, decodes=2 + self.judge.decodes, vlm_calls=self.judge.calls.count, seconds=seconds)


def rank(candidate: Candidate) -> tuple[bool, float, float]:
    """What orders candidates: whether they meet the plan, how surely, and their score."""
    return candidate.met, candidate.surety, candidate.score


def warnings(candidate: Candidate, kept: Sequence[Stays] = ()) -> str:
    """Sentences about what is wrong with a candidate and what to do; empty where nothing is."""
    doubt, gone = "" if candidate.met else DOUBT, " and ".join(one.thing for one in kept if one.gone)
    return " ".join(filter(None, (doubt, GONE.format(gone) if gone else "", warning(candidate.offset))))


def told(step: Step) -> str:
    """What a step is to the user; searches after the first are counted."""
    if batch := step.diagnostics.get("drafted"):
        return "Drafted by captions alone" if batch == 1 else "Drafted more, with more room as well"
    search, where = step.diagnostics.get("searches", 1), f"step {step.index} of {step.total}"
    if search == 1:
        return f"Searching: {where}"
    why = "from the best end" if step.diagnostics["restarted"] else "anew, since no candidate surely met the checks"
    return f"Search {search:.0f}, {why}: {where}"
