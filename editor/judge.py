"""The score of a search: clean latents -> decoded once -> checks, what must stay, closeness to the source.

One decode serves the preview, the score and the gradient.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from editor import images
from editor.models import Models
from editor.runtime import for_gradients
from editor.types import Images, Latents, Plan, Scored, SearchSettings
from rewards.checks import CheckReward
from rewards.focus import Focus, focus
from rewards.plan import keep_checks
from rewards.preserve import Preserve, outside
from rewards.vlm import Calls

if TYPE_CHECKING:
    from editor.adapters import LatentCodec


MET = 0.5
"""Probability beyond which a check counts as met."""


class Opinion(NamedTuple):
    """What the judge says of one image."""

    reward: float
    checks: tuple[float, ...]
    """Probability of each check in [0, 1]: the plan's, then those of what must stay."""
    met: bool
    """Whether those of the plan are met: then no change is needed."""


@dataclass
class Judge:
    """A `Score` of one run; counts what it decodes."""

    codec: LatentCodec
    checks: CheckReward
    preserve: Preserve
    weight: float
    """Of closeness to the source beside the checks."""
    latents: Latents
    """Of the source (1, C, h, w): what stays outside the mask, or out of focus."""
    mask: Tensor | None
    """(1, 1, h, w) in [0, 1], 1 where the edit may act; None for everywhere."""
    calls: Calls
    wanted: int
    """How many of the checks come first and ask for what the plan wants; the others ask for what must stay."""
    focus: Focus | None = None
    """Where the checks look, at the model's size; None where a mask or the settings leave it out."""
    decodes: int = 0
    source: Opinion = field(init=False)
    """The source itself, as the autoencoder shows it."""

    @classmethod
    def of(cls, models: Models, plan: Plan, latents: Latents, before: Images, mask: Image.Image | None,
           settings: SearchSettings, calls: Calls) -> Judge:  # fmt: skip
        """The judge of a plan for a source with these latents and this reconstruction."""
        questions = plan.checks + keep_checks(plan)
        asked = CheckReward(models.vlm, questions, settings.jitters, settings.seed, calls, models.limit)
        looked = weight = within = None
        if mask is not None:
            within = images.to_unit(images.fit(mask, before.shape[-1])[0])[:, :1]
            weight = outside(within, before.shape[-2:]).clamp(min=1e-3)
        elif models.gradient and settings.focus:
            with for_gradients(before.device):
                looked = focus(asked, before, torch.Generator().manual_seed(settings.seed))
            within, weight = looked.touched, 1 - settings.focus * looked.free
        small = None if within is None else F.interpolate(within, size=latents.shape[-2:], mode="area")
        held = Preserve(before, weight=weight)
        judge = cls(models.codec, asked, held, settings.preserve, latents, small, calls, len(plan.checks), looked)
        judge.source = judge._opinion(before)
        return judge

    def __call__(self, latents: Latents) -> Scored:
        return self._scored(self._decoded(latents))

    def asked(self, latents: Latents) -> Scored:
        """The same by the checks alone, those of what must stay among them, without closeness to the source."""
        return self._checked(self._decoded(latents))

    def _decoded(self, latents: Latents) -> Images:
        decoded = self.codec.decode(self.within(latents))
        self.decodes += len(decoded)
        return decoded

    def within(self, latents: Latents) -> Latents:
        """The latents where the edit may act, the source's elsewhere."""
        return latents if self.mask is None else torch.lerp(self.latents, latents, self.mask.to(latents))

    def _scored(self, decoded: Images) -> Scored:
        scored = self._checked(decoded)
        return scored._replace(reward=scored.reward + self.weight * self.preserve(decoded))

    def _checked(self, decoded: Images) -> Scored:
        found = self.checks.evaluate(decoded)
        met = found.probabilities[:, : self.wanted].min(1).values > MET
        return Scored(found.reward.to(decoded.device), decoded.detach(), found.probabilities, met)

    @torch.no_grad()
    def _opinion(self, image: Images) -> Opinion:
        scored = self._scored(image)
        return Opinion(float(scored.reward[0]), tuple(scored.checks[0].tolist()), bool(scored.met[0]))
