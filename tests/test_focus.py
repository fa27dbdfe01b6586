"""An edit is confined to where it has to act, on maps whose answer is known; what is held stays the source."""

import pytest
import torch

from editor.focus import BEST, COPIES, LOOKS, TIMES, locate
from editor.held import Held
from editor.types import EditError, Scored, SearchSettings
from tests.exact import Straight

SIDE = 16
PIXELS = (2 * SIDE, 2 * SIDE)
SETTINGS = SearchSettings(particles=4, seed=3)


class Restless(Straight):
    """One that lands elsewhere for every noise, all over."""

    def __call__(self, x, s, t):
        return self.image + 0.3 * (x - self.image) if t == 1 else super().__call__(x, s, t)


def corner(top=2, left=3, size=4):
    places = torch.zeros(1, 1, SIDE, SIDE)
    places[..., top : top + size, left : left + size] = 1
    return places


def around(places):
    """Places with their next neighbours."""
    return torch.nn.functional.max_pool2d(places, 3, stride=1, padding=1)


def enlarged(latents):
    """Three of the channels, twice as large: what stands for a picture here."""
    return torch.nn.functional.interpolate(latents[:, :3], scale_factor=2.0)


def rewarded(places, met=None):
    """Largeness of all channels in a few places, and nothing else."""

    def score(y):
        return Scored((y * places).sum((1, 2, 3)), met=None if met is None else torch.full((len(y),), met))

    return score


