"""What a process does once before it works with models; called by the programs, never on import."""

from __future__ import annotations

import ctypes
import logging
import os
from contextlib import AbstractContextManager, nullcontext

import torch
from huggingface_hub import constants
from torch.nn.attention import SDPBackend, sdpa_kernel

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
"""Parameters of glibc's mallopt."""


def prepare(threads: int | None = None) -> None:
    """Stay offline, use so many CPU threads (None: torch's choice), keep freed memory, leave cuDNN's attention alone.

    Of the configuration of an autoencoder diffusers warns that it holds what diffusers itself wrote there, and
    bitsandbytes of kernels that it would fetch from the Hub: not here.

    Giving large tensors back to the system and faulting their pages in again takes more than half of the time of
    small models on a CPU; glibc, where there is one, is told not to. On a GPU torch may choose cuDNN for attention in
    bfloat16: on an H100 with torch 2.11 backward passes then failed, and those that were run again without it did not
    (benchmarks/NOTES.md), so the choice is among torch's own kernels.
    """
    go_offline()
    for needless in ("diffusers.configuration_utils", "bitsandbytes.backends.cpu.ops"):
        logging.getLogger(needless).setLevel(logging.ERROR)
    torch.backends.cuda.enable_cudnn_sdp(False)
    if threads is not None:
        torch.set_num_threads(threads)
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)
        libc.mallopt(_TOP_PAD, 1 << 28)


def go_offline() -> None:
    """Forbid the libraries of the Hub to ask it from here on, and what they start: fetch and doctor alone may.

    Models are read from the disk anyway, but libraries ask on their own, as bitsandbytes, which fetches kernels when it
    is imported on some machines.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    constants.HF_HUB_OFFLINE = True  # for where the variable was read already


def half_or_single() -> torch.dtype:
    """How this machine's CPU holds networks: in bfloat16 where it has units that multiply it, else in float32.

    These are Intel's AMX and the AVX-512 of newer Intel and AMD processors. Without such units torch takes bfloat16
    apart, which is slower than float32.
    """
    found = torch.cpu.get_capabilities()
    return torch.bfloat16 if found.get("amx_bf16") or found.get("avx512_bf16") else torch.float32


def for_gradients(device: torch.device) -> AbstractContextManager[None]:
    """The attention for what will be differentiated: on a CPU the flash kernel's backward pass is slow in bfloat16."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()
