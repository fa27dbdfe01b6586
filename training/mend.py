"""Teach the flow map to draw straight what a search bends: `python -m training.mend --out FOLDER` (resumes by itself).

A reward's gradient pushes latents to where no clock is, and a flow map that never was there carries on what it finds:
bent hands stay bent. Here x_s = (1 - s) e + s z' holds a spoilt clock z' = z - d (`training.spoilt`), and the network
as it was shows what it would do with z in its place, z_s = x_s + s d:

    v(x_s, s, t) = v_was(z_s, s, t) + s / (1 - s) d

carries x_s to where z_s goes, and what is spoilt fades on a straight way. Two such jumps are one, so the semigroup law
holds where it held, and where nothing is spoilt the flow map stays as it was, guidance included.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from diffusers import AutoencoderTiny, FluxPipeline
from torch import Tensor

from editor.runtime import prepare
from training import spoilt
from training.data import RUNS
from training.flow_folder import save_pipeline
from training.foresight import weights
from training.harness import Length, Run, add_machine, half_precision, join_others, optimizers, rank
from training.train_flowmap import FlowNetwork, networks, times

FOLDER = RUNS / "mended"
STUDIO = Path("assets/models/studio/flow")
WHOLE = 3
"""One of so many rows of a batch is a clock that is not spoilt."""
FROM, TO = 0.35, 0.93
"""Times of spoilt latents: before, noise hides what is spoilt; after, no way is left to mend it on."""
WORSE = (0.4, 1.15)
"""Factors of what is spoilt."""
SILENT = 0.1
"""Share of whole clocks without their caption."""


class Drawn(NamedTuple):
    """The rows of one batch; the first ones are whole."""

    right: Tensor
    """Latents (B, C, 16, 16) of mean 0 and deviation 1."""
    wrong: Tensor
    """What has to be added to the spoilt ones, the same shape; 0 for whole ones."""
    ids: tuple[Tensor, Tensor]
    dials: Tensor


class Examples(NamedTuple):
    """All that batches are drawn from."""

    pairs: Tensor
    """(N, 2, C, 16, 16), half precision."""
    table: tuple[Tensor, Tensor]
    """Ids of every caption for CLIP and T5, (N, L) each."""
    empty: tuple[Tensor, Tensor]
    dials: Tensor

    @classmethod
    def of(cls, network: FlowNetwork, folder: Path = spoilt.FOLDER) -> Examples:
        """Those that `training.spoilt` has written. Raises FileNotFoundError where there are none."""
        files = sorted(folder.glob("*.npy"))
        if not files:
            raise FileNotFoundError(f"No clocks in {folder}: run python -m training.spoilt first.")
        pairs = torch.from_numpy(np.concatenate([np.load(file) for file in files])).to(network.device)
        scenes = [spoilt.scene(int(file.stem) + i)[1] for file in files for i in range(spoilt.CHUNK)]
        said = [
            network.text.tokens([scene.caption for scene in scenes[i : i + 2000]]) for i in range(0, len(scenes), 2000)
        ]
        clip, t5 = (torch.cat(ids).to(network.device) for ids in zip(*said, strict=True))
        none, nothing = (ids.to(network.device) for ids in network.text.tokens([""]))
        dials = torch.tensor([scene.dial for scene in scenes], device=network.device)
        return cls(pairs, (clip, t5), (none, nothing), dials)

    def draw(self, batch: int, generator: torch.Generator) -> Drawn:
        """So many at random."""
        device = generator.device
        rows = torch.randint(len(self.pairs), (batch,), generator=generator, device=device)
        whole = torch.arange(batch, device=device) < batch // WHOLE
        silent = whole & (torch.rand(batch, generator=generator, device=device) < SILENT)
        ids = [torch.where(silent[:, None], n, own[rows]) for own, n in zip(self.table, self.empty, strict=True)]
        right, bad = self.pairs[rows].float().unbind(1)
        low, high = WORSE
        much = low + (high - low) * torch.rand(batch, generator=generator, device=device)
        return Drawn(right, (~whole * much)[:, None, None, None] * (right - bad), tuple(ids), self.dials[rows])


def intervals(spoilt_rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Times (s, t) for rows (B,) that are spoilt or whole: half of them t = s, half of the others t = 1."""
    count, device = len(spoilt_rows), generator.device
    start, reach, which = torch.rand(3, count, generator=generator, device=device)
    s = torch.where(spoilt_rows, FROM + (TO - FROM) * start, times(count, generator))
    t = torch.where(which < 0.75, 1.0, s + (1 - s) * reach)
    return s, torch.where(which < 0.5, s, t)


