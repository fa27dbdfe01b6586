"""A plan's checks as one reward: how sure the VLM is that the image answers each as expected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from rewards.base import YES, Check
from rewards.chunks import in_chunks, one_by_one
from rewards.prompt import Question
from rewards.vlm import VLM, Calls, Images

SHIFT, SCALE, NOISE = 0.02, 0.03, 0.02
"""Largest shift (share of the side) and change of scale, and standard deviation of the noise, of a jitter."""
MAX_JITTERS = 16
LIMIT = 8.0
"""Log-odds beyond which a check is sure enough: sigmoid(8) = 0.9997."""
SAID = 0.5
"""Log-odds beyond which an open answer is: it is then likelier than all others together. How far it goes beyond tells
how exactly the VLM reads a picture rather than how well that shows what was asked for; yes or no tells that.
"""


class Limit(NamedTuple):
    """What one pass of the VLM may hold, the backward pass included."""

    images: int
    pairs: int
    """Of an image and a question; one question at least is asked."""


class CheckScores(NamedTuple):
    """What the checks say of a batch of images, from one pass."""

    reward: Float[Tensor, " batch"]
    """Carries the gradient."""
    probabilities: Float[Tensor, "batch checks"]
    """Probability that each check holds, in [0, 1], detached, for display."""


class CheckReward:
    """Weighted mean over checks of the log-odds that the answer is the expected one; a `Reward`.

    For yes/no checks these are the signed log-odds of the next token, for open questions those of
    the whole answer, log p / (1 - p), which from far away is its log-likelihood; they count up to SAID. Each passes
    through `softened` first, so that no single check outweighs the rest.

    With `jitters` J > 0 the log-odds are averaged over the image and J copies of it, slightly moved,
    scaled and noised. The J changes are drawn once from `seed`: the reward stays a function of
    the image, the same for every image of a batch, on every device.
    """

    def __init__(
        self, vlm: VLM, checks: Sequence[Check], jitters: int = 0, seed: int = 0, calls: Calls | None = None,
        limit: Limit | None = None,
    ) -> None:  # fmt: skip
        """`calls` counts every check of every copy; `limit` cuts the work into passes and changes no result.

        Raises ValueError for no checks or a wrong number of jitters.
        """
        if not checks:
            raise ValueError("A reward needs at least one check.")
        if not 0 <= jitters <= MAX_JITTERS:
            raise ValueError(f"jitters must lie between 0 and {MAX_JITTERS}, not {jitters!r}.")
        self.vlm, self.checks, self.jitters, self.seed = vlm, tuple(checks), jitters, seed
        self.calls, self.limit = calls if calls is not None else Calls(), limit
        self._questions = [Question(c.question, c.expected if c.is_open else None) for c in self.checks]
        self._open = torch.tensor([c.is_open for c in self.checks], device=vlm.device)
        self._sign = torch.tensor([1.0 if c.is_open or c.expected == YES else -1.0 for c in self.checks]).to(vlm.device)
        weight = torch.tensor([c.weight for c in self.checks], device=vlm.device)
        self._weight = weight / weight.sum()

    def __call__(self, images: Images) -> Float[Tensor, " batch"]:
        return self.evaluate(images).reward

    def evaluate(self, images: Images) -> CheckScores:
        """Reward and probabilities of `images` (B, 3, H, W) in [0, 1] together."""
        log_odds = self.log_odds(images)
        worth = softened(torch.where(self._open, log_odds.clamp(max=SAID), log_odds)).to(images.device)
        return CheckScores(worth @ self._weight.to(worth), log_odds.detach().sigmoid().to(images.device))

    def log_odds(self, images: Images) -> Float[Tensor, "batch checks"]:
        """Log-odds that each check holds, averaged over the jittered copies; not softened."""
        copies = jittered(images, self.jitters, self.seed)
        scores = in_chunks(self._scores, self.limit and self.limit.images, copies)
        self.calls.count += scores.numel()
        signed = torch.where(self._open, from_log_probability(scores), self._sign * scores)
        return signed.unflatten(0, (1 + self.jitters, len(images))).mean(0)

    def _scores(self, images: Images) -> Float[Tensor, "batch checks"]:
        """What the VLM scores; images are seen once, and asked in groups of questions where there is a limit."""
        features, asked = self.vlm.features(images), self._questions
        most = max(1, self.limit.pairs // len(images)) if self.limit else len(asked)
        if most >= len(asked):
            return self.vlm.score(features, [asked])
        groups = [(features, [asked[i : i + most]]) for i in range(0, len(asked), most)]
        return torch.cat(one_by_one(self.vlm.score, groups), 1)


def from_log_probability(log_p: Tensor) -> Tensor:
    """log p -> log p / (1 - p), for p up to 1 - 1e-6."""
    log_p = log_p.clamp(max=-1e-6)
    return log_p - torch.log(-torch.expm1(log_p))


def softened(log_odds: Tensor, limit: float = LIMIT) -> Tensor:
    """Close to the identity between -limit and limit, never quite flat beyond, and increasing throughout.

    Above, limit - softplus(limit - x) levels off at `limit`: pushing a check that already holds
    would only look for what fools the VLM. Below, the slope falls as limit / |x|: a long
    answer that is far off still gives a direction and leaves the other checks their say.
    """
    top = limit - F.softplus(limit - log_odds)
    depth = (-top / limit).clamp(min=1.0)
    return torch.where(top < -limit, -limit * (1.0 + depth.log()), top)


def jittered(images: Images, jitters: int, seed: int) -> Float[Tensor, "copies 3 height width"]:
    """`images`, followed by `jitters` changed copies of the whole batch: ((1 + jitters) * B, 3, H, W)."""
    if not jitters:
        return images
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(jitters, 3, generator=generator) * 2 - 1
    noise = torch.randn(jitters, *images.shape[1:], generator=generator).to(images) * NOISE
    scale, shift = 1 + SCALE * uniform[:, :1, None], 2 * SHIFT * uniform[:, 1:, None]  # the side is 2 long here
    affine = torch.cat([torch.eye(2) * scale, shift], 2).to(images)
    copies = [images]
    for change, grain in zip(affine, noise, strict=True):
        grid = F.affine_grid(change.expand(len(images), 2, 3), list(images.shape), align_corners=False)
        moved = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
        copies.append(moved + grain)
    return torch.cat(copies)
