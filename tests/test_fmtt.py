"""The sampler against closed forms, the search against its promises; exact maps, double precision."""

import math
from itertools import pairwise

import pytest
import torch

from editor.fmtt import _langevin, sample, search
from editor.oracles import Gaussian, Quadratic
from editor.particles import (
    ParticleNoise,
    best_cloned,
    effective_size,
    langevin_share,
    log_mean_exp,
    renoise,
    systematic,
    weighted_variance,
)
from editor.run import Run
from editor.schedules import Damped, Ramp, Tilt, Vanishing, itinerary, place_times, time_grid
from editor.types import EditError, Scored, SearchSettings

F64 = torch.float64
Z_LIMIT = 4.5
"""Standard errors allowed in a z-test: a false alarm in 150,000 of one normal number, 30,000 of a mean of 60 seeds."""


def world(d=2):
    """Data, reward, score, and the tilted law with its log Z."""
    g = torch.Generator().manual_seed(d)
    root = torch.randn(d, d, generator=g, dtype=F64)
    flow = Gaussian(torch.randn(d, generator=g, dtype=F64), root @ root.T / d + 0.2 * torch.eye(d, dtype=F64))
    reward = Quadratic(torch.ones(d, dtype=F64), torch.eye(d, dtype=F64))
    law, log_z = flow.tilted(reward)
    return flow, (lambda y: Scored(reward(y))), law, log_z


def sampling(**changes):
    defaults = dict(method="fmtt-sampling", strength=1.0, renoise=0.0, noise=1.0, particles=64, steps=4, corrections=1)
    return SearchSettings(**(defaults | changes))


def start(settings, d=2, seed=0):
    g = torch.Generator().manual_seed(seed + 1000)
    return torch.randn(settings.particles, d, generator=g, dtype=F64)


def last(steps):
    *_, end = steps
    return end


def z_scores(values):
    """Of the mean of (seeds, numbers) against zero."""
    return values.mean(0) / (values.std(0) / math.sqrt(len(values)))


@pytest.mark.parametrize("ess", [0.0, 0.8])
@pytest.mark.parametrize("lookahead", ["map", "denoiser", "none"])
def test_transport_is_unbiased_at_any_step_size(ess, lookahead):
    """Z^ and Z^ times the weighted mean have expectations Z and Z E[x], with two steps, resampled or not."""
    flow, score, law, log_z = world()
    errors = []
    for seed in range(60):
        settings = sampling(steps=2, seed=seed, ess=ess, lookahead=lookahead, move=0.3)
        end = last(sample(flow, score, start(settings, seed=seed), settings))
        ratio = math.exp(end.diagnostics["log_z"] - log_z)
        mean = torch.softmax(end.log_weights, 0) @ end.x
        errors.append([ratio - 1, *(ratio * mean - law.mean).tolist()])
    assert z_scores(torch.tensor(errors)).abs().max() < Z_LIMIT


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
    assert z_scores(back - law.mean).abs().max() < Z_LIMIT
    outer = torch.stack([back[:, 0] ** 2, back[:, 0] * back[:, 1], back[:, 1] ** 2], 1)
    second = law.cov + torch.outer(law.mean, law.mean)
    wanted = torch.stack([second[0, 0], second[0, 1], second[1, 1]])
    assert z_scores(outer - wanted).abs().max() < Z_LIMIT


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


@pytest.mark.parametrize("method", [search, sample])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_rewards_that_are_not_finite_stop_the_run_with_a_sentence(method, bad):
    flow, score, _, _ = world()

    def broken(y):
        reward = score(y).reward
        return Scored(torch.where(torch.arange(len(y)) == 3, bad, reward))

    settings = sampling()
    with pytest.raises(EditError, match="1 of 64 candidates is not a finite number"):
        list(method(flow, broken, start(settings), settings))


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


# Resampling and weights


