"""What teaches the flow map to draw straight what a search has bent: spoilt clocks, and what is asked about them."""

from __future__ import annotations

from copy import deepcopy
from random import Random

import numpy as np
import pytest
import torch

from tests.tiny_flow import CAPTION, CHANNELS, POOLED_WIDTH, TEXT_WIDTH, tiny_text
from training import clocks, mend, spoilt
from training.flow_folder import new_transformer
from training.train_flowmap import FlowNetwork
from training.world import TRAIN, TUNE

CLOCK = clocks.sample(TRAIN + 7)
PICTURE = np.asarray(clocks.render(CLOCK), np.float32)


@pytest.mark.parametrize("way", dict.fromkeys(spoilt.WAYS), ids=lambda way: way.__name__)
def test_every_way_of_spoiling_changes_a_part_of_the_picture_and_is_drawn_from_its_generator(way):
    found = [way(CLOCK, PICTURE, Random(seed)) for seed in (1, 1, 2, 3, 4, 5)]
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])
    changes = [np.abs(picture - PICTURE).max(-1) for picture in found[1:]]
    assert all(change.shape == (128, 128) for change in changes)
    assert max(change.max() for change in changes) > 30
    assert np.mean([(change > 30).mean() for change in changes]) < 0.3


def test_a_spoilt_clock_stands_beside_what_it_should_be():
    pairs = [spoilt.spoil(clocks.sample(TRAIN + i), Random(i)) for i in range(30)]
    for i, pair in enumerate(pairs):
        assert np.array_equal(pair.right, np.asarray(clocks.render(clocks.sample(TRAIN + i))))
    changed = [np.abs(pair.right - pair.spoilt).mean() for pair in pairs]
    assert np.median(changed) > 1
    assert max(changed) < 60


def test_rows_are_clocks_of_the_training_split_and_captions_tell_of_what_they_should_be():
    clock, told = spoilt.scene(3)
    assert clock == clocks.sample(TRAIN + 3)
    assert clock.seed < TUNE
    assert told == spoilt.scene(3)[1]
    assert clock.face in told.caption
    assert clock.time not in told.caption
    assert told.dial == (clock.x, clock.y, clock.dial)


@pytest.fixture
def network():
    torch.manual_seed(0)
    transformer = new_transformer(16, 1, 1, CHANNELS, TEXT_WIDTH, POOLED_WIDTH, heads=2)
    return FlowNetwork(transformer, tiny_text(), torch.device("cpu"), compiled=False)


@pytest.fixture
def examples(network, tmp_path, monkeypatch):
    """Eight clocks, of which every pair differs by 1 everywhere."""
    monkeypatch.setattr(spoilt, "CHUNK", 8)
    right = torch.randn(8, 1, CHANNELS, 16, 16, generator=torch.Generator().manual_seed(4))
    np.save(tmp_path / "00000000.npy", torch.cat([right, right - 1], 1).half().numpy())
    return mend.Examples.of(network, tmp_path)


def drawn(network, much):
    """Six rows, of which the last four are spoilt by so much."""
    right = torch.randn(6, CHANNELS, 16, 16, generator=torch.Generator().manual_seed(1))
    wrong = torch.full_like(right, much)
    wrong[:2] = 0
    return mend.Drawn(right, wrong, network.text.tokens([CAPTION] * 6), torch.tensor([[0.5, 0.5, 0.3]] * 6))


def test_without_clocks_it_says_what_to_run(network, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"training\.spoilt"):
        mend.Examples.of(network, tmp_path)


def test_a_third_of_a_batch_is_whole_and_alone_may_lack_its_caption(network, examples):
    batch = examples.draw(90, torch.Generator().manual_seed(0))
    whole = ~batch.wrong.flatten(1).any(1)
    assert torch.equal(whole, torch.arange(90) < 90 // mend.WHOLE)
    low, high = mend.WORSE
    assert 0.9 * low < batch.wrong[~whole].min() < batch.wrong[~whole].max() < 1.1 * high
    silent = (batch.ids[1] == network.text.tokens([""])[1]).all(1)
    assert silent[whole].any()
    assert not silent[~whole].any()
    again = examples.draw(90, torch.Generator().manual_seed(0))
    assert torch.equal(batch.right, again.right)


def test_times_ascend_and_some_are_one_and_some_end_at_the_image():
    bad = torch.arange(400) < 200
    s, t = mend.intervals(bad, torch.Generator().manual_seed(0))
    assert (s <= t).all()
    assert (t <= 1).all()
    assert mend.FROM <= s[bad].min() <= s[bad].max() <= mend.TO
    assert float((s == t).float().mean()) == pytest.approx(0.5, abs=0.1)
    assert float((t == 1).float().mean()) == pytest.approx(0.25, abs=0.08)


def test_a_network_is_already_what_it_shows_where_nothing_is_spoilt(network):
    value, told = mend.loss(network, deepcopy(network), drawn(network, 0.0), torch.Generator().manual_seed(2))
    assert value < 1e-10
    assert told["whole"] < 1e-10


def test_what_is_asked_lands_where_the_whole_clock_lands_and_two_jumps_are_one():
    """On the exact map of a single point z: X_{s,t}(x) = x + (t - s) (z - x) / (1 - s)."""
    z, d, noise = (torch.randn(5, dtype=torch.float64) for _ in range(3))

    def shown(x, s):
        return (z - x) / (1 - s)

    s, u = (torch.tensor(t, dtype=torch.float64) for t in (0.4, 0.7))
    whole = torch.lerp(noise, z, s)
    x, way = whole - s * d, mend.asked(shown(whole, s), d, s)
    torch.testing.assert_close(x + (1 - s) * way, z)
    between = x + (u - s) * way
    left = (torch.lerp(noise, z, u) - between) / u
    torch.testing.assert_close(left, d * s * (1 - u) / (u * (1 - s)))
    torch.testing.assert_close(between + (1 - u) * mend.asked(shown(between + u * left, u), left, u), z)


def test_a_network_learns_to_mend(network):
    shown = deepcopy(network)
    shown.modules.requires_grad_(False)
    tuned, losses = torch.optim.Adam(network.modules.parameters(), lr=3e-3), []
    for _ in range(15):
        value, told = mend.loss(network, shown, drawn(network, 1.0), torch.Generator().manual_seed(2))
        value.backward()
        tuned.step()
        tuned.zero_grad()
        losses.append(float(value.detach()))
    assert losses[-1] < 0.7 * losses[0]
    assert all(weight.grad is None for weight in shown.modules.parameters())
    assert told["spoilt"] > 0
    deepcopy(network.transformer)  # as `save_pipeline` does
