"""The profile flux on small random checkpoints in the published layouts, on the CPU: what is loaded, what it does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from PIL import Image
from safetensors.torch import save_file

from editor import models as module
from editor.adapters import LatentCodec, SanaFlowMap
from editor.engine import Editor
from editor.flowmap import look_ahead
from editor.judge import Judge
from editor.memory import QUESTIONS, ladder
from editor.models import Hardware, Models, Place, load_profile, placed
from editor.profiles import PROFILES
from editor.types import EditError, EditRequest
from rewards.vlm import Calls
from tests.tiny_flow import CAPTION
from tests.tiny_profiles import PLAN, SMALL, flux_models, latents


def test_flux_is_the_dev_model_with_the_patch_and_the_lora_on_top(flux_place):
    flow = flux_models(flux_place).condition(CAPTION)
    plain = flux_models(replace(flux_place, lora=None)).condition(CAPTION)
    assert (flow.two_time, plain.two_time) == (True, False)
    assert flow.guidance == 3.5
    x = latents()
    with torch.no_grad():
        assert not torch.allclose(flow(x, 0.1, 0.6), flow(x, 0.1, 1.0) * 5 / 9 + x * 4 / 9)
        assert not torch.allclose(flow.velocity(x, 0.1), plain.velocity(x, 0.1))


def test_every_plan_gives_gradients_and_only_quantising_changes_the_result(flux_place):
    x = latents().requires_grad_()
    reference = flux_models(flux_place, rows=3, checkpoint=False)

    def results(held: Models):
        landing = held.condition(CAPTION)(x, 0.1, 1.0)
        images = held.codec.decode(landing)
        return landing.detach(), images.detach(), *torch.autograd.grad(images.square().sum(), x)

    expected = results(reference)
    torch.testing.assert_close(results(flux_models(flux_place, rows=2)), expected, rtol=1e-4, atol=1e-5)
    quantised = flux_models(flux_place, flow="nf4", full_decoder=False)
    landing, _, gradient = results(quantised)
    assert any(isinstance(layer, Linear4bit) for layer in quantised.condition(CAPTION).transformer.modules())
    assert 0 < (landing - expected[0]).norm() / expected[0].norm() < 0.2
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0


def test_the_draft_gives_the_slope_and_the_full_decoder_all_that_is_judged_and_shown(flux_place, monkeypatch):
    held, rendered = flux_models(flux_place, full_decoder=False), []
    stock = LatentCodec.render

    def render(self, latents):
        rendered.append(stock(self, latents))
        return rendered[-1]

    monkeypatch.setattr(LatentCodec, "render", render)
    picture = Image.linear_gradient("L").convert("RGB").resize((40, 32))
    request = EditRequest(image=picture, instruction="make the rim red", plan=PLAN, settings=SMALL)
    *steps, last = Editor(held).edit(request)
    assert held.codec.draft is not None
    assert steps[-1].diagnostics["gradients"] > 0
    shown = torch.cat(rendered)
    for candidate in last.candidates:
        assert (shown == candidate.laid.after).flatten(1).all(1).any()
    full = flux_models(flux_place).codec
    torch.testing.assert_close(stock(held.codec, latents()), full.render(latents()))


def test_a_look_ahead_of_several_jumps_keeps_one_for_the_backward_pass(flux_place):
    """What autograd keeps beside the networks' own recomputation are latents; however few candidates there are."""
    x = latents(1).requires_grad_()

    def kept(held: Models, jumps: int) -> int:
        sizes = []
        flow = held.condition(CAPTION)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            landing = look_ahead(flow, x, 0.1, "map", jumps)
        (slope,) = torch.autograd.grad(landing.square().sum(), x)
        assert slope.abs().sum() > 0
        return sum(sizes)

    whole, planned = flux_models(flux_place, checkpoint=False, rows=2), flux_models(flux_place, rows=2)
    for held in (whole, planned):
        assert kept(held, 3) - kept(held, 1) <= 2 * 8 * x.numel()
    unbounded = Models(planned.profile, flux_place)
    assert kept(unbounded, 3) - kept(unbounded, 1) > 100 * x.numel()


