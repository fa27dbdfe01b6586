"""An edit is kept where it earns its reward, and nowhere else."""

import pytest
import torch

from editor.types import EditError, Scored
from editor.undo import SHARES, STRONG, alike, least_change, unbroken, worth

SIDE = 16


@pytest.fixture
def pair():
    g = torch.Generator().manual_seed(0)
    return torch.randn(2, 12, SIDE, SIDE, generator=g, dtype=torch.float64).split(1)


def rewarded(places, target):
    """Closeness to `target` in a few places (h, w), and nothing else."""
    return lambda y: Scored(-((y - target)[..., places]).square().sum((1, 2)))


def corner():
    places = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    places[2:5, 3:6] = True
    return places


def test_what_drifted_and_earned_nothing_is_the_source_again(pair):
    edit, source = pair
    edit = torch.where(corner(), edit, source + 0.2 * (edit - source))
    found = least_change(rewarded(corner(), edit), edit, source, give_up=0.02)
    changed = (found != source).any(1)[0]
    assert changed[corner()].all()
    assert changed.sum() < SIDE**2 / 4
    assert torch.equal(found[..., ~changed], source[..., ~changed])
    assert torch.equal(found[..., changed], edit[..., changed])


def test_more_is_undone_for_more_of_the_gain(pair):
    """Of islands, the further to the right the more they change; all of them are worth it."""
    edit, source = pair
    islands = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    islands[1::5, 1::5] = True
    edit = source + islands * torch.arange(SIDE) * (edit - source)
    score = rewarded(islands, edit)
    shares = [
        float((least_change(score, edit, source, give_up) != source).any(1).double().mean())
        for give_up in (0.0, 0.3, 1.0)
    ]
    assert shares[0] == float(islands.double().mean()) > shares[1] > shares[2] == 0.0


def test_an_edit_that_meets_what_was_asked_for_is_kept_in_places_enough_to_meet_it(pair):
    """However much of the gain may be given up; one that doesn't meet it is undone as far as that allows."""
    edit, source = pair
    edit = torch.where(corner(), edit, source)

    def score(met):
        def scored(y):
            reward = rewarded(corner(), edit)(y).reward
            return Scored(reward, met=torch.tensor([met and bool(torch.equal(part, edit[0])) for part in y]))

        return scored

    assert torch.equal(least_change(score(True), edit, source, give_up=1.0), edit)
    assert torch.equal(least_change(score(False), edit, source, give_up=1.0), source)


@pytest.mark.parametrize("sign", [0.0, 1.0])
def test_an_edit_that_gained_nothing_is_undone_altogether(pair, sign):
    edit, source = pair
    found = least_change(lambda y: Scored(-sign * (y - source).square().sum((1, 2, 3))), edit, source, 0.02)
    assert torch.equal(found, source)


def test_worth_is_the_gain_of_each_place_and_least_where_nothing_changed(pair):
    edit, source = pair
    edit = torch.where(corner(), edit, source)
    value = worth(rewarded(corner(), edit), edit, source)
    assert torch.isneginf(value[~corner()]).all()
    one = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    one[8, 8] = True
    edit = torch.where(one, edit + 1, source)
    value = worth(rewarded(one, edit), edit, source)
    gain = float((edit - source).square().sum())
    assert float(value[8, 8]) * 9 == pytest.approx(gain), "a place counts with its eight neighbours"


@pytest.mark.parametrize(("weights", "looks"), [((1.0, 0.0), 2 + 1), ((1.0, 1.0), len(SHARES)), ((0.0, 0.0), 2)])
def test_nothing_and_all_are_looked_at_first_and_then_no_more_than_has_to_be(pair, weights, looks):
    """A corner of nine places is worth so much and all around it so much; 1 / 64 of all, and those beside, hold it."""
    edit, source = pair
    calls = []

    def score(y):
        calls.append(len(y))
        inner, outer = (rewarded(places, edit)(y).reward for places in (corner(), ~corner()))
        return Scored(weights[0] * inner + weights[1] * outer)

    many = least_change(score, edit, source, 0.02, 64)
    assert calls == [4, len(SHARES)]
    calls.clear()
    one = least_change(score, edit, source, 0.02, 1)
    assert calls == [1] * (4 + looks)
    assert torch.equal(one, many)


