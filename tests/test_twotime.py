"""The two-time patch: the averaged two embedders, its names, and its way through a file."""

from __future__ import annotations

import pytest
import torch

from editor.twotime import is_two_time, load_two_time, two_time
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
    assert torch.equal(call(loaded, pair), call(transformer, pair))
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
