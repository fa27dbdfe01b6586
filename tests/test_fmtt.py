"""The sampler against closed forms; exact maps, double precision."""

import math

import pytest
import torch

from editor.baselines import METHODS
from editor.fmtt import _langevin, sample, search
from editor.run import Run
from editor.schedules import Ramp, Tilt, Vanishing
from editor.types import EditError, Scored
from tests.exact import F64, gaussian_world, last, mixture_world, sampling, start, world, z_limit, z_scores

PROBLEMS = {"gaussian-2": gaussian_world(2), "gaussian-16": gaussian_world(16), "mixture": mixture_world()}
LOOKAHEADS = ("map", "denoiser", "none")
NUMBERS = 2 * len(LOOKAHEADS) * (3 + 17 + 3)
"""Z^ and the first moments of every problem, with and without resampling: what the z-tests of them share."""


def errors_over(seeds, problem, **changes):
    """Of each seed's Z^ / Z - 1 and Z^ / Z times the weighted mean, less E[x]: zero on average if unbiased."""
    flow, score, law, log_z = PROBLEMS[problem]
    d, mean, errors = law.means.shape[1], law.weights @ law.means, []
    for seed in range(seeds):
        settings = sampling(steps=2, seed=seed, **changes)
        end = last(sample(flow, score, start(settings, d, seed), settings))
        ratio = math.exp(end.diagnostics["log_z"] - log_z)
        errors.append([ratio - 1, *(ratio * (torch.softmax(end.log_weights, 0) @ end.x) - mean).tolist()])
    return torch.tensor(errors, dtype=F64)


@pytest.mark.parametrize("resamplings", [0, 1])
@pytest.mark.parametrize("lookahead", LOOKAHEADS)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_transport_is_unbiased_at_any_step_size(problem, lookahead, resamplings):
    """Z^ and Z^ times the weighted mean have expectations Z and Z E[x], with two steps, resampled or not.

    All cases together fail by chance with probability FALSE_ALARM. Moves on the mixture are the default's size:
    Metropolis' rule there is off by the third power of it.
    """
    seeds, move = (40, 0.1) if problem == "mixture" else (60, 0.3)
    errors = errors_over(seeds, problem, lookahead=lookahead, resamplings=resamplings, move=move)
    assert z_scores(errors).abs().max() < z_limit(seeds, NUMBERS)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_the_same_test_finds_the_step_size_bias_of_euler_maruyama(problem):
    errors = errors_over(20, problem, discretisation="euler-maruyama", resamplings=0)
    assert z_scores(errors).abs().max() > 2 * z_limit(20, NUMBERS)


def test_sampling_an_edit_renews_all_the_noise_and_is_unbiased():
    """Over draws of the source, whose copies the particles are, whatever share of the noise the settings ask for."""
    flow, score, law, log_z = PROBLEMS["gaussian-2"]
    errors = []
    for seed in range(150):
        settings = sampling(strength=0.6, steps=2, seed=seed, particles=16, renoise=0.7, move=0.3)
        x = flow.sample(1, settings.start, torch.Generator().manual_seed(seed)).expand(16, 2).clone()
        end = last(METHODS["fmtt-sampling"](flow, score, x, settings))
        ratio = math.exp(end.diagnostics["log_z"] - log_z)
        errors.append([ratio - 1, *(ratio * (torch.softmax(end.log_weights, 0) @ end.x) - law.mean).tolist()])
    assert z_scores(torch.tensor(errors, dtype=F64)).abs().max() < z_limit(150, 3)


def test_a_share_of_the_noise_is_refused_as_a_start_of_sampling():
    flow, score, _, _ = world()
    settings = sampling(strength=0.6, renoise=0.7)
    with pytest.raises(EditError, match="set renoise to 1, or to 0"):
        next(sample(flow, score, start(settings), settings))
    for fine in (settings.but(renoise=1.0), settings.but(renoise=0.0), settings.but(strength=1.0)):
        assert next(sample(flow, score, start(fine), fine)).index == 0


def test_euler_maruyama_is_biased_but_converges():
    """At two steps log Z is off by far more than its noise; the error falls about in proportion to the step size."""
    flow, score, _, log_z = world()
    errors = []
    for steps in (2, 8, 32):
        runs = []
        for seed in range(8):
            settings = sampling(steps=steps, seed=seed, particles=256, discretisation="euler-maruyama", ess=0.0)
            runs.append(last(sample(flow, score, start(settings, seed=seed), settings)).diagnostics["log_z"] - log_z)
        errors.append(abs(sum(runs) / 8))
    assert errors[0] > 0.1
    assert errors[0] > 2 * errors[1] > 4 * errors[2], errors


