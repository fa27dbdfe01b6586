"""diffusers' networks in the engine's words: flow maps in our time, latents in the flow map's scale.

Here and nowhere else sigma = 1 - t: the engine's t is 0 for noise and 1 for the image, diffusers' sigma
the reverse. Latents are float32 outside; the networks work in their own dtype. Gradients pass.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    AutoencoderTiny,
    FluxPipeline,
    FluxTransformer2DModel,
    SanaTransformer2DModel,
)
from jaxtyping import Float
from torch import Tensor

from editor.twotime import is_two_time
from editor.types import EditError, Images, Latents, Times
from rewards.chunks import in_chunks

FLUX_GUIDANCE = 3.5
"""The embedded guidance that FLUX.1-dev and its public flow map are run with."""
SANA_GUIDANCE = 4.5
"""The embedded guidance that SANA-Sprint is run with."""

Autoencoder = AutoencoderDC | AutoencoderKL | AutoencoderTiny


@dataclass(frozen=True, eq=False, repr=False)
class FluxFlowMap:
    """A FLUX transformer with its prompt bound, as a flow map: X(x, s, t) = x + (t - s) v(x, s, t).

    With the two-time patch v is the average velocity from s to t. Without it the network knows s alone:
    right as a jump to t = 1 for distilled models (look-ahead only), and `two_time` is False.
    Particles share the one prompt.
    """

    transformer: FluxTransformer2DModel
    sequence: Float[Tensor, "1 tokens width"]
    """The T5 sequence of the prompt."""
    pooled: Float[Tensor, "1 width"]
    """The pooled CLIP embedding of the prompt."""
    guidance: float = FLUX_GUIDANCE
    """Used when the transformer embeds guidance."""
    rows: int | None = None
    """Latents in one call of the network at most; None for no limit. See `in_chunks`."""
    _ids: dict[tuple[int, int], Tensor] = field(default_factory=dict, init=False)

    @property
    def two_time(self) -> bool:
        return is_two_time(self.transformer)

    def __call__(self, x: Latents, s: Times, t: Times) -> Latents:
        s, t = per_latent(s, x), per_latent(t, x)
        return x + (t - s)[:, None, None, None] * in_chunks(self._average_velocity, self.rows, x, s, t)

    def velocity(self, x: Latents, t: Times) -> Latents:
        """b_t(x) = v(x, t, t), from noise to image; the network's own velocity runs the other way."""
        t = per_latent(t, x)
        return in_chunks(self._average_velocity, self.rows, x, t, t)

    def _average_velocity(self, x: Latents, s: Float[Tensor, " batch"], t: Float[Tensor, " batch"]) -> Latents:
        batch, channels, height, width = x.shape
        if height % 2 or width % 2:
            raise EditError(f"The flow map packs latents two by two, so {height} x {width} needs even sides.")
        like = self.transformer.x_embedder.weight
        tokens = FluxPipeline._pack_latents(x, batch, channels, height, width).to(like.device, like.dtype)
        sigma = torch.stack([1 - s, 1 - t], dim=-1) if self.two_time else 1 - s
        guidance = torch.full((batch,), self.guidance, device=like.device)
        velocity = self.transformer(
            hidden_states=tokens,
            timestep=sigma.to(like.device),
            guidance=guidance if self.transformer.config.guidance_embeds else None,
            encoder_hidden_states=self.sequence.to(tokens).expand(batch, -1, -1),
            pooled_projections=self.pooled.to(tokens).expand(batch, -1),
            img_ids=self._image_ids(height // 2, width // 2),
            txt_ids=torch.zeros(self.sequence.shape[1], 3, device=like.device),
            return_dict=False,
        )[0]
        return -FluxPipeline._unpack_latents(velocity, height, width, vae_scale_factor=1).to(x)

    def _image_ids(self, rows: int, columns: int) -> Float[Tensor, "tokens 3"]:
        """The position of every packed token, built once for each shape."""
        if (rows, columns) not in self._ids:
            device = self.transformer.x_embedder.weight.device
            self._ids[rows, columns] = FluxPipeline._prepare_latent_image_ids(1, rows, columns, device, torch.float32)
        return self._ids[rows, columns]


@dataclass(frozen=True, eq=False, repr=False)
class SanaFlowMap:
    """SANA-Sprint with its prompt bound: a consistency model, so a look-ahead to t = 1 and no map of two times.

    Its TrigFlow latents x_a = cos(a) x_1 + sin(a) x_0 are our interpolant divided by sqrt(t^2 + (1-t)^2), with
    tan(a) = (1 - t) / t. In our terms its input is x_t itself, its time sin(a) / (sin(a) + cos(a)) = 1 - t, and its
    clean image x_t - (1 - t) F(x_t, 1 - t): F is minus the average velocity from t to 1.
    """

    transformer: SanaTransformer2DModel
    sequence: Float[Tensor, "1 tokens width"]
    """The prompt as the Gemma encoder gives it."""
    mask: Float[Tensor, "1 tokens"]
    """1 for the tokens of the prompt, 0 for padding."""
    guidance: float = SANA_GUIDANCE
    rows: int | None = None
    """Latents in one call of the network at most; None for no limit. See `in_chunks`."""
    two_time: bool = field(default=False, init=False)

    def __call__(self, x: Latents, s: Times, t: Times) -> Latents:
        """Exact for t = 1; for a nearer t a straight step towards where the network would land."""
        s, t = per_latent(s, x), per_latent(t, x)
        return x + (t - s)[:, None, None, None] * self.velocity(x, s)

    def velocity(self, x: Latents, t: Times) -> Latents:
        """(X(x, t, 1) - x) / (1 - t)."""
        return in_chunks(self._average_velocity, self.rows, x, per_latent(t, x))

    def _average_velocity(self, x: Latents, t: Float[Tensor, " batch"]) -> Latents:
        batch, like = len(x), self.transformer.patch_embed.proj.weight
        guidance = torch.full((batch,), self.guidance * self.transformer.config.guidance_embeds_scale)
        velocity = self.transformer(
            x.to(like.device, like.dtype),
            encoder_hidden_states=self.sequence.to(like.device, like.dtype).expand(batch, -1, -1),
            encoder_attention_mask=self.mask.to(like.device).expand(batch, -1),
            guidance=guidance.to(like.device, like.dtype),
            timestep=(1 - t).to(like.device),
            return_dict=False,
        )[0]
        return -velocity.to(x)


@dataclass(frozen=True, eq=False, repr=False)
class LatentCodec:
    """Images (B, 3, H, W) in [0, 1] to latents in the flow map's scale and back; both ways differentiable.

    The scale is the autoencoder's own: latents = (code - shift_factor) * scaling_factor.
    """

    vae: Autoencoder
    draft: AutoencoderTiny | None = None
    """A small decoder for the same latents as they are, without scale or shift (TAEF1): gradients go through it."""
    rows: int | None = None
    """Latents decoded in one call at most; None for no limit. See `in_chunks`."""

    @property
    def factor(self) -> int:
        """Pixels along a side for each latent cell."""
        config = self.vae.config
        channels = config.get("block_out_channels") or config.encoder_block_out_channels
        return 2 ** (len(channels) - 1)

    def encode(self, images: Images) -> Latents:
        """The most likely latents of the images: nothing is drawn. Sides must be multiples of `factor`."""
        if any(side % self.factor for side in images.shape[-2:]):
            height, width = images.shape[-2:]
            raise EditError(f"The autoencoder takes sides in multiples of {self.factor}, not {height} x {width}.")
        out = self.vae.encode((images * 2 - 1).to(self.vae.device, self.vae.dtype), return_dict=False)[0]
        code = out.mode() if isinstance(self.vae, AutoencoderKL) else out
        return ((code - self._shift) * self.vae.config.scaling_factor).to(images)

    def decode(self, latents: Latents) -> Images:
        """Images in [0, 1] by the full decoder; a pixel beyond is clamped but keeps its gradient.

        With a draft decoder the gradient is the draft's, at the images that the full one makes: what is judged and
        shown is always what the user gets.
        """
        if self.draft is None:
            return in_chunks(self._decode, self.rows, latents)
        images = self.render(latents)
        if not (torch.is_grad_enabled() and latents.requires_grad):
            return images
        sketch = in_chunks(self._decode_draft, self.rows, latents)
        return images + (sketch - sketch.detach())

    @torch.no_grad()
    def render(self, latents: Latents) -> Images:
        """Images in [0, 1] by the full decoder, without gradient."""
        return in_chunks(self._decode, self.rows, latents)

    def _decode(self, latents: Latents) -> Images:
        code = latents / self.vae.config.scaling_factor + self._shift
        return to_unit(self.vae.decode(code.to(self.vae.device, self.vae.dtype), return_dict=False)[0].to(latents))

    def _decode_draft(self, latents: Latents) -> Images:
        code = latents.to(self.draft.device, self.draft.dtype)
        return to_unit(self.draft.decode(code, return_dict=False)[0].to(latents))

    @property
    def _shift(self) -> float:
        return self.vae.config.get("shift_factor") or 0.0


def to_unit(images: Float[Tensor, "batch 3 height width"]) -> Images:
    """[-1, 1] to [0, 1], clamped, with the gradient of what was not clamped."""
    images = (images + 1) / 2
    return images + (images.clamp(0, 1) - images).detach()


def per_latent(time: Times, x: Latents) -> Float[Tensor, " batch"]:
    """A time as one number for each latent, on its device and in its dtype."""
    return torch.as_tensor(time, dtype=x.dtype, device=x.device).expand(len(x))
