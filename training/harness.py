"""What every training shares: the schedule, the average of weights, checkpoints to resume from, and the clock.

A training is a function of (seed, images seen): it draws batch k from a generator made of the seed and k, so that a
run that was stopped and resumed sees the same batches as one that was not. Batches may be made by processes of their
own, ahead of the step that needs them: a GPU would wait for one.
"""

from __future__ import annotations

import math
import os
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, Dataset

from editor.runtime import half_or_single

Batch = TypeVar("Batch", covariant=True)

SAVED_EVERY = 30.0
"""Seconds between checkpoints, at least."""


class Length(NamedTuple):
    """How long a training goes on: for so many images, or for so many seconds, both with those before a resumption.

    One that goes by the clock gives other weights on another machine.
    """

    images: float = math.inf
    seconds: float = math.inf

    @classmethod
    def parse(cls, text: str) -> Length:
        """Of "120000" for images, "15m" or "2.5m" for minutes."""
        return cls(seconds=60 * float(text[:-1])) if text.endswith("m") else cls(images=int(text))


def add_machine(parser: ArgumentParser) -> None:
    """The arguments that say what a training runs on."""
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--workers", type=int, default=0, help="processes that make batches ahead; 0: none")


@contextmanager
def half_precision(device: torch.device) -> Iterator[None]:
    """bfloat16 where the machine multiplies it; on a CPU also the attention whose backward pass is fastest there."""
    with ExitStack() as stack:
        if device.type != "cpu" or half_or_single() == torch.bfloat16:
            stack.enter_context(torch.autocast(device.type, torch.bfloat16))
        if device.type == "cpu":
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield


def drawn(seed: int, step: int, device: torch.device | str = "cpu") -> torch.Generator:
    """The randomness of one step of a training, another in each process and on each kind of device."""
    return torch.Generator(device).manual_seed(seed * 1_000_003 + step + 500_009 * rank())


