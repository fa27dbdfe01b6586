"""An edit is kept where it earns its reward, and nowhere else."""

import pytest
import torch

from editor.types import EditError, Scored
from editor.undo import SHARES, alike, least_change, worth

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


def test_what_earned_nothing_is_the_source_again(pair):
    edit, source = pair
    found = least_change(rewarded(corner(), edit), edit, source, give_up=0.02)
    changed = (found != source).any(1)[0]
    assert changed[corner()].all()
    assert changed.sum() < SIDE**2 / 4
    assert torch.equal(found[..., ~changed], source[..., ~changed])
    assert torch.equal(found[..., changed], edit[..., changed])


def test_more_is_undone_for_more_of_the_gain(pair):
    edit, source = pair
    everywhere = torch.ones(SIDE, SIDE, dtype=torch.bool)
    score = rewarded(everywhere, edit)
    shares = [
        float((least_change(score, edit, source, give_up) != source).any(1).double().mean())
        for give_up in (0.0, 0.3, 1.0)
    ]
    assert shares[0] == 1.0 > shares[1] > shares[2] == 0.0


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


def test_the_batch_changes_nothing_but_the_number_of_calls(pair):
    edit, source = pair
    calls = []

    def score(y):
        calls.append(len(y))
        return rewarded(corner(), edit)(y)

    few, many = (least_change(score, edit, source, 0.02, batch) for batch in (1, 64))
    assert torch.equal(few, many)
    assert calls == [1] * (4 + len(SHARES)) + [4, len(SHARES)]


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
