"""The words of the engine as types: requests, updates, settings, plans, steps.

Latents are (batch, channels, height, width) in the scale that the flow map sees; images are
(batch, 3, height, width) in [0, 1]; times are t = 0 for noise and t = 1 for the image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from editor.registration import Offset
from rewards.base import Check, Plan

Latents = Float[Tensor, "batch c h w"]
Images = Float[Tensor, "batch 3 height width"]
Times = float | Float[Tensor, " batch"]

MAX_INSTRUCTION = 500
"""Longest instruction in characters; enforced by the engine, whatever the front end does."""


class EditError(Exception):
    """A mistake that a person can put right: its text is one sentence that says how."""


class Stopped(EditError):
    """A person stopped a run before there was a picture."""


class Scored(NamedTuple):
    """What a score function says of a batch of clean latents."""

    reward: Float[Tensor, " batch"]
    """Higher is better; carries the gradient."""
    images: Float[Tensor, "batch 3 height width"] | None = None
    """The decoded images that were judged, detached, for the preview; None for oracles."""
    checks: Float[Tensor, "batch checks"] | None = None
    """Probability that each check holds, in [0, 1], detached, for display."""
    met: Bool[Tensor, " batch"] | None = None
    """Whether all that was asked for is met; None where nothing can tell."""
    surety: Float[Tensor, " batch"] | None = None
    """Of those that meet it, how surely, where that tells more than the reward; 0 elsewhere. 1 for what `maps` make."""
    lost: Bool[Tensor, " batch"] | None = None
    """Whether something that was asked for is surely missed; None where nothing can tell."""
    maps: Float[Tensor, "batch 12 h w"] | None = None
    """Of colours (`editor.recolour`), for images that the source becomes by these alone; nan for others. None where
    there are none."""

    def all_lost(self) -> bool:
        """Whether every latent surely misses something."""
        return self.lost is not None and bool(self.lost.all())

    def order(self) -> list[tuple[bool, float, float]]:
        """What orders the latents: whether they meet all, how surely, and their reward."""
        rewards = self.reward.tolist()
        met = [False] * len(rewards) if self.met is None else self.met.tolist()
        surety = [0.0] * len(rewards) if self.surety is None else self.surety.tolist()
        return list(zip(met, surety, rewards, strict=True))

    def best(self) -> int:
        """The latent that comes first in that order."""
        orders = self.order()
        return orders.index(max(orders))


Score = Callable[[Latents], Scored]
"""Clean latents -> reward per latent. The engine binds decoding and the reward into it."""


class FlowMap(Protocol):
    """X(x, s, t): carries x from time s to time t along the flow; t = 1 gives the image."""

    two_time: bool
    """False for one-end maps (consistency, adversarial): look-ahead only, no exact sampling."""

    def __call__(self, x: Latents, s: Times, t: Times) -> Latents: ...

    def velocity(self, x: Latents, t: Times) -> Latents:
        """The instantaneous velocity b_t(x) = v(x, t, t)."""
        ...


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """How a search or a sampler spends its budget. Presets are instances; see `editor.engine.EFFORTS`.

    Symbols in backquotes are those of the paper. Raises ValueError with a sentence when a value makes no sense.
    """

    method: str = "fmtt"
    """A key of `editor.baselines.METHODS`."""
    particles: int = 8
    """Candidates carried at the same time."""
    steps: int = 6
    """Time steps from t0 to 1."""
    strength: float = 0.8
    """How much may change, in (0, 1]: the search starts at t0 = 1 - strength. Edits that captions do not suffice for
    start farther back, where the rest is held; see `editor.engine.FARTHER`."""
    renoise: float = 0.7
    """Share rho in [0, 1] of its noise that each particle but the first renews at the start; half of it where captions
    suffice (`editor.engine.NEARER`); sampling: all or none."""
    draft_jumps: int = 0
    """Jumps in which drafts are made under the two captions before a search, where these differ and where an edit acts
    is looked for (`focus`); 0 makes none. See `editor.drafts`."""
    drafts: int = 0
    """How many are made at once; 0 for as many as there are `particles`."""
    draws: int = 1
    """Starts that the search draws for each particle, to begin with those that look best; a quarter of it from an end.
    """
    searches: int = 1
    """How many times the search may begin while no candidate at its end meets what was asked for."""
    budget: int | None = None
    """Network evaluations that drafts and these searches may spend together: the first drafts and the first search are
    always made, and no others that could go beyond; None for any."""
    least: int = 1
    """How many searches go one from another's end, whatever they meet, where captions do not suffice; elsewhere one."""
    restart: float = 0.0
    """Time that searches after another begin at, or t0 if that is later, from the best end under fresh noise. After
    `least`, or two, on one way, and where a first one has lost all, the next begins anew at t0, as all do where this is
    0. See Restart sampling (Xu et al., arXiv 2306.14878)."""
    ascents: int = 0
    """Steps that such an end goes up the gradient of its own reward before it is noised, for no NFE; the flow map draws
    again what they changed. None without guidance."""
    sure: float = 0.5
    """Probability beyond which a yes or no of the plan counts as met at the end of a search where captions do not
    suffice; elsewhere 0.5 does. What is met there is ordered by its log-odds, not by the reward."""
    lookahead: str = "map"
    """'map' (the flow map in `lookahead_steps`), 'denoiser' or 'none'."""
    lookahead_steps: int = 1
    """Network calls of one look-ahead by the map."""
    guidance: float = 2.0
    """chi of the search's drift `chi_t = chi (1 - t)`; 0 searches by noise and selection alone."""
    normalise: bool = True
    """Scale each particle's gradient to one per element (root mean square); False takes `a(t) grad r` as it is."""
    jacobian: bool = True
    """Differentiate through the look-ahead (J) or treat it as the identity (E)."""
    noise: float = 0.2
    """eta of `eps_t = eta (1 - t)`, the noise of the tilted process."""
    move: float = 0.1
    """Fictitious time h of one Langevin move at a fixed t: noise `eps_t h`, drift `chi_t h`."""
    corrections: int = 2
    """Langevin moves at every time, each with its own look-ahead."""
    temperature: float | None = 0.0
    """A search takes back a move that cost d of reward with probability 1 - e^(-d / temperature), when a correction
    looks at it, and halves the particle's pace: 0 takes back every loss, None nothing."""
    keep: int = 2
    """Selection clones the best `keep` particles; equal to `particles` means none."""
    selections: int = 3
    """How many times the search selects, the first time at its first look-ahead."""
    clone_noise: float = 0.3
    """Share in [0, 1] of its noise that a clone renews, so that it explores another path than its twin."""
    guided: float = 0.7
    """Share of the time steps that are guided; the rest runs along the flow alone."""
    last_jumps: int | None = None
    """How many jumps that rest is passed in at most, where captions do not suffice; elsewhere, and where this is None,
    one for each time step."""
    spread: float = 1.0
    """Particles are guided by chi / spread to chi * spread, evenly in its logarithm; 1 gives all the same."""
    damping: float = 0.0
    """lambda of the damping 1 / (1 + 2 lambda s2_t) of the guidance; 0 switches it off."""
    spacing: float = 1.0
    """Times are t0 + (1 - t0) (k / steps)^spacing: above 1 they crowd near t0."""
    shift: float | None = None
    """m of FLUX's time shift, see `editor.schedules.shifted`: above 1 times crowd near the noise. None takes the
    profile's own, and 1 (no shift) where there is none."""
    times: tuple[float, ...] | None = None
    """Times after t0 and before 1, ascending, in place of `steps`, `spacing` and `shift`; see `benchmarks.placement`.
    """
    ramp: float = 1.0
    """Share of the way from t0 to 1 over which `a(t)` climbs from 0 to 1, in (0, 1]."""
    discretisation: str = "transport"
    """Of the sampler: 'transport' (flow map, then Metropolis-adjusted Langevin) or 'euler-maruyama'."""
    ess: float = 0.5
    """Sampling resamples when the effective sample size falls under this share of N; 0 never does."""
    resamplings: int | None = None
    """Sampling resamples that many times, after evenly spaced steps, whatever the effective size; None heeds `ess`."""
    preserve: float = 0.15
    """Weight of closeness to the source beside the checks; see `rewards.preserve`."""
    outlines: float = 0.0
    """Weight beside the checks of outlines that stay where they are, whatever colours they part, in drafts and where
    captions were found not to suffice; there it counts as nats of surety, too. See `rewards.preserve.Kept`."""
    drift: float = 0.0
    """The same of a layout that stays, captions or not; see `rewards.preserve.Kept`."""
    focus: float = 0.0
    """Share in [0, 1] by which the places where an edit has to act are let off closeness to the source; all others are
    held to it. 0 leaves out to look for them; a mask of the user's takes their place. See `editor.focus`."""
    jitters: int = 0
    """Slightly moved and noised copies of every image that the VLM judges too: slower, harder to fool."""
    undo: float = 0.0
    """Share of the gain in reward that may be given up to leave more of the source as it was, once the search is done;
    0 undoes nothing. See `editor.undo`; what `fmtt-sampling` draws stays as it is."""
    seed: int = 0

    def __post_init__(self) -> None:
        def refuse(names: str, wanted: str, fits: Callable[[Any], bool]) -> None:
            for name in names.split():
                value = getattr(self, name)
                if isinstance(value, bool) or not isinstance(value, int | float) or not fits(value):
                    raise ValueError(f"{name} must {wanted}, not {value!r}.")

        counts = "be a whole number from {} to 4096"
        refuse("particles steps keep lookahead_steps draws", counts.format(1), lambda v: v in range(1, 4097))
        refuse("searches least", counts.format(1), lambda v: v in range(1, 4097))
        refuse("corrections selections draft_jumps drafts ascents", counts.format(0), lambda v: v in range(4097))
        refuse("jitters", "be a whole number from 0 to 16", lambda v: v in range(17))
        refuse("strength ramp", "be above 0 and at most 1", lambda v: 0 < v <= 1)
        refuse("guidance noise damping preserve outlines drift", "be zero or more", lambda v: 0 <= v < 1e6)
        refuse("guided ess renoise clone_noise focus undo sure", "lie in [0, 1]", lambda v: 0 <= v <= 1)
        refuse("restart", "be from 0 to below 1", lambda v: 0 <= v < 1)
        refuse("move spacing", "be above 0 and at most 10", lambda v: 0 < v <= 10)
        refuse("spread", "lie in [1, 100]", lambda v: 1 <= v <= 100)
        if self.last_jumps is not None:
            refuse("last_jumps", counts.format(1) + ", or none", lambda v: v in range(1, 4097))
        if self.budget is not None:
            refuse("budget", "be a whole number from 1 to 1000000, or none", lambda v: v in range(1, 1000001))
        refuse("seed", f"be a whole number from 0 to {2**32 - 1}", lambda v: v in range(2**32))
        if self.temperature is not None:
            refuse("temperature", "be zero or more, or none", lambda v: 0 <= v < 1e6)
        if self.shift is not None:
            refuse("shift", "be from 0.01 to 100, or none", lambda v: 0.01 <= v <= 100)
        if self.resamplings is not None:
            refuse("resamplings", counts.format(0) + ", or none", lambda v: v in range(4097))
        if self.lookahead not in ("map", "denoiser", "none"):
            raise ValueError(f"lookahead must be map, denoiser or none, not {self.lookahead!r}.")
        if self.discretisation not in ("transport", "euler-maruyama"):
            raise ValueError(f"discretisation must be transport or euler-maruyama, not {self.discretisation!r}.")
        if self.times is not None:
            numbers = isinstance(self.times, tuple) and all(isinstance(t, float) for t in self.times)
            if self.restart:
                raise ValueError("Times of one's own are for searches that all begin at t0: set restart to 0.")
            if not numbers or any(not a < b for a, b in pairwise((self.start, *self.times, 1.0))):
                raise ValueError(f"times must be numbers that ascend between t0 and 1, not {self.times!r}.")

    @property
    def start(self) -> float:
        """The time t0 that the source is carried back to."""
        return 1.0 - self.strength

    def but(self, **changes: Any) -> SearchSettings:
        """The same settings with some changed."""
        return replace(self, **changes)


