"""The laws of a flow map, on maps that are exactly known, in double precision; and inversion's order."""

import math
from itertools import pairwise

import pytest
import torch

from editor.flowmap import (
    LOOKAHEADS,
    AverageVelocity,
    Counted,
    denoise,
    look_ahead,
    map_in_steps,
    score_from_velocity,
    transport,
)
from editor.inversion import integrate, invert, roundtrip
from editor.oracles import Gaussian, Mixture, Quadratic

F64 = torch.float64
TIMES = (0.0, 0.15, 0.5, 0.85, 1.0)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def gaussian(d=5):
    g = generator(d)
    root = torch.randn(d, d, generator=g, dtype=F64)
    return Gaussian(torch.randn(d, generator=g, dtype=F64), root @ root.T / d + 0.1 * torch.eye(d, dtype=F64))


def mixture():
    """Eight round components on a circle."""
    angles = torch.arange(8, dtype=F64) * math.pi / 4
    means = 4 * torch.stack([angles.cos(), angles.sin()], 1)
    variances = torch.linspace(0.3, 0.6, 8, dtype=F64).square()
    return Mixture(torch.arange(1, 9, dtype=F64), means, variances[:, None, None] * torch.eye(2, dtype=F64))


def slanted(d=5, k=3):
    """Components whose covariances are full and have no axes in common."""
    g = generator(d)
    roots = torch.randn(k, d, d, generator=g, dtype=F64)
    covs = roots @ roots.mT / d + 0.1 * torch.eye(d, dtype=F64)
    return Mixture(torch.arange(1, k + 1, dtype=F64), 2 * torch.randn(k, d, generator=g, dtype=F64), covs)


ORACLES = [
    pytest.param(gaussian(), id="gaussian"),
    pytest.param(mixture(), id="mixture"),
    pytest.param(slanted(), id="slanted"),
]


