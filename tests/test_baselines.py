"""The controls: same signature, honest costs, and what each promises."""

import math
from itertools import pairwise

import pytest
import torch

from editor.baselines import METHODS, Fmrg, Reno, planned_nfe
from editor.oracles import Gaussian, Quadratic
from editor.schedules import time_grid
from editor.types import EditError, Scored, SearchSettings

F64 = torch.float64
D = 16
NFE = {
    "fmtt": 1 + 6 * (12 + 8),  # 6 guided times of 2 visits; 8 transports
    "fmtt-sampling": 1 + 6 * (8 + 8 + 8 * (1 + 2 * 2)),  # transports, landings; a velocity and 2 moves of 2 at each
    "best-of-n": 1 + 6 * 8,
    "multi-best-of-n": 1 + 3 * 6 * 8,
    "sdedit": 1 + 6 * 8,
    "prompt-only": 8,
    "fmrg-j": 1 + 2 * 6 + 2,  # two guided steps, of which the second chooses; two jumps of the best
    "fmrg-e": 1 + 2 * 6 + 2,
    "reno": 1 + 8 * 6,
}
"""Of 6 particles in 8 steps from copies of one source, which land once to be renoised: counted by hand."""


def world():
    g = torch.Generator().manual_seed(0)
    root = torch.randn(D, D, generator=g, dtype=F64) / 4
    flow = Gaussian(torch.randn(D, generator=g, dtype=F64), root @ root.T + 0.1 * torch.eye(D, dtype=F64))
    reward = Quadratic(torch.full((D,), 2.0, dtype=F64), torch.eye(D, dtype=F64))
    return flow, (lambda y: Scored(reward(y)))


class Watched:
    """A flow that notes how many latents came in each call."""

    def __init__(self, flow):
        self.flow, self.calls, self.two_time = flow, [], True

    def __call__(self, x, s, t):
        self.calls.append(len(x))
        return self.flow(x, s, t)

    def velocity(self, x, t):
        self.calls.append(len(x))
        return self.flow.velocity(x, t)


def run(method, flow=None, score=None, **changes):
    settings = SearchSettings(**(dict(method=method, particles=6, steps=8, seed=2) | changes))
    exact, exact_score = world()
    x = exact.sample(1, settings.start, torch.Generator().manual_seed(3)).expand(settings.particles, D).clone()
    return list(METHODS[method](flow or exact, score or exact_score, x, settings)), x, settings


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("strength", [0.8, 1.0])
def test_every_method_ends_at_the_image_with_counts_that_hold(method, strength):
    flow = Watched(world()[0])
    steps, _, settings = run(method, flow, strength=strength)
    last = steps[-1]
    assert last.t == 1.0
    assert [s.index for s in steps] == list(range(len(steps)))
    assert {s.total for s in steps} == {len(steps) - 1}
    assert last.nfe == sum(flow.calls) == planned_nfe(settings)
    for step in steps:
        assert len(step.x) == len(step.lookahead) == len(step.scored.reward) == len(step.parents) == len(step.ancestry)
        assert max(step.ancestry) < settings.particles
    torch.testing.assert_close(last.scored.reward, world()[1](last.lookahead).reward)


@pytest.mark.parametrize("method", METHODS)
def test_nfe_of_every_method_by_hand(method):
    assert set(NFE) == set(METHODS)
    assert run(method)[0][-1].nfe == NFE[method]


@pytest.mark.parametrize("lookahead", ["map", "denoiser", "none"])
@pytest.mark.parametrize("method", METHODS)
def test_every_network_call_takes_all_particles_at_once(method, lookahead):
    """From noise all particles of a step go in one call; FMRG goes on with one, and the prompt alone has one."""
    flow = Watched(world()[0])
    run(method, flow, strength=1.0, lookahead=lookahead)
    alone = {"prompt-only": len(flow.calls), "fmrg-j": 2, "fmrg-e": 2}.get(method, 0)
    assert flow.calls == [6] * (len(flow.calls) - alone) + [1] * alone
    copies = Watched(world()[0])
    run(method, copies, strength=0.8, lookahead=lookahead)
    extra = [] if method == "prompt-only" else [1]  # where the one source of all particles lands
    assert copies.calls[: len(extra)] == extra
    assert set(copies.calls[len(extra) :]) <= set(flow.calls)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("method", METHODS)