class Step(NamedTuple):
    """The state of a search after it looked ahead at time `t`."""

    index: int
    """0, 1, ..., total: which look-ahead this is."""
    total: int
    """Index of the last step, at t = 1."""
    t: float
    x: Latents
    """The particles at time t."""
    lookahead: Latents
    """Where each would land."""
    scored: Scored
    """What the score says of the landings, detached."""
    log_weights: Float[Tensor, " batch"]
    """A of the particles since the last resampling (sampling); zeros for a search."""
    ancestry: tuple[int, ...]
    """For each particle, the index of its ancestor at step 0."""
    parents: tuple[int, ...]
    """For each particle, the index of its parent in the previous step."""
    nfe: int
    """Network evaluations so far: one per latent per call, forward only."""
    diagnostics: dict[str, float]
    """Named numbers, all so far: 'gradients' (backward passes, one per latent), 'resamplings' (by weight or of the
    best), 'length' (Lambda), 'discrepancy' (D), 'variance' (of g_t, now); when sampling 'ess' (now, in particles),
    'log_z', 'accepted' (share)."""


Search = Callable[[FlowMap, Score, Latents, SearchSettings], Iterator[Step]]
"""(flow map bound to its prompt, score, latents at t0 (N, C, H, W), settings) -> steps."""


