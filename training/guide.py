"""Teach the flow map to guide itself: `python -m training.guide --init FOLDER --out FOLDER` (resumes by itself).

Classifier-free guidance (Ho and Salimans, arXiv 2207.12598) moves a velocity away from that without a caption,
v_w = v(x | "") + w (v(x | caption) - v(x | "")). It draws clearer hands and costs twice the network evaluations, unless
it is learned in (Meng et al., arXiv 2210.03142), as FLUX.1-dev has it. The network as it was shows what it would do
with guidance, at every pair of times; the one that learns is to do so by itself, and without a caption as before. In
the second half its jumps learn from its own average that a jump is two shorter ones: the semigroup law comes back.

Guide once, after `training.train_flowmap`: of weights that are guided already, guidance comes out w times as strong.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, FluxPipeline
from torch import Tensor

from editor.runtime import prepare
from training.data import RUNS
from training.flow_folder import save_pipeline
from training.foresight import weights
from training.harness import Length, Run, add_machine, half_precision, join_others, optimizers, rank
from training.train_flowmap import Examples, FlowNetwork, Scenes, encode_all, jumps, networks, times, two_shorter

FOLDER = RUNS / "guided"
ALONE = 0.5
"""Share of the training in which jumps are shown too; from then on they are learned from the network itself."""

Said = tuple[Tensor, Tensor]


@torch.no_grad()
def guided(shown: FlowNetwork, tokens: Tensor, s: Tensor, t: Tensor, ids: Said, empty: Said, scale: float) -> Tensor:
    """v_w of packed latents (B, 64, 4 C) between times s and t under guidance of this scale w."""
    caption, none = (shown.text.encode(*(part.expand(len(tokens), -1) for part in told)) for told in (ids, empty))
    free = shown.velocity(tokens, s, t, none)
    return free + scale * (shown.velocity(tokens, s, t, caption) - free)


def loss(
    network: FlowNetwork, shown: FlowNetwork, x1: Tensor, dial: Tensor, ids: Said, empty: Said, off: int, scale: float,
    alone: bool, generator: torch.Generator,
) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
    """Mean squared error against what is shown, the last `off` of the batch between two times; and each part's.

    Latents x1 (B, C, 16, 16) and the rows of `Scenes` that belong to them. `alone`: those last learn from the network's
    own average that a jump is two shorter ones.
    """
    packed = FluxPipeline._pack_latents(x1, *x1.shape)
    noise = torch.randn(packed.shape, generator=generator, device=packed.device)
    on = len(x1) - off
    s = times(len(x1), generator)
    t = s.clone()
    s[on:], u, t[on:] = jumps(off, generator)
    x, said = noise.lerp(packed, s[:, None, None]), network.text.encode(*ids)
    few = on if alone else len(x1)
    target = guided(shown, x[:few], s[:few], t[:few], tuple(part[:few] for part in ids), empty, scale)
    if alone:
        told = tuple(part[on:].detach() for part in said)
        target = torch.cat([target, two_shorter(network, x[on:], s[on:], u, t[on:], told)])
    error = (network.velocity(x, s, t, said) - target).square().mean(2)
    network.foresight.middle = None  # nothing is asked of the head here, and what it holds could not be copied
    parts = {"velocity": error[:on].mean().detach(), "jumps": error[on:].mean().detach()}
    return (error * weights(dial)).mean(), parts


def train(
    length: Length, batch: int, lr: float, scale: float, device: torch.device, workers: int, start: Path,
    folder: Path = FOLDER,
) -> tuple[FlowNetwork, AutoencoderTiny]:  # fmt: skip
    """Guide the network of a FluxPipeline folder for this length; a fourth of each batch is jumps."""
    vae = AutoencoderTiny.from_pretrained(start / "vae")
    latents = encode_all(vae, device)
    scenes = Scenes.of(len(latents), workers)
    network, shown = (FlowNetwork(*networks([], latents.shape[1], start), device, False) for _ in range(2))
    examples = Examples.of(network, latents, scenes, vae.config.shift_factor, vae.config.scaling_factor)
    run = Run(folder, network.modules, optimizers(network.modules, lr), seed=4, decay=0.995)
    network.follow(run.average)
    while (share := run.share(length)) < 1:
        generator = run.generator(device)
        drawn = examples.draw(batch, generator)
        with half_precision(device):
            value, told = loss(
                network, shown, drawn.x1, drawn.dials, drawn.ids, examples.empty, batch // 4, scale, share > ALONE,
                generator,
            )  # fmt: skip
        run.advance(value, batch, share)
        run.tell(20, **told)
    run.save()
    run.averaged()
    return network, vae


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Length.parse, default=Length(28_000), help="or minutes as in 15m")
    parser.add_argument("--guidance", type=float, default=1.5, help="w; 1 is none")
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--init", type=Path, required=True, help="a trained folder without guidance")
    parser.add_argument("--out", type=Path, default=FOLDER / "flow")
    add_machine(parser)
    chosen = parser.parse_args()
    prepare(chosen.threads)
    join_others()
    place = torch.device(chosen.device)
    trained, autoencoder = train(
        chosen.images, chosen.batch, chosen.lr, chosen.guidance, place, chosen.workers, chosen.init
    )
    if rank() == 0:
        trained.modules.cpu()
        size = save_pipeline(chosen.out, trained.transformer, autoencoder, trained.text)
        print(f"{size / 1e6:.1f} MB in {chosen.out}")