def test_langevin_moves_leave_the_tilted_law_invariant():
    """From exact samples of rho_t e^{r_t}, many large Metropolis-adjusted moves keep mean and covariance."""
    flow, score, law, _ = world()
    n, t = 2000, 0.5
    settings = sampling(particles=n, corrections=20, move=0.5, ramp=0.5)
    run = Run.of(flow, score, torch.zeros(n, 2, dtype=F64), settings)
    x = flow(law.sample(n, 1.0, torch.Generator().manual_seed(5)), 1.0, t)  # a(t) = 1: the push-back of the tilted law
    accepted = []
    now = _langevin(run, run.land(x, t, True), t, accepted)
    assert 0.2 < sum(accepted) / 20 < 0.95
    assert (now.x - x).norm(dim=1).mean() > 0.3
    back = flow(now.x, t, 1.0)
    assert z_scores(back - law.mean).abs().max() < z_limit(n, 5)
    outer = torch.stack([back[:, 0] ** 2, back[:, 0] * back[:, 1], back[:, 1] ** 2], 1)
    second = law.cov + torch.outer(law.mean, law.mean)
    wanted = torch.stack([second[0, 0], second[0, 1], second[1, 1]])
    assert z_scores(outer - wanted).abs().max() < z_limit(n, 5)


@pytest.mark.parametrize("discretisation", ["transport", "euler-maruyama"])
def test_a_constant_in_the_reward_changes_no_weight(discretisation):
    flow, score, _, _ = world()
    settings = sampling(discretisation=discretisation, ess=0.7)
    plain = last(sample(flow, score, start(settings), settings))
    raised = last(sample(flow, lambda y: Scored(score(y).reward + 100), start(settings), settings))
    torch.testing.assert_close(torch.softmax(raised.log_weights, 0), torch.softmax(plain.log_weights, 0))
    torch.testing.assert_close(raised.x, plain.x)
    assert raised.diagnostics["log_z"] == pytest.approx(plain.diagnostics["log_z"] + 100)
    assert raised.diagnostics["length"] == pytest.approx(plain.diagnostics["length"])


def test_without_a_reward_the_sampler_is_the_flow():
    flow, _, _, _ = world()
    settings = sampling(noise=0.0)
    x = start(settings)
    end = last(sample(flow, lambda y: Scored(y.new_zeros(len(y))), x, settings))
    torch.testing.assert_close(end.x, flow(x, 0.0, 1.0))
    assert end.log_weights.abs().max() == 0
    assert end.diagnostics["log_z"] == end.diagnostics["length"] == 0


def test_discrepancy_is_at_least_length_squared():
    flow, score, _, _ = world()
    for steps in (2, 16):
        settings = sampling(steps=steps)
        numbers = last(sample(flow, score, start(settings), settings)).diagnostics
        assert numbers["discrepancy"] >= numbers["length"] ** 2 - 1e-12 > 0


def test_a_drift_beyond_the_tilt_is_refused_as_a_sampler():
    flow, score, _, _ = world()
    settings = sampling()
    tilt = Tilt(a=Ramp(), eps=Vanishing(1.0), chi=Vanishing(0.5))
    with pytest.raises(EditError, match="no sampler"):
        next(sample(flow, score, start(settings), settings, tilt))
    flow.two_time = False
    with pytest.raises(EditError, match="can't sample exactly"):
        next(sample(flow, score, start(settings), settings))
    settings = settings.but(discretisation="euler-maruyama", jacobian=False)
    flow.two_time = True
    with pytest.raises(EditError, match="jacobian"):
        next(sample(flow, score, start(settings), settings))


def test_other_broken_rewards_have_sentences_too():
    flow, score, _, _ = world()
    settings = sampling()
    with pytest.raises(EditError, match="has no gradient"):
        next(search(flow, lambda y: Scored(score(y).reward.detach()), start(settings), settings))
    with pytest.raises(EditError, match="one reward to each"):
        next(search(flow, lambda y: Scored(score(y).reward.mean()), start(settings), settings))
    with pytest.raises(EditError, match="gradient of the reward is not finite"):
        next(search(flow, lambda y: Scored((y - y).abs().sum(1).sqrt()), start(settings), settings))
    with pytest.raises(ValueError, match="ask for 64 particles, but 2"):
        next(search(flow, score, start(settings)[:2], settings))
