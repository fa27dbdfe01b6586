"""The GPU profiles on small random checkpoints in the published layouts, on the CPU."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from PIL import Image
from safetensors.torch import save_file
from torch._subclasses.fake_tensor import FakeTensorMode

from editor import models as module
from editor.adapters import FluxFlowMap, LatentCodec, SanaFlowMap
from editor.engine import Editor
from editor.hub import Hub
from editor.judge import Judge
from editor.memory import QUESTIONS, ladder
from editor.models import Hardware, Models, Place, load_profile, placed
from editor.profiles import PROFILES
from editor.twotime import two_time
from editor.types import EditError, EditRequest, SearchSettings
from rewards.base import Check, Plan
from rewards.checks import CheckReward
from rewards.preserve import Preserve
from rewards.vlm import Calls
from tests.tiny_flow import CAPTION, TEXT_WIDTH, tiny_kl, tiny_text
from tests.tiny_vlm import tiny_qwen25
from training.flow_folder import new_vae

CHANNELS = 16
PLAN = Plan((Check("Is the rim red?"), Check("What time does the clock show?", "4:45")), CAPTION, ("a white face",))
SMALL = SearchSettings(particles=3, steps=2, keep=1, selections=1, corrections=1)


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
    """FLUX.1-dev's folders, the LoRA's file, TAEF1's folder and a Qwen2.5-VL's, all tiny and random."""
    folder = tmp_path_factory.mktemp("dev")
    text = tiny_text()
    dev_transformer().save_pretrained(folder / "flow" / "transformer")
    tiny_kl().save_pretrained(folder / "flow" / "vae")
    text.clip.save_pretrained(folder / "flow" / "text_encoder")
    text.clip_tokenizer.save_pretrained(folder / "flow" / "tokenizer")
    text.t5.save_pretrained(folder / "flow" / "text_encoder_2")
    text.t5_tokenizer.save_pretrained(folder / "flow" / "tokenizer_2")
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    scheduler.save_pretrained(folder / "flow" / "scheduler")
    for part in tiny_qwen25():
        part.save_pretrained(folder / "vlm")
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
    return Models(replace(PROFILES["flux"], text_tokens=32, size=32, least_psnr=-100.0), place, Hardware(plan=plan))


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


def request() -> EditRequest:
    picture = Image.linear_gradient("L").convert("RGB").resize((40, 32))
    return EditRequest(image=picture, instruction="make the rim red", plan=PLAN, settings=SMALL)


def failing(monkeypatch, times: int) -> list[weakref.ref]:
    """Decoding runs out of memory so many times; what it was given is remembered weakly."""
    stock, given = LatentCodec.decode, []

    def decode(self, latents):
        if len(given) == times:
            return stock(self, latents)
        given.append(weakref.ref(latents))
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(LatentCodec, "decode", decode)
    return given


def test_an_edit_that_runs_out_of_memory_goes_on_one_plan_down_with_nothing_left_behind(place, monkeypatch, capsys):
    editor, gone = Editor(models(place)), []
    given, stock = failing(monkeypatch, 1), Models.tighten

    def tighten(self):
        gc.collect()
        gone.append(given[0]() is None)
        return stock(self)

    monkeypatch.setattr(Models, "tighten", tighten)
    *_, last = editor.edit(request())
    assert last.done
    assert gone == [True]
    assert editor.models.hardware.plan == ladder(PROFILES["flux"])[3]
    assert "ran out of memory; now: flow map in bf16, VLM in bf16, draft decoder" in capsys.readouterr().err


def test_an_edit_that_runs_out_of_memory_twice_is_one_sentence(place, monkeypatch):
    editor, given = Editor(models(place)), failing(monkeypatch, 2)
    with pytest.raises(EditError, match=r"^The GPU ran out of memory twice: .*\.$"):
        list(editor.edit(request()))
    assert len(given) == 2
    assert editor.models.hardware.plan == ladder(PROFILES["flux"])[3]


def test_loading_the_vlm_steps_down_too(place, monkeypatch):
    held, tried = models(place), []

    def load(times):
        def work():
            tried.append(held.hardware.plan)
            if len(tried) <= times:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return held.vlm

        return work

    assert held.within_memory(load(1)).device == held.hardware.device
    assert tried == list(ladder(PROFILES["flux"])[2:4])
    with pytest.raises(EditError, match="ran out of memory twice"):
        held.within_memory(load(9))


def test_no_pass_of_any_network_holds_more_than_the_plan(place, monkeypatch):
    """Flow map, decoder and VLM, forward and in the recomputation backward; the result is that of one pass."""
    x = latents(5).requires_grad_()

    def reward(held: Models) -> tuple[torch.Tensor, torch.Tensor]:
        before = held.codec.render(latents(1))
        judge = Judge.of(held, PLAN, latents(1), before, None, SMALL.but(jitters=1), Calls())
        scored = judge(held.condition(CAPTION)(x, 0.3, 1.0))
        return scored.reward, torch.autograd.grad(scored.reward.sum(), x)[0]

    bounded, seen = models(place, rows=2), {"flow": [], "decoder": [], "images": [], "pairs": []}
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
    torch.testing.assert_close(reward(bounded), reward(models(place, rows=99)), rtol=1e-4, atol=1e-5)
    assert {name: max(sizes) for name, sizes in seen.items()} == {"flow": 2, "decoder": 2, "images": 2, "pairs": 2 * 3}
    assert bounded.limit == (2, 2 * QUESTIONS)


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


@pytest.mark.parametrize(("first", "second"), [("meta", "cpu"), ("cpu", "meta")])
def test_flow_map_and_vlm_may_lie_on_different_devices_of_one_process(first, second):
    """Fake tensors hold no numbers but refuse to mix devices; latents and gradients stay where the search has them."""
    transformer, vae = two_time(dev_transformer()).requires_grad_(False), tiny_kl().requires_grad_(False)
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


def test_the_plan_is_said_when_a_gpu_profile_is_loaded(place, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(module, "gpus", lambda profile: Hardware(torch.device("cuda", 0), plan=ladder(profile)[0]))
    monkeypatch.setattr(module, "folders", lambda profile, hub: {repo.id: tmp_path for repo in profile.repos})
    held = load_profile("flux", vlm=str(place.vlm))
    assert held.place.vlm == place.vlm.resolve()
    said = capsys.readouterr().err
    assert said == f"flux+vlm on cuda:0: {ladder(held.profile)[0]}.\n"
    assert "flow map in bf16, VLM in bf16, full decoder" in said


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


def test_maps_of_one_end_say_that_they_cannot_sample_exactly():
    for name, profile in PROFILES.items():
        said = any("sample exactly" in notice for notice in profile.notices)
        assert said != profile.two_time, name