@dataclass(frozen=True, kw_only=True)
class EditRequest:
    """One edit: everything that decides its result, except the profile's weights."""

    image: Image.Image
    """The source as loaded by `editor.images.load`: any size, RGB or RGBA, upright."""
    instruction: str
    plan: Plan | None = None
    """The plan to use as it is; None asks the VLM for one."""
    mask: Image.Image | None = None
    """Mode L, the size of `image`; 255 where the edit may act, 0 where pixels must stay."""
    settings: SearchSettings = field(default_factory=SearchSettings)


class CheckResult(NamedTuple):
    """A check with the VLM's opinion of the source and of the result."""

    check: Check
    before: float
    """Probability in [0, 1] that the source answers as expected."""
    after: float


class Stays(NamedTuple):
    """Something that must stay, with the VLM's opinion of the source and of the result."""

    thing: str
    before: float
    """Probability in [0, 1] that the source shows it."""
    after: float

    @property
    def gone(self) -> bool:
        """Whether it was there, and is no longer."""
        return self.before >= 0.5 > self.after


class Laid(Protocol):
    """A landing that can be laid into the source's own pixels: each call does the work anew."""

    def preview(self) -> Image.Image:
        """At a few hundred pixels a side, composited."""
        ...

    def image(self) -> Image.Image:
        """At the source's size, composited; a second or more for a large photograph."""
        ...

    def offset(self) -> Offset | None:
        """How far it lies from the source, in the source's pixels; None where the pictures can't tell."""
        ...


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One of the images that a run ends with. Its pictures are made when they are first asked for."""

    laid: Laid
    score: float
    checks: tuple[float, ...]
    """Probability of each check of the plan, in its order."""
    kept: tuple[float, ...] = ()
    """Probability that it shows each of the things that must stay, in the order of `EditUpdate.kept`."""
    place: tuple[int, int]
    """The step and the particle that landed there: where it stands in `EditUpdate.history` and `parents`."""
    met: bool = False
    """Whether it meets every check of the plan, surely so where captions do not suffice (`SearchSettings.sure`): no
    score of one that doesn't outranks it."""
    surety: float = 0.0
    """Log-odds of the plan's checks together, where captions do not suffice: there the reward draws the picture, and
    levels off where it was climbed to; 0 elsewhere, but for what is `recoloured`, which has 1."""
    recoloured: bool = False
    """Whether colours alone changed, in the source's own pixels (`editor.recolour`)."""

    @cached_property
    def preview(self) -> Image.Image:
        """Small, composited."""
        return self.laid.preview()

    @cached_property
    def image(self) -> Image.Image:
        """At the source's size, composited."""
        return self.laid.image()

    @cached_property
    def offset(self) -> Offset | None:
        """How far it lies from the source, in the source's pixels; see `editor.registration.warning`."""
        return self.laid.offset()