def test_systematic_resampling_is_unbiased_and_within_one():
    log_weights = torch.tensor([0.0, 1.0, -2.0, 0.5, 0.1], dtype=F64)
    wanted = 5 * torch.softmax(log_weights, 0)
    g = torch.Generator().manual_seed(0)
    counts = torch.stack([torch.bincount(systematic(log_weights, g), minlength=5) for _ in range(4000)]).double()
    assert ((counts - wanted).abs() < 1).all()
    assert z_scores(counts - wanted).abs().max() < Z_LIMIT


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


def test_renoising_keeps_the_law():
    """With the landing as the clean part and rho = 1, x_t ~ rho_t stays so exactly."""
    flow, _, _, _ = world()
    g = torch.Generator().manual_seed(1)
    t, n = 0.4, 20000
    x = flow.sample(n, t, g)
    moved = renoise(x, flow(x, t, 1.0), t, 1.0, torch.randn(n, 2, generator=g, dtype=F64))
    assert z_scores(moved - t * flow.mean).abs().max() < Z_LIMIT
    torch.testing.assert_close(torch.cov(moved.T), torch.cov(flow.sample(n, t, g).T), rtol=0.05, atol=0.02)
    torch.testing.assert_close(renoise(x, flow(x, t, 1.0), t, 0.0, x), x)


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


# Schedules


def test_schedules():
    ramp = Ramp(0.2, 0.4)
    assert [ramp(t) for t in (0.0, 0.2, 0.4, 1.0)] == [0, 0, 1, 1]
    assert ramp(0.3) == pytest.approx(0.5)
    assert Vanishing(2.0)(0.75) == pytest.approx(0.5)
    assert Damped(Vanishing(1.0), 30.0, 0.1)(0.0) == pytest.approx(1 / 1.6)
    tilt = Tilt.of(SearchSettings(strength=0.8, ramp=0.5, damping=30.0))
    assert tilt.a(0.2) == pytest.approx(0, abs=1e-9)
    assert tilt.a(0.6) == pytest.approx(1)
    assert tilt.chi(0.5) < 1.0
    assert tilt.unbiased().chi is None


def test_times():
    assert time_grid(SearchSettings(strength=1.0, steps=4)) == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert time_grid(SearchSettings(strength=1.0, steps=2, spacing=2.0)) == (0.0, 0.25, 1.0)
    assert time_grid(SearchSettings(strength=0.5, times=(0.6, 0.9))) == (0.5, 0.6, 0.9, 1.0)
    for wrong in ((0.4, 0.9), (0.9, 0.6), (0.6, 1.0), [0.6], ("late",)):
        with pytest.raises(ValueError, match="times must"):
            SearchSettings(strength=0.5, times=wrong)


def test_itinerary_guides_selects_and_passes_through():
    settings = SearchSettings(strength=1.0, steps=4, guided=0.5, corrections=2, selections=2, particles=4, keep=1)
    visits = itinerary(settings)
    assert [v.t for v in visits] == [0.0, 0.0, 0.25, 0.25, 1.0]
    assert [v.guided for v in visits] == [True] * 4 + [False]
    assert [v.select for v in visits] == [True, False, True, False, False]
    assert [v.onward for v in visits] == [(), (0.25,), (), (0.5, 0.75, 1.0), ()]
    assert [v.t for v in itinerary(settings.but(guided=0.0))] == [0.0, 1.0]
    assert not any(v.select for v in itinerary(settings.but(keep=4)))


def test_times_at_equal_length():
    """A speed that doubles half way puts twice as many times there."""
    placed = place_times((0.0, 0.5, 1.0), (1.0, 2.0), 6)
    assert placed == pytest.approx((0.25, 0.5, 0.625, 0.75, 0.875))
    assert place_times((0.0, 0.1, 0.2, 1.0), (1.0, 0.0, 1.0), 2) == pytest.approx((0.2,))
    SearchSettings(strength=1.0, times=placed)
    for times, lengths in (((0.0, 1.0), (0.0,)), ((0.0, 1.0), (math.nan,)), ((0.0, 0.0, 1.0), (1.0, 1.0))):
        with pytest.raises(ValueError, match="pilot"):
            place_times(times, lengths, 3)


# Search


