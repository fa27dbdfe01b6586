"""What the flow network learns beside its velocity: where the hands will be, and which errors weigh most."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline

from tests.tiny_flow import CAPTION, CHANNELS, POOLED_WIDTH, TEXT_WIDTH, tiny_text
from training import clocks, guide
from training.data import CHUNK
from training.flow_folder import new_transformer, new_vae
from training.foresight import DIAL, dials, weights, where_hands_are
from training.see import CELLS, HANDS, PATCHES, hand_table
from training.train_autoencoder import over_latents_of
from training.train_flowmap import DROPOUT, Examples, FlowNetwork, Scenes, loss
from training.whiten import DEVIATION, Whitening, unevenness, whiten
from training.world import TRAIN

CLOCKS = [clocks.sample(TRAIN + i) for i in range(12)]


def test_the_hands_places_stand_where_the_picture_has_the_hands():
    maps = where_hands_are(hand_table(CLOCKS))
    assert maps.shape == (12, PATCHES**2, HANDS * CELLS**2)
    for clock, tokens in zip(CLOCKS, maps, strict=True):
        cells = tokens.reshape(PATCHES, PATCHES, HANDS, CELLS, CELLS).permute(2, 0, 3, 1, 4).reshape(HANDS, 32, 32)
        angle = 2 * np.pi * clock.minute / 60
        reach = 0.6 * clock.minute_hand[0] * clock.dial
        x, y = clock.x + reach * np.sin(angle), clock.y - reach * np.cos(angle)
        assert cells[1, int(32 * y), int(32 * x)] > 0.3
        assert cells[1].sum() < 60
        assert (cells[2].sum() > 0) == clock.second_hand


def test_the_tokens_are_in_the_order_in_which_flux_packs_them():
    rows = torch.arange(16.0)[:, None].expand(16, 16)
    packed = FluxPipeline._pack_latents(torch.stack([rows, rows.T])[None], 1, 2, 16, 16)
    down, across = packed[0, :, 0] / 2, packed[0, :, 4] / 2
    clock = CLOCKS[0]
    heavy = weights(dials([clock]))[0] > 1
    inside = ((across + 0.5) / 8 - clock.x) ** 2 + ((down + 0.5) / 8 - clock.y) ** 2 < clock.dial**2
    assert torch.equal(heavy, inside)


def test_errors_on_the_dial_weigh_more_and_the_mean_weight_is_one():
    found = weights(dials(CLOCKS))
    assert found.mean() == pytest.approx(1, abs=1e-5)
    assert found.max() / found.min() == pytest.approx(DIAL)


@pytest.fixture
def network():
    torch.manual_seed(0)
    transformer = new_transformer(16, 1, 1, CHANNELS, TEXT_WIDTH, POOLED_WIDTH, heads=2)
    return FlowNetwork(transformer, tiny_text(), torch.device("cpu"), compiled=False)


def batch(network, off=0):
    latents = torch.randn(3, CHANNELS, 16, 16, generator=torch.Generator().manual_seed(1))
    shown, ids = CLOCKS[:3], network.text.tokens([CAPTION] * 3)
    return loss(network, latents, dials(shown), hand_table(shown), ids, off, torch.Generator().manual_seed(2))


def test_the_head_reads_the_middle_of_the_last_call_and_only_once(network):
    truth = where_hands_are(hand_table(CLOCKS[:3]))
    with pytest.raises(RuntimeError, match="not called"):
        network.foresight.loss(truth)
    value, _ = batch(network)
    value.backward()
    assert network.foresight.where_embed.weight.grad.abs().sum() > 0
    with pytest.raises(RuntimeError, match="not called"):
        network.foresight.loss(truth)


def test_the_teacher_uses_the_average_of_the_weights_and_learns_nothing(network):
    average = {name: weight.detach().clone() for name, weight in network.modules.named_parameters()}
    network.follow(average)
    given = [
        torch.randn(2, 64, 4 * CHANNELS), torch.tensor([0.2, 0.3]), torch.tensor([0.6, 1.0]),
        network.text.encode(*network.text.tokens([CAPTION] * 2)),
    ]  # fmt: skip
    with torch.no_grad():
        own, taught = network.velocity(*given), network.taught(*given)
        torch.testing.assert_close(own, taught)
        network.transformer.proj_out.bias.add_(1)
        torch.testing.assert_close(network.taught(*given), taught)
        average["transformer.proj_out.bias"].add_(1)
        torch.testing.assert_close(network.taught(*given), taught - 1)
    value, told = batch(network, off=1)
    value.backward()
    assert all(weight.grad is None for weight in network.teacher.parameters())
    assert told["jumps"] > 0
    assert "teacher" not in {name.split(".")[0] for name, _ in network.modules.named_parameters()}


def test_what_pictures_show_is_the_same_whoever_works_it_out():
    alone, others = Scenes.of(2 * CHUNK, 0), Scenes.of(2 * CHUNK, 2)
    assert alone.captions == others.captions
    assert torch.equal(alone.dials, others.dials)
    assert torch.equal(alone.hands, others.hands)
    assert len(alone.captions) == len(alone.dials) == len(alone.hands) == 2 * CHUNK
    assert torch.equal(alone.dials[: len(CLOCKS)], dials(CLOCKS))


def test_batches_keep_rows_together_and_leave_out_some_captions(network):
    captions = [CAPTION if i % 2 else "a clock" for i in range(8)]
    latents = torch.arange(8.0).reshape(8, 1, 1, 1).expand(8, CHANNELS, 16, 16)
    scenes = Scenes(captions, dials(CLOCKS[:8]), hand_table(CLOCKS[:8]))
    examples = Examples.of(network, latents.half(), scenes, shift=1.0, factor=2.0)
    drawn = examples.draw(400, torch.Generator().manual_seed(0))
    rows = (drawn.x1[:, 0, 0, 0] / 2 + 1).long()
    assert set(rows.tolist()) == set(range(8))
    assert torch.equal(drawn.dials, scenes.dials[rows])
    assert torch.equal(drawn.hands, scenes.hands[rows])
    (none, own), silent = (network.text.tokens(text)[1] for text in ([""], captions)), []
    for ids, row in zip(drawn.ids[1], rows, strict=True):
        silent.append(torch.equal(ids, none[0]))
        assert silent[-1] or torch.equal(ids, own[row])
    assert sum(silent) / 400 == pytest.approx(DROPOUT, abs=0.06)


# Guidance ---


def guidance_batch(network, shown, scale, alone=False):
    latents = torch.randn(8, CHANNELS, 16, 16, generator=torch.Generator().manual_seed(1))
    ids, empty = (network.text.tokens([text] * count) for text, count in ((CAPTION, 8), ("", 1)))
    return guide.loss(network, shown, latents, dials(CLOCKS[:8]), ids, empty, 2, scale, alone,
                      torch.Generator().manual_seed(2))  # fmt: skip


def test_guidance_goes_beyond_the_caption_by_its_scale(network):
    tokens, s, t = torch.randn(2, 64, 4 * CHANNELS), torch.tensor([0.2, 0.3]), torch.tensor([0.2, 1.0])
    ids, empty = (network.text.tokens([text] * 2) for text in (CAPTION, ""))
    with torch.no_grad():
        caption, none = (network.velocity(tokens, s, t, network.text.encode(*told)) for told in (ids, empty))
    for scale in (0.0, 1.0, 1.5):
        found = guide.guided(network, tokens, s, t, ids, empty, scale)
        torch.testing.assert_close(found, none + scale * (caption - none))
    assert (caption - none).abs().max() > 1e-4


def test_a_network_is_already_what_it_shows_without_guidance_and_learns_it_with(network):
    shown = deepcopy(network)
    network.follow(dict(network.modules.named_parameters()))
    assert guidance_batch(network, shown, 1.0)[0] < 1e-10
    tuned = torch.optim.Adam(network.modules.parameters(), lr=1e-3)
    losses = []
    for _ in range(12):
        value, told = guidance_batch(network, shown, 4.0)
        value.backward()
        tuned.step()
        tuned.zero_grad()
        losses.append(float(value.detach()))
    assert losses[-1] < 0.7 * losses[0]
    assert told["velocity"] > 0
    deepcopy(network.transformer)  # as `save_pipeline` does
    alone = guidance_batch(network, shown, 4.0, alone=True)[1]
    assert alone["velocity"] != alone["jumps"] != guidance_batch(network, shown, 4.0)[1]["jumps"]


# Whitening ---


@pytest.fixture
def uneven():
    """Latents whose directions differ thirtyfold, in channels that are all alike."""
    generator = torch.Generator().manual_seed(3)
    spread = torch.tensor([0.1, 0.3, 1.0, 3.0]).diag()
    turned = torch.linalg.qr(torch.randn(CHANNELS, CHANNELS, generator=generator)).Q @ spread
    return torch.einsum("ij,njhw->nihw", turned, torch.randn(40, CHANNELS, 8, 8, generator=generator)) + 0.5


def test_whitened_latents_vary_alike_in_all_directions(uneven):
    white = Whitening.of(uneven)(uneven).movedim(1, -1).flatten(0, -2)
    torch.testing.assert_close(white.T.cov(), DEVIATION**2 * torch.eye(CHANNELS), atol=1e-4, rtol=0)
    torch.testing.assert_close(white.mean(0), torch.zeros(CHANNELS), atol=1e-4, rtol=0)


def test_unevenness_is_nothing_for_whitened_latents_and_tells_where_to_go(uneven):
    found = Whitening.of(uneven)
    assert unevenness(found(uneven)) < 1e-3 < 1 < unevenness(uneven)
    assert found.spread.max() / found.spread.min() > 20
    latents = uneven.clone().requires_grad_()
    (slope,) = torch.autograd.grad(unevenness(latents), latents)
    assert unevenness(uneven - 0.01 * slope / slope.norm() * uneven.norm()) < unevenness(uneven)


def test_a_whitened_autoencoder_encodes_to_whitened_latents_and_decodes_them_as_before(uneven):
    torch.manual_seed(4)
    plain, found = new_vae(CHANNELS, width=4).eval(), Whitening.of(uneven / 30)
    white, images = deepcopy(plain), torch.rand(2, 3, 64, 64) * 2 - 1
    whiten(white, found)
    with torch.no_grad():
        latents = plain.encoder(images)
        torch.testing.assert_close(white.encoder(images), found(latents), atol=1e-5, rtol=1e-4)
        small = found.mean[:, None, None] + 0.01 * torch.randn(2, CHANNELS, 8, 8)
        inner = slice(16, -16)
        before, after = (
            vae(z)[..., inner, inner] for vae, z in ((plain.decoder, small), (white.decoder, found(small)))
        )
        torch.testing.assert_close(after, before, atol=1e-3, rtol=0)


def test_a_decoder_is_trained_over_latents_that_stay_what_they_are():
    torch.manual_seed(5)
    start, images = new_vae(), torch.rand(1, 3, 64, 64) * 2 - 1
    start.register_to_config(shift_factor=0.2, scaling_factor=4.0)
    on, anew = over_latents_of(start), over_latents_of(new_vae(decoder_blocks=(1, 1, 1, 0)))
    assert (on.config.shift_factor, on.config.scaling_factor) == (0.2, 4.0)
    with torch.no_grad():
        latents = start.encoder(images)
        assert torch.equal(on.encoder(images), latents)
        assert torch.equal(on.decoder(latents), start.decoder(latents))
    for vae in (on, anew):
        assert not any(p.requires_grad for p in vae.encoder.parameters())
        assert all(p.requires_grad for p in vae.decoder.parameters())
    assert tuple(anew.config.num_decoder_blocks) == tuple(start.config.num_decoder_blocks)
