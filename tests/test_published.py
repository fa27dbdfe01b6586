"""From repositories as downloads leave them to a finished edit: the road of `app.py --profile flux` and its cousins."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, SanaSprintPipeline
from PIL import Image
from transformers import AutoModel, AutoTokenizer

from editor import models as module
from editor.engine import Editor
from editor.hub import Hub, folders
from editor.loaders import SANA_INSTRUCTION
from editor.memory import ladder
from editor.models import Hardware, Models, load_profile
from editor.profiles import PROFILES
from editor.repos import FLUX_DEV
from editor.types import EditError, EditRequest
from rewards.vlm import VLM
from tests.published import QWEN_TEMPLATE, SANA_WIDTH, flux_text, qwen
from tests.tiny_flow import CAPTION
from tests.tiny_profiles import PLAN, SMALL, flux_models
from tests.tiny_vlm import tiny_qwen3, tiny_qwen25

PICTURE = Image.linear_gradient("L").convert("RGB").resize((60, 64))


@pytest.fixture
def load(published, monkeypatch):
    """A function that loads a profile as a machine with a GPU does, here on the CPU, at 64 pixels."""

    def load(name: str) -> Models:
        small = replace(PROFILES[name], size=64, text_tokens=32, least_psnr=-100.0)
        monkeypatch.setitem(PROFILES, name, small)
        plan = ladder(small)[3]
        monkeypatch.setattr(module, "gpus", lambda _: Hardware(plan=plan))
        return load_profile(name, hub=published)

    return load


@pytest.mark.parametrize("name", ["flux", "flux-schnell", "sana"])
def test_a_downloaded_profile_drafts_and_searches(name, load, monkeypatch):
    monkeypatch.setattr("editor.focus.LEAST_TOLD", 0.0)
    monkeypatch.setattr("editor.judge.SUFFICES", 1.0)
    models = load(name)
    models.load()
    settings = SMALL.but(particles=2, jitters=1, focus=0.5, lookahead_steps=2, draft_jumps=2)
    editor, plan = Editor(models), replace(PLAN, source=f"not {PLAN.caption}")
    *steps, last = editor.edit(EditRequest(image=PICTURE, instruction="make it red", plan=plan, settings=settings))
    assert any(step.message == "Drafted by captions alone" for step in steps)
    assert last.done
    assert last.best.size == PICTURE.size
    assert steps[-1].diagnostics["gradients"] > 0
    assert models.condition("").two_time == PROFILES[name].two_time == (name == "flux")
    assert (models.codec.draft is None) == (name == "sana")


@pytest.mark.parametrize("name", ["flux-schnell", "sana"])
def test_a_map_of_one_end_searches_and_refuses_to_sample_exactly(name, load):
    editor = Editor(load(name))
    settings = SMALL.but(particles=2, method="best-of-n")
    request = EditRequest(image=PICTURE, instruction="make it red", plan=PLAN, settings=settings)
    assert list(editor.edit(request))[-1].done
    with pytest.raises(EditError, match="no flow map of two times, so exact sampling is impossible"):
        list(editor.edit(replace(request, settings=settings.but(method="fmtt-sampling"))))


@pytest.mark.parametrize("name", ["flux", "flux-schnell"])
def test_flux_is_told_what_the_stock_pipeline_tells_it(name, load):
    """Whatever way the encoders and their vocabularies went through the files."""
    flow, text = load(name).condition(CAPTION), flux_text()
    stock = FluxPipeline(None, None, text.clip, text.clip_tokenizer, text.t5, text.t5_tokenizer, None)
    sequence, pooled, _ = stock.encode_prompt(CAPTION, max_sequence_length=32)
    torch.testing.assert_close(flow.sequence, sequence.detach())
    torch.testing.assert_close(flow.pooled, pooled.detach())


def test_the_velocity_is_what_a_run_of_the_stock_pipeline_asks_of_its_transformer(flux_place):
    """Everything that the pipeline hands over, at every step, and what it takes for the velocity."""
    held = flux_models(replace(flux_place, lora=None), rows=99, checkpoint=False)
    flow, text, calls = held.condition(CAPTION), held._text, []
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(flux_place.flow / "scheduler")
    encoders = (text.text_encoder, text.tokenizer, text.text_encoder_2, text.tokenizer_2)
    stock = FluxPipeline(scheduler, held.codec.vae, *encoders, flow.transformer)
    stock.set_progress_bar_config(disable=True)
    flow.transformer.register_forward_hook(lambda _, __, given, out: calls.append((given, out[0])), with_kwargs=True)
    stock(
        CAPTION, height=48, width=32, num_inference_steps=3, guidance_scale=3.5, max_sequence_length=32,
        generator=torch.Generator().manual_seed(1), output_type="latent",
    )  # fmt: skip
    asked, calls[:] = list(calls), []
    assert len(asked) == 3
    for given, out in asked:
        x, velocity = (FluxPipeline._unpack_latents(tokens, 48, 32, 8) for tokens in (given["hidden_states"], out))
        with torch.no_grad():
            torch.testing.assert_close(flow.velocity(x, 1 - given["timestep"]), -velocity, rtol=1e-4, atol=1e-5)
        ours, _ = calls.pop()
        for name in ours.keys() - {"return_dict"}:
            torch.testing.assert_close(ours[name], given[name], msg=name, check_dtype=False)
        assert {name for name, value in given.items() if isinstance(value, torch.Tensor)} <= ours.keys()


def test_sana_is_told_what_the_stock_pipeline_tells_it(load):
    models = load("sana")
    flow, folder = models.condition("a cat"), models.place.flow
    encoder = AutoModel.from_pretrained(folder / "text_encoder", local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    stock = SanaSprintPipeline(tokenizer, encoder, None, None, None)
    with torch.no_grad():
        sequence, mask = stock.encode_prompt(
            "a cat", max_sequence_length=32, complex_human_instruction=SANA_INSTRUCTION
        )
    torch.testing.assert_close(flow.sequence, sequence)
    assert torch.equal(flow.mask, mask)
    assert flow.sequence.shape == (1, 32, SANA_WIDTH)


@pytest.mark.parametrize("make", [tiny_qwen25, tiny_qwen3])
def test_a_vlm_says_the_same_from_its_published_files_with_a_system_prompt(make, tmp_path):
    model, processor = make()
    qwen(tmp_path, model, processor)
    processor.chat_template = QWEN_TEMPLATE
    picture = torch.rand(1, 3, 100, 90, generator=torch.Generator().manual_seed(0))
    vlm, text = VLM.load(tmp_path), "Is the rim red?"
    content = [{"type": "image"}, {"type": "text", "text": text}]
    prompt = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    assert prompt.startswith("<|im_start|>system\n")
    logits = model(**processor(text=prompt, images=list(picture), do_rescale=False, return_tensors="pt")).logits[0, -1]
    yes, no = (logits[vlm.prompter.spellings(word)].logsumexp(0) for word in ("yes", "no"))
    torch.testing.assert_close(vlm.log_odds(picture, [text])[0, 0], yes - no, atol=1e-4, rtol=1e-4)


def test_a_profile_whose_download_stopped_is_one_sentence(published, monkeypatch, tmp_path):
    whole = folders(PROFILES["flux"], published)
    for repo, folder in whole.items():
        shutil.copytree(folder, tmp_path / repo)
    (tmp_path / FLUX_DEV.id / "transformer" / "diffusion_pytorch_model-00002-of-00031.safetensors").unlink()
    monkeypatch.setattr(module, "gpus", lambda _: Hardware())
    with pytest.raises(EditError, match=r"FLUX\.1-dev stopped half-way \(transformer/diffusion_pytorch_model-00002"):
        load_profile("flux", hub=Hub(snapshot=lambda repo, **_: str(tmp_path / repo)))
