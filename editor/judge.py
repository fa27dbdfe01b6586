"""The score of a search: clean latents -> decoded once -> checks, what must stay, closeness to the source, layout.

One decode serves the preview, the score and the gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from editor import images
from editor.focus import Focus, widened
from editor.models import Models
from editor.palette import repainted
from editor.particles import joined
from editor.recolour import colour_maps, faded, recoloured
from editor.types import EditError, Images, Latents, Plan, Scored, SearchSettings
from rewards.base import Check
from rewards.checks import CheckReward, CheckScores
from rewards.plan import keep_checks
from rewards.preserve import Kept, Layout, Preserve, outside
from rewards.vlm import Calls

if TYPE_CHECKING:
    from editor.adapters import LatentCodec
    from rewards.vlm import VLM


MET = 0.5
"""Probability beyond which a check counts as met."""
SUFFICES = 0.7
"""Probability beyond which all that the plan wants must hold for a draft to need no search; for what must stay, MET
does: searches leave less of it as it was than drafts do."""
CERTAIN = 0.95
"""The same beyond which no more drafts are made: under it one that has part of an old hand in the colour of the new may
pass, and of several drafts others do better."""
FADED, WIPED = 0.05, 0.5
"""Share of the edges in what changes colour (`editor.recolour.faded`) up to which all stays by construction, whatever
the VLM thinks of it, and beyond which the change wipes things out, which is none of colours alone."""
NOTICED = 0.05
"""Deviation of a pixel, in [0, 1], from which on its place changed."""
STAYS = 0.1
"""Loss by drift up to which a draft stays where the source is: what changes in parts alone has less."""
LEAST_WEIGHT = 1e-3
"""How much a place at least counts for closeness to the source, even where all may change."""
LEAST_MASK = 0.1
"""Share by which a mask has to open a place of the latents for the edit to act there."""
LOST = 1e-4
"""Probability under which a check is too far from being met for a search that begins there to mend it."""


class Opinion(NamedTuple):
    """What the judge says of one image."""

    reward: float
    checks: tuple[float, ...]
    """Probability of each check in [0, 1]: the plan's, then those of what must stay."""
    met: bool
    """Whether those of the plan are met: then no change is needed."""


class Weights(NamedTuple):
    """Of what holds a result to its source, beside the checks; see `editor.types.SearchSettings`."""

    preserve: float
    outlines: float
    drift: float


class Opinions(Protocol):
    """What judges images by a plan's checks and those of what must stay: the VLM's `CheckReward`, mostly."""

    checks: tuple[Check, ...]

    def evaluate(self, images: Images) -> CheckScores: ...


Asks = Callable[[Models, Plan, SearchSettings, Calls], Opinions]


def ask_vlm(models: Models, plan: Plan, settings: SearchSettings, calls: Calls) -> CheckReward:
    """The VLM's opinions of what a plan asks for and what must stay."""
    questions = plan.checks + keep_checks(plan)
    return CheckReward(models.vlm, questions, settings.jitters, settings.seed, calls, models.limit)


