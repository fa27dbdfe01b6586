"""Loading a profile from folders in the published layouts, and what is said when that fails."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline

from editor.engine import Editor
from editor.models import KEPT_PROMPTS, Hardware, Models, load_profile
from editor.profiles import PROFILES
from editor.types import EditError
from tests.tiny_flow import CAPTION, CHANNELS, save_tiny_flow
from tests.tiny_vlm import tiny_qwen25

REPOSITORY = Path(__file__).resolve().parent.parent
ADAPTERS = {"twotime.py", "adapters.py", "loaders.py", "models.py"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A models' folder with an untrained flow map and an empty place for the VLM."""
    folder = tmp_path_factory.mktemp("models")
    save_tiny_flow(folder / "studio" / "flow")
    (folder / "studio" / "vlm").mkdir()
    return folder


def copy_of(folder: Path, to: Path) -> Path:
    for file in folder.rglob("*"):
        place = to / file.relative_to(folder)
        place.mkdir(exist_ok=True) if file.is_dir() else place.write_bytes(file.read_bytes())
    return to


def single(folder: Path) -> Models:
    """The studio's profile in single precision, whatever this machine has units for."""
    return replace(load_profile("studio", folder), hardware=Hardware())


def test_the_studio_is_held_in_what_this_processor_multiplies_best(folder, monkeypatch):
    held = {}
    for units in ("amx_bf16", "avx512_bf16", "avx512_f"):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda units=units: {units: True})
        held[units] = load_profile("studio", folder).codec.vae.dtype
    assert held == {"amx_bf16": torch.bfloat16, "avx512_bf16": torch.bfloat16, "avx512_f": torch.float32}


def test_the_flow_map_is_bound_to_what_the_pipeline_makes_of_the_prompt(folder):
    models = single(folder)
    flow = models.condition(CAPTION)
    stock = FluxPipeline.from_pretrained(folder / "studio" / "flow", dtype=torch.float32, transformer=None, vae=None)
    sequence, pooled, _ = stock.encode_prompt(CAPTION, max_sequence_length=PROFILES["studio"].text_tokens)
    torch.testing.assert_close(flow.sequence, sequence.detach())
    torch.testing.assert_close(flow.pooled, pooled.detach())
    assert flow.two_time
    x = torch.randn(2, CHANNELS, 4, 4, generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(flow(x, 0.1, 1.0), models.condition("")(x, 0.1, 1.0))


def test_the_transformer_is_the_one_that_was_saved(tmp_path):
    transformer, _ = save_tiny_flow(tmp_path / "studio" / "flow")
    (tmp_path / "studio" / "vlm").mkdir()
    loaded = single(tmp_path).condition("").transformer
    for name, weight in transformer.named_parameters():
        assert torch.equal(loaded.get_parameter(name), weight)


def test_the_stock_pipeline_samples_the_folder_with_the_patched_transformer(folder):
    transformer = single(folder).condition("").transformer
    pipeline = FluxPipeline.from_pretrained(folder / "studio" / "flow", dtype=torch.float32, transformer=transformer)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline(CAPTION, height=32, width=32, num_inference_steps=2, max_sequence_length=32).images[0].size == (
        32,
        32,
    )


def test_models_are_loaded_once_and_frozen(folder):
    models = load_profile("studio", folder)
    assert models.codec is models.codec
    assert models.condition("a") is models.condition("a")
    assert models.condition("a").transformer is models.condition("b").transformer
    for module in (models.condition("a").transformer, models.codec.vae):
        assert not any(weight.requires_grad for weight in module.parameters())


def test_only_the_last_prompts_are_kept(folder):
    models = load_profile("studio", folder)
    first = models.condition("0")
    for i in range(1, KEPT_PROMPTS + 1):
        models.condition(str(i))
    assert models.condition("0") is not first


def test_the_vlm_of_the_profile_answers(folder, tmp_path):
    model, processor = tiny_qwen25()
    copy = copy_of(folder, tmp_path)
    model.save_pretrained(copy / "studio" / "vlm")
    processor.save_pretrained(copy / "studio" / "vlm")
    models = load_profile("studio", copy)
    assert not models.can_plan
    assert models.vlm.log_odds(torch.rand(1, 3, 112, 112), ["Is the rim red?"]).shape == (1, 1)
    assert Editor(models).can_plan


def test_an_image_goes_through_the_codec_at_the_stored_scale(folder):
    codec = load_profile("studio", folder).codec
    latents = codec.encode(torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert latents.shape == (1, CHANNELS, 4, 4)
    assert codec.vae.config.scaling_factor == 0.7
    assert codec.decode(latents).shape == (1, 3, 32, 32)


def test_an_unknown_profile_is_refused_with_the_known_ones():
    with pytest.raises(EditError, match="studio"):
        load_profile("stuido")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(EditError, match="studio/flow"):
        load_profile("studio", tmp_path)


@pytest.mark.parametrize(
    "part",
    [
        "transformer/config.json",
        "transformer/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "text_encoder_2/config.json",
        "tokenizer/tokenizer.json",
        "tokenizer_2/tokenizer.json",
    ],
)
@pytest.mark.parametrize("how", ["missing", "torn"])
def test_a_half_written_folder_is_one_sentence(folder, tmp_path, part, how):
    copy = copy_of(folder, tmp_path)
    file = copy / "studio" / "flow" / part
    file.unlink() if how == "missing" else file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    models = load_profile("studio", copy)
    with pytest.raises(EditError, match=r"^The .*studio/flow.* fetch .* again\.$"):
        models.codec, models.condition(CAPTION)


def test_only_the_adapters_import_diffusers():
    for file in (REPOSITORY / "editor").glob("*.py"):
        assert ("diffusers" in imported(file)) == (file.name in ADAPTERS), file.name
    for file in (REPOSITORY / "rewards").glob("*.py"):
        assert "diffusers" not in imported(file), file.name


def imported(file: Path) -> set[str]:
    """The first names of the modules that a file imports, anywhere in it."""
    nodes = list(ast.walk(ast.parse(file.read_text())))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return {name.split(".")[0] for name in plain | {n.module or "" for n in nodes if isinstance(n, ast.ImportFrom)}}
