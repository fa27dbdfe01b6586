"""The engine: an EditRequest in, a generator of EditUpdate out. Page, command line and tests use this one road.

A run is a pure function of the request and the profile's weights. It never holds grad mode across a yield.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace
from functools import partial
from threading import Event
from weakref import proxy

import torch
from PIL import Image

from editor import images
from editor.baselines import METHODS, planned_nfe
from editor.drafts import drafts, planned
from editor.faults import unexpected
from editor.flowmap import Watched
from editor.focus import locate
from editor.held import Held
from editor.inversion import invert, roundtrip
from editor.judge import MET, Asks, Judge, ask_vlm
from editor.models import SHORT, TWICE, Models, load_profile
from editor.particles import checked, joined, noise_in
from editor.profiles import Profile
from editor.progress import Inverted, Progress
from editor.recipe import LIMITS
from editor.types import (
    MAX_INSTRUCTION,
    Cost,
    EditError,
    EditRequest,
    EditUpdate,
    FlowMap,
    Images,
    Plan,
    SearchSettings,
    Stopped,
)
from rewards.base import is_text
from rewards.plan import TEMPLATES, Refused, plan
from rewards.vlm import Calls

_STUDIED = SearchSettings(
    strength=0.75,
    renoise=1.0,
    draft_jumps=6,
    draws=16,
    noise=3.0,
    guidance=0.8,
    guided=0.4,
    last_jumps=2,
    preserve=8.0,
    outlines=6.0,
    drift=12.0,
    focus=0.95,
    undo=0.01,
    least=3,
    restart=0.3,
    ascents=3,
    sure=0.9,
)
EFFORTS: Mapping[str, SearchSettings] = {
    "fast": _STUDIED.but(particles=4, steps=5, corrections=2, searches=3),
    "balanced": _STUDIED.but(particles=6, steps=6, corrections=2, searches=8),
    "thorough": _STUDIED.but(particles=8, steps=8, corrections=3, draws=24, searches=12),
}
"""Presets of the page and the command line, by name."""
INVERSION_STEPS = 8
FARTHER = 0.5
"""Factor of t0 for edits that captions do not suffice for: what is held there is safe, and what is not is freer."""
NEARER = 0.5
"""Factor of the share of its noise that a start renews where captions suffice: its own keeps the rest as it is."""
BATCHES = (2, 3)
"""Of drafts at most: where none passes, so that a search follows, and where one does."""
FAULTS = (RuntimeError, MemoryError)
"""What a machine does where memory runs out or a kernel fails."""
TELLING = 3
"""Of so many things that must stay most have to be seen in the source."""
SAMPLING = "fmtt-sampling"
"""The method that claims an exact law, and so takes the flow map as it is."""
LOOK_ONLY = "The profile {} has no flow map of two times, so exact sampling is impossible: choose fmtt or best-of-n."
CLIMBS = ("fmrg-j", "fmrg-e", "reno")
"""The methods that are nothing without gradients."""
NO_GRADIENT = "This machine's memory leaves no room for gradients, which the method {} needs: choose fmtt or best-of-n."


class Editor:
    """Edits pictures with the models of one profile. Several threads may share it; they should not run at once."""

    def __init__(self, models: Models, asks: Asks = ask_vlm) -> None:
        """`asks` makes what judges by a plan's checks, so that a benchmark can put the truth in the VLM's place."""
        self.models, self.asks = models, asks
        self.efforts = EFFORTS

    @classmethod
    def load(cls, name: str = "studio", vlm: str | None = None) -> Editor:
        """The editor of a profile, with another VLM if one is named (see `editor.profiles.chosen`). Raises EditError.

        Its models are read when they are first used.
        """
        return cls(load_profile(name, vlm=vlm))

    @property
    def profile(self) -> Profile:
        return self.models.profile

    @property
    def can_plan(self) -> bool:
        """Whether what plans is in memory; else the first plan waits for it."""
        return self.models.can_plan

    def load_models(self) -> None:
        """Read the models now, so that the first edit need not wait for them. Raises EditError."""
        self.models.within_memory(self.models.load)

    def plan(self, image: Image.Image, instruction: str) -> Plan:
        """What the VLM makes of an instruction. Raises EditError when it is empty, too long or out of its language."""
        return self.models.within_memory(lambda: self._plan(image, instruction, Calls()))

    def _plan(self, image: Image.Image, instruction: str, calls: Calls) -> Plan:
        check_instruction(instruction)
        square = images.to_unit(images.fit(image, self.profile.size)[0])[0]
        try:
            return plan(self.models.vlm, square, instruction, TEMPLATES[self.profile.plan_template], calls)
        except Refused as error:
            raise EditError(f"{error}{self._other_profile()}") from error
        except ValueError as error:
            raise EditError(str(error)) from error

    def invert(self, image: Image.Image, start: float, prompt: str = "", stop: Event | None = None) -> Inverted:
        """Encode a picture and carry it back to time `start` and forth again with the reward off; `stop` ends that.

        The picture goes to the flow map's device here, and all that is made of it stays there: latents, landings, and
        what the judge does to them.
        """
        square, placement = images.fit(image, self.profile.size)
        square = images.to_unit(square).to(self.models.hardware.device)
        return self._invert(square, placement, start, prompt, stop or Event())

    @torch.no_grad()
    def _invert(self, square: Images, placement: images.Placement, start: float, prompt: str, stop: Event) -> Inverted:
        codec, flow = self.models.codec, Watched(self.models.condition(prompt), partial(go_on, stop))
        latents = codec.encode(square)
        trip = roundtrip(flow, latents, start, INVERSION_STEPS, self.models.shift)
        return Inverted(square, placement, latents, codec.render(latents), trip, codec.render(trip.back))

    def edit(self, request: EditRequest, stop: Event | None = None) -> Iterator[EditUpdate]:
        """Run an edit: updates as it goes, the last with `done`. `stop` ends it within a step with the best so far.

        Before there is any picture a stop ends the run at the next evaluation, and raises Stopped. Where the machine's
        memory plan leaves no room for gradients, the search goes by noise and selection alone. Raises EditError with a
        sentence for what a person can put right; where that, or a fault of the machine, comes after there is a picture,
        the run ends with the best so far instead, and the last update's `broken` says why. When a GPU's memory runs
        out, the next tighter memory plan is tried once.
        """
        stop = stop or Event()
        self.models.runs += 1
        try:
            yield from self._edit_within_memory(request, stop)
        finally:
            self.models.runs -= 1

    def _edit_within_memory(self, request: EditRequest, stop: Event) -> Iterator[EditUpdate]:
        try:
            yield from self._edit(request, stop, again=not self.models.tightest)
            return
        except torch.OutOfMemoryError:
            pass  # the error holds all that the run held: it must be gone before the models are loaded again
        go_on(stop)
        self.models.tighten()
        try:
            yield from self._edit(request, stop)
        except torch.OutOfMemoryError as error:
            raise EditError(TWICE) from error

    def _edit(self, request: EditRequest, stop: Event, again: bool = False) -> Iterator[EditUpdate]:
        """`again` says that a run that memory does not suffice for will be made again."""
        started, calls = time.monotonic(), Calls()
        self._check(request)
        if request.mask is not None and images.is_white(request.mask):
            request = replace(request, mask=None)  # one that is white all over says nothing of where the edit acts
        go_on(stop)
        wanted = request.plan or self._plan(request.image, request.instruction, calls)
        cost = Cost(vlm_calls=calls.count, seconds=time.monotonic() - started)
        update = EditUpdate(stage="plan", message="Planned the checks", plan=wanted, cost=cost,
                            held=self.models.hardware.held)  # fmt: skip
        yield update
        go_on(stop)
        settings = self._settings(request)
        request = replace(request, settings=settings)
        inverted = self.invert(request.image, settings.start, wanted.source, stop)
        update = replace(
            update, stage="invert", message="Carried the picture back to where the edit starts",
            roundtrip=images.unfit(inverted.back[0], inverted.placement, images.at_most(request.image)),
            roundtrip_psnr=inverted.psnr,
            cost=Cost(nfe=inverted.trip.nfe, decodes=2, vlm_calls=calls.count, seconds=time.monotonic() - started),
        )  # fmt: skip
        yield update
        go_on(stop)
        self._check_representable(inverted)
        try:
            judge = Judge.of(self.models, wanted, inverted.square, inverted.latents, inverted.before, request.mask,
                             settings, calls, self.asks)  # fmt: skip
        except ValueError as error:
            raise EditError(str(error)) from error
        self._check_recognised(judge)
        progress, stopped, broken = Progress(request, inverted, judge, update, started), False, ""
        judge.look = partial(go_on, stop, proxy(progress))  # no circle: what a run held is gone as soon as it ends
        try:
            judge.look_again(self.models.vlm.planner)
            stopped = yield from self._find(progress, settings, stop)
        except Stopped:
            raise
        except (ValueError, EditError) as error:
            broken = str(error)
            if progress.best is None:
                raise EditError(broken) from error
        except FAULTS as error:
            short = isinstance(error, torch.OutOfMemoryError)
            if progress.best is None or (short and again and not stop.is_set()):
                raise
            broken = SHORT if short else unexpected("A run broke off")
        yield progress.finished(stopped, broken)

    def _find(self, progress: Progress, settings: SearchSettings, stop: Event) -> Generator[EditUpdate, None, bool]:
        """Draft, search and undo what was changed for nothing; whether a stop came before the end of the search.

        `settings` are those of the request.
        """
        judge, wanted, enough, source_flow = progress.judge, progress.update.plan, False, None
        flow = Watched(self.models.condition(wanted.caption), judge.look)
        if wanted.source not in ("", wanted.caption):
            source_flow = Watched(self.models.condition(wanted.source), judge.look)
        if settings.focus:
            yield self._locate(flow, source_flow, progress, settings)
        if settings.draft_jumps and judge.heard and not judge.source.met:
            enough = yield from self._draft(flow, source_flow, stop, progress, settings)
        if not enough:
            yield from self._search(flow, stop, progress)
        stopped = stop.is_set()
        if self._undoes(progress) and (judge.source.met or not stopped):
            progress.undo(settings.undo, self.models.gradient)
        return stopped

    def _undoes(self, progress: Progress) -> bool:
        """Whether what changed for nothing is put back."""
        settings = progress.request.settings
        return settings.undo > 0 and settings.method != SAMPLING

    def _settings(self, request: EditRequest) -> SearchSettings:
        """Those of the request, as far as the models allow."""
        settings = request.settings.but(shift=request.settings.shift or self.models.shift)
        if not self.models.gradient:
            settings = settings.but(guidance=0.0, focus=0.0)
            if settings.method == SAMPLING:
                settings = settings.but(discretisation="transport", corrections=0)
        if settings.method != "fmtt":
            settings = settings.but(draft_jumps=0)
        # Without a focus nobody looks whether captions tell of the edit.
        return settings if settings.focus else settings.but(least=1, last_jumps=None, draft_jumps=0)

    def _locate(
        self, flow: FlowMap, source_flow: FlowMap | None, progress: Progress, settings: SearchSettings
    ) -> EditUpdate:
        """Confine the edit to where it acts; where captions do not suffice, start it farther back and search longer.

        `settings` are those of the request.
        """
        found, judge = progress.inverted, progress.judge
        size, shift = found.before.shape[-2:], self.models.shift
        masked = judge.mask is not None and judge.focus is None
        focus, nfe = locate(flow, source_flow, judge.asked, judge.decoded, found.latents, size, settings, masked)
        judge.confine(focus, settings)
        if focus.suffices:
            settings = settings.but(least=1, renoise=NEARER * settings.renoise, last_jumps=None)
        elif settings.method != SAMPLING:
            settings = settings.but(strength=1 - FARTHER * settings.start)
            back = invert(source_flow or flow, found.latents, settings.start, INVERSION_STEPS, shift)
            progress.inverted, nfe = replace(found, trip=found.trip._replace(x=back.x)), nfe + back.nfe
        progress.request = replace(progress.request, settings=settings)
        return progress.located(nfe)

    def _draft(
        self, flow: FlowMap, source_flow: FlowMap, stop: Event, progress: Progress, settings: SearchSettings
    ) -> Generator[EditUpdate, None, bool]:
        """Let captions alone draft the edit, and say whether a draft meets all so surely that no search is needed.

        Where captions suffice, no draft is certain and the budget allows, there are more, seen with more room as well:
        a second batch that leaves enough for a search if it is needed, and a third where a draft passed. Where captions
        do not suffice, a draft that meets part of the plan takes the source's place.
        """
        judge, found = progress.judge, progress.inverted
        own = noise_in(found.trip.x, found.latents, progress.request.settings.start)
        count, jumps = settings.drafts or settings.particles, settings.draft_jumps
        batches = drafts(flow, source_flow, found.latents, own, count, jumps, settings.seed, self.models.shift)
        one_search = planned_nfe(progress.request.settings.but(searches=1))
        budget = math.inf if settings.budget is None else settings.budget
        made, judged = [], []
        for turn, (edits, nfe) in enumerate(batches, 1):
            edits = judge.roomier(edits) if made else judge.within(edits)
            edits, scored = judge.with_colours(edits, checked(judge.drafted(edits), len(edits)))
            made, judged = [*made, edits], [*judged, scored]
            yield progress.drafted(made[-1], judged[-1], nfe)
            stopped = stop.is_set()  # once, so that the recipe of a stopped run says all: a later stop ends the search
            passed = any(part.met.any() for part in judged)
            if stopped or judge.sure is not None or judge.certain(judged[-1]) or turn == BATCHES[passed]:
                break
            if (turn + 1) * planned(count, jumps) + (not passed) * one_search > budget:
                break
        edits, scored = torch.cat(made), joined(judged)
        best = scored.best()
        if scored.met[best]:
            return True
        image = scored.images[best : best + 1]
        if judge.sure is not None and judge.is_part(scored.checks[best], image) and not stopped:
            judge.begin_at(edits[best : best + 1], image)
            progress.inverted = replace(progress.inverted, latents=judge.latents)
            located = self._locate(flow, None, progress, settings)
            progress.begun_at_sketch()
            yield located
        elif not stopped:
            progress.score_sketch()
            judge.narrow()
        return stopped

    def _search(self, flow: FlowMap, stop: Event, progress: Progress) -> Iterator[EditUpdate]:
        settings, found, mask = progress.request.settings, progress.inverted, progress.judge.mask
        if settings.budget is not None:
            settings = settings.but(budget=max(1, settings.budget - progress.drafts))
        if mask is not None and settings.method != SAMPLING:
            flow = Held.of(flow, mask, found.latents, found.trip.x, settings.start)
        start = found.trip.x.expand(settings.particles, -1, -1, -1).clone()
        for step in METHODS[settings.method](flow, progress.judge, start, settings):
            yield progress.after(step)
            if stop.is_set() or (progress.judge.source.met and self._undoes(progress)):
                break  # a source that meets its plan comes back whole, whatever is found

    def score(self, image: Image.Image, questions: list[str]) -> list[float]:
        """Log-odds of yes for each question about a picture."""
        square = images.to_unit(images.fit(image, self.profile.size)[0])
        try:
            return self.models.within_memory(lambda: self._log_odds(square, questions))
        except ValueError as error:
            raise EditError(str(error)) from error

    @torch.no_grad()
    def _log_odds(self, square: Images, questions: list[str]) -> list[float]:
        return self.models.vlm.log_odds(square, questions)[0].tolist()

    def _check(self, request: EditRequest) -> None:
        if request.plan is None:
            check_instruction(request.instruction)
        check_words(request.instruction)
        if request.mask is not None:
            self._check_mask(request.mask, request.image.size)
        for name, most in LIMITS.items():
            if getattr(request.settings, name) > most:
                raise EditError(f"The setting {name} is {getattr(request.settings, name)}: choose at most {most}.")
        if request.settings.method not in METHODS:
            raise EditError(f"There is no method {request.settings.method!r}: choose one of {', '.join(METHODS)}.")
        if request.settings.method == SAMPLING and not self.profile.two_time:
            raise EditError(LOOK_ONLY.format(self.profile.name))
        if request.settings.method in CLIMBS and not self.models.gradient:
            raise EditError(NO_GRADIENT.format(request.settings.method))

    def _check_mask(self, mask: Image.Image, size: tuple[int, int]) -> None:
        if mask.size != size or mask.mode != "L":
            raise EditError("The mask must be greyscale and have the size of the picture: paint it again.")
        if mask.getextrema()[1] == 0:
            raise EditError("The mask leaves nothing that may change: mark less of the picture, or take the mask away.")

    def _check_representable(self, inverted: Inverted) -> None:
        if inverted.psnr < self.profile.least_psnr:
            raise EditError(
                f"The profile {self.profile.name} cannot represent this picture: its round trip comes back with "
                f"{inverted.psnr:.1f} dB, and {self.profile.least_psnr:.0f} are needed.{self._other_profile()}"
            )

    def _check_recognised(self, judge: Judge) -> None:
        """What plans names what stays, and where what judges sees hardly any of it, neither knows such pictures."""
        seen = [probability > MET for probability in judge.source.checks[judge.wanted :]]
        if len(seen) >= TELLING and sum(seen) < len(seen) / 2:
            raise EditError(
                f"The VLM sees only {sum(seen)} of the {len(seen)} things in this picture that the plan wants to keep: "
                f"choose another picture, or name there what it shows.{self._other_profile()}"
            )

    def _other_profile(self) -> str:
        can = self.profile.can
        return f" {can} All else needs an NVIDIA GPU: start the app with --profile flux." if can else ""


def go_on(stop: Event, progress: Progress | None = None) -> None:
    """Raises Stopped for a stop before there is a picture."""
    if stop.is_set() and (progress is None or progress.best is None):
        raise Stopped("The run was stopped before there was a picture: yours is as it was.")


def check_instruction(instruction: str) -> None:
    """Raises EditError unless there is an instruction of a sensible length."""
    if not instruction.strip():
        raise EditError("Say in one sentence what should change, for instance: set it to 4:45.")
    check_words(instruction)


def check_words(instruction: str) -> None:
    """Raises EditError for an instruction that is too long, or can't be written; it may be empty where a plan is."""
    if not is_text(instruction):
        raise EditError("The instruction holds what is no character: write it anew.")
    if len(instruction) > MAX_INSTRUCTION:
        raise EditError(f"The instruction is too long: use at most {MAX_INSTRUCTION} characters.")