@dataclass
class Judge:
    """A `Score` of one run; counts what it decodes."""

    codec: LatentCodec
    checks: Opinions
    preserve: Preserve
    layout: Layout
    weights: Weights
    """Of these two beside the checks."""
    latents: Latents
    """Of the source (1, C, h, w): what stays outside the mask."""
    square: Images
    """The source itself (1, 3, S, S)."""
    before: Images
    """The same as the autoencoder shows it."""
    mask: Tensor | None
    """(1, 1, h, w): 1 where the edit may act, else 0; None for everywhere."""
    calls: Calls
    wanted: int
    """How many of the checks come first and ask for what the plan wants; the others ask for what must stay."""
    sure: float | None = None
    """Probability beyond which yes or no counts as met at a landing of the search, and what meets the plan is ordered
    by its log-odds; None where MET suffices, and the reward orders all."""
    focus: Focus | None = None
    """Where the edit acts; None where a mask says so, or before that was found out."""
    heard: bool = False
    """Whether captions tell of any of it."""
    decodes: int = 0
    look: Callable[[], None] = lambda: None
    """Called before the checks are asked; what it raises leaves the computation at hand."""
    source: Opinion = field(init=False)
    """The source itself, as the autoencoder shows it."""

    @classmethod
    def of(cls, models: Models, plan: Plan, square: Images, latents: Latents, before: Images, mask: Image.Image | None,
           settings: SearchSettings, calls: Calls, asks: Asks = ask_vlm) -> Judge:  # fmt: skip
        """The judge of a plan for a source with these pixels, latents and reconstruction.

        Raises EditError on a mask too small for the latents.
        """
        asked = asks(models, plan, settings, calls)
        weight = small = None
        if mask is not None:
            within = images.to_unit(images.fit(mask, before.shape[-1])[0])[:, :1]
            weight = outside(within, before.shape[-2:]).clamp(min=LEAST_WEIGHT)
            covered = F.interpolate(within, size=latents.shape[-2:], mode="area")
            small = (covered >= LEAST_MASK).to(latents)  # hard, so that it acts once: the composite has the soft edge
            if not small.any():
                raise EditError("The marked part is too small for this model to change: mark more of the picture.")
        held = Preserve(before, weight=weight)
        weights = Weights(settings.preserve, settings.outlines, settings.drift)
        judge = cls(
            models.codec, asked, held, Layout(before), weights, latents, square, before, small, calls, len(plan.checks)
        )
        judge.source = judge._opinion(before)
        return judge

    @torch.no_grad()
    def look_again(self, planner: VLM) -> None:
        """Count the source's open answers as met, too, where the eyes that plan give them in so many words.

        They read the source itself, and a plan that asks for what is there is written by them. Yes or no
        stays with the judge.
        """
        asked = zip(self.checks.checks[: self.wanted], self.source.checks, strict=False)
        doubts = [check for check, probability in asked if probability <= MET]
        if doubts and all(check.is_open for check in doubts):
            said = [planner.answers(self.square, [check.question], calls=self.calls)[0] for check in doubts]
            met = all(a.lower() == check.expected.lower() for a, check in zip(said, doubts, strict=True))
            self.source = self.source._replace(met=met)

    def confine(self, focus: Focus, settings: SearchSettings) -> None:
        """From now on, change the picture only where an edit acts, and let closeness to the source go there.

        A mask of the user's own says that better. Where captions do not suffice, the reward alone draws what is wanted,
        and is fooled more easily: then it has to be as sure as the settings ask.
        """
        if self.mask is None:
            self.focus, self.mask = focus, focus.mask
            self.preserve = replace(self.preserve, weight=(1 - settings.focus * focus.free).clamp(min=LEAST_WEIGHT))
        self.sure, self.heard = None if focus.suffices else settings.sure, focus.heard

    def roomier(self, drafts: Latents) -> Latents:
        """Drafts (N, C, h, w) within the places where the edit acts, and again with the next ones around: (2 N, ...).

        What is drawn elsewhere each time was told too narrowly. The edit may act there from then on. A mask of the
        user's own stays as it is, and the drafts are N.
        """
        if self.focus is None:
            return self.within(drafts)
        self.narrow()
        near = self.within(drafts)
        self.mask = widened(self.focus.mask)
        return torch.cat([near, self.within(drafts)])

    def narrow(self) -> None:
        """Take back what `roomier` gave."""
        if self.focus is not None:
            self.mask = self.focus.mask

    def begin_at(self, draft: Latents, image: Images) -> None:
        """From now on a draft (1, C, h, w) that decodes to `image` stands in the source's place.

        What stays is the draft's, but for outlines and layout, and the edit is confined no longer but by a mask of the
        user's own.
        """
        self.latents, self.preserve = self.within(draft), replace(self.preserve, source=image)
        if self.focus is not None:
            self.focus = self.mask = None

    def is_part(self, checks: Tensor, image: Images) -> bool:
        """Whether a draft meets more of the plan than the source does, though not all, and all that must stay.

        The layout, too: `image` (1, 3, S, S) is the draft's.
        """
        met, source = checks > MET, sum(p > MET for p in self.source.checks[: self.wanted])
        part = source < int(met[: self.wanted].sum()) < self.wanted
        return part and bool(met[self.wanted :].all()) and bool(self._stays(self.layout(image)).all())

    def _stays(self, kept: Kept) -> Tensor:
        """Which of the images whose layout this is have not drifted (N,); all where that has no weight."""
        return (kept.drift >= -STAYS) | (self.weights.drift == 0)

    def __call__(self, latents: Latents) -> Scored:
        return self._scored(self.decoded(latents), self.sure, outlines=self.sure is not None)

    @torch.no_grad()
    def drafted(self, latents: Latents) -> Scored:
        """The same of drafts: met is what surely meets the plan and keeps what must stay, and needs no search.

        It stays where the source is as well. Outlines count even where captions suffice: of drafts that all meet the
        plan, those are nearer to what was asked for whose outlines lie where the source's do.
        """
        return self._as_draft(self.decoded(latents))

    def _as_draft(self, decoded: Images) -> Scored:
        kept = self.layout(decoded)
        scored = self._surely(self._scored(decoded, outlines=True, kept=kept))
        return scored._replace(met=scored.met & self._stays(kept))

    @torch.no_grad()
    def with_colours(self, drafts: Latents, scored: Scored) -> tuple[Latents, Scored]:
        """Drafts and, where that raises the score, one more: the source with the colours that they tell of.

        Nothing of it is drawn anew (`editor.palette`). It meets the plan where MET holds for all that is wanted, and
        then comes first; what must stay does so where no edge fades, or the VLM sees it. Only where all that is wanted
        is the colour of something: what should be added or gone, another colour only feigns or hides.
        """
        if not all(check.names_colour for check in self.checks.checks[: self.wanted]):
            return drafts, scored
        least, mask = self.source.reward, self._own_mask()
        found = repainted(self.square, scored.images, self._as_draft, self.wanted, least, mask)
        if found is None:
            return drafts, scored
        maps = colour_maps(self.square, found)
        shown, lost = recoloured(self.square, maps).clamp(0, 1), faded(self.square, maps)
        looks = self._as_draft(shown)
        kept = (lost <= FADED) | (looks.checks[:, self.wanted :] > MET).all(1)
        met = (looks.checks[:, : self.wanted] > MET).all(1) & kept & (lost <= WIPED)
        none = torch.full((len(drafts), *maps.shape[1:]), torch.nan, device=maps.device)
        looks = looks._replace(met=met, surety=met.to(looks.surety), maps=maps)
        return torch.cat([drafts, self._encoded(shown)]), joined([scored._replace(maps=none), looks])

    def _own_mask(self) -> Images | None:
        """The user's own mask over the pixels (1, 1, S, S), if there is one: nothing outside takes another colour."""
        if self.mask is None or self.focus is not None:
            return None
        return F.interpolate(self.mask, size=self.square.shape[-2:])

    def _encoded(self, shown: Images) -> Latents:
        """Latents of the source's pixels with other colours (1, 3, S, S): the source's own where none changed.

        Colours change wherever a mask of the user's own lets them, beyond a focus as well.
        """
        changed = ((shown - self.square).abs().amax(1, keepdim=True) > NOTICED).to(self.latents)
        where = F.adaptive_max_pool2d(changed, self.latents.shape[-2:])
        changed = torch.lerp(self.latents, self.codec.encode(shown).to(self.latents), where)
        return changed if self._own_mask() is None else self.within(changed)

    def certain(self, drafts: Scored) -> bool:
        """Whether a draft keeps what must stay and meets the plan beyond CERTAIN, or colours alone do at all."""
        certain = (drafts.checks[:, : self.wanted] > CERTAIN).all(1)
        if drafts.maps is not None:
            certain |= drafts.maps.isfinite().flatten(1).all(1)
        return bool((drafts.met & certain).any())

    def kept(self, latents: Latents, draft: bool) -> Scored:
        """What of a result, or of a draft, is kept is judged by the checks alone; met counts as where it was found."""
        found = self.decoded(latents)
        return self._surely(self._checked(found)) if draft else self._checked(found, self.sure)

    def asked(self, latents: Latents) -> Scored:
        """The same by the checks alone, those of what must stay among them; nothing else of the source counts."""
        return self._checked(self.decoded(latents))

    def decoded(self, latents: Latents) -> Images:
        """Images of latents, changed only where the edit may act."""
        decoded = self.codec.decode(self.within(latents))
        self.decodes += len(decoded)
        return decoded

    def within(self, latents: Latents) -> Latents:
        """The latents where the edit may act, the source's elsewhere."""
        return latents if self.mask is None else torch.lerp(self.latents, latents, self.mask.to(latents))

    def _scored(
        self, decoded: Images, sure: float | None = None, outlines: bool = False, kept: Kept | None = None
    ) -> Scored:
        """`kept` is the layout of the images, where that is known."""
        scored, moved = self._checked(decoded, sure), self._moved(kept or self.layout(decoded), outlines)
        reward = scored.reward + self.weights.preserve * self.preserve(decoded) + moved
        return scored._replace(reward=reward, surety=scored.surety + (sure is not None) * scored.met * moved.detach())

    def _moved(self, kept: Kept, outlines: bool) -> Tensor:
        """What is lost by outlines that move, (N,): all together, and with `outlines` any of them."""
        drifted = self.weights.drift * kept.drift
        return drifted + self.weights.outlines * kept.outlines if outlines else drifted

    def _checked(self, decoded: Images, sure: float | None = None) -> Scored:
        """An open answer counts as met where it is likelier than all others together, whatever `sure` is.

        With `sure`, what has a yes or no less likely than LOST is lost.
        """
        self.look()
        found = self.checks.evaluate(decoded)
        yes, asked = MET if sure is None else sure, found.probabilities[:, : self.wanted]
        is_open = torch.tensor([check.is_open for check in self.checks.checks[: self.wanted]], device=asked.device)
        met = (asked > torch.where(is_open, MET, yes)).all(1)
        lost = None if sure is None else ((asked < LOST) & ~is_open).any(1)
        surety = 0 * asked[:, 0] if sure is None else met * asked.double().logit(eps=1e-7).sum(1)
        return Scored(found.reward.to(decoded.device), decoded.detach(), found.probabilities, met, surety, lost)

    def _surely(self, scored: Scored) -> Scored:
        """Met is what surely meets the plan, and keeps what must stay."""
        wanted, kept = scored.checks.split([self.wanted, scored.checks.shape[1] - self.wanted], dim=1)
        return scored._replace(met=(wanted > SUFFICES).all(1) & (kept > MET).all(1))

    @torch.no_grad()
    def _opinion(self, image: Images) -> Opinion:
        scored = self._scored(image)
        return Opinion(float(scored.reward[0]), tuple(scored.checks[0].tolist()), bool(scored.met[0]))
