"""Train the studio's autoencoder: `python -m training.train_autoencoder` (resumes by itself).

`--decoder` goes on with the decoder of a trained one alone: latents, and the flow map over them, stay as they are.
It is needed once after `training.whiten`.

AutoencoderTiny, 128 px to 16 x 16 x 12, on squared error with a small absolute term. Noise on the latents and a weak
pull towards unit variance make them a good space for a flow: neighbours decode to neighbours.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny
from torch import Tensor, nn

from editor.runtime import prepare
from training.clock_world import CLOCKS
from training.data import RUNS, Pictures
from training.flow_folder import new_vae
from training.harness import Run
from training.world import TEST

BATCH = 16
LATENT_NOISE = 0.05
"""Standard deviation of the noise on the latents, as a share of theirs."""


def to_signed(pixels: np.ndarray) -> Tensor:
    """uint8 (B, H, W, 3) -> (B, 3, H, W) in [-1, 1], channels last."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def unseen(count: int) -> np.ndarray:
    """Pictures that training never draws, uint8 (count, 128, 128, 3)."""
    return np.stack([np.asarray(CLOCKS.render(CLOCKS.sample(TEST + i))) for i in range(count)])


def loss(vae: AutoencoderTiny, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The training loss and the squared error of images (B, 3, H, W) in [-1, 1]."""
    with torch.autocast("cpu", torch.bfloat16):
        latents = vae.encoder(images).float()
        noise = torch.randn(latents.shape, generator=generator) * latents.detach().std()
        decoded = vae.decoder(latents + LATENT_NOISE * noise).float()
    error = decoded - images
    spread = latents.std(dim=(0, 2, 3)).sub(1).square().mean() + latents.mean(dim=(0, 2, 3)).square().mean()
    squared = error.square().mean()
    return squared + 0.05 * error.abs().mean() + 0.003 * spread, squared


@torch.no_grad()
def psnr(vae: AutoencoderTiny, pixels: np.ndarray) -> float:
    """Mean over pictures of the reconstruction's PSNR in dB."""
    images = to_signed(pixels).contiguous(memory_format=torch.channels_last)
    decoded = torch.cat([vae.decoder(vae.encoder(part)) for part in images.split(25)]).clamp(-1, 1)
    mse = ((decoded - images) / 2).square().mean(dim=(1, 2, 3))
    return float((-10 * mse.log10()).mean())


def train(total: int, lr: float, start: Path | None = None) -> AutoencoderTiny:
    """Train until `total` images were seen, or only the decoder of the folder `start`; checkpoint every 250 steps."""
    torch.manual_seed(0)
    vae = new_vae() if start is None else AutoencoderTiny.from_pretrained(start)
    vae.to(memory_format=torch.channels_last)
    trained = vae if start is None else vae.decoder
    vae.encoder.requires_grad_(start is None)
    optimizer = torch.optim.AdamW(trained.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=1e-4)
    run = Run(RUNS / ("autoencoder" if start is None else "decoder"), nn.ModuleDict({"vae": vae}), [optimizer])
    pictures = Pictures()
    while run.images < total:
        generator = run.generator()
        rows = torch.randint(len(pictures), (BATCH,), generator=generator).numpy()
        images = to_signed(pictures[rows]).contiguous(memory_format=torch.channels_last)
        value, squared = loss(vae, images, generator)
        run.advance(value, BATCH, run.images / total)
        run.tell(250, dB=-10 * math.log10(float(squared.detach()) / 4))
    run.save()
    run.averaged()
    return vae


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--decoder", type=Path, help="a trained autoencoder's folder: train its decoder alone")
    parser.add_argument("--out", type=Path, default=RUNS / "autoencoder" / "vae")
    arguments = parser.parse_args()
    prepare(arguments.threads)
    better = train(arguments.images, arguments.lr, arguments.decoder)
    better.save_pretrained(arguments.out)
    print(f"unseen: {psnr(better, unseen(200)):.2f} dB")
