"""diffusers' networks in the engine's words: flow maps in our time, latents in the flow map's scale.

Here and nowhere else sigma = 1 - t: the engine's t is 0 for noise and 1 for the image, diffusers' sigma
the reverse. Latents are float32 outside; the networks work in their own dtype. Gradients pass.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, FluxPipeline, FluxTransformer2DModel
from jaxtyping import Float
from torch import Tensor

from editor.twotime import is_two_time
from editor.types import EditError, Images, Latents, Times

GUIDANCE = 3.5
"""The embedded guidance that FLUX.1-dev and its public flow map are run with."""


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
    guidance: float = GUIDANCE
    """Used when the transformer embeds guidance."""
    _ids: dict[tuple[int, int], Tensor] = field(default_factory=dict, init=False)

    @property
    def two_time(self) -> bool:
        return is_two_time(self.transformer)

    def __call__(self, x: Latents, s: Times, t: Times) -> Latents:
        s, t = per_latent(s, x), per_latent(t, x)
        return x + (t - s)[:, None, None, None] * self._average_velocity(x, s, t)

    def velocity(self, x: Latents, t: Times) -> Latents:
        """b_t(x) = v(x, t, t), from noise to image; the network's own velocity runs the other way."""
        t = per_latent(t, x)
        return self._average_velocity(x, t, t)

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
class LatentCodec:
    """Images (B, 3, H, W) in [0, 1] to latents in the flow map's scale and back; both ways differentiable.

    The scale is the autoencoder's own: latents = (code - shift_factor) * scaling_factor.
    """

    vae: AutoencoderKL | AutoencoderTiny

    @property
    def factor(self) -> int:
        """Pixels along a side for each latent cell."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    def encode(self, images: Images) -> Latents:
        """The most likely latents of the images: nothing is drawn. Sides must be multiples of `factor`."""
        if any(side % self.factor for side in images.shape[-2:]):
            height, width = images.shape[-2:]
            raise EditError(f"The autoencoder takes sides in multiples of {self.factor}, not {height} x {width}.")
        out = self.vae.encode(self._to_network(images * 2 - 1))
        code = out.latents if isinstance(self.vae, AutoencoderTiny) else out.latent_dist.mode()
        return ((code - self._shift) * self.vae.config.scaling_factor).to(images)

    def decode(self, latents: Latents) -> Images:
        """Images in [0, 1]; a pixel beyond the range is clamped but keeps its gradient."""
        code = self._to_network(latents) / self.vae.config.scaling_factor + self._shift
        images = ((self.vae.decode(code).sample + 1) / 2).to(latents)
        return images + (images.clamp(0, 1) - images).detach()

    @property
    def _shift(self) -> float:
        return self.vae.config.shift_factor or 0.0

    def _to_network(self, x: Tensor) -> Tensor:
        return x.to(self.vae.device, self.vae.dtype)


def per_latent(time: Times, x: Latents) -> Float[Tensor, " batch"]:
    """A time as one number for each latent, on its device and in its dtype."""
    return torch.as_tensor(time, dtype=x.dtype, device=x.device).expand(len(x))