def test_no_pass_of_any_network_holds_more_than_the_plan(flux_place, monkeypatch):
    """Flow map, decoder and VLM, forward and in the recomputation backward; the result is that of one pass."""
    x = latents(5).requires_grad_()

    def reward(held: Models) -> tuple[torch.Tensor, torch.Tensor]:
        before = held.codec.render(latents(1))
        judge = Judge.of(held, PLAN, before, latents(1), before, None, SMALL.but(jitters=1), Calls())
        scored = judge(held.condition(CAPTION)(x, 0.3, 1.0))
        return scored.reward, torch.autograd.grad(scored.reward.sum(), x)[0]

    bounded, seen = flux_models(flux_place, rows=2), {"flow": [], "decoder": [], "images": [], "pairs": []}
    vlm, transformer = bounded.vlm, bounded.condition(CAPTION).transformer
    note = lambda _, __, given: seen["flow"].append(len(given["hidden_states"]))  # noqa: E731
    transformer.register_forward_pre_hook(note, with_kwargs=True)
    bounded.codec.vae.decoder.register_forward_pre_hook(lambda _, given: seen["decoder"].append(len(given[0])))
    features, score = vlm.features, vlm.score

    def see(images):
        seen["images"].append(len(images))
        return features(images)

    def ask(parts, rows, calls=None):
        seen["pairs"].append(len(parts.tokens) * len(rows[0]))
        return score(parts, rows, calls)

    monkeypatch.setattr(vlm, "features", see)
    monkeypatch.setattr(vlm, "score", ask)
    torch.testing.assert_close(reward(bounded), reward(flux_models(flux_place, rows=99)), rtol=1e-4, atol=1e-5)
    assert {name: max(sizes) for name, sizes in seen.items()} == {"flow": 2, "decoder": 2, "images": 2, "pairs": 2 * 3}
    assert bounded.limit == (2, 2 * QUESTIONS)


def test_a_wrong_lora_is_refused_by_its_name(flux_place, tmp_path):
    save_file({"transformer.x_embedder.lora_A.weight": torch.zeros(2, 64)}, tmp_path / "other.safetensors")
    with pytest.raises(EditError, match=r"other\.safetensors"):
        flux_models(replace(flux_place, lora=tmp_path / "other.safetensors")).condition(CAPTION)


def test_sana_binds_its_prompt_with_the_pipelines_instruction():
    asked = {}

    class Text:
        def encode_prompt(self, prompt, **options):
            asked.update(options, prompt=prompt)
            return torch.zeros(1, 3, 4), torch.ones(1, 3)

    held = Models(PROFILES["sana"], Place(None, None))
    held.__dict__.update(_text=Text(), _transformer=None)
    assert isinstance(held.condition("a cat"), SanaFlowMap)
    assert asked["max_sequence_length"] == 300
    assert asked["complex_human_instruction"][0].startswith("Given a user prompt")


def test_a_gpu_profile_without_a_gpu_is_one_sentence(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EditError, match="needs an NVIDIA GPU and none is usable"):
        load_profile("flux")


def test_the_plan_is_said_when_a_gpu_profile_is_loaded(flux_place, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(module, "gpus", lambda profile: Hardware(torch.device("cuda", 0), plan=ladder(profile)[0]))
    monkeypatch.setattr(module, "folders", lambda profile, hub: {repo.id: tmp_path for repo in profile.repos})
    held = load_profile("flux", vlm=str(flux_place.vlm))
    assert held.place.vlm == flux_place.vlm.resolve()
    said = capsys.readouterr().err
    assert said == f"flux+{flux_place.vlm.name} on cuda:0: {ladder(held.profile)[0]}.\n"
    assert "flow map in bf16, VLM in bf16, full decoder" in said


def test_the_parts_are_found_in_their_repositories(tmp_path):
    profile = PROFILES["flux"]
    found = {repo.id: tmp_path / repo.id for repo in profile.repos}
    place = placed(profile, found)
    assert place.lora == found[profile.lora.id] / profile.lora.files[0]
    assert place.draft == tmp_path / "madebyollin/taef1"
    assert placed(PROFILES["sana"], {r.id: tmp_path for r in PROFILES["sana"].repos}).lora is None


def test_maps_of_one_end_say_that_they_cannot_sample_exactly():
    for name, profile in PROFILES.items():
        said = any("sample exactly" in notice for notice in profile.notices)
        assert said != profile.two_time, name
