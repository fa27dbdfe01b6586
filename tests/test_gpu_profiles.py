"""The GPU profiles on small random checkpoints in the published layouts, on the CPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from diffusers import FluxTransformer2DModel
from safetensors.torch import save_file

from editor import models as module
from editor.adapters import SanaFlowMap
from editor.hub import Hub
from editor.memory import ladder
from editor.models import Hardware, Models, Place, load_profile, placed
from editor.profiles import PROFILES, chosen
from editor.twotime import two_time
from editor.types import EditError
from tests.tiny_flow import CAPTION, TEXT_WIDTH, tiny_kl, tiny_text
from training.flow_folder import new_vae

CHANNELS = 16


def dev_transformer() -> FluxTransformer2DModel:
    """FLUX.1-dev's layout: one time, embedded guidance, 16 latent channels; heads of 64 so that NF4 fits."""
    torch.manual_seed(0)
    return FluxTransformer2DModel(
        in_channels=4 * CHANNELS,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=32,
        num_attention_heads=2,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=TEXT_WIDTH,
        guidance_embeds=True,
        axes_dims_rope=(8, 12, 12),
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Place:
    """FLUX.1-dev's folders, the LoRA's file and TAEF1's folder, all tiny and random."""
    folder = tmp_path_factory.mktemp("dev")
    text = tiny_text()
    dev_transformer().save_pretrained(folder / "flow" / "transformer")
    tiny_kl().save_pretrained(folder / "flow" / "vae")
    text.clip.save_pretrained(folder / "flow" / "text_encoder")
    text.clip_tokenizer.save_pretrained(folder / "flow" / "tokenizer")
    text.t5.save_pretrained(folder / "flow" / "text_encoder_2")
    text.t5_tokenizer.save_pretrained(folder / "flow" / "tokenizer_2")
    new_vae(CHANNELS, width=4).save_pretrained(folder / "draft")
    generator = torch.Generator().manual_seed(1)
    lora = {}
    for name, layer in two_time(dev_transformer()).named_modules():
        if isinstance(layer, torch.nn.Linear) and "text_embedder" not in name and "guidance" not in name:
            lora[f"transformer.{name}.lora_A.weight"] = torch.randn(2, layer.in_features, generator=generator) / 8
            lora[f"transformer.{name}.lora_B.weight"] = torch.randn(layer.out_features, 2, generator=generator) / 8
    save_file(lora, folder / "lora.safetensors")
    return Place(folder / "flow", folder / "vlm", folder / "lora.safetensors", folder / "draft")


def models(place: Place, **changes) -> Models:
    plan = replace(ladder(PROFILES["flux"])[2], **changes)
    return Models(replace(PROFILES["flux"], text_tokens=32), place, Hardware(plan=plan))


def latents(batch: int = 3) -> torch.Tensor:
    return torch.randn(batch, CHANNELS, 4, 4, generator=torch.Generator().manual_seed(2))


def test_flux_is_the_dev_model_with_the_patch_and_the_lora_on_top(place):
    flow = models(place).condition(CAPTION)
    plain = models(replace(place, lora=None)).condition(CAPTION)
    assert (flow.two_time, plain.two_time) == (True, False)
    assert flow.guidance == 3.5
    x = latents()
    with torch.no_grad():
        assert not torch.allclose(flow(x, 0.1, 0.6), flow(x, 0.1, 1.0) * 5 / 9 + x * 4 / 9)
        assert not torch.allclose(flow.velocity(x, 0.1), plain.velocity(x, 0.1))


def test_every_plan_gives_gradients_and_only_quantising_changes_the_result(place):
    x = latents().requires_grad_()
    reference = models(place, rows=3, checkpoint=False)

    def results(held: Models):
        landing = held.condition(CAPTION)(x, 0.1, 1.0)
        images = held.codec.decode(landing)
        return landing.detach(), images.detach(), *torch.autograd.grad(images.square().sum(), x)

    expected = results(reference)
    torch.testing.assert_close(results(models(place, rows=2)), expected, rtol=1e-4, atol=1e-5)
    quantised = models(place, flow="nf4", full_decoder=False)
    landing, _, gradient = results(quantised)
    assert any(isinstance(layer, Linear4bit) for layer in quantised.condition(CAPTION).transformer.modules())
    assert 0 < (landing - expected[0]).norm() / expected[0].norm() < 0.2
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0


def test_the_result_is_rendered_by_the_full_decoder_whatever_is_differentiated(place):
    full, draft = models(place).codec, models(place, full_decoder=False).codec
    torch.testing.assert_close(draft.render(latents()), full.render(latents()))
    with torch.no_grad():
        assert not torch.allclose(draft.decode(latents()), full.decode(latents()))


def test_running_out_of_memory_takes_the_next_plan_and_then_says_so(place):
    held = models(place)
    before = held.condition(CAPTION).transformer
    assert held.tighten() == ladder(PROFILES["flux"])[3]
    assert held.condition(CAPTION).transformer is not before
    assert held.codec.draft is not None
    assert held.codec.rows == held.rows == 1
    while held.gradient:
        held.tighten()
    with pytest.raises(EditError, match="tightest plan"):
        held.tighten()


def test_the_studio_has_no_tighter_plan(place):
    with pytest.raises(EditError, match="fewer candidates"):
        Models(PROFILES["studio"], place).tighten()


def test_a_wrong_lora_is_refused_by_its_name(place, tmp_path):
    save_file({"transformer.x_embedder.lora_A.weight": torch.zeros(2, 64)}, tmp_path / "other.safetensors")
    with pytest.raises(EditError, match=r"other\.safetensors"):
        models(replace(place, lora=tmp_path / "other.safetensors")).condition(CAPTION)


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


def test_two_gpus_share_the_work(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (40e9, 48e9))
    hardware = module.gpus(PROFILES["flux"])
    assert (str(hardware.device), str(hardware.vlm_device)) == ("cuda:0", "cuda:1")
    assert (hardware.plan.flow, hardware.plan.vlm) == ("bf16", "bf16")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4e9, 8e9))
    with pytest.raises(EditError, match="needs at least"):
        load_profile("flux", hub=Hub(snapshot=lambda *_, **__: str(tmp_path)))


def test_the_parts_are_found_in_their_repositories(tmp_path):
    profile = PROFILES["flux"]
    found = {repo.id: tmp_path / repo.id for repo in profile.repos}
    place = placed(profile, found)
    assert place.lora == found[profile.lora.id] / profile.lora.files[0]
    assert place.draft == tmp_path / "madebyollin/taef1"
    assert placed(PROFILES["sana"], {r.id: tmp_path for r in PROFILES["sana"].repos}).lora is None


def test_another_vlm_can_be_chosen_but_not_for_the_studio():
    assert chosen("flux", "Qwen/Qwen3-VL-4B-Instruct").vlm.id == "Qwen/Qwen3-VL-4B-Instruct"
    with pytest.raises(EditError, match="its own VLM"):
        chosen("studio", "Qwen/Qwen3-VL-4B-Instruct")
    with pytest.raises(EditError, match="no VLM"):
        chosen("flux", "gpt")


def test_maps_of_one_end_say_that_they_cannot_sample_exactly():
    for name, profile in PROFILES.items():
        said = any("sample exactly" in notice for notice in profile.notices)
        assert said != profile.two_time, name
