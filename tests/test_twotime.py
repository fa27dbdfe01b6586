"""The two-time patch: the averaged two embedders, its names, and its way through a file."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from editor.twotime import is_two_time, load_flow_map_lora, load_two_time, two_time
from editor.types import EditError
from tests.tiny_flow import CHANNELS, POOLED_WIDTH, TEXT_WIDTH, tiny_transformer


def call(transformer, timestep, seed=0):
    """The transformer's output for random inputs of a batch of two, guidance 3.5 if it is embedded."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.double)

    return transformer(
        hidden_states=draw(2, 4, 4 * CHANNELS),
        timestep=timestep,
        guidance=torch.full((2,), 3.5) if transformer.config.guidance_embeds else None,
        encoder_hidden_states=draw(2, 5, TEXT_WIDTH),
        pooled_projections=draw(2, POOLED_WIDTH),
        img_ids=torch.zeros(4, 3),
        txt_ids=torch.zeros(5, 3),
        return_dict=False,
    )[0]


def patched(guidance=False):
    """A patched transformer whose two embedders differ."""
    transformer = two_time(tiny_transformer(guidance))
    for weight in transformer.time_text_embed.second_embedder.parameters():
        weight.data.mul_(1.7)
    return transformer


@pytest.mark.parametrize("guidance", [False, True])
def test_the_patch_is_the_average_of_two_embedders(guidance):
    transformer = patched(guidance)
    first, second = transformer.time_text_embed.original_embedder, transformer.time_text_embed.second_embedder
    t, s = torch.tensor([0.9, 0.3]), torch.tensor([0.2, 0.1])
    expected = tiny_transformer(guidance)

    class Averaged(torch.nn.Module):
        def forward(self, _, *conditions):
            return (first(t * 1000, *conditions) + second(s * 1000, *conditions)) / 2

    expected.time_text_embed = Averaged()
    torch.testing.assert_close(call(transformer, torch.stack([t, s], -1)), call(expected, t))


@pytest.mark.parametrize("guidance", [False, True])
def test_a_fresh_patch_changes_nothing_on_the_diagonal(guidance):
    t = torch.tensor([0.9, 0.3])
    stock = call(tiny_transformer(guidance), t)
    transformer = two_time(tiny_transformer(guidance))
    torch.testing.assert_close(call(transformer, torch.stack([t, t], -1)), stock)
    torch.testing.assert_close(call(transformer, t), stock)


def test_the_times_are_not_interchangeable():
    transformer = patched()
    forth, back = torch.tensor([[0.9, 0.2]] * 2), torch.tensor([[0.2, 0.9]] * 2)
    assert not torch.allclose(call(transformer, forth), call(transformer, back))


def test_patching_twice_is_patching_once():
    transformer = two_time(tiny_transformer())
    names = [name for name, _ in transformer.named_parameters()]
    assert [name for name, _ in two_time(transformer).named_parameters()] == names
    assert is_two_time(transformer)
    assert not is_two_time(tiny_transformer())


def test_the_modules_have_the_published_names():
    names = {name for name, _ in two_time(tiny_transformer()).named_modules()}
    for which in ("original", "second"):
        for layer in (1, 2):
            assert f"time_text_embed.{which}_embedder.timestep_embedder.linear_{layer}" in names


def test_a_saved_patched_transformer_loads_as_it_was(tmp_path):
    transformer = patched()
    transformer.save_pretrained(tmp_path)
    loaded = load_two_time(tmp_path, torch.double)
    pair = torch.tensor([[0.9, 0.2]] * 2)
    saved, found = transformer.state_dict(), loaded.state_dict()
    assert saved.keys() == found.keys()
    assert all(torch.equal(found[name], value) for name, value in saved.items())
    # Products may take other roads through memory that is laid out otherwise, and round otherwise.
    torch.testing.assert_close(call(loaded, pair), call(transformer, pair), rtol=1e-12, atol=1e-12)
    assert not loaded.training


def test_a_transformer_of_one_time_is_refused(tmp_path):
    tiny_transformer().save_pretrained(tmp_path)
    with pytest.raises(EditError, match="one time"):
        load_two_time(tmp_path)


