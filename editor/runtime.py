"""What a process does once before it works with models; called by the programs, never on import."""

from __future__ import annotations

import ctypes

import torch

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
"""Parameters of glibc's mallopt."""


def prepare(threads: int | None = None) -> None:
    """Use so many CPU threads (None: torch's choice), and tell glibc, where there is one, to keep freed memory.

    Giving large tensors back to the system and faulting their pages in again takes more than half of the time of
    small models on a CPU.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)
        libc.mallopt(_TOP_PAD, 1 << 28)