def source(flow, settings, d=2):
    x = flow.sample(1, settings.start, torch.Generator().manual_seed(3))
    return x.expand(settings.particles, d).clone()


def test_the_search_climbs_and_reports_what_it_did():
    flow, score, _, _ = world(16)
    settings = SearchSettings(particles=6, steps=8, guided=1.0, corrections=2, seed=1)
    x = source(flow, settings, 16)
    steps = list(search(flow, score, x, settings))
    assert [s.index for s in steps] == list(range(17))
    assert {s.total for s in steps} == {16}
    assert steps[-1].t == 1.0
    assert torch.equal(steps[-1].lookahead, steps[-1].x)
    before, after = score(flow(x[:1], settings.start, 1.0)).reward, steps[-1].scored.reward
    assert float(after.max()) > float(before) / 3
    assert torch.equal(steps[0].x[0], x[0])  # the first particle starts from the source itself
    assert len({float(v) for v in steps[0].x[:, 0]}) == 6
    for a, b in pairwise(steps):
        assert b.ancestry == tuple(a.ancestry[p] for p in b.parents)
        assert b.nfe > a.nfe
    assert steps[-1].diagnostics["gradients"] == 16 * 6
    assert steps[-1].nfe == 1 + 6 * (16 + 8)  # scatter; 16 look-ahead visits and 8 transports
    assert all(not part.requires_grad for part in (steps[0].x, steps[0].lookahead, steps[0].scored.reward))


def test_a_search_begins_with_the_best_of_its_draws():
    flow, score, _, _ = world(16)
    settings = SearchSettings(particles=6, steps=2, corrections=1, selections=1, keep=6, guidance=0.0)
    x = source(flow, settings, 16)
    one, many = (next(search(flow, score, x, settings.but(draws=draws))) for draws in (1, 5))
    assert float(many.scored.reward.mean()) > float(one.scored.reward.mean())
    assert torch.equal(many.scored.reward, many.scored.reward.sort(descending=True).values)
    assert many.scored.reward.max() >= one.scored.reward.max()
    assert many.nfe == one.nfe + 5 * 6
    assert len({float(v) for v in many.x[:, 0]}) == 6
    again = next(search(flow, score, x, settings.but(draws=5)))
    assert torch.equal(again.x, many.x)
    still = next(search(flow, score, x, settings.but(draws=5, renoise=0.0)))
    assert still.nfe == one.nfe - 1, "without noise all draws are the source"


def test_the_same_seed_gives_the_same_particles_whatever_their_number():
    flow, score, _, _ = world(16)
    settings = SearchSettings(particles=3, keep=3, spread=2.0, temperature=0.5, corrections=2)
    few = last(search(flow, score, source(flow, settings, 16), settings))
    again = last(search(flow, score, source(flow, settings, 16), settings))
    more = settings.but(particles=7, keep=7)
    many = last(search(flow, score, source(flow, more, 16), more))
    assert torch.equal(few.x, again.x)
    torch.testing.assert_close(many.x[:3], few.x)
    other = settings.but(seed=1)
    assert not torch.allclose(last(search(flow, score, source(flow, other, 16), other)).x[1:], few.x[1:])


def test_without_guidance_noise_or_selection_the_search_is_the_flow():
    flow, score, _, _ = world()
    settings = SearchSettings(particles=3, guidance=0.0, noise=0.0, renoise=0.0, keep=3)
    x = source(flow, settings)
    steps = list(search(flow, score, x, settings))
    torch.testing.assert_close(steps[-1].x, flow(x, settings.start, 1.0))
    assert steps[-1].diagnostics["gradients"] == 0


def test_with_temperature_zero_no_correction_loses_reward():
    flow, score, _, _ = world(16)
    settings = SearchSettings(particles=5, keep=5, corrections=6, temperature=0.0, guidance=20.0, noise=0.5)
    steps = list(search(flow, score, source(flow, settings, 16), settings))
    pairs = [(a, b) for a, b in pairwise(steps) if a.t == b.t]
    assert pairs
    assert all((b.scored.reward >= a.scored.reward - 1e-12).all() for a, b in pairs)
    assert any(torch.equal(a.x[i], b.x[i]) for a, b in pairs for i in range(5))  # some moves were taken back