def test_rewards_that_are_not_finite_stop_every_method_with_a_sentence(method, bad):
    """Whichever of its calls of the score it is that one particle's reward goes wrong in."""
    _, score = world()
    calls = []

    def broken(y, at=None):
        calls.append(len(y))
        reward = score(y).reward
        wrong = (torch.arange(len(y)) == len(y) - 1) & (len(calls) - 1 == at)
        return Scored(torch.where(wrong, bad, reward))

    run(method, score=broken, steps=4)
    sizes = tuple(calls)
    for at, size in enumerate(sizes):
        calls.clear()
        with pytest.raises(EditError, match=f"1 of {size} candidates is not a finite number"):
            run(method, score=lambda y, at=at: broken(y, at), steps=4)
        assert len(calls) == at + 1, "the run went on"


@pytest.mark.parametrize("method", METHODS)
def test_every_method_reports_its_thermodynamic_length(method):
    steps, _, settings = run(method)
    lengths, losses = ([s.diagnostics[name] for s in steps] for name in ("length", "discrepancy"))
    assert all(b >= a for a, b in pairwise(lengths))
    way = settings.strength * (settings.selections if method == "multi-best-of-n" else 1)
    assert losses[-1] * way >= lengths[-1] ** 2 * (1 - 1e-9)
    assert (lengths[-1] > 0) == (method != "prompt-only")
    assert run(method, score=lambda y: Scored(0 * y.sum(1)))[0][-1].diagnostics["length"] == 0


@pytest.mark.parametrize("method", ["best-of-n", "sdedit"])
def test_along_the_flow_the_length_is_the_spread_of_the_rewards_at_its_end(method):
    """Lambda = sd(r) and D = Var(r) integral of a'^2 dt, as of a search that only looks ahead on the same way."""
    for ramp in (1.0, 0.5):
        last = run(method, ramp=ramp)[0][-1]
        variance = float(last.scored.reward.var(correction=0))
        assert last.diagnostics["length"] == pytest.approx(math.sqrt(variance))
        assert last.diagnostics["discrepancy"] == pytest.approx(variance / (0.8 * ramp))
    share = 1.0 if method == "sdedit" else 0.7
    idle = run("fmtt", renoise=share, guided=0.0)[0][-1]
    plain = run(method)[0][-1]
    assert {k: plain.diagnostics[k] for k in ("length", "discrepancy")} == pytest.approx(
        {k: idle.diagnostics[k] for k in ("length", "discrepancy")}
    )


def test_the_lengths_of_rounds_warm_up_and_noise_optimisation():
    """Rounds add up; FMRG spends (a(t') - a(t)) sd(r) while it has many particles; ReNO all at its last jump."""

    def spread(step):
        return float(step.scored.reward.std(correction=0))

    steps, _, _ = run("multi-best-of-n")
    assert [s.diagnostics["resamplings"] for s in steps] == [0, 1, 2]
    assert steps[-1].diagnostics["length"] == pytest.approx(sum(map(spread, steps)))
    steps, _, settings = run("fmrg-j", steps=32)
    times = time_grid(settings)
    wanted = sum((t - s) / 0.8 * spread(step) for step, (s, t) in zip(steps[:3], pairwise(times), strict=False))
    assert steps[-1].diagnostics["length"] == pytest.approx(wanted)
    assert [s.diagnostics["resamplings"] for s in steps] == [0] * 4 + [1] * 5
    steps, _, _ = run("reno")
    assert [s.diagnostics["length"] for s in steps] == [0] * 8 + [pytest.approx(spread(steps[-1]))]
    assert steps[-1].diagnostics["discrepancy"] == pytest.approx(spread(steps[-1]) ** 2 / 0.8)


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_result(method):
    first, again = run(method)[0][-1], run(method)[0][-1]
    assert torch.equal(first.x, again.x)
    if method not in ("prompt-only",):
        assert not torch.equal(run(method, seed=3)[0][-1].x, first.x)


@pytest.mark.parametrize("method", ["fmtt", "fmrg-j", "fmrg-e", "reno", "multi-best-of-n"])
def test_what_follows_the_reward_beats_the_prompt_alone(method):
    alone = run("prompt-only")[0][-1].scored.reward.max()
    assert run(method)[0][-1].scored.reward.max() > alone


@pytest.mark.parametrize("method", METHODS)
def test_images_and_checks_go_with_their_particles(method):
    exact_score = world()[1]

    def score(y):
        reward = exact_score(y).reward
        return Scored(reward, y.detach()[:, :3, None, None], reward.detach()[:, None])

    for step in run(method, score=score)[0]:
        torch.testing.assert_close(step.scored.checks[:, 0], step.scored.reward)
        torch.testing.assert_close(step.scored.images[:, :, 0, 0], step.lookahead[:, :3])


def test_best_of_n_is_the_flow_from_renoised_starts():
    flow, _ = world()
    (step,), x, settings = run("best-of-n")
    torch.testing.assert_close(step.x[0], flow(x[:1], settings.start, 1.0)[0])
    assert len({float(v) for v in step.x[:, 0]}) == 6
    (same,), _, _ = run("best-of-n", renoise=0.0)
    torch.testing.assert_close(same.x, step.x[:1].expand(6, D))


