"""Train the studio's autoencoder: `python -m training.train_autoencoder` (resumes by itself).

AutoencoderTiny, 128 px to 16 x 16 x 12, on squared error with a small absolute term. Noise on the latents, and
directions of their channels that all vary alike (`training.whiten`), make them a good space for a flow: neighbours
decode to neighbours.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny
from torch import Tensor, nn

from editor.runtime import prepare
from training.clock_world import CLOCKS
from training.data import RUNS, Pictures
from training.flow_folder import new_vae
from training.harness import Length, Run, add_machine, half_precision, join_others, rank
from training.whiten import Whitening, unevenness, whiten
from training.world import TEST

VAE = RUNS / "autoencoder" / "vae"
"""The autoencoder that the flow map is trained over."""
LATENT_NOISE = 0.05
"""Standard deviation of the noise on the latents, as a share of theirs."""


def to_signed(pixels: np.ndarray | Tensor) -> Tensor:
    """uint8 (B, H, W, 3) -> (B, 3, H, W) in [-1, 1], channels last."""
    return torch.as_tensor(pixels).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def unseen(count: int) -> np.ndarray:
    """Pictures that training never draws, uint8 (count, 128, 128, 3)."""
    return np.stack([np.asarray(CLOCKS.render(CLOCKS.sample(TEST + i))) for i in range(count)])


def loss(vae: AutoencoderTiny, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The training loss and the squared error of images (B, 3, H, W) in [-1, 1]."""
    with half_precision(images.device):
        latents = vae.encoder(images).float()
        noise = torch.randn(latents.shape, generator=generator, device=images.device) * latents.detach().std()
        decoded = vae.decoder(latents + LATENT_NOISE * noise).float()
    error = decoded - images
    squared = error.square().mean()
    return squared + 0.05 * error.abs().mean() + 0.003 * unevenness(latents), squared


@torch.no_grad()
def psnr(vae: AutoencoderTiny, pixels: np.ndarray) -> float:
    """Mean over pictures of the reconstruction's PSNR in dB."""
    images = to_signed(pixels).contiguous(memory_format=torch.channels_last)
    decoded = torch.cat([vae.decoder(vae.encoder(part)) for part in images.split(25)]).clamp(-1, 1)
    mse = ((decoded - images) / 2).square().mean(dim=(1, 2, 3))
    return float((-10 * mse.log10()).mean())


@torch.no_grad()
def whitened(vae: AutoencoderTiny, pictures: Pictures, count: int = 4000) -> None:
    """Whiten by the first `count` pictures, and say how uneven they were."""
    device = next(vae.parameters()).device
    rows = np.arange(min(count, len(pictures))).reshape(-1, 50)
    found = Whitening.of(torch.cat([vae.encoder(to_signed(torch.from_numpy(pictures[r]).to(device))) for r in rows]))
    print(f"Deviations along the directions of the channels: {found.spread.min():.3f} to {found.spread.max():.3f}")
    whiten(vae, found)


def over_latents_of(start: AutoencoderTiny) -> AutoencoderTiny:
    """The autoencoder with its encoder for good and a decoder to train: its own, or a new one where shapes differ."""
    vae = new_vae(start.config.latent_channels)
    vae.register_to_config(shift_factor=start.config.shift_factor, scaling_factor=start.config.scaling_factor)
    vae.encoder.load_state_dict(start.encoder.state_dict())
    vae.encoder.requires_grad_(False)
    own, made = start.decoder.state_dict(), vae.decoder.state_dict()
    if {name: value.shape for name, value in own.items()} == {name: value.shape for name, value in made.items()}:
        vae.decoder.load_state_dict(own)
    return vae


def train(
    length: Length, batch: int, lr: float, device: torch.device, workers: int, start: AutoencoderTiny | None = None
) -> AutoencoderTiny:
    """Train for this length; whitened, on the CPU. With `start` its decoder alone, so that latents stay."""
    torch.manual_seed(0)
    vae = (new_vae() if start is None else over_latents_of(start)).to(device, memory_format=torch.channels_last)
    learned = [p for p in vae.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=lr, betas=(0.9, 0.99), weight_decay=1e-4)
    folder = RUNS / ("autoencoder" if start is None else "decoder")
    run = Run(folder, nn.ModuleDict({"vae": vae}), [optimizer])
    pictures = Pictures()

    def draw(generator: torch.Generator) -> Tensor:
        return torch.from_numpy(pictures[torch.randint(len(pictures), (batch,), generator=generator).numpy()])

    batches = run.batches(draw, workers)
    while (share := run.share(length)) < 1:
        images = to_signed(next(batches).to(device, non_blocking=True)).contiguous(memory_format=torch.channels_last)
        value, squared = loss(vae, images, run.generator(device))
        run.advance(value, batch, share)
        run.tell(250, dB=10 * torch.log10(4 / squared.detach()))
    run.save()
    run.averaged()
    if start is None:
        whitened(vae, pictures)
    return vae.cpu()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Length.parse, default=Length(120_000), help="or minutes as in 15m")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--decoder", type=Path, metavar="VAE", help="train the decoder alone, over these latents")
    parser.add_argument("--out", type=Path, default=VAE)
    add_machine(parser)
    arguments = parser.parse_args()
    prepare(arguments.threads)
    join_others()
    start = AutoencoderTiny.from_pretrained(arguments.decoder) if arguments.decoder else None
    device = torch.device(arguments.device)
    better = train(arguments.images, arguments.batch, arguments.lr, device, arguments.workers, start)
    if rank() == 0:
        better.to(torch.bfloat16).save_pretrained(arguments.out)
        print(f"unseen: {psnr(AutoencoderTiny.from_pretrained(arguments.out), unseen(200)):.2f} dB")
