"""Train the studio's flow map: `python -m training.train_flowmap` (encodes the pictures first; resumes by itself).

With two idle cores, `torchrun --nproc-per-node 2 -m training.train_flowmap --compile --threads 1` trains with both; on
a GPU, `--device cuda --compile --batch 1024`.

One network v(x, s, t) for latents of the trained autoencoder, conditioned on captions with dropout. On the diagonal it
learns the velocity by flow matching; off it, it learns from itself that a jump is two shorter ones (the semigroup law
X_{u,t}(X_{s,u}(x)) = X_{s,t}(x)), the two being made by the average of its weights. A head in its middle learns to
foresee the hands.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
import torch
from diffusers import AutoencoderTiny, FluxPipeline, FluxTransformer2DModel
from torch import Tensor, nn
from transformers import CLIPTokenizer

from editor.runtime import prepare
from editor.twotime import load_two_time
from training import clocks
from training.clock_world import CLOCKS
from training.data import CHUNK, RUNS, Pictures, save
from training.flow_folder import TextEncoders, new_text_encoders, new_transformer, save_pipeline
from training.foresight import Foresight, dials, weights, where_hands_are
from training.harness import Length, Run, add_machine, half_precision, join_others, optimizers, rank, wait_for_others
from training.see import hand_table
from training.train_autoencoder import VAE, to_signed
from training.world import TRAIN

FOLDER = RUNS / "flowmap"
SIDE = 16
"""Of the latents."""
DROPOUT = 0.1
"""Share of captions left out."""


class Scenes(NamedTuple):
    """What the rendered pictures show, in their order, as far as the training needs it."""

    captions: list[str]
    dials: Tensor
    """(N, 3): see `foresight.dials`."""
    hands: Tensor
    """(N, HANDS, 7): see `see.hand_table`."""

    @classmethod
    def of(cls, count: int, workers: int) -> Scenes:
        """The first `count`, worked out by so many processes."""
        firsts = range(0, count, CHUNK)
        if workers:
            with ProcessPoolExecutor(workers) as pool:
                parts = list(pool.map(_described, firsts))
        else:
            parts = [_described(first) for first in firsts]
        captions, dial, hands = zip(*parts, strict=True)
        numbers = [torch.from_numpy(np.concatenate(part)) for part in (dial, hands)]
        return cls([said for part in captions for said in part], *numbers)


def _described(first: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Those of a chunk; arrays, since tensors would travel between processes by open files."""
    scenes = [CLOCKS.sample(TRAIN + first + i) for i in range(CHUNK)]
    rng = Random(f"captions {first}")
    return [prompt(scene, rng) for scene in scenes], dials(scenes).numpy(), hand_table(scenes).numpy()


@torch.no_grad()
def encode_all(
    vae: AutoencoderTiny,
    device: torch.device,
    folder: Path = RUNS / "latents",
    decoded: Path | None = RUNS / "decoded",
) -> Tensor:
    """Latents of every rendered picture, half precision (N, C, 16, 16); once also some reconstructions, for the VLM."""
    file, pictures = folder / "latents.npy", Pictures()
    if not file.exists():
        vae, parts = deepcopy(vae).to(device, memory_format=torch.channels_last), []
        for chunk in pictures.chunks:
            with half_precision(device):
                pixels = torch.from_numpy(np.array(chunk)).split(250)
                latents = torch.cat([vae.encoder(to_signed(part.to(device))) for part in pixels])
                parts.append(latents.half().cpu())
                if decoded is not None and len(parts) <= 10:
                    images = torch.cat([vae.decoder(part.float()).float() for part in latents.split(50)])
                    seen = images.add(1).mul(127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1)
                    save(decoded / f"{len(parts) - 1:08d}.npy", seen.cpu().numpy())
        save(file, torch.cat(parts).numpy())
    return torch.from_numpy(np.load(file))


def scale(vae: AutoencoderTiny, latents: Tensor) -> tuple[float, float]:
    """(shift, factor) that bring the latents to mean 0 and deviation 1; stored in the autoencoder's config."""
    sample = latents[:4000].float()
    shift, factor = float(sample.mean()), float(1 / sample.std())
    vae.register_to_config(shift_factor=shift, scaling_factor=factor)
    return shift, factor