@pytest.mark.parametrize("flow", ORACLES)
@pytest.mark.parametrize("t", TIMES)
def test_identity(flow, t):
    x = flow.sample(50, t, generator())
    torch.testing.assert_close(flow(x, t, t), x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("flow", ORACLES)
def test_composition_forwards_and_backwards(flow):
    x = flow.sample(50, 0.1, generator())
    direct = flow(x, 0.1, 0.95)
    torch.testing.assert_close(flow(flow(x, 0.1, 0.6), 0.6, 0.95), direct, rtol=0, atol=1e-6)
    torch.testing.assert_close(flow(flow(x, 0.1, 1.0), 1.0, 0.95), direct, rtol=0, atol=1e-6)
    torch.testing.assert_close(flow(direct, 0.95, 0.1), x, rtol=0, atol=1e-6)


@pytest.mark.parametrize("flow", ORACLES)
@pytest.mark.parametrize("s", [0.1, 0.5, 0.9])
def test_eulerian_identity(flow, s):
    """d/ds X_{s,t} + (grad X_{s,t}) b_s = 0, as one derivative along (b_s, 1) in (x, s)."""
    x = flow.sample(50, s, generator())
    times, ones = torch.full((50,), s, dtype=F64), torch.ones(50, dtype=F64)
    moved = torch.autograd.functional.jvp(lambda x, s: flow(x, s, 1.0), (x, times), (flow.velocity(x, s), ones))[1]
    assert moved.abs().max() < 1e-5


@pytest.mark.parametrize("flow", ORACLES)
@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_tangent_is_the_velocity(flow, t):
    x, h = flow.sample(50, t, generator()), 1e-4
    slope = (flow(x, t, t + h) - flow(x, t, t - h)) / (2 * h)
    torch.testing.assert_close(slope, flow.velocity(x, t), rtol=0, atol=1e-5)


@pytest.mark.parametrize("flow", ORACLES)
@pytest.mark.parametrize("t", [0.0, 0.4, 0.9])
def test_score_by_velocity_by_formula_and_by_autograd(flow, t):
    x = flow.sample(50, t, generator())
    torch.testing.assert_close(score_from_velocity(flow.velocity(x, t), x, t), flow.score(x, t))
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(flow.log_density(leaf, t).sum(), leaf)
    torch.testing.assert_close(flow.score(x, t), slope)


@pytest.mark.parametrize("flow", ORACLES)
def test_map_carries_the_law_of_one_time_to_that_of_another(flow):
    """Change of variables: log rho_1(X(x)) + log |det grad X(x)| = log rho_s(x)."""
    x = flow.sample(5, 0.3, generator())
    jacobians = torch.stack([torch.autograd.functional.jacobian(lambda y: flow(y[None], 0.3, 1.0)[0], y) for y in x])
    logdet = torch.linalg.slogdet(jacobians)[1]
    torch.testing.assert_close(
        flow.log_density(flow(x, 0.3, 1.0), 1.0) + logdet, flow.log_density(x, 0.3), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("flow", ORACLES)
def test_one_time_for_each_latent(flow):
    x = flow.sample(4, 0.5, generator())
    s, t = torch.tensor([0.1, 0.4, 0.5, 0.2], dtype=F64), torch.tensor([0.9, 0.3, 0.5, 1.0], dtype=F64)
    singles = [flow(x[i : i + 1], float(s[i]), float(t[i])) for i in range(4)]
    torch.testing.assert_close(flow(x, s, t), torch.cat(singles), rtol=0, atol=1e-6)
    singles = [flow.velocity(x[i : i + 1], float(s[i])) for i in range(4)]
    torch.testing.assert_close(flow.velocity(x, s), torch.cat(singles))


def test_latents_keep_their_shape():
    flow, x = gaussian(12), torch.randn(3, 3, 2, 2, generator=generator(), dtype=F64)
    assert flow(x, 0.2, 0.7).shape == flow.velocity(x, 0.2).shape == flow.score(x, 0.2).shape == x.shape
    torch.testing.assert_close(flow(x, 0.2, 0.7).flatten(1), flow(x.flatten(1), 0.2, 0.7))


@pytest.mark.parametrize("flow", ORACLES)
def test_tilted_law_in_closed_form(flow):
    """rho_1 e^r / Z is the density of the tilted law, everywhere, whatever the reward's curvature."""
    d = flow.means.shape[1]
    root = torch.randn(d, d, generator=generator(1), dtype=F64)
    reward = Quadratic(torch.linspace(1.5, 0.5, d, dtype=F64), root @ root.T / d)
    law, log_z = flow.tilted(reward)
    assert type(law) is type(flow)
    x = torch.cat([law.sample(20, 1.0, generator()), flow.sample(20, 1.0, generator())])
    torch.testing.assert_close(law.log_density(x, 1.0), flow.log_density(x, 1.0) + reward(x) - log_z)


@pytest.mark.parametrize("d", [1, 16])
def test_a_mixture_of_one_component_is_the_gaussian_in_any_dimension(d):
    one = gaussian(d)
    flow, x = Mixture(torch.full((1,), 3.0, dtype=F64), one.mean[None], one.cov[None]), one.sample(20, 0.2, generator())
    torch.testing.assert_close(flow(x, 0.2, 0.9), one(x, 0.2, 0.9), rtol=0, atol=1e-6)
    by_hand = torch.distributions.MultivariateNormal(0.6 * one.mean, 0.36 * one.cov + 0.16 * torch.eye(d, dtype=F64))
    torch.testing.assert_close(flow.log_density(x, 0.6), by_hand.log_prob(x))
    draws = slanted(d).sample(20000, 1.0, generator())
    torch.testing.assert_close(draws.mean(0), slanted(d).weights @ slanted(d).means, rtol=0, atol=0.1)


def test_oracles_refuse_what_is_no_law():
    with pytest.raises(ValueError, match="positive definite"):
        Gaussian(torch.zeros(2), torch.diag(torch.tensor([1.0, 0.0])))
    with pytest.raises(ValueError, match="must be positive"):
        Mixture(torch.tensor([1.0, 0.0]), torch.zeros(2, 2), torch.eye(2).expand(2, 2, 2))


def test_average_velocity_is_a_flow_map():
    """The exact average velocity of a Gaussian, (X(x, s, t) - x) / (t - s), gives its map back."""
    flow = gaussian()

    def v(x, s, t):
        return flow.velocity(x, t) if s == t else (flow(x, s, t) - x) / (t - s)

    adapted, x = AverageVelocity(v), flow.sample(10, 0.3, generator())
    torch.testing.assert_close(adapted(x, 0.3, 0.8), flow(x, 0.3, 0.8))
    torch.testing.assert_close(adapted.velocity(x, 0.3), flow.velocity(x, 0.3))
    times = torch.linspace(0, 1, 3)
    shifted = AverageVelocity(lambda x, s, t: torch.ones_like(x))(torch.zeros(3, 1, 2, 2), times, torch.ones(3))
    assert shifted[:, 0, 0, 0].tolist() == [1.0, 0.5, 0.0]


def test_look_aheads_and_their_cost():
    flow = gaussian()
    x = flow.sample(6, 0.4, generator())
    for kind, steps, nfe in (("map", 1, 6), ("map", 4, 24), ("denoiser", 1, 6), ("none", 1, 0)):
        counted = Counted(flow)
        y = look_ahead(counted, x, 0.4, kind, steps)
        assert counted.nfe == nfe
        assert look_ahead(counted, y, 1.0, kind, steps) is y
        assert counted.nfe == nfe
        wanted = {"map": flow(x, 0.4, 1.0), "denoiser": denoise(flow, x, 0.4), "none": x}[kind]
        torch.testing.assert_close(y, wanted)
    assert set(LOOKAHEADS) == {"map", "denoiser", "none"}


def test_denoiser_is_the_posterior_mean():
    """E[x_1 | x_t] of a Gaussian, by regression on the joint law."""
    flow, t = gaussian(), 0.6
    gain = t * flow.cov @ torch.linalg.inv(t**2 * flow.cov + (1 - t) ** 2 * torch.eye(5, dtype=F64))
    x = flow.sample(7, t, generator())
    torch.testing.assert_close(denoise(flow, x, t), flow.mean + (x - t * flow.mean) @ gain.T)


def test_a_one_end_map_is_carried_towards_its_landing():
    class OneEnd:
        two_time = False

        def __call__(self, x, s, t):
            assert t == 1.0
            return torch.full_like(x, 3.0)

    x = torch.ones(2, 1, 1, 1)
    torch.testing.assert_close(transport(OneEnd(), x, 0.2, 0.6), torch.full_like(x, 2.0))
    torch.testing.assert_close(transport(OneEnd(), x, 0.2, 1.0), torch.full_like(x, 3.0))


def test_map_in_steps_calls_once_a_step():
    counted = Counted(gaussian())
    x = counted.flow.sample(3, 0.0, generator())
    torch.testing.assert_close(map_in_steps(counted, x, 0.0, 1.0, 5), counted.flow(x, 0.0, 1.0))
    assert counted.nfe == 15


@pytest.mark.parametrize("flow", ORACLES)
def test_inversion_is_of_second_order(flow):
    """Doubling the steps divides the error of the inverted latents by four or more."""
    x1 = flow.sample(50, 1.0, generator())
    exact = flow(x1, 1.0, 0.2)
    errors = [float((invert(flow, x1, 0.2, steps).x - exact).norm()) for steps in (32, 64, 128)]
    orders = [math.log2(a / b) for a, b in pairwise(errors)]
    assert all(order > 1.8 for order in orders), (errors, orders)


def test_roundtrip_returns_the_source_and_counts():
    flow = gaussian()
    x1 = flow.sample(4, 1.0, generator())
    trip = roundtrip(flow, x1, 0.2, 32)
    assert (trip.back - x1).abs().max() < 1e-3
    torch.testing.assert_close(trip.x, invert(flow, x1, 0.2, 32).x)
    assert trip.nfe == 4 * 32 * 2 * 2
    assert invert(flow, x1, 0.2, 32).nfe == 4 * 32 * 2
    with pytest.raises(ValueError, match="at least 1"):
        integrate(flow, x1, 1.0, 0.2, 0)
