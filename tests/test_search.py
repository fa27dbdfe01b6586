"""The search against its promises, on exact maps."""

from itertools import count, pairwise

import pytest
import torch

from editor.fmtt import sample, search
from editor.run import Run
from editor.schedules import evaluations
from editor.types import Scored, SearchSettings
from tests.exact import last, source, world


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
    assert steps[-1].diagnostics["resamplings"] == settings.selections
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
    assert many.nfe == 5 * 6, "the source as it is has been looked at to scatter the others, and each start once"
    assert not (many.x == x[0]).all(1).any()
    assert len({float(v) for v in many.x[:, 0]}) == 6
    again = next(search(flow, score, x, settings.but(draws=5)))
    assert torch.equal(again.x, many.x)
    alone = next(search(flow, score, x[:1], settings.but(particles=1, keep=1, selections=0, draws=5)))
    assert not torch.equal(alone.x, x[:1]), "one particle begins with the best of its draws, too"
    still = next(search(flow, score, x, settings.but(draws=5, renoise=0.0)))
    assert still.nfe == one.nfe - 1, "without noise all draws are the source"


def test_of_drawn_starts_only_those_that_go_on_are_looked_at_again_with_their_gradients():
    flow, score, _, _ = world(16)
    settings = SearchSettings(
        particles=6, keep=2, steps=2, corrections=2, guided=0.5, draws=5, noise=0.0, clone_noise=0.0
    )
    x, guided = source(flow, settings, 16), []

    def judged(y):
        guided.extend([len(y)] * y.requires_grad)
        return score(y)

    steps = list(search(flow, judged, x, settings))
    assert guided == [2, 6]
    assert [s.nfe for s in steps] == [30, 30 + 2 + 6, 30 + 2 + 6 + 2 * 6]
    assert [s.diagnostics["gradients"] for s in steps] == [0, 8, 8]
    assert set(steps[1].ancestry) == {0, 1}, "draws are in their order, the best first"
    assert steps[1].scored.reward[0] > steps[0].scored.reward[0], "and their gradients lead up"
    alike = torch.tensor(steps[1].ancestry) == 0
    assert (steps[1].x[alike] == steps[1].x[0]).all(), "clones are landed once for all"
    still = list(search(flow, judged, x, settings.but(guidance=0.0)))
    assert [s.nfe for s in still] == [30, 30 + 6, 30 + 6 + 2 * 6], "without gradients none is looked at again"
    assert guided == [2, 6]


def test_a_search_begins_anew_while_nothing_meets_what_was_asked_for():
    flow, score, _, _ = world(16)
    settings = SearchSettings(particles=3, steps=2, corrections=1, searches=3)
    x = source(flow, settings, 16)

    def run(bar, **changes):
        def judged(y):
            found = score(y)
            return found._replace(met=found.reward > bar)

        return list(search(flow, judged, x, settings.but(**changes)))

    once = list(search(flow, score, x, settings))
    visits = len(once)
    never, always = run(torch.inf), run(-torch.inf)
    assert [s.index for s in never] == list(range(3 * visits))
    assert [s.total for s in never] == [visits - 1] * visits + [2 * visits - 1] * visits + [3 * visits - 1] * visits
    assert [s.t for s in never] == 3 * [s.t for s in once]
    assert [s.diagnostics["searches"] for s in never] == [1] * visits + [2] * visits + [3] * visits
    assert never[-1].nfe == 3 * once[-1].nfe
    for index in (0, visits, 2 * visits):
        assert torch.equal(never[index].x[0], x[0])
    assert not torch.equal(never[0].x[1], never[visits].x[1])
    for steps in (once, always):
        assert len(steps) == visits
        assert torch.equal(steps[-1].x, never[visits - 1].x)
    for least in (1, 2, 3):
        assert len(run(-torch.inf, least=least)) == least * visits
    ends = [float(never[index].scored.reward.max()) for index in (visits - 1, 2 * visits - 1, 3 * visits - 1)]
    second = run((ends[0] + ends[1]) / 2 if ends[1] > ends[0] else min(ends) - 1)
    assert len(second) == (2 if ends[1] > ends[0] else 1) * visits


