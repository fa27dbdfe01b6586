"""A second device on a machine that has none: tensors that say they lie on "meta", hold numbers, and refuse to mix."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

DEVICE = torch.device("meta")
COPY = torch.ops.aten.copy_.default
CROSSING = (COPY, torch.ops.aten.index.Tensor, torch.ops.aten.index_put.default, torch.ops.aten.index_put_.default)
"""Calls that take their other tensors from anywhere: a copy's source, and the places of an index."""


class There(Tensor):
    """A tensor on the pretended device; `held` has its numbers."""

    @staticmethod
    def __new__(cls, held: Tensor) -> There:
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), dtype=held.dtype, device=DEVICE, requires_grad=False
        )
        made.held = held
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return run(function, args, kwargs or {})

    def tolist(self) -> Any:
        return self.held.tolist()


def run(function: Any, args: tuple, kwargs: dict) -> Any:
    """A call on the device that its tensors share. Raises RuntimeError where they lie on both."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    there = [isinstance(tensor, There) for tensor in tensors]
    wanted = kwargs.get("device")
    onto = any(there) if wanted is None else torch.device(wanted) == DEVICE
    if function in CROSSING:
        onto = there[0]
    elif any(there) and not all(t or not x.ndim for t, x in zip(there, tensors, strict=True)):
        shapes = [(tuple(x.shape), "there" if t else "here") for t, x in zip(there, tensors, strict=True)]
        raise RuntimeError(f"{function} mixes devices: {shapes}")
    if wanted is not None:
        kwargs = kwargs | {"device": torch.device("cpu")}
    args, kwargs = tree_map_only(There, lambda tensor: tensor.held, (args, kwargs))
    result = function(*args, **kwargs)
    if function is COPY:
        return tensors[0]
    return tree_map_only(Tensor, There, result) if onto else result


class Calls(TorchDispatchMode):
    """Sends every call of torch's own to `run`."""

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return run(function, args, kwargs or {})


def made(stock: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`stock`, which makes tensors of Python's numbers, but here before they go there: "meta" would lose them."""

    def make(data: Any, *, device: Any = None, **options: Any) -> Tensor:
        tensor = stock(data, **options)
        return tensor if device is None else tensor.to(device)

    return make


@contextmanager
def pretended() -> Iterator[None]:
    """Meanwhile what is made on "meta", or moved there, has numbers."""
    with (
        patch.object(torch, "tensor", made(torch.tensor)),
        patch.object(torch, "as_tensor", made(torch.as_tensor)),
        Calls(),
    ):
        yield