@dataclass(frozen=True, kw_only=True)
class Cost:
    nfe: int = 0
    decodes: int = 0
    vlm_calls: int = 0
    """Images shown to the VLM, counted once per question answered, and each text generated."""
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class EditUpdate:
    """What the generator of an edit says after each step; the last one has `done`."""

    stage: str
    """'plan', 'invert', 'locate', 'search' or 'done'."""
    message: str
    plan: Plan
    step: int = 0
    steps: int = 0
    t: float = 0.0
    previews: tuple[Image.Image, ...] = ()
    """The predicted clean image of every particle, at the model's size."""
    scores: tuple[float, ...] = ()
    """Reward of every particle."""
    history: tuple[tuple[float, ...], ...] = ()
    """Rewards of every particle at every step so far: the reward curve."""
    parents: tuple[tuple[int, ...], ...] = ()
    """For each step so far, each particle's parent in the step before, none where another search begins: the ancestry.
    """
    best_so_far: Candidate | None = None
    """The best landing so far; only while searching. Its picture is made when it is asked for."""
    best: Image.Image | None = None
    """The best candidate at the source's size, composited; only when done."""
    roundtrip: Image.Image | None = None
    """The source carried to t0 and back with the reward off: as `editor.images.at_most` makes it of the source."""
    roundtrip_psnr: float | None = None
    """dB, of the round trip against the source at the model's size."""
    focus: Image.Image | None = None
    """The source, lit where the edit acts and dimmed where the search holds to it; see `SearchSettings.focus`."""
    candidates: tuple[Candidate, ...] = ()
    """All, best first; only when done. Where changes were undone, the first is the best one without them."""
    changed: float | None = None
    """Share of the picture's places that the result changes, in [0, 1]; None where nothing was undone."""
    checks: tuple[CheckResult, ...] = ()
    """The checks of the best candidate; only when done."""
    kept: tuple[Stays, ...] = ()
    """What must stay, as the best candidate has it; only when done."""
    score: float | None = None
    source_score: float | None = None
    """The reward of the source itself."""
    cost: Cost = Cost()
    diagnostics: dict[str, float] = field(default_factory=dict)
    held: str = ""
    """How the models are held that make it, on which the pixels depend; see `editor.models.Hardware.held`."""
    stopped: bool = False
    """True when the user's Stop, or what `broken` says, ended the run early; `best` is then the best so far."""
    broken: str = ""
    """The sentence of the error that ended the run early; empty where none did."""

    @property
    def done(self) -> bool:
        return self.stage == "done"

    @property
    def drafted(self) -> bool:
        """Whether there were drafts, and nothing was searched for since."""
        return "drafted" in self.diagnostics

    def whole(self) -> EditUpdate:
        """This one, for who measures what an edit gives. Raises EditError where the run broke off."""
        if self.broken:
            raise EditError(self.broken)
        return self

    @property
    def offset(self) -> Offset | None:
        """That of the best candidate; only when done."""
        return self.candidates[0].offset if self.candidates else None

    def kept_by(self, candidate: Candidate) -> tuple[Stays, ...]:
        """What must stay, as one of the candidates has it; only when done."""
        return tuple(s._replace(after=after) for s, after in zip(self.kept, candidate.kept, strict=True))

    @property
    def untouched(self) -> bool:
        """Whether the source comes back as it is, since it shows already what the plan asks for; only when done."""
        return self.changed == 0 and bool(self.candidates) and self.candidates[0].met