def test_every_second_search_begins_from_the_end_of_the_one_before():
    flow, score, _, _ = world(16)
    settings = SearchSettings(particles=3, steps=2, corrections=1, searches=3, draws=8, restart=0.75)
    x = source(flow, settings, 16)

    def unmet(y):
        return score(y)._replace(met=torch.zeros(len(y), dtype=torch.bool))

    steps = list(search(flow, unmet, x, settings))
    starts = [s for s in steps if s.index == 0 or steps[s.index - 1].t == 1.0]
    assert [s.t for s in starts] == pytest.approx([settings.start, 0.75, settings.start])
    assert [s.index for s in steps] == list(range(len(steps)))
    assert [s.diagnostics["searches"] for s in starts] == [1, 2, 3]
    ended = steps[starts[1].index - 1]
    best = ended.lookahead[ended.scored.reward.argmax()]
    noise = (starts[1].x - 0.75 * best) / 0.25
    assert abs(float(noise.mean())) < 0.5
    assert 0.6 < float(noise.std()) < 1.4
    assert starts[1].nfe - ended.nfe == 3 * 2, "each draw is looked at once"
    assert not torch.equal(starts[2].x[1:], starts[0].x[1:]), "the third begins anew"
    assert [s.diagnostics["restarted"] for s in starts] == [0, 1, 0]
    longer = list(search(flow, unmet, x, settings.but(searches=5, least=3)))
    begun = [s.diagnostics["restarted"] for s in longer if s.index == 0 or longer[s.index - 1].t == 1.0]
    assert begun == [0, 1, 1, 0, 1]
    assert [s.diagnostics["gradients"] for s in starts] == [0, 2, 4], "all searches are counted together"
    with pytest.raises(ValueError, match="set restart to 0"):
        settings.but(times=(0.5,))


def test_an_end_ascends_before_the_next_search_begins_from_it():
    flow, score, _, _ = world(16)
    settings = SearchSettings(particles=3, steps=2, corrections=1, searches=2, draws=8, restart=0.9)
    x, looked = source(flow, settings, 16), []

    def unmet(y):
        looked.append(y.requires_grad)
        return score(y)._replace(met=torch.zeros(len(y), dtype=torch.bool))

    def second(**changes):
        looked.clear()
        steps = list(search(flow, unmet, x, settings.but(**changes)))
        return next(s for s in steps if s.diagnostics["searches"] == 2), sum(looked)

    (plain, guided), (higher, more) = second(), second(ascents=5)
    assert float(higher.scored.reward.mean()) > float(plain.scored.reward.mean())
    assert higher.nfe == plain.nfe, "no network is asked"
    assert (more - guided, higher.diagnostics["gradients"] - plain.diagnostics["gradients"]) == (5, 5)
    (still, none), (same, no_more) = second(guidance=0.0), second(guidance=0.0, ascents=5)
    assert torch.equal(still.x, same.x)
    assert none == no_more == 0


def begun(steps):
    """The first step of each search."""
    return [s for s, before in zip(steps, [None, *steps], strict=False) if s.index == 0 or before.total != s.total]


def lost_where(score, bar):
    """A score that meets nothing, and for which what is worth less than `bar` is lost."""

    def judged(y):
        found = score(y)
        return found._replace(met=torch.zeros(len(y), dtype=torch.bool), lost=found.reward < bar)

    return judged


