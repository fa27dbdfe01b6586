"""Weights, resampling and noise of particles, in double precision."""

import math

import pytest
import torch

from editor.particles import (
    ParticleNoise,
    batched,
    best_cloned,
    effective_size,
    langevin_share,
    log_mean_exp,
    renoise,
    systematic,
    weighted_variance,
)
from tests.exact import F64, world, z_limit, z_scores


def test_systematic_resampling_is_unbiased_and_within_one():
    log_weights = torch.tensor([0.0, 1.0, -2.0, 0.5, 0.1], dtype=F64)
    wanted = 5 * torch.softmax(log_weights, 0)
    g = torch.Generator().manual_seed(0)
    counts = torch.stack([torch.bincount(systematic(log_weights, g), minlength=5) for _ in range(4000)]).double()
    assert ((counts - wanted).abs() < 1).all()
    assert z_scores(counts - wanted).abs().max() < z_limit(4000, 5)


def test_weights():
    assert effective_size(torch.zeros(8)) == pytest.approx(8)
    assert effective_size(torch.tensor([0.0, -1e4])) == pytest.approx(1)
    assert log_mean_exp(torch.tensor([800.0, 800.0])) == pytest.approx(800)
    assert weighted_variance(torch.tensor([0.0, 2.0]), torch.zeros(2)) == pytest.approx(1)


def test_the_best_stay_and_the_others_become_their_clones():
    rewards = torch.tensor([0.0, 5.0, 1.0, 7.0, 7.0])
    assert best_cloned(rewards, 2).tolist() == [3, 4, 3, 3, 4]
    assert best_cloned(rewards, 5).tolist() == [0, 1, 2, 3, 4]
    assert best_cloned(rewards, 1).tolist() == [3] * 5


# Noise


def test_noise_of_a_particle_depends_on_its_index_and_the_seed_alone():
    few, many, other = ParticleNoise(7, 4), ParticleNoise(7, 9), ParticleNoise(8, 4)
    like = torch.zeros(9, 2, 3, 3)
    a, b, c = few.normal(like[:4]), many.normal(like), other.normal(like[:4])
    assert torch.equal(a, b[:4])
    assert not (a == c).any()
    assert len({float(v) for v in b[:, 0, 0, 0]}) == 9
    assert few.normal(like[:4].bfloat16()).dtype == torch.bfloat16
    assert ParticleNoise(7, 4).normal(like[:4].double()).dtype == torch.float64


def test_rounds_are_looked_at_in_batches_and_made_when_a_batch_needs_them():
    made = []

    def rounds():
        for k in range(4):
            made.append(k)
            yield torch.full((3, 1), float(k))

    batches = batched(rounds(), 4)
    assert next(batches).flatten().tolist() == [0, 0, 0, 1]
    assert made == [0, 1]
    assert [batch.flatten().tolist() for batch in batches] == [[1, 1, 2, 2], [2, 3, 3, 3]]
    assert [len(batch) for batch in batched(rounds(), 5)] == [5, 5, 2]


def test_renoising_keeps_the_law():
    """With the landing as the clean part and rho = 1, x_t ~ rho_t stays so exactly."""
    flow, _, _, _ = world()
    g = torch.Generator().manual_seed(1)
    t, n = 0.4, 20000
    x = flow.sample(n, t, g)
    moved = renoise(x, flow(x, t, 1.0), t, 1.0, torch.randn(n, 2, generator=g, dtype=F64))
    assert z_scores(moved - t * flow.mean).abs().max() < z_limit(n, 2)
    torch.testing.assert_close(torch.cov(moved.T), torch.cov(flow.sample(n, t, g).T), rtol=0.05, atol=0.02)
    torch.testing.assert_close(renoise(x, flow(x, t, 1.0), t, 0.0, x), x)


def test_renewing_a_share_of_the_noise_does_not_keep_the_law():
    """Landing and noise of the same x go together, so that a share of the noise alone is no draw of it."""
    flow, _, _, _ = world()
    g, t, n = torch.Generator().manual_seed(1), 0.4, 20000
    x = flow.sample(n, t, g)
    moved = renoise(x, flow(x, t, 1.0), t, 0.7, torch.randn(n, 2, generator=g, dtype=F64))
    shift = (moved - t * flow.mean).square() - (x - t * flow.mean).square()
    assert z_scores(shift).abs().max() > 2 * z_limit(n, 2)


def test_a_small_langevin_move_is_a_small_renoising():
    flow, _, _, _ = world()
    eps, h, t = 0.6, 1e-5, 0.3
    g = torch.Generator().manual_seed(1)
    x = flow.sample(10, t, g)
    fresh = torch.randn(10, 2, generator=g, dtype=F64)
    clean = x + (1 - t) * flow.velocity(x, t)
    moved = renoise(x, clean, t, langevin_share(eps, h, t), fresh)
    wanted = x + eps * h * flow.score(x, t) + math.sqrt(2 * eps * h) * fresh
    torch.testing.assert_close(moved, wanted, rtol=0, atol=1e-7)