def test_sdedit_renews_all_the_noise():
    torch.testing.assert_close(run("sdedit")[0][-1].x, run("best-of-n", renoise=1.0)[0][-1].x)


def test_the_best_of_many_rounds_never_falls():
    steps, _, _ = run("multi-best-of-n", selections=5)
    best = [float(s.scored.reward.max()) for s in steps]
    assert len(best) == 5
    assert all(b >= a - 1e-9 for a, b in pairwise(best))
    assert len(set(steps[2].parents)) == 1


def test_fmrg_goes_on_with_the_best_of_its_warm_up():
    steps, _, _ = run("fmrg-j", steps=32)
    sizes = [len(s.x) for s in steps]
    assert sizes == [6] * 4 + [1] * 5  # three guided steps of all, the fourth look-ahead chooses; 8 guided in all
    best = int(steps[3].scored.reward.argmax())
    assert steps[4].parents == (best,)
    assert steps[4].ancestry == (best,)
    assert steps[-1].nfe == 1 + 4 * 6 + 4 + 2


def test_fmrg_j_moves_by_the_sign_of_the_gradient():
    flow, _ = world()
    fmrg = Fmrg(jacobian=True, rate=3.0, warmup=0)
    settings = SearchSettings(particles=1, steps=8, strength=1.0)
    x = torch.zeros(1, D, dtype=F64)
    first, second, *_ = fmrg(flow, lambda y: Scored(y.sum(1)), x, settings)
    u = flow(x, 0.0, 1.0) - x
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(flow(leaf, 0.0, 1.0).sum(), leaf)
    torch.testing.assert_close(second.x, x + 0.125 * (u + 3.0 * slope.sign()))
    assert torch.equal(first.x, x)


def test_fmrg_e_pulls_the_landing_by_adam():
    """With a linear reward every Adam step is one rate along the sign: three of them move the landing by 3 rates."""
    flow, _ = world()
    fmrg = Fmrg(jacobian=False, rate=0.5, inner=3, warmup=0)
    settings = SearchSettings(particles=1, steps=8, strength=0.6)
    x = torch.zeros(1, D, dtype=F64)
    _, second, *_ = fmrg(flow, lambda y: Scored(y.sum(1)), x, settings)
    s, t = 0.4, 0.475
    y = flow(x, s, 1.0)
    torch.testing.assert_close(second.x, x + (t - s) / (1 - s) * (y - x) + (1 - s) * t * 1.5)


def test_reno_ends_with_the_best_landing_and_keeps_the_norm():
    steps, _, settings = run("reno", steps=30, renoise=0.0)
    best = torch.stack([s.scored.reward for s in steps[:-1]]).max(0).values
    torch.testing.assert_close(steps[-1].scored.reward, best)
    assert [s.t for s in steps] == [settings.start] * 30 + [1.0]
    flow, _ = world()
    flat = Reno(weight=1.0, clip=1e9, rate=0.05)
    x = torch.full((1, D), 3.0, dtype=F64)
    *_, last, _ = flat(flow, lambda y: Scored(0 * y.sum(1)), x, SearchSettings(particles=1, steps=200, strength=1.0))
    assert float(last.x.square().sum()) == pytest.approx(D - 1, rel=1e-3)


def test_reno_is_nesterov_sgd_on_the_published_objective():
    """The same noise, iteration by iteration, as torch's own optimiser with clipped gradients."""
    flow, score = world()
    t0, reno = 0.2, Reno()
    settings = SearchSettings(particles=1, steps=12, strength=0.8, renoise=0.0)
    x = flow.sample(1, t0, torch.Generator().manual_seed(3))
    clean = flow(x, t0, 1.0)
    e = torch.nn.Parameter((x - t0 * clean) / (1 - t0))
    descent = torch.optim.SGD([e], lr=5.0, momentum=0.9, nesterov=True)
    assert (reno.rate, reno.momentum, reno.clip, reno.weight) == (5.0, 0.9, 0.1, 0.01)
    for step in list(reno(flow, score, x, settings))[:-1]:
        torch.testing.assert_close(step.x, (t0 * clean + (1 - t0) * e).detach(), rtol=1e-4, atol=1e-4)
        norm = e.norm()
        loss = -score(flow(t0 * clean + (1 - t0) * e, t0, 1.0)).reward.sum()
        descent.zero_grad()
        (loss + 0.01 * (norm**2 / 2 - (D - 1) * norm.log())).backward()
        torch.nn.utils.clip_grad_norm_([e], 0.1)
        descent.step()
