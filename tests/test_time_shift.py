"""The time shift of FLUX: parity with diffusers' scheduler, and that inversion and search of a profile use it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from PIL import Image

from editor.engine import Editor
from editor.inversion import invert, roundtrip
from editor.loaders import load_time_shift
from editor.models import Models
from editor.oracles import Gaussian
from editor.profiles import PROFILES
from editor.schedules import grid, shifted, time_grid, unshifted
from editor.types import EditError, EditRequest, SearchSettings
from rewards.base import Check, Plan

DEV = {"shift": 3.0, "use_dynamic_shifting": True}
"""Of FLUX.1-dev's scheduler, whatever differs from the class's defaults."""


def stock_times(scheduler: FlowMatchEulerDiscreteScheduler, tokens: int, steps: int) -> torch.Tensor:
    """The times of the stock pipeline's loop, in our convention."""
    c = scheduler.config
    mu = calculate_shift(tokens, c.base_image_seq_len, c.max_image_seq_len, c.base_shift, c.max_shift)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)
    return 1 - scheduler.sigmas


@pytest.mark.parametrize("config", [DEV, DEV | {"base_shift": 0.3, "max_image_seq_len": 2048}, {}, {"shift": 2.5},
                                    DEV | {"time_shift_type": "linear"}])  # fmt: skip
@pytest.mark.parametrize("tokens", [256, 1024, 4096])
@pytest.mark.parametrize("steps", [1, 4, 28])
def test_the_times_are_those_of_the_stock_pipeline(config, tokens, steps, tmp_path):
    scheduler = FlowMatchEulerDiscreteScheduler(**config)
    scheduler.save_pretrained(tmp_path)
    shift, stock = load_time_shift(tmp_path, tokens), stock_times(scheduler, tokens, steps)
    torch.testing.assert_close(torch.tensor(grid(0.0, 1.0, steps, shift)), stock, rtol=0, atol=1e-6)
    settings = SearchSettings(strength=1.0, steps=steps, shift=shift)
    torch.testing.assert_close(torch.tensor(time_grid(settings)), stock, rtol=0, atol=1e-6)


def test_a_start_on_the_way_takes_the_rest_of_the_stock_times(tmp_path):
    scheduler = FlowMatchEulerDiscreteScheduler(**DEV)
    scheduler.save_pretrained(tmp_path)
    shift, stock = load_time_shift(tmp_path, 1024), stock_times(scheduler, 1024, 28)
    settings = SearchSettings(strength=float(1 - stock[9]), steps=28 - 9, shift=shift)
    torch.testing.assert_close(torch.tensor(time_grid(settings)), stock[9:], rtol=0, atol=1e-6)


@pytest.mark.parametrize("shift", [0.3, 1.0, 1.65, 3.16])
def test_the_shift_is_undone_and_keeps_the_ends(shift):
    for t in (0.0, 0.2, 0.75, 1.0):
        assert unshifted(shifted(t, shift), shift) == pytest.approx(t)
    assert (shifted(0.0, shift), shifted(1.0, shift)) == (0.0, 1.0)
    assert grid(0.2, 1.0, 5, shift)[::-1] == pytest.approx(grid(1.0, 0.2, 5, shift))
    assert grid(0.2, 1.0, 5, shift)[0] == 0.2


def test_no_shift_and_the_number_one_are_the_same():
    settings = SearchSettings(steps=7, strength=0.8, spacing=2.0)
    assert time_grid(settings) == time_grid(settings.but(shift=1.0))


@pytest.mark.parametrize("shift", [0.0, -1.0, float("nan"), 1e9, True])
def test_a_shift_that_makes_no_sense_is_refused(shift):
    with pytest.raises(ValueError, match="shift must be"):
        SearchSettings(shift=shift)


def test_inversion_under_a_shift_is_still_of_second_order():
    generator = torch.Generator().manual_seed(0)
    flow = Gaussian(torch.zeros(3, dtype=torch.float64), torch.diag(torch.tensor([0.5, 1.0, 2.0]).double()))
    x1 = torch.randn(4, 3, 1, 1, generator=generator, dtype=torch.float64)
    exact = flow(x1, 1.0, 0.2)
    errors = [float((invert(flow, x1, 0.2, steps, 2.0).x - exact).norm()) for steps in (32, 64, 128)]
    assert all(a / b > 3.5 for a, b in pairwise(errors)), errors
    assert not torch.equal(invert(flow, x1, 0.2, 16, 2.0).x, invert(flow, x1, 0.2, 16).x)
    assert roundtrip(flow, x1, 0.2, 64, 2.0).nfe == 4 * 64 * 4


def test_only_flux_profiles_ask_the_scheduler_and_sizes_give_their_tokens():
    asking = {name for name, profile in PROFILES.items() if profile.time_grid == "scheduler"}
    assert asking == {"flux", "flux-256", "flux-schnell"}
    tokens = {name: profile.image_tokens for name, profile in PROFILES.items()}
    assert tokens == {"studio": 64, "flux": 1024, "flux-256": 256, "flux-schnell": 1024, "sana": 1024}


def test_inversion_and_search_of_such_a_profile_keep_to_the_shifted_times(tiny_editor, tmp_path, monkeypatch):
    flow = tmp_path / "flow"
    flow.mkdir()
    for part in tiny_editor.models.place.flow.iterdir():
        if part.name != "scheduler":
            (flow / part.name).symlink_to(part)
    profile = replace(tiny_editor.profile, time_grid="scheduler")
    models = Models(profile, replace(tiny_editor.models.place, flow=flow))
    with pytest.raises(EditError, match="fetch it again"):
        models.shift  # noqa: B018
    FlowMatchEulerDiscreteScheduler(**DEV).save_pretrained(flow / "scheduler")
    models = Models(profile, models.place)
    assert (tiny_editor.models.shift, models.shift) == (1.0, load_time_shift(flow / "scheduler", 4))
    picture = Image.linear_gradient("L").convert("RGB").resize((32, 32))
    settings = SearchSettings(particles=2, steps=3, strength=0.8, keep=1, guided=1.0, corrections=1)
    plan = Plan((Check("Is it red?"),), "a clock")
    request = EditRequest(image=picture, instruction="x", plan=plan, settings=settings)
    seen = [update.t for update in Editor(models).edit(request) if update.stage == "search"]
    assert seen == pytest.approx(grid(0.2, 1.0, 3, models.shift))
    own = replace(request, settings=settings.but(shift=1.0))
    assert [u.t for u in Editor(models).edit(own) if u.stage == "search"] == pytest.approx(grid(0.2, 1.0, 3))
    shifts = []
    monkeypatch.setattr("editor.engine.roundtrip", lambda *given: shifts.append(given[-1]) or roundtrip(*given))
    Editor(models).invert(picture, 0.2)
    assert shifts == [models.shift]
