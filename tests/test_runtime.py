"""What a process does once before it works with models."""

from __future__ import annotations

import subprocess
import sys

SAID = """
import logging
import torch
from editor.runtime import prepare
before = torch.backends.cuda.cudnn_sdp_enabled()
prepare(1)
quiet = ("diffusers.configuration_utils", "bitsandbytes.backends.cpu.ops")
print(all(logging.getLogger(name).level == logging.ERROR for name in quiet), end=" ")
print(before, torch.backends.cuda.cudnn_sdp_enabled(), torch.get_num_threads(), torch.backends.cuda.flash_sdp_enabled())
"""


def test_a_prepared_process_leaves_cudnn_s_attention_alone_and_no_other() -> None:
    told = subprocess.run([sys.executable, "-c", SAID], capture_output=True, text=True, check=True).stdout.split()
    assert told == ["True", "True", "False", "1", "True"]
