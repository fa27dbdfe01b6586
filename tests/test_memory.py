"""The memory model's arithmetic and the plans it leads to."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from math import ceil
from pathlib import Path

import pytest
import torch
from diffusers import FluxTransformer2DModel
from torch import nn

from editor.memory import (
    FLOW_MAP_LORA,
    FLUX,
    JUDGES,
    choose,
    decoder,
    host_need,
    kept,
    ladder,
    least,
    lower,
    need,
    spread,
    weights,
)
from editor.profiles import PROFILES
from editor.repos import VLMS
from editor.types import EditError

README = Path(__file__).resolve().parent.parent / "README.md"
GPU_PROFILES = [name for name, profile in PROFILES.items() if profile.repos]


def test_weights_cost_their_bytes():
    assert weights(FLUX, "bf16") == pytest.approx(23.8)
    assert weights(FLUX, "nf4") == pytest.approx(11.8 * (0.5 + 1 / 64 + 1 / 4096) + 0.2)


def test_the_lora_stays_beside_the_weights_in_bfloat16_whatever_they_are_held_in():
    dev, plain = PROFILES["flux"], replace(PROFILES["flux"], lora=None)
    for plan in ladder(dev):
        assert need(dev, plan)["flow map"] - need(plain, plan)["flow map"] == pytest.approx(2 * FLOW_MAP_LORA)
    assert host_need(dev) - host_need(plain) == pytest.approx(2 * FLOW_MAP_LORA)


def test_a_draft_is_differentiated_beside_a_full_decoder_that_renders():
    profile = PROFILES["flux"]
    full, draft = (plan for plan in ladder(profile)[2:4])
    assert (full.full_decoder, draft.full_decoder, draft.gradient) == (True, False, True)
    rendering = decoder(profile, ladder(profile)[-1])
    assert 0 < rendering < decoder(profile, draft) < decoder(profile, full)
    assert decoder(profile, draft) == pytest.approx(rendering + 15 * 64)


def test_a_block_keeps_seventeen_states():
    assert kept(FLUX, 1536) == pytest.approx(57 * 17 * 1536 * 3072 * 2 / 1e9)


@pytest.mark.parametrize("name", GPU_PROFILES)
def test_every_step_down_needs_less(name):
    needs = [sum(need(PROFILES[name], plan).values()) for plan in ladder(PROFILES[name])]
    assert all(upper > below for upper, below in pairwise(needs))


@pytest.mark.parametrize("name", GPU_PROFILES)
@pytest.mark.parametrize("free", [12, 16, 24, 48, 80])
def test_the_chosen_plan_fits_and_the_one_above_does_not(name, free):
    profile = PROFILES[name]
    if sum(need(profile, ladder(profile)[-1]).values()) > free:
        with pytest.raises(EditError, match=rf"{name} needs at least .* GB .* {free} GB"):
            choose(profile, free)
        return
    plan = choose(profile, free)
    assert sum(need(profile, plan).values()) <= free
    for roomier in ladder(profile)[: ladder(profile).index(plan)]:
        assert sum(need(profile, roomier).values()) > free


def test_flux_gets_gradients_on_24_gb_and_bfloat16_on_48():
    small, large = choose(PROFILES["flux"], 24), choose(PROFILES["flux"], 48)
    assert (small.flow, small.gradient) == ("nf4", True)
    assert (large.flow, large.vlm, large.full_decoder) == ("bf16", "bf16", True)


def test_a_gpu_of_its_own_for_the_vlm_takes_it_off_the_first():
    profile = replace(PROFILES["flux"], vlm=VLMS["Qwen/Qwen2.5-VL-7B-Instruct"])
    assert choose(profile, 40).vlm == "nf4" or choose(profile, 40).flow == "nf4"
    both = choose(profile, 40, 40)
    assert (both.flow, both.vlm) == ("bf16", "bf16")
    with pytest.raises(EditError):
        choose(profile, 40, 1)


@pytest.mark.parametrize(
    ("free", "flow", "vlm"),
    [
        ((80,), 0, None),
        ((40, 40), 0, 1),
        ((40, 40, 80), 0, 1),
        ((80, 4), 0, None),
        ((4, 80), 1, None),
        ((80, 6), 0, None),
        ((16, 80), 1, None),
        ((24, 24), 0, 1),
        ((16, 16), 0, 1),
    ],
)
def test_a_second_gpu_is_used_where_it_helps_and_never_in_the_way(free, flow, vlm):
    profile = PROFILES["flux"]
    way = spread(profile, free)
    assert (way.flow, way.vlm) == (flow, vlm)
    for alone in free[:2]:
        with suppress(EditError):
            assert ladder(profile).index(way.plan) <= ladder(profile).index(choose(profile, alone))


def test_gpus_that_are_all_too_small_say_what_the_roomier_lacks():
    with pytest.raises(EditError, match="needs at least 14 GB of free GPU memory, not 6 GB"):
        spread(PROFILES["flux"], (6, 4))


def test_too_little_memory_names_a_smaller_vlm_where_one_fits():
    large = replace(PROFILES["flux"], vlm=VLMS["Qwen/Qwen3-VL-8B-Instruct"])
    for profile, free, advice in (
        (large, 16, ", add --vlm Qwen3-VL-4B-Instruct or use the profile studio."),
        (large, 13, ", add --vlm Qwen3-VL-2B-Instruct or use the profile studio."),
        (PROFILES["flux"], 13, ", add --vlm Qwen3-VL-2B-Instruct or use the profile studio."),
        (PROFILES["flux"], 8, "on the GPU or use the profile studio."),
    ):
        with pytest.raises(EditError, match=re.escape(advice) + "$"):
            choose(profile, free)


@pytest.mark.parametrize("name", GPU_PROFILES)
def test_a_profile_tells_truly_what_it_needs(name):
    profile = PROFILES[name]
    guided = min(sum(need(profile, plan).values()) for plan in ladder(profile) if plan.gradient)
    told = re.search(r"Needs (\d+) GB .* and (\d+) GB to follow", profile.description)
    assert [int(figure) for figure in told.groups()] == [ceil(least(profile)), ceil(guided)]


@pytest.mark.parametrize("name", GPU_PROFILES)
def test_the_readme_tells_what_a_profile_needs(name):
    profile = PROFILES[name]
    guided = min(sum(need(profile, plan).values()) for plan in ladder(profile) if plan.gradient)
    sizes = least(profile), guided, host_need(profile), sum(repo.gigabytes for repo in profile.repos)
    told = " | ".join(f"{ceil(size)} GB" for size in sizes)
    row = next(line for line in README.read_text().splitlines() if line.startswith(f"| `{name}` | ") and "GB" in line)
    assert row.endswith(f"| {told} |")


def test_stepping_down_goes_through_the_ladder_and_ends_with_a_sentence():
    profile = PROFILES["flux"]
    plans = [ladder(profile)[0]]
    while len(plans) < len(ladder(profile)):
        plans.append(lower(profile, plans[-1]))
    assert tuple(plans) == ladder(profile)
    with pytest.raises(EditError, match="tightest"):
        lower(profile, plans[-1])


def test_a_profile_without_a_draft_decoder_never_plans_one():
    assert all(plan.full_decoder for plan in ladder(PROFILES["sana"]))


def test_every_vlm_on_offer_has_its_sizes():
    assert JUDGES.keys() == VLMS.keys()
    for name, judge in JUDGES.items():
        computed = 2 * (judge.text.parameters + judge.vision.parameters)
        assert VLMS[name].gigabytes == pytest.approx(computed, abs=0.3)


def test_an_unknown_vlm_is_refused():
    with pytest.raises(EditError, match="not known"):
        need(PROFILES["studio"], ladder(PROFILES["flux"])[0])


def test_the_flux_transformer_has_the_parameters_that_are_counted(monkeypatch):
    monkeypatch.setattr(nn.Linear, "reset_parameters", lambda layer: None)
    with torch.device("meta"):
        transformer: nn.Module = FluxTransformer2DModel(guidance_embeds=True)
    assert sum(weight.numel() for weight in transformer.parameters()) / 1e9 == pytest.approx(FLUX.parameters, abs=0.01)
    outside = [weight for name, weight in transformer.named_parameters() if "transformer_blocks" not in name]
    assert sum(weight.numel() for weight in outside) / 1e9 == pytest.approx(FLUX.kept, abs=0.05)