def test_selection_clones_the_best_and_their_clones_differ():
    flow, score, _, _ = world(16)
    settings = SearchSettings(
        particles=6, keep=1, selections=1, noise=0.0, guidance=0.0, clone_noise=0.4, corrections=1
    )
    first, second, *_ = search(flow, score, source(flow, settings, 16), settings)
    best = int(first.scored.reward.argmax())
    assert set(second.parents) == {best}
    assert len({float(v) for v in second.x[:, 0]}) == 6
    torch.testing.assert_close(second.x[best], flow(first.x[best : best + 1], first.t, second.t)[0])


@pytest.mark.parametrize("jacobian", [True, False])
@pytest.mark.parametrize("lookahead", ["map", "denoiser", "none"])
@pytest.mark.parametrize("normalise", [True, False])
def test_every_kind_of_gradient_climbs(jacobian, lookahead, normalise):
    flow, score, _, _ = world(16)
    settings = SearchSettings(
        particles=4, keep=4, jacobian=jacobian, lookahead=lookahead, normalise=normalise, noise=0.0, renoise=0.0
    )
    x = source(flow, settings, 16)
    before = score(flow(x, settings.start, 1.0)).reward
    end = last(search(flow, score, x, settings))
    assert (end.scored.reward > before).all()


def test_damping_and_spread_weaken_the_guidance():
    flow, score, _, _ = world(16)
    settings = SearchSettings(particles=4, keep=4, noise=0.0, renoise=0.0, steps=2, corrections=1)
    x = source(flow, settings, 16)

    def way(**changes):
        first, second, *_ = search(flow, score, x, settings.but(**changes))
        return (second.x - flow(first.x, first.t, second.t)).norm(dim=1)

    plain, damped, spread = way(), way(damping=30.0), way(spread=3.0)
    assert (damped < plain).all()
    assert spread.max() > 1.5 * spread.min()
    assert (way(guidance=0.0) < 1e-12).all()


def test_grad_mode_of_the_caller_is_left_alone_between_steps():
    """Each step of a generator may run in another thread: a grad mode held across a yield would leak into callers."""
    flow, score, _, _ = world()
    settings = SearchSettings(particles=3)
    for _ in search(flow, score, source(flow, settings), settings):
        assert torch.is_grad_enabled()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_search_runs_in_the_dtype_of_the_map(dtype):
    class Simple:
        two_time = True

        def __call__(self, x, s, t):
            assert x.dtype == dtype
            return x + (t - s) * self.velocity(x, t)

        def velocity(self, x, t):
            return -0.5 * x

    settings = SearchSettings(particles=3, corrections=2, temperature=1.0)
    x = torch.ones(3, 2, 4, 4, dtype=dtype)
    for method in (search, sample):
        end = last(method(Simple(), lambda y: Scored(y.float().mean((1, 2, 3))), x, settings))
        assert end.x.dtype == dtype


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (dict(particles=0), "particles must be a whole number"),
        (dict(corrections=1.5), "corrections must be a whole number"),
        (dict(strength=0.0), "strength must be above 0"),
        (dict(lookahead="far"), "map, denoiser or none"),
        (dict(guidance=-1.0), "guidance must be zero or more"),
        (dict(noise=math.nan), "noise must be zero or more"),
        (dict(renoise=1.1), "renoise must lie in"),
        (dict(move=0.0), "move must be above 0"),
        (dict(spread=0.5), "spread must lie in"),
        (dict(discretisation="heun"), "transport or euler-maruyama"),
        (dict(seed=-1), "seed must be a whole number"),
        (dict(particles=math.nan), "particles must be a whole number"),
        (dict(steps=math.inf), "steps must be a whole number"),
        (dict(guidance="much"), "guidance must be zero or more"),
    ],
)
def test_settings_refuse_nonsense_with_a_sentence(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        SearchSettings(**change)
