"""Flow map and VLM on devices of their own in one process."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from editor import models as module
from editor.adapters import FluxFlowMap, LatentCodec
from editor.engine import Editor
from editor.hub import Hub
from editor.models import Hardware, Models, load_profile
from editor.profiles import PROFILES
from editor.twotime import two_time
from editor.types import EditError, EditRequest
from rewards.checks import CheckReward
from rewards.preserve import Preserve
from rewards.vlm import VLM, Calls
from tests.pretend import pretended
from tests.published import CHANNELS, flux_transformer
from tests.tiny_flow import TEXT_WIDTH, tiny_kl
from tests.tiny_profiles import PLAN, SMALL, flux_models


class Elsewhere:
    """A judge on a device of its own that takes images from there only."""

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        self.weight = torch.ones(3 * 32 * 32, 2, device=device)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return images.to(self.device).flatten(1)

    def score(self, features: torch.Tensor, rows: list, calls: Calls | None = None) -> torch.Tensor:
        assert features.device == self.device
        return features @ self.weight


PICTURE = Image.linear_gradient("L").convert("RGB").resize((40, 32))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "second", "method"),
    [("meta", "meta", "fmtt"), ("meta", "cpu", "fmtt"), ("cpu", "meta", "fmtt"), ("meta", "meta", "fmtt-sampling")],
)
def test_an_edit_is_the_same_wherever_the_models_lie(first, second, method, flux_place, monkeypatch):
    """On a pretended device that holds numbers and refuses to mix: only moves that the code makes itself can cross."""
    monkeypatch.setattr("editor.engine.INVERSION_STEPS", 1)
    settings = SMALL.but(method=method, particles=2, steps=1, lookahead_steps=2, jitters=1, focus=0.9)
    mask = Image.linear_gradient("L").resize((40, 32)) if second == "cpu" else None
    request = EditRequest(image=PICTURE, instruction="make the rim red", plan=PLAN, mask=mask, settings=settings)
    here, elsewhere = (flux_models(flux_place, full_decoder=False) for _ in range(2))
    *_, expected = Editor(here).edit(request)
    elsewhere.load()
    elsewhere.condition(PLAN.caption)
    with pretended():
        at = Hardware(torch.device(first), torch.float32, torch.device(second), here.hardware.plan)
        moved(elsewhere, at)
        *_, found = Editor(elsewhere).edit(request)
        start = Editor(elsewhere).invert(PICTURE, 0.5)
    assert {part.device for part in (start.latents, start.before, start.trip.x)} == {torch.device(first)}
    assert elsewhere.codec.vae.device == torch.device(first)
    assert elsewhere.vlm.device == torch.device(second)
    assert [c.score for c in found.candidates] == pytest.approx([c.score for c in expected.candidates], abs=1e-4)
    assert found.source_score == pytest.approx(expected.source_score, abs=1e-4)
    assert (found.focus is None) == (mask is not None)


def moved(models: Models, at: Hardware) -> None:
    """Put loaded models where `at` says, as if they had been loaded there."""
    models.hardware = at
    for network in (models._transformer, models.codec.vae, models.codec.draft):
        nn.Module.to(network, at.device)
    vlm = models.vlm
    models.__dict__["_vlm"] = VLM(vlm.model.to(at.vlm_device), vlm.processor)
    for prompt, flow in models._maps.items():
        models._maps[prompt] = replace(flow, sequence=flow.sequence.to(at.device), pooled=flow.pooled.to(at.device))


@pytest.mark.parametrize(("first", "second"), [("meta", "cpu"), ("cpu", "meta")])
def test_flow_map_and_vlm_may_lie_on_different_devices_of_one_process(first, second):
    """Fake tensors hold no numbers but refuse to mix devices; latents and gradients stay where the search has them."""
    transformer, vae = two_time(flux_transformer()).requires_grad_(False), tiny_kl().requires_grad_(False)
    with FakeTensorMode(allow_non_fake_inputs=True):
        prompt = torch.zeros(1, 5, TEXT_WIDTH, device=first), torch.zeros(1, TEXT_WIDTH, device=first)
        flow, codec = FluxFlowMap(transformer.to(first), *prompt), LatentCodec(vae.to(first), rows=2)
        x = torch.zeros(3, CHANNELS, 4, 4, requires_grad=True)
        checks = CheckReward(Elsewhere(second), PLAN.checks, jitters=1)
        images = codec.decode(flow(x, 0.3, 1.0))
        reward = checks(images) + Preserve(torch.zeros(1, 3, 32, 32))(images)
        (gradient,) = torch.autograd.grad(reward.sum(), x)
    assert (images.device, reward.device, gradient.device) == (x.device,) * 3
    assert flow.transformer.device == codec.vae.device == torch.device(first)
    assert gradient.shape == x.shape


def test_two_gpus_share_the_work(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (40e9, 48e9))
    hardware = module.gpus(PROFILES["flux"])
    assert (str(hardware.device), str(hardware.vlm_device)) == ("cuda:0", "cuda:1")
    assert (hardware.plan.flow, hardware.plan.vlm) == ("bf16", "bf16")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: ((4e9, 80e9)[device], 80e9))
    hardware = module.gpus(PROFILES["flux"])
    assert (str(hardware.device), hardware.vlm_device) == ("cuda:1", None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4e9, 8e9))
    with pytest.raises(EditError, match="needs at least"):
        load_profile("flux", hub=Hub(snapshot=lambda *_, **__: str(tmp_path)))