def test_a_torn_or_missing_file_is_refused_with_its_folder(tmp_path):
    with pytest.raises(EditError, match="missing or incomplete"):
        load_two_time(tmp_path / "nothing")
    patched().save_pretrained(tmp_path)
    weights = tmp_path / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(EditError, match=str(tmp_path)):
        load_two_time(tmp_path)


def lora_weights(skip=(), rank=2):
    """Random weights under the published names: every layer but those of pooled text and guidance."""
    generator = torch.Generator().manual_seed(11)
    layers = {
        name: layer
        for name, layer in two_time(tiny_transformer(True)).named_modules()
        if isinstance(layer, torch.nn.Linear) and not any(part in name for part in ("text_embedder", "guidance", *skip))
    }
    down = {f"{name}.lora_A": (rank, layer.in_features) for name, layer in layers.items()}
    up = {f"{name}.lora_B": (layer.out_features, rank) for name, layer in layers.items()}
    return {
        f"transformer.{name}.weight": torch.randn(shape, generator=generator).double()
        for name, shape in {**down, **up}.items()
    }


@pytest.fixture
def lora(tmp_path):
    """A function that writes LoRA weights and returns the file."""

    def write(weights):
        save_file(weights, tmp_path / "pytorch_lora_weights.safetensors")
        return tmp_path / "pytorch_lora_weights.safetensors"

    return write


def test_the_published_names_all_find_their_place(lora):
    weights = lora_weights()
    embedders = {name for name in weights if "time_text_embed" in name}
    assert embedders == {
        f"transformer.time_text_embed.{which}_embedder.timestep_embedder.linear_{layer}.lora_{half}.weight"
        for which in ("original", "second")
        for layer in (1, 2)
        for half in "AB"
    }
    loaded = dict(load_flow_map_lora(tiny_transformer(True), lora(weights)).named_parameters())
    found = {name: weight for name, weight in loaded.items() if ".lora_" in name}
    expected = {
        name.removeprefix("transformer.").replace(".weight", ".flow_map.weight"): weight
        for name, weight in weights.items()
    }
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name].double(), weight)


def test_the_lora_adds_its_product_to_every_layer(lora):
    weights = {name: weight / 10 for name, weight in lora_weights().items()}
    pair = torch.tensor([[0.9, 0.2]] * 2)
    merged = two_time(tiny_transformer(True))
    for name, layer in merged.named_modules():
        if f"transformer.{name}.lora_A.weight" in weights:
            layer.weight.data += (
                weights[f"transformer.{name}.lora_B.weight"] @ weights[f"transformer.{name}.lora_A.weight"]
            )
    loaded = load_flow_map_lora(tiny_transformer(True), lora(weights)).double()
    torch.testing.assert_close(call(loaded, pair), call(merged, pair), rtol=1e-4, atol=1e-5)


WRONG = {
    "of the patch's copy": (lambda: lora_weights(skip=("second_embedder",)), "second time embedder"),
    "for another model": (
        lambda: {
            **lora_weights(),
            **{f"transformer.up_blocks.0.to_q.lora_{half}.weight": torch.zeros(2, 2) for half in "AB"},
        },
        "up_blocks.0.to_q",
    ),
    "of another size": (
        lambda: {**lora_weights(), "transformer.x_embedder.lora_A.weight": torch.zeros(2, 3)},
        "another size: x_embedder",
    ),
    "with other keys": (
        lambda: {**lora_weights(), "text_encoder.q.lora_A.weight": torch.zeros(2, 2)},
        "holds text_encoder.q.lora_A.weight",
    ),
    "of another kind": (lambda: {"transformer.x_embedder.alpha": torch.zeros(1)}, "holds transformer.x_embedder.alpha"),
    "with one half": (
        lambda: {**lora_weights(skip=("x_embedder",)), "transformer.x_embedder.lora_A.weight": torch.zeros(2, 16)},
        "incomplete",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_lora_is_refused_by_name(case, lora):
    weights, message = WRONG[case]
    with pytest.raises(EditError, match=message) as raised:
        load_flow_map_lora(tiny_transformer(True), lora(weights()))
    assert "pytorch_lora_weights.safetensors" in str(raised.value)


def test_a_half_downloaded_lora_is_refused_by_name(lora):
    file = lora(lora_weights())
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(EditError, match=r"pytorch_lora_weights\.safetensors is missing or damaged"):
        load_flow_map_lora(tiny_transformer(True), file)