def rate(progress: float, warmup: float = 0.02, floor: float = 0.02) -> float:
    """Factor of the learning rate at this share of the training: linear warm-up, then a cosine to `floor`."""
    if progress < warmup:
        return progress / warmup + 1e-3
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def optimizers(module: nn.Module, lr: float, weight_decay: float = 0.01) -> list[torch.optim.Optimizer]:
    """Muon for the hidden matrices, AdamW for embeddings, norms, biases and the first and last layers."""
    hidden, rest = [], []
    for name, p in module.named_parameters():
        outer = any(word in name for word in ("embed", "lm_head", "proj_out", "shared", "x_embedder", "norm"))
        (hidden if p.ndim == 2 and not outer and min(p.shape) >= 16 else rest).append(p)
    found: list[torch.optim.Optimizer] = [torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.98), weight_decay=0.0)]
    if hidden:
        found.append(torch.optim.Muon(hidden, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"))
    return found


def join_others() -> None:
    """Under torchrun, train together: every process draws its own pictures and all step by the mean gradient."""
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("gloo")


def rank() -> int:
    """Which of the processes this is; 0 where it is alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def wait_for_others() -> None:
    """Go on when every process is here."""
    if dist.is_initialized():
        dist.barrier()


def share_gradients(modules: nn.Module) -> None:
    """Put the mean over the processes into every gradient."""
    if not dist.is_initialized():
        return
    gradients = [p.grad for p in modules.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient) / dist.get_world_size())


@dataclass
class Run:
    """A training in progress: modules, optimisers, the average of weights, and where it stands."""

    folder: Path
    modules: nn.ModuleDict
    optimizers: list[torch.optim.Optimizer]
    seed: int = 0
    decay: float = 0.999
    step: int = 0
    images: int = 0
    seconds: float = 0.0
    average: dict[str, Tensor] = field(default_factory=dict)
    recent: list[dict[str, float | Tensor]] = field(default_factory=list)
    """Figures of the steps since the last ones were printed."""
    saved: float = 0.0
    """Seconds of training at the last checkpoint."""

    def __post_init__(self) -> None:
        self.rates = [[group["lr"] for group in o.param_groups] for o in self.optimizers]
        self.started = time.monotonic()
        if self.path.exists():
            self._load(torch.load(self.path, weights_only=True, map_location="cpu"))
        if not self.average:
            self.average = {name: p.detach().clone() for name, p in self.modules.named_parameters()}

    @property
    def path(self) -> Path:
        return self.folder / "checkpoint.pt"

    def generator(self, device: torch.device | str = "cpu") -> torch.Generator:
        """The randomness of the coming step."""
        return drawn(self.seed, self.step, device)

    def share(self, length: Length) -> float:
        """How much of a training of this length is done, by the first process's clock; 1 is all."""
        self._count_time()
        seconds = torch.tensor(self.seconds, dtype=torch.float64)
        if dist.is_initialized() and math.isfinite(length.seconds):
            dist.broadcast(seconds, 0)
        return max(self.images / length.images, float(seconds) / length.seconds)

    def batches(self, make: Callable[[torch.Generator], Batch], workers: int) -> Iterator[Batch]:
        """What `make` draws for the coming step and each one after it; by so many processes, or by this one when asked.

        `make` gets the generator of the step; what it returns must not live on a GPU.
        """
        options: dict[str, Any] = {}
        if workers:
            # Batches lie in files of their own: there are more of them than files that a process may hold open.
            torch.multiprocessing.set_sharing_strategy("file_system")
            options = {"multiprocessing_context": "fork", "pin_memory": torch.cuda.is_available()}
        steps, order = _Steps(make, self.seed), count(self.step)
        return iter(DataLoader(steps, batch_size=None, sampler=order, num_workers=workers, **options))

    def advance(self, loss: Tensor, images: int, progress: float, clip: float = 1.0) -> None:
        """One optimiser step on the gradient of `loss` of so many images, at this share of the training."""
        for optimizer, rates in zip(self.optimizers, self.rates, strict=True):
            for group, base in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = base * rate(progress)
        loss.backward()
        share_gradients(self.modules)
        nn.utils.clip_grad_norm_(self.modules.parameters(), clip)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.images += images * (dist.get_world_size() if dist.is_initialized() else 1)
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        parameters = dict(self.modules.named_parameters())
        names = list(self.average)
        torch._foreach_lerp_([self.average[n] for n in names], [parameters[n].detach() for n in names], 1 - decay)

    def tell(self, every: int, **figures: float | Tensor) -> None:
        """Remember this step's figures; every so many steps print their means, and save if that was not done lately.

        Raises FloatingPointError where one is no longer a number: what was saved before it is still good.
        """
        self.recent.append(figures)
        if self.step % every:
            return
        means = {name: mean(float(row[name]) for row in self.recent) for name in figures}
        self.recent.clear()
        broken = [name for name, value in means.items() if not math.isfinite(value)]
        if broken:
            raise FloatingPointError(f"No longer a number: {', '.join(broken)}. Resume at a lower rate of learning.")
        self._count_time()
        if self.seconds - self.saved > SAVED_EVERY:
            self.save()
        text = ", ".join(f"{name} {value:.4g}" for name, value in means.items())
        print(f"{self.folder.name}: {self.images} images, {self.seconds:.0f} s, {text}", flush=True)

    def _count_time(self) -> None:
        now = time.monotonic()
        self.seconds, self.started = self.seconds + now - self.started, now

    def save(self) -> None:
        """Write the checkpoint, in the first process alone; a stop while writing loses nothing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._count_time()
        self.saved = self.seconds
        state: dict[str, Any] = {
            "modules": self.modules.state_dict(),
            "average": self.average,
            "step": self.step,
            "images": self.images,
            "seconds": self.seconds,
            "optimizers": [o.state_dict() for o in self.optimizers],
        }
        if rank() == 0:
            partial = self.path.with_suffix(".partial")
            torch.save(state, partial)
            partial.rename(self.path)

    def _load(self, state: dict[str, Any]) -> None:
        self.modules.load_state_dict(state["modules"])
        parameters = dict(self.modules.named_parameters())
        self.average = {name: value.to(parameters[name].device) for name, value in state["average"].items()}
        self.step, self.images, self.seconds = state["step"], state["images"], state["seconds"]
        self.saved = self.seconds
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)

    def averaged(self) -> None:
        """Put the average of the weights into the modules, to save or to judge them."""
        parameters = dict(self.modules.named_parameters())
        with torch.no_grad():
            for name, value in self.average.items():
                parameters[name].copy_(value)


class _Steps(Dataset[Batch], Generic[Batch]):
    """The batches of a training by the number of their step."""

    def __init__(self, make: Callable[[torch.Generator], Batch], seed: int) -> None:
        self.make, self.seed = make, seed

    def __getitem__(self, step: int) -> Batch:
        return self.make(drawn(self.seed, step))


def mean(values: Iterable[float]) -> float:
    """The mean of a few numbers."""
    found = list(values)
    return sum(found) / len(found)
