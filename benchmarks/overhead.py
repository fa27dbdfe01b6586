"""What an edit costs beside its networks: `python -m benchmarks.overhead [--effort balanced] [--json OUT]`.

The same edit is run twice: as a person gets it, and as nothing but its calls of the flow map's network, the
autoencoder and the VLM, forward and backward, replayed on the very inputs that the edit gave them. The overhead is the
quotient of the two times. Preprocessing, search, pictures and bookkeeping all count as overhead. The plan is given,
since writing it is nothing but calls of the VLM; its prompts are encoded by then, as the editor keeps the last few.

On a machine with other work, heed the processor's seconds: the wall's hold what the others took.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.cases import Case, make
from editor.engine import Editor
from editor.runtime import prepare
from editor.types import EditRequest
from training.world import TUNE

FIRST = TUNE + 600_000
"""Seed of the edits."""
CLOCKS: Mapping[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
"""Seconds of the clock on the wall, and of this process on all its cores: on a busy machine the second is fairer."""


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a network as an edit made it."""

    part: str
    network: nn.Module
    arguments: tuple[Any, ...]
    named: Mapping[str, Any]

    @property
    def inputs(self) -> list[Tensor]:
        """The tensors that a gradient was taken in; none for a call without a backward pass."""
        values = (*self.arguments, *self.named.values())
        return [value for value in values if isinstance(value, Tensor) and value.requires_grad]

    def again(self) -> None:
        """Make the call once more, with a backward pass to its inputs if it had one."""
        inputs = self.inputs
        with torch.set_grad_enabled(bool(inputs)):
            out = self.network(*self.arguments, **self.named)
        if inputs:
            outputs = [value for value in tensors(out) if value.requires_grad]
            torch.autograd.grad(outputs, inputs, [torch.ones_like(value) for value in outputs])


def tensors(out: Any) -> list[Tensor]:
    """The tensors among a network's outputs: one, or those of a tuple, a list or a mapping."""
    if isinstance(out, Tensor):
        return [out]
    values = out.values() if isinstance(out, Mapping) else out if isinstance(out, tuple | list) else ()
    return [value for part in values for value in tensors(part)]


@contextmanager
def recording(networks: Mapping[str, nn.Module]) -> Iterator[list[Call]]:
    """Fills the list with every call of these networks, by their names, while the context lasts."""
    calls: list[Call] = []

    def kept(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return value.detach().clone().requires_grad_(torch.is_grad_enabled() and value.requires_grad)

    def noting(part: str) -> Callable[..., None]:
        def note(network: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            calls.append(
                Call(part, network, tuple(map(kept, arguments)), {name: kept(value) for name, value in named.items()})
            )

        return note

    hooks = [net.register_forward_pre_hook(noting(part), with_kwargs=True) for part, net in networks.items()]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def networks_of(editor: Editor) -> dict[str, nn.Module]:
    """The networks that an edit cannot do without, by name."""
    models = editor.models
    vae, vlm = models.codec.vae, models.vlm.model.model
    return {
        "flow map": models.condition("").transformer,
        "encoder": vae.encoder,
        "decoder": vae.decoder,
        "VLM, image": vlm.visual,
        "VLM, text": vlm.language_model,
    }


def edit(editor: Editor, case: Case, effort: str) -> None:
    """The whole edit of a case, its plan given."""
    settings, wanted = editor.efforts[effort].but(seed=case.index), case.request.instruction
    request = EditRequest(image=case.image, instruction=wanted, plan=case.plan, settings=settings)
    *_, last = editor.edit(request)
    last.whole()


def seconds(work: Callable[[], None]) -> dict[str, float]:
    """What the work took, by each of CLOCKS."""
    began = {name: clock() for name, clock in CLOCKS.items()}
    work()
    return {name: clock() - began[name] for name, clock in CLOCKS.items()}


def overhead(work: Callable[[], None], calls: list[Call], repeats: int) -> dict[str, Any]:
    """Medians over `repeats` turns of the times of the work and of its bare calls, of their quotient, and of each part.

    The two take turns, so that both meet the machine in the same mood; the quotient is that of one turn.
    """
    turns, parts = [], []
    for _ in range(repeats):
        whole, part = seconds(work), dict.fromkeys((call.part for call in calls), 0.0)
        bare = dict.fromkeys(CLOCKS, 0.0)
        for call in calls:
            took = seconds(call.again)
            part[call.part] += took["wall"]
            bare = {name: bare[name] + took[name] for name in CLOCKS}
        turns.append((whole, bare))
        parts.append(part)
    found: dict[str, Any] = {}
    for name in CLOCKS:
        found |= {
            f"{name}_seconds": median(whole[name] for whole, _ in turns),
            f"{name}_seconds_bare": median(bare[name] for _, bare in turns),
            f"{name}_overhead": median(whole[name] / bare[name] for whole, bare in turns),
        }
    return found | {"parts": {name: median(part[name] for part in parts) for name in parts[0]}}


def measure(editor: Editor, effort: str, repeats: int) -> dict[str, Any]:
    """The overhead of one edit with that effort, after another edit that loads the models and warms them up."""
    edit(editor, make(FIRST, 0), "fast")
    case = make(FIRST, 4)
    with recording(networks_of(editor)) as calls:
        edit(editor, case, effort)
    counts = Counter(call.part for call in calls)
    backward = Counter(call.part for call in calls if call.inputs)
    found = {"effort": effort, "threads": torch.get_num_threads(), "instruction": case.request.instruction}
    found |= overhead(lambda: edit(editor, case, effort), calls, repeats)
    return found | {"calls": dict(counts), "backward": dict(backward)}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.overhead", description=__doc__.splitlines()[0])
    parser.add_argument("--effort", default="balanced", choices=("fast", "balanced", "thorough"))
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="turns of edit and bare calls (3)")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads; torch's choice if left out")
    parser.add_argument("--json", type=Path, metavar="OUT")
    chosen = parser.parse_args(argv)
    prepare(chosen.threads)
    found = measure(Editor.load(), chosen.effort, chosen.repeats)
    text = json.dumps(found, indent=1)
    print(text)
    if chosen.json:
        chosen.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
