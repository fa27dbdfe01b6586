"""Measuring the memory plans: every kind of plan at a tiny size on the CPU, and the published sizes without storage."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from bitsandbytes.nn import Linear4bit

from benchmarks.gpu_memory import PLAN, candidates, main, measure
from benchmarks.random_models import (
    TEXTS,
    Sizes,
    empty_transformer,
    empty_vlm,
    parameters,
    published,
    random_models,
)
from editor.memory import FLOW_MAP_LORA, FLUX, JUDGES, QUESTIONS, ladder
from editor.models import Hardware
from editor.profiles import PROFILES, chosen
from training.vlm_folder import new_tokenizer

PROFILE = replace(PROFILES["flux"], size=64, text_tokens=8)
CPU = torch.device("cpu")
TINY = Sizes(
    flow={
        "in_channels": 64,
        "num_layers": 1,
        "num_single_layers": 1,
        "attention_head_dim": 32,
        "num_attention_heads": 2,
        "joint_attention_dim": 64,
        "pooled_projection_dim": 64,
        "axes_dims_rope": (8, 12, 12),
    },
    vae=Sizes(text={}).vae | {"block_out_channels": (4, 4, 4, 4), "norm_num_groups": 2, "layers_per_block": 1},
    draft={
        "latent_channels": 16,
        "encoder_block_out_channels": (8,) * 4,
        "decoder_block_out_channels": (8,) * 4,
    },
    text={
        "vocab_size": 1200,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
    vision={
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "patch_size": 14,
        "window_size": 112,
        "fullatt_block_indexes": [1],
    },
    sections=(2, 3, 3),
)


@pytest.mark.parametrize("index", range(len(ladder(PROFILE))))
def test_every_plan_gives_what_is_measured(index):
    result = measure(PROFILE, index, TINY, CPU, torch.float32)
    assert result.failure == ""
    assert (result.gradient > 0) == ladder(PROFILE)[index].gradient
    assert result.seconds > 0
    assert result.step_seconds > 0


def test_models_are_held_as_the_plan_says():
    plan = ladder(PROFILE)[5]
    held = random_models(PROFILE, plan, TINY, [PLAN.checks[0].question], Hardware(CPU, torch.float32, None, plan))
    flow = held.condition(PLAN.caption)
    assert flow.two_time
    assert flow.guidance == 3.5
    for network in (flow.transformer, held.vlm.text.layers):
        assert any(isinstance(layer, Linear4bit) for layer in network.modules())
    assert not any(isinstance(layer, Linear4bit) for layer in held.vlm.model.model.visual.modules())
    assert held.vlm.model.lm_head.weight is held.vlm.text.embed_tokens.weight
    assert held.codec.draft is not None
    gradient = candidates(held)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0


def test_the_transformer_of_the_published_size_has_the_parameters_that_are_counted():
    plain = parameters(empty_transformer(PROFILES["flux-schnell"], published(PROFILES["flux"]).flow))
    assert plain == pytest.approx(FLUX.parameters, rel=0.02)
    dev = empty_transformer(PROFILES["flux"], published(PROFILES["flux"]).flow)
    lora = sum(weight.numel() for name, weight in dev.named_parameters() if ".lora_" in name) / 1e9
    assert all(weight.is_meta for weight in dev.parameters())
    assert parameters(dev) - lora == pytest.approx(FLUX.parameters, rel=0.02)
    assert lora == pytest.approx(FLOW_MAP_LORA, rel=0.02)


@pytest.mark.parametrize("name", TEXTS)
def test_the_judges_of_the_published_sizes_have_the_parameters_that_are_counted(name):
    model = empty_vlm(published(chosen("flux", name)), new_tokenizer([PLAN.caption], 400))
    assert all(weight.is_meta for weight in model.parameters())
    judge = JUDGES[name]
    assert parameters(model.model.visual) == pytest.approx(judge.vision.parameters, rel=0.02)
    assert parameters(model) - parameters(model.model.visual) == pytest.approx(judge.text.parameters, rel=0.02)


def test_as_many_questions_are_asked_as_are_counted():
    assert len(PLAN.checks) == QUESTIONS


def test_a_machine_without_a_gpu_gets_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main([]) == 2
    assert "no NVIDIA GPU is usable here" in capsys.readouterr().err