def test_a_search_whose_landings_are_all_lost_stops_before_its_end_and_begins_anew():
    flow, score, _, _ = world(16)
    settings = SearchSettings(particles=3, steps=3, corrections=2, guided=0.7, draws=4, searches=4, restart=0.75)
    x = source(flow, settings, 16)
    hopeful, lost = (list(search(flow, lost_where(score, bar), x, settings)) for bar in (-torch.inf, torch.inf))
    assert [s.diagnostics["restarted"] for s in begun(hopeful)] == [0, 1, 0, 1]
    assert [s.diagnostics["restarted"] for s in begun(lost)] == [0, 0, 0, 0]
    assert [s.t == 1 for s in lost] == [False] * (len(lost) - 1) + [True], "the last of all goes to its end"
    assert [s.index for s in lost] == list(range(len(lost)))
    whole = begun(hopeful)[1].index
    assert begun(lost)[1].index == whole - 1
    assert all(torch.equal(a.x, b.x) for a, b in zip(lost[: whole - 1], hopeful[: whole - 1], strict=True))
    assert lost[-1].nfe == 4 * hopeful[whole - 1].nfe - 3 * 3 * 2, "two jumps of three particles are spared each time"
    apart = list(search(flow, lost_where(score, torch.inf), x, settings.but(restart=0.0)))
    assert [s.t for s in apart] == [s.t for s in lost]


def test_searches_begin_only_where_the_budget_has_room():
    flow, score, _, _ = world(16)
    settings = SearchSettings(particles=3, steps=3, corrections=2, draws=16, searches=9, least=9, restart=0.75)
    x = source(flow, settings, 16)
    for lookahead, lookahead_steps in (("map", 1), ("map", 2), ("denoiser", 1), ("none", 1)):
        kind = settings.but(lookahead=lookahead, lookahead_steps=lookahead_steps)
        free = begun(list(search(flow, lost_where(score, -torch.inf), x, kind)))
        assert [s.diagnostics["restarted"] for s in free] == [0] + 8 * [1]
        later = free[2].nfe - free[1].nfe
        near = evaluations(kind.but(strength=0.25, draws=4))
        assert near == later + (lookahead == "none")
        whole = last(search(flow, score, x, kind.but(searches=1, least=1))).nfe
        assert whole <= evaluations(kind) <= whole + 3
        assert whole > later
        for budget, searches in ((whole + near - 1, 1), (whole + near, 2), (whole + 2 * later + near, 4)):
            steps = list(search(flow, lost_where(score, -torch.inf), x, kind.but(budget=budget)))
            assert len(begun(steps)) == searches
            assert steps[-1].nfe <= budget
        if lookahead != "none":  # whose draws cost nothing, so that both kinds of search need the same room
            short = begun(list(search(flow, lost_where(score, torch.inf), x, kind.but(budget=whole + near))))
            assert [s.diagnostics["restarted"] for s in short] == [0, 1], "there is no room to begin anew"
    for wrong in (0, -1, True, 1.5):
        with pytest.raises(ValueError, match="budget must"):
            settings.but(budget=wrong)


@pytest.mark.parametrize("trend", [-1.0, 1.0])
def test_the_next_search_begins_from_the_best_end_on_its_way(monkeypatch, trend):
    """Of scores that fall with every look the first end is the best, of scores that rise the last."""
    flow, score, _, _ = world(16)
    settings = SearchSettings(particles=3, steps=2, corrections=1, draws=8, searches=4, least=4, restart=0.75)
    looks, origins, draw_from = count(), [], Run.draw_from

    def judged(y):
        found = score(y)
        unmet = torch.zeros(len(y), dtype=torch.bool)
        return found._replace(reward=found.reward + 1000 * trend * next(looks), met=unmet)

    monkeypatch.setattr(Run, "draw_from", lambda run, clean: origins.append(clean) or draw_from(run, clean))
    steps = list(search(flow, judged, source(flow, settings, 16), settings))
    ends = [s.lookahead[s.scored.reward.argmax()][None] for s in steps if s.t == 1][:-1]
    assert len(ends) == len(origins) == 3
    for end, origin in zip(3 * ends[:1] if trend < 0 else ends, origins, strict=True):
        assert torch.equal(origin, end)


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

    settings = SearchSettings(particles=3, corrections=2, temperature=1.0, renoise=1.0)
    x = torch.ones(3, 2, 4, 4, dtype=dtype)
    for method in (search, sample):
        end = last(method(Simple(), lambda y: Scored(y.float().mean((1, 2, 3))), x, settings))
        assert end.x.dtype == dtype