def asked(velocity: Tensor, wrong: Tensor, s: Tensor) -> Tensor:
    """v at the spoilt z_s - s d, any end of the jump, from that at the whole z_s; `wrong` is d."""
    return velocity + s / (1 - s) * wrong


def loss(
    network: FlowNetwork, shown: FlowNetwork, drawn: Drawn, generator: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean squared error against what is shown, and each part's.

    Errors of spoilt rows count as those of their landings do, near the image, where the way back is steep.
    """
    right, wrong = (FluxPipeline._pack_latents(part, *part.shape) for part in (drawn.right, drawn.wrong))
    noise = torch.randn(right.shape, generator=generator, device=right.device)
    bad = wrong.flatten(1).any(1)
    s, t = intervals(bad, generator)
    at = s[:, None, None]
    whole = noise.lerp(right, at)
    with torch.no_grad():
        target = asked(shown.velocity(whole, s, t, shown.text.encode(*drawn.ids)), wrong, at)
    error = (network.velocity(whole - at * wrong, s, t, network.text.encode(*drawn.ids)) - target).square().mean(2)
    network.foresight.middle = None  # nothing is asked of the head here, and what it holds could not be copied
    heed = torch.where(bad, ((1 - s) / s).clamp(max=1).square(), 1.0)[:, None]
    with torch.no_grad():
        left = ((1 - s)[:, None].square() * error)[bad].sum() / wrong[bad].square().mean(2).sum()
        parts = {"whole": error[~bad].mean(), "spoilt": (heed * error)[bad].mean(), "left of it": left}
    return (error * weights(drawn.dials) * heed).mean(), parts


def train(
    length: Length, batch: int, lr: float, device: torch.device, start: Path, folder: Path = FOLDER
) -> tuple[FlowNetwork, AutoencoderTiny]:
    """Mend the network of a FluxPipeline folder for this length; `batch` is that of each process."""
    vae = AutoencoderTiny.from_pretrained(start / "vae")
    network, shown = (FlowNetwork(*networks([], vae.config.latent_channels, start), device, False) for _ in range(2))
    shown.modules.requires_grad_(False)
    examples = Examples.of(network)
    run = Run(folder, network.modules, optimizers(network.modules, lr), seed=5, decay=0.998)
    while (share := run.share(length)) < 1:
        generator = run.generator(device)
        drawn = examples.draw(batch, generator)
        with half_precision(device):
            value, told = loss(network, shown, drawn, generator)
        run.advance(value, batch, share)
        run.tell(50, **told)
    run.save()
    run.averaged()
    return network, vae


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Length.parse, default=Length(100_000), help="or minutes as in 15m")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--init", type=Path, default=STUDIO, help="a trained folder")
    parser.add_argument("--out", type=Path, default=FOLDER / "flow")
    add_machine(parser)
    chosen = parser.parse_args()
    prepare(chosen.threads)
    join_others()
    trained, autoencoder = train(chosen.images, chosen.batch, chosen.lr, torch.device(chosen.device), chosen.init)
    if rank() == 0:
        trained.modules.cpu()
        size = save_pipeline(chosen.out, trained.transformer, autoencoder, trained.text)
        print(f"{size / 1e6:.1f} MB in {chosen.out}")
