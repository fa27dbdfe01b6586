"""An adapter for plans: it changes what is written, and nothing of what is judged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig

from rewards import planner
from rewards.vlm import VLM
from tests.tiny_vlm import tiny_qwen3, tiny_qwen25

QUESTIONS = ["Is the rim red?", "Does the clock show 4:45?"]


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))


def saved(folder: Path, width: int = 32) -> VLM:
    """A VLM as it was before a random adapter for its plans was put beside it in the folder."""
    vlm = VLM(*tiny_qwen25(width=width))
    vlm.model.save_pretrained(folder)
    vlm.processor.save_pretrained(folder)
    model = planner.twin(vlm.model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model.add_adapter(LoraConfig(r=4, target_modules=["q_proj", "qkv"], init_lora_weights=False), "planner")
    model.save_pretrained(folder / planner.FOLDER)
    return vlm


def test_an_adapter_writes_and_does_not_judge(images: torch.Tensor, tmp_path: Path) -> None:
    plain = saved(tmp_path)
    vlm = VLM.load(tmp_path)
    assert torch.equal(vlm.log_odds(images, QUESTIONS), plain.log_odds(images, QUESTIONS))
    other = vlm.planner.log_odds(images, QUESTIONS)
    assert (other - plain.log_odds(images, QUESTIONS)).abs().min() > 1e-3
    assert torch.equal(vlm.log_odds(images, QUESTIONS), plain.log_odds(images, QUESTIONS))
    assert vlm.planner.planner is vlm.planner
    assert not any(p.requires_grad for p in vlm.planner.model.parameters())


def test_an_adapter_sees_for_itself(images: torch.Tensor, tmp_path: Path) -> None:
    plain = saved(tmp_path)
    vlm = VLM.load(tmp_path)
    seen, own = vlm.features(images).tokens, vlm.planner.features(images).tokens
    assert torch.equal(seen, plain.features(images).tokens)
    assert (own - seen).abs().max() > 1e-3


def test_an_adapter_shares_the_weights_of_its_model(tmp_path: Path) -> None:
    saved(tmp_path)
    vlm = VLM.load(tmp_path, dtype=torch.bfloat16)
    own = [p for name, p in vlm.planner.model.named_parameters() if "lora_" in name]
    shared = {p.data_ptr() for p in vlm.model.parameters()}
    layers = len(vlm.text.layers) + len(vlm.model.model.visual.blocks)
    assert len(own) == 2 * layers
    assert {p.data_ptr() for p in vlm.planner.model.parameters()} - {p.data_ptr() for p in own} == shared


def test_a_folder_without_an_adapter_plans_as_it_judges() -> None:
    for made in (tiny_qwen25, tiny_qwen3):
        vlm = VLM(*made())
        assert vlm.planner is vlm


def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "one")
    saved(tmp_path / "other", width=64)
    (tmp_path / "other" / planner.FOLDER).rename(tmp_path / "one" / "old")
    (tmp_path / "one" / planner.FOLDER).rename(tmp_path / "other" / planner.FOLDER)
    with pytest.raises(ValueError, match="does not fit its VLM"):
        VLM.load(tmp_path / "other")
