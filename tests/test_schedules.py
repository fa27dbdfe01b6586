"""Settings, schedules, grids of times and itineraries."""

import math

import pytest

from editor.schedules import Damped, Ramp, Tilt, Vanishing, itinerary, place_times, time_grid
from editor.types import SearchSettings


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


def test_the_way_to_the_end_is_passed_in_as_few_jumps_as_asked():
    settings = SearchSettings(strength=1.0, steps=8, guided=0.25, corrections=1)

    def way(jumps, **changes):
        return itinerary(settings.but(last_jumps=jumps, **changes))[-2].onward

    assert way(None) == way(7) == way(9) == (0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
    assert way(1) == (1.0,)
    assert way(2) == (0.5, 1.0)
    assert way(3) == (0.375, 0.625, 1.0)
    assert way(2, guided=0.0) == (0.5, 1.0)
    with pytest.raises(ValueError, match="last_jumps must"):
        settings.but(last_jumps=0)


def test_times_at_equal_length():
    """A speed that doubles half way puts twice as many times there."""
    placed = place_times((0.0, 0.5, 1.0), (1.0, 2.0), 6)
    assert placed == pytest.approx((0.25, 0.5, 0.625, 0.75, 0.875))
    assert place_times((0.0, 0.1, 0.2, 1.0), (1.0, 0.0, 1.0), 2) == pytest.approx((0.2,))
    SearchSettings(strength=1.0, times=placed)
    for times, lengths in (((0.0, 1.0), (0.0,)), ((0.0, 1.0), (math.nan,)), ((0.0, 0.0, 1.0), (1.0, 1.0))):
        with pytest.raises(ValueError, match="pilot"):
            place_times(times, lengths, 3)


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