class FlowNetwork:
    """The transformer and the text encoders as one function of tensors, in our time."""

    def __init__(
        self, transformer: FluxTransformer2DModel, text: TextEncoders, device: torch.device, compiled: bool
    ) -> None:
        self.text, self.device = text, device
        self.transformer, self.foresight = transformer, Foresight(transformer)
        parts = {"transformer": transformer, "clip": text.clip, "t5": text.t5, "foresight": self.foresight}
        self.modules = nn.ModuleDict(parts).to(device)
        self.teacher = deepcopy(transformer).requires_grad_(False)
        if compiled:
            for network in (self.transformer, self.teacher):
                network.compile_repeated_blocks(dynamic=False)
        self.image_ids = FluxPipeline._prepare_latent_image_ids(1, SIDE // 2, SIDE // 2, device, torch.float32)

    def inputs(self, tokens: Tensor, s: Tensor, t: Tensor, said: tuple[Tensor, Tensor]) -> dict[str, object]:
        """Keyword arguments of the transformer for packed latents (B, 64, 4 C) between times s and t."""
        sequence, pooled = said
        return {
            "hidden_states": tokens,
            "timestep": torch.stack([1 - s, 1 - t], -1),
            "guidance": None,
            "encoder_hidden_states": sequence,
            "pooled_projections": pooled,
            "img_ids": self.image_ids,
            "txt_ids": torch.zeros(sequence.shape[1], 3, device=self.device),
            "return_dict": False,
        }

    def velocity(self, tokens: Tensor, s: Tensor, t: Tensor, said: tuple[Tensor, Tensor]) -> Tensor:
        """v(x, s, t) from noise to image; the network's own runs the other way."""
        return -self.transformer(**self.inputs(tokens, s, t, said))[0].float()

    @torch.no_grad()
    def taught(self, tokens: Tensor, s: Tensor, t: Tensor, said: tuple[Tensor, Tensor]) -> Tensor:
        """`velocity` by the average of the weights."""
        return -self.teacher(**self.inputs(tokens, s, t, said))[0].float()

    def follow(self, average: dict[str, Tensor]) -> None:
        """Let `taught` use these very tensors as weights, now and when they change in place."""
        for name, weight in self.teacher.named_parameters():
            weight.data = average[f"transformer.{name}"]


class Drawn(NamedTuple):
    """The rows of one batch."""

    x1: Tensor
    """Latents (B, C, 16, 16) of mean 0 and deviation 1."""
    ids: tuple[Tensor, Tensor]
    """Of the captions for CLIP and T5, (B, L) each; some are those of no caption."""
    dials: Tensor
    hands: Tensor


class Examples(NamedTuple):
    """All that batches are drawn from, where the network is."""

    latents: Tensor
    scenes: Scenes
    table: tuple[Tensor, Tensor]
    """`Drawn.ids` of every caption."""
    empty: tuple[Tensor, Tensor]
    shift: float
    factor: float

    @classmethod
    def of(cls, network: FlowNetwork, latents: Tensor, scenes: Scenes, shift: float, factor: float) -> Examples:
        """Latents as `encode_all` gives them, with the (shift, factor) of their autoencoder."""
        said = [network.text.tokens(scenes.captions[i : i + 2000]) for i in range(0, len(latents), 2000)]
        clip, t5 = (torch.cat(ids).to(network.device) for ids in zip(*said, strict=True))
        placed = scenes._replace(dials=scenes.dials.to(network.device), hands=scenes.hands.to(network.device))
        none, nothing = (ids.to(network.device) for ids in network.text.tokens([""]))
        return cls(latents.to(network.device), placed, (clip, t5), (none, nothing), shift, factor)

    def draw(self, batch: int, generator: torch.Generator) -> Drawn:
        """So many at random, a share DROPOUT of them without their caption."""
        device = generator.device
        rows = torch.randint(len(self.latents), (batch,), generator=generator, device=device)
        silent = torch.rand(batch, 1, generator=generator, device=device) < DROPOUT
        clip, t5 = (torch.where(silent, n, own[rows]) for own, n in zip(self.table, self.empty, strict=True))
        x1 = (self.latents[rows].float() - self.shift) * self.factor
        return Drawn(x1, (clip, t5), self.scenes.dials[rows], self.scenes.hands[rows])


def times(count: int, generator: torch.Generator) -> Tensor:
    """Times for flow matching: logistic-normal around the middle, a fifth of them uniform."""
    device = generator.device
    normal = torch.sigmoid(-0.2 + 1.1 * torch.randn(count, generator=generator, device=device))
    uniform, which = torch.rand(2, count, generator=generator, device=device)
    return torch.where(which < 0.2, uniform, normal)


def jumps(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """(s, u, t) with s < u < t; half of the jumps end at the image."""
    start, reach, which, middle = torch.rand(4, count, generator=generator, device=generator.device)
    s = 0.98 * start
    t = torch.where(which < 0.5, 1.0, s + (1 - s) * reach)
    return s, s + (t - s) * (0.25 + 0.5 * middle), t


def two_shorter(
    network: FlowNetwork, tokens: Tensor, s: Tensor, u: Tensor, t: Tensor, said: tuple[Tensor, Tensor]
) -> Tensor:
    """v of the jump from s to t that two by the average of the weights make, by way of u; each time (B,)."""
    first = network.taught(tokens, s, u, said)
    second = network.taught(tokens + (u - s)[:, None, None] * first, u, t, said)
    share = ((u - s) / (t - s))[:, None, None]
    return share * first + (1 - share) * second


def loss(
    network: FlowNetwork,
    x1: Tensor,
    dial: Tensor,
    hands: Tensor,
    ids: tuple[Tensor, Tensor],
    off: int,
    generator: torch.Generator,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Flow matching on all but the last `off` of the batch, self-distillation on those; (loss, each part's error).

    Latents x1 (B, C, 16, 16) with the rows of `Scenes` that belong to them.
    """
    packed = FluxPipeline._pack_latents(x1, *x1.shape)
    noise = torch.randn(packed.shape, generator=generator, device=packed.device)
    said = network.text.encode(*ids)
    on = len(x1) - off
    s = times(len(x1), generator)
    t, target = s.clone(), packed - noise
    if off:
        s[on:], u, t[on:] = jumps(off, generator)
    x = noise.lerp(packed, s[:, None, None])
    if off:
        told = tuple(part[on:].detach() for part in said)
        target[on:] = two_shorter(network, x[on:], s[on:], u, t[on:], told)
    error = (network.velocity(x, s, t, said) - target).square().mean(2)
    foreseen = network.foresight.loss(where_hands_are(hands))
    value = (error * weights(dial)).mean() + foreseen
    parts = {"flow matching": error[:on].mean(), "jumps": error[on:].mean() if off else error.new_zeros(())}
    return value, {name: part.detach() for name, part in (parts | {"hands' places": foreseen}).items()}


def prompt(scene: clocks.Clock, rng: Random) -> str:
    """A caption; sometimes with a time that has nothing to do with the picture, so that no prompt can set the time."""
    random_time = f", showing {clocks.clock_time(rng.randrange(720))}" if rng.random() < 0.2 else ""
    return CLOCKS.caption(scene, rng) + random_time


def networks(captions: list[str], channels: int, start: Path | None) -> tuple[FluxTransformer2DModel, TextEncoders]:
    """New networks, or those of a FluxPipeline folder to go on from."""
    if start is None:
        torch.manual_seed(0)
        transformer, text = new_transformer(channels=channels), new_text_encoders(captions)
        return transformer, text._replace(clip_tokenizer=_kept(text.clip_tokenizer))
    stock = FluxPipeline.from_pretrained(start, torch_dtype=torch.float32, transformer=None, vae=None)
    text = TextEncoders(stock.text_encoder, stock.tokenizer, stock.text_encoder_2, stock.tokenizer_2)
    return load_two_time(start / "transformer").train(), text


def _kept(tokenizer: CLIPTokenizer) -> CLIPTokenizer:
    """The tokenizer of the first start: a new one numbers its letters otherwise, and weights mean nothing then."""
    folder = FOLDER / "tokenizer"
    if rank() == 0 and not folder.exists():
        tokenizer.save_pretrained(folder)
    wait_for_others()
    return CLIPTokenizer.from_pretrained(folder)


def train(
    length: Length, batch: int, lr: float, compiled: bool, device: torch.device, workers: int, start: Path | None = None
) -> tuple[FlowNetwork, AutoencoderTiny]:
    """Train for this length: a fifth of it on the diagonal alone, then a fourth of each batch off it.

    `batch` is that of each process.
    """
    vae = AutoencoderTiny.from_pretrained(VAE if start is None else start / "vae")
    latents = encode_all(vae, device)
    shift, factor = scale(vae, latents)
    scenes = Scenes.of(len(latents), workers)
    network = FlowNetwork(*networks(scenes.captions[:8000], latents.shape[1], start), device, compiled)
    examples = Examples.of(network, latents, scenes, shift, factor)
    run = Run(FOLDER, network.modules, optimizers(network.modules, lr), decay=0.9995)
    network.follow(run.average)
    while (share := run.share(length)) < 1:
        generator = run.generator(device)
        drawn = examples.draw(batch, generator)
        off = batch // 4 if share > 0.2 else 0
        with half_precision(device):
            value, told = loss(network, drawn.x1, drawn.dials, drawn.hands, drawn.ids, off, generator)
        run.advance(value, batch, share)
        run.tell(100, **told)
    run.save()
    run.averaged()
    return network, vae


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Length.parse, default=Length(160_000), help="or minutes as in 15m")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--compile", action="store_true", help="compile the network's blocks: a minute, then faster")
    parser.add_argument("--init", type=Path, help="a trained folder to go on from where there is no checkpoint")
    parser.add_argument("--out", type=Path, default=FOLDER / "flow")
    add_machine(parser)
    chosen = parser.parse_args()
    prepare(chosen.threads)
    join_others()
    trained, autoencoder = train(
        chosen.images, chosen.batch, chosen.lr, chosen.compile, torch.device(chosen.device), chosen.workers, chosen.init
    )
    if rank() == 0:
        trained.modules.cpu()
        size = save_pipeline(chosen.out, trained.transformer, autoencoder, trained.text)
        print(f"{size / 1e6:.1f} MB in {chosen.out}")