def test_the_batch_changes_nothing_but_the_number_of_calls(pair):
    edit, source = pair
    calls = []

    def score(y):
        calls.append(len(y))
        return rewarded(corner(), edit)(y)

    few, many = (least_change(score, edit, source, 0.02, batch) for batch in (1, 64))
    assert torch.equal(few, many)
    assert calls == [1] * (len(calls) - 2) + [4, len(SHARES)]


def test_broken_rewards_stop_it(pair):
    edit, source = pair
    with pytest.raises(EditError, match="not a finite number"):
        least_change(lambda y: Scored(y.sum((1, 2, 3)) * torch.nan), edit, source, 0.02)


def test_places_that_change_alike_are_worth_alike_however_far_apart():
    change, value = torch.zeros(2, 4, 4), torch.zeros(4, 4)
    change[0], change[1, :, 2:] = 1.0, 3.0
    value[0, 0], value[0, 3], value[3, 3] = 8.0, -1.0, -torch.inf
    shared = alike(value, change)
    torch.testing.assert_close(shared[:, :2], torch.ones(4, 2), atol=1e-3, rtol=0)
    torch.testing.assert_close(shared[0, 2], torch.tensor(-1 / 7), atol=5e-3, rtol=0)
    assert shared[3, 3] == -torch.inf
    assert torch.equal(alike(torch.full((4, 4), -torch.inf), change), torch.full((4, 4), -torch.inf))


def test_a_part_that_earned_nothing_itself_stays_with_what_changed_as_it_did():
    source, edit = torch.zeros(1, 3, SIDE, SIDE), torch.zeros(1, 3, SIDE, SIDE)
    edit[:, 0, 4:12, 4:12], edit[:, 1, 0] = 2.0, 2.0
    places = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    places[6:12, 4:12] = True
    found = least_change(rewarded(places, edit), edit, source, give_up=0.01)
    assert torch.equal(found[:, 0], edit[:, 0])
    assert torch.equal(found[:, 1], source[:, 1])


def test_a_stroke_that_changed_strongly_is_not_undone_in_part():
    """A hand that was taken away, of which the reward heeds the half at the hub; beside it a mark faded a little."""
    source = torch.zeros(1, 3, SIDE, SIDE)
    source[:, 0, 8, 4:12], source[:, 0, 7, 12] = 2.0, 2.0
    edit = source.clone()
    edit[:, 0, 8, 4:12] = 0.0
    edit[:, 0, 7, 12] = 1.5
    hub = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    hub[8, 4:8] = True
    found = least_change(rewarded(hub, edit), edit, source, give_up=0.01)
    assert torch.equal(found[:, 0, 8], edit[:, 0, 8])
    assert torch.equal(found[:, 0, 7], source[:, 0, 7])


def test_what_is_kept_grows_over_strong_changes_that_touch_it_and_no_further():
    change, kept = torch.zeros(1, 2, 6, 6), torch.zeros(1, 1, 6, 6, dtype=torch.bool)
    kept[..., 0, 0] = True
    change[:, :, 0, 0] = 1.0
    for place, size in {(1, 1): 0.9, (2, 1): 0.9, (3, 2): 0.6, (3, 4): 5.0, (4, 2): 0.3}.items():
        change[:, :, *place] = size
    grown = unbroken(kept, change)
    assert 0.3**2 < STRONG < 0.6**2
    assert {tuple(place) for place in grown[0, 0].nonzero().tolist()} == {(0, 0), (1, 1), (2, 1), (3, 2)}
    assert not unbroken(torch.zeros_like(kept), change).any()