@pytest.fixture
def source():
    return torch.randn(1, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def test_an_edit_acts_where_the_reward_hangs_on_what_the_looks_change(source):
    found, nfe = locate(Restless(source), None, rewarded(corner()), enlarged, source, PIXELS, SETTINGS)
    assert nfe == LOOKS
    assert found.mask.shape == (1, 1, SIDE, SIDE)
    assert found.free.shape == (1, 1, 2 * SIDE, 2 * SIDE)
    assert (found.mask[corner() == 1] == 1).all()
    assert (found.mask[around(around(corner())) == 0] == 0).all()
    again, _ = locate(Restless(source), None, rewarded(corner()), enlarged, source, PIXELS, SETTINGS)
    assert torch.equal(again.mask, found.mask)


@pytest.mark.parametrize("met", [True, False])
def test_an_edit_acts_where_the_captions_differ_and_where_worth_lies_if_they_do_not_suffice(source, met):
    told, earned = corner(), corner(10, 9)
    flow = Restless(source + told)
    found, nfe = locate(flow, Restless(source), rewarded(earned, met), enlarged, source, PIXELS, SETTINGS)
    assert nfe == LOOKS + 2 * COPIES * len(TIMES)
    assert (found.mask[told == 1] == 1).all()
    assert (found.mask[earned == 1] == float(not met)).all()
    assert (found.mask[around(around(told + earned)) == 0] == 0).all()
    free = torch.nn.functional.avg_pool2d(found.free, 2)
    assert (free[told == 1] > 0.5).all()
    assert (free[around(around(around(told + earned))) == 0] == 0).all()


@pytest.mark.parametrize("half", [True, False])
def test_captions_suffice_only_where_what_they_tell_meets_all_by_itself(source, half):
    told, other, looked = corner(), corner(10, 9), []

    def score(y):
        """Met by what is told and, for `half`, by what every landing changes elsewhere as well."""
        looked.append(len(y))
        there = [((y - source) * place).abs().amax((1, 2, 3)) > 1e-3 for place in (told, other)]
        return Scored((y * (told + 9 * other)).sum((1, 2, 3)), met=there[0] & there[1] if half else there[0])

    found, _ = locate(Restless(source + told), Restless(source), score, enlarged, source, PIXELS, SETTINGS)
    assert found.suffices == (not half)
    assert (found.mask[told == 1] == 1).all()
    assert (found.mask[other == 1] == float(half)).all()
    assert half or looked == [SETTINGS.particles], "one look that meets all is enough"


def test_captions_that_tell_nothing_leave_it_to_worth_even_where_all_is_met(source):
    flow, other = Restless(source), Restless(source + 1e-3 * corner(10, 9))
    found, _ = locate(flow, other, rewarded(corner(), True), enlarged, source, PIXELS, SETTINGS)
    assert (found.mask[corner() == 1] == 1).all()
    assert (found.mask[corner(10, 9) == 1] == 0).all()


def test_under_a_mask_only_whether_captions_suffice_is_found_out(source):
    told, looked = corner(), []

    def score(y):
        looked.append(y)
        return Scored((y * corner(10, 9)).sum((1, 2, 3)), met=torch.full((len(y),), False))

    flow = Restless(source + told)
    found, nfe = locate(flow, Restless(source), score, enlarged, source, PIXELS, SETTINGS, masked=True)
    assert (found.heard, found.suffices, nfe) == (True, False, LOOKS + 2 * COPIES * len(TIMES))
    assert not any(y.requires_grad for y in looked)
    looked.clear()
    found, nfe = locate(flow, None, score, enlarged, source, PIXELS, SETTINGS, masked=True)
    assert (found.heard, found.suffices, nfe, looked) == (False, False, 0, [])


def test_rewards_that_are_no_numbers_are_refused(source):
    def score(y):
        return Scored(y.sum((1, 2, 3)) * torch.nan)

    with pytest.raises(EditError):
        locate(Restless(source), None, score, enlarged, source, PIXELS, SETTINGS)


def test_only_the_best_looks_are_weighed(source):
    seen = []

    def score(y):
        seen.append(len(y) * y.requires_grad)
        return rewarded(corner())(y)

    locate(Restless(source), None, score, enlarged, source, PIXELS, SETTINGS)
    assert sum(seen) == 4 * BEST


@pytest.fixture
def held(source):
    mask, image = corner(), source + 1
    x = torch.randn(1, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    return Held.of(Straight(image), mask, source, x, 0.3), x, mask.expand(1, 4, -1, -1) == 1


def test_what_is_held_keeps_to_its_own_way_from_where_it_started_to_the_source(held, source):
    flow, x, inside = held
    halfway = flow(x, 0.3, 0.65)
    torch.testing.assert_close(halfway[~inside], ((x + source) / 2)[~inside])
    torch.testing.assert_close(flow(halfway, 0.65, 1.0)[~inside], source[~inside])
    assert torch.equal(flow(torch.randn_like(x), 0.3, 1.0)[~inside], source[~inside])


def test_inside_the_mask_the_map_is_itself_and_keeps_the_semigroup_law(held, source):
    flow, x, inside = held
    torch.testing.assert_close(flow(x, 0.3, 1.0)[inside], (source + 1)[inside])
    torch.testing.assert_close(flow(flow(x, 0.3, 0.5), 0.5, 0.8), flow(x, 0.3, 0.8))
    assert flow.two_time


def test_the_velocity_is_that_of_the_ways(held):
    flow, x, _ = held
    step = 1e-3
    torch.testing.assert_close((flow(x, 0.3, 0.3 + step) - x) / step, flow.velocity(x, 0.3), atol=1e-2, rtol=1e-2)


def test_times_of_their_own_hold_each_latent_where_it_is(held):
    flow, x, _ = held
    times = torch.tensor([0.3, 0.65])
    both = flow(x.expand(2, -1, -1, -1), torch.full((2,), 0.3), times)
    for row, t in zip(both, times.tolist(), strict=True):
        torch.testing.assert_close(row[None], flow(x, 0.3, t))


def test_no_gradient_reaches_what_is_held(held):
    flow, x, inside = held
    leaf = x.clone().requires_grad_()
    flow(leaf, 0.3, 0.6).sum().backward()
    assert (leaf.grad[~inside] == 0).all()
    assert (leaf.grad[inside] != 0).all()
