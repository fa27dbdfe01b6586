"""Pictures that searches show the VLM: what is made, and what is said of each by comparison alone."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
import torch

from benchmarks import fooled
from editor import images
from editor.engine import Editor
from training import climbs, clocks, data, found
from training import clock_language as language
from training.bent import bent
from training.finds import TIMELESS
from training.labels import Dial, Look
from training.world import TRAIN

SEED = TRAIN + 7


@pytest.fixture(scope="module")
def dial(studio: Editor) -> Dial:
    return Dial(clocks.sample(SEED), studio.models.codec)


def seen(studio: Editor, dial: Dial, minutes: int) -> torch.Tensor:
    """A clock at this time as the autoencoder shows it, (3, 128, 128)."""
    shown = images.to_unit(clocks.render(language.with_time(dial.clock, minutes)))
    codec = studio.models.codec
    with torch.no_grad():
        return codec.render(codec.encode(shown))[0]


def test_a_clock_is_read_by_comparison_and_one_without_hands_shows_no_time(studio, dial) -> None:
    for minutes in (15, 285, 601):
        read = dial.label(seen(studio, dial, minutes), 285)
        assert read is not None
        assert abs((read.minutes - minutes + 360) % 720 - 360) <= 1
        assert read.asked == 285
    bare = dial.label(dial.bare[0], 285)
    assert bare is None or bare.minutes == TIMELESS


def test_bent_hands_are_made_alike_from_the_same_seed_and_some_still_show_their_time(dial) -> None:
    def made() -> list[tuple[torch.Tensor, int]]:
        rng, generator = Random(0), torch.Generator().manual_seed(0)
        return [bent(dial.clock, dial.bare, rng, generator) for _ in range(24)]

    pictures = made()
    assert all(torch.equal(a, b) and m == n for (a, m), (b, n) in zip(pictures, made(), strict=True))
    assert all(
        picture.shape == (1, 3, 128, 128) and 0 <= picture.min() <= picture.max() <= 1 for picture, _ in pictures
    )
    changed = torch.stack([(picture - dial.bare)[0].abs().sum(0) > 0.1 for picture, _ in pictures]).any(0)
    side = (torch.arange(128) + 0.5) / 128
    away = ((side[None] - dial.clock.x).square() + (side[:, None] - dial.clock.y).square()).sqrt()
    assert not changed[away > dial.clock.dial + 12 / 128].any(), "only hands are spoilt"
    labels = [dial.label(picture[0], minutes) for picture, minutes in pictures]
    said = [label.minutes == TIMELESS for label in labels if label is not None]
    assert any(said)
    assert not all(said)
    own = [abs((label.minutes - label.asked + 360) % 720 - 360) for label in labels if label and label.minutes >= 0]
    assert np.median(own) <= 5


@pytest.mark.parametrize("kind", ["climbs", "bent"])
def test_pictures_of_a_clock_are_labelled(studio, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(climbs, "CLIMBERS", 2)
    monkeypatch.setattr(found, "BENT", 3)
    shown = found.labelled(studio, kind, SEED, torch.Generator().manual_seed(0))
    assert len(shown) == 3 if kind == "bent" else len(shown) in (4, 6, 8)
    for label in shown:
        assert label is None or (label.pixels.shape == (128, 128, 3) and label.seed == SEED)


def test_landings_climb_within_the_dial_alone(studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(climbs, "CLIMBERS", 2)
    clock, rng = clocks.sample(SEED), Random(SEED)
    wanted = language.request(clock, rng, "time")
    *_, last = climbs.time_climbs(studio, clock, wanted, rng, torch.Generator().manual_seed(0))
    corner = images.to_unit(clocks.render(clock))[0][:, :12, :12]
    assert (last[:, :12, :12] - corner).abs().mean() < 0.05


@pytest.mark.parametrize("attribute", found.CHANGES)
def test_a_look_is_told_by_comparison_where_it_is_done_and_where_it_is_not(studio, attribute: str) -> None:
    clock = clocks.sample(SEED)
    wanted = language.request(clock, Random(0), attribute)
    target = language.apply(clock, wanted)
    codec, look = studio.models.codec, Look(clock, wanted, studio.models.codec)
    pair = torch.cat([images.to_unit(clocks.render(c)) for c in (clock, target)])
    with torch.no_grad():
        before, after = codec.render(codec.encode(pair))
    for picture, shown in ((before, clock), (after, target)):
        told = look.label(picture)
        assert told is not None
        assert (told.attribute, told.asked) == (attribute, getattr(target, attribute))
        assert told.shown == getattr(shown, attribute)
    between = look.label(before.lerp(after, 0.5))
    assert between is None if attribute == "hands" else between is None or not between.shown


def test_landings_that_climb_to_another_look_are_labelled(studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(climbs, "CLIMBERS", 2)
    shown = found.labelled_looks(studio, SEED, torch.Generator().manual_seed(0))
    assert len(shown) in (4, 6, 8)
    told = [label for label in shown if label is not None]
    assert {(label.seed, label.attribute) for label in told} <= {(SEED, found.CHANGES[SEED % len(found.CHANGES)])}


def test_rendered_pictures_are_kept_once_more_as_the_autoencoder_shows_them(studio, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(data, "CHUNK", 2)
    monkeypatch.setattr(data, "BATCH", 1)
    rendered, decoded = tmp_path / "clocks", tmp_path / "decoded"
    data.render_all(6, 1, rendered)
    data.decode_all(3, studio.models.codec, rendered, decoded)
    shown, seen = data.Pictures(rendered), data.Pictures(decoded)
    assert (len(shown), len(seen)) == (6, 4)
    rows = np.arange(4)
    off = np.abs(shown[rows].astype(float) - seen[rows]).mean((1, 2, 3))
    assert ((off > 0.1) & (off < 8)).all()


def test_what_a_judge_is_sure_of_is_counted_by_what_it_shows(studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(climbs, "CLIMBERS", 2)
    shown = list(fooled.climbed(studio, SEED))
    assert {one.kind for one in shown} == {"time", "look"}
    assert all(0 <= one.least <= 1 for one in shown)
    told = [fooled.Climbed("time", *rest) for rest in ((0.99, True), (0.95, False), (0.95, None), (0.5, True))]
    figures = fooled.measured([*told, fooled.Climbed("look", 0.75, True)])
    assert figures["time"] == {"pictures": 4, "as asked": 2, "sure": 3, "right": 1, "wrong": 1, "open": 1}
    assert figures["look"] == {"pictures": 1, "as asked": 1, "sure": 1, "right": 1, "wrong": 0, "open": 0}
