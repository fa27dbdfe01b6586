"""The profile flux over the published layouts at a tiny size, held as a memory plan says, for the tests."""

from __future__ import annotations

from dataclasses import replace

import torch

from editor.memory import ladder
from editor.models import Hardware, Models, Place
from editor.profiles import PROFILES
from editor.types import SearchSettings
from rewards.base import Check, Plan
from tests.published import CHANNELS
from tests.tiny_flow import CAPTION

PLAN = Plan((Check("Is the rim red?"), Check("What time does the clock show?", "4:45")), CAPTION, ("a white face",))
SMALL = SearchSettings(particles=3, steps=2, keep=1, selections=1, corrections=1)


def flux_models(place: Place, **changes) -> Models:
    """The third plan of the ladder with some changes, on the CPU, for squares of 32 pixels of any picture."""
    plan = replace(ladder(PROFILES["flux"])[2], **changes)
    return Models(replace(PROFILES["flux"], text_tokens=32, size=32, least_psnr=-100.0), place, Hardware(plan=plan))


def latents(batch: int = 3) -> torch.Tensor:
    return torch.randn(batch, CHANNELS, 4, 4, generator=torch.Generator().manual_seed(2))
