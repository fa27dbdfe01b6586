"""The judge reads clocks right, whatever an edit changed, says when it can't, and shares nothing with the rewards."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from benchmarks import judge
from benchmarks.dial import marks, outline, templates
from benchmarks.judge import LOOKS, minutes_off, read
from training import clocks
from training.clocks import COLOURS, MARKS, SHAPES, legible
from training.world import TUNE

CLOCKS = [clocks.sample(TUNE + 20_000 + i) for i in range(60)]


def wrong(found: judge.Reading, clock: clocks.Clock) -> list[str]:
    """What was misread; a time by more than a minute and a half."""
    missed = [name for name in LOOKS if getattr(found, name) != getattr(clock, name)]
    return missed + ["time"] * (minutes_off(found.time, clock.minutes) > 1.5)


def test_clean_pictures_are_read_without_an_error():
    missed = {clock.seed: wrong(read(clocks.render(clock), clock), clock) for clock in CLOCKS}
    assert sum(map(bool, missed.values())) <= 1, {seed: names for seed, names in missed.items() if names}


def test_blurred_pictures_keep_their_time_and_colours():
    blur = ImageFilter.GaussianBlur(1.0)
    missed = [wrong(read(clocks.render(clock).filter(blur), clock), clock) for clock in CLOCKS[:40]]
    assert sum("time" in names for names in missed) <= 1
    for part in ("rim", "face", "background", "shape", "marks"):
        assert sum(part in names for names in missed) <= 1
    assert sum("hands" in names for names in missed) <= 3


def test_what_an_edit_changed_is_read_by_the_layout_of_the_source():
    for source, other in zip(CLOCKS[:20], CLOCKS[20:40], strict=True):
        names = ("hour", "minute", "shape", "rim", "face", "hands", "background", "marks", "second_hand")
        edited = replace(source, **{name: getattr(other, name) for name in names})
        assert not wrong(read(clocks.render(edited), source), edited)


@pytest.mark.parametrize("size", [0.92, 1.06, 1.1])
def test_a_shape_is_read_at_another_size_than_the_layout_has(size: float):
    found = [read(clocks.render(replace(c, radius=size * c.radius)), c).shape == c.shape for c in CLOCKS]
    assert sum(found) >= 0.9 * len(CLOCKS)


def test_a_second_hand_is_found_wherever_an_edit_put_it():
    found = [read(clocks.render(replace(c, second_hand=True, second=(c.second + 23) % 60)), c) for c in CLOCKS[:20]]
    assert sum(reading.second_hand for reading in found) >= 17


def test_a_dial_without_hands_is_unreadable():
    for clock in CLOCKS[:5]:
        bare = replace(clock, hands=clock.face, second_hand=False, tint=((0, 0, 0),) * 4)
        found = read(clocks.render(bare), clock)
        assert found.time is None
        assert found.hands is None


def test_a_picture_of_noise_has_no_time():
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    assert read(Image.fromarray(noise), CLOCKS[0]).time is None


def test_a_hand_too_many_lowers_the_confidence():
    clock = replace(CLOCKS[0], hour=3, minute=0, second_hand=False, hands="black", face="white")
    picture = clocks.render(clock)
    crowded = picture.copy()
    x, y, reach = clock.x * 128, clock.y * 128, 0.8 * clock.dial * 128
    for dx, dy in ((-1.0, 0.0), (-0.7, 0.7), (0.7, 0.7)):
        ImageDraw.Draw(crowded).line((x, y, x + reach * dx, y + reach * dy), fill=COLOURS["black"], width=4)
    assert read(picture, clock).confidence > 0.8 > 0.6 > read(crowded, clock).confidence


def test_bent_hands_are_unreadable_and_yet_near_to_a_time():
    clock = replace(CLOCKS[3], hour=9, minute=15, second_hand=False, hands="black", face="white", tail=0.0)
    bent = clocks.render(replace(clock, hands="white", tint=((0, 0, 0),) * 4))
    x, y, reach = clock.x * 128, clock.y * 128, clock.dial * 128
    along = np.linspace(0, 1, 9)
    for length, width, waves in ((0.8, 5, 5.6), (-0.48, 7, 7.2)):
        line = [(x + reach * length * a, y + reach * 0.2 * np.sin(waves * a)) for a in along]
        ImageDraw.Draw(bent).line(line, fill=COLOURS["black"], width=width)
    found = read(bent, clock)
    assert found.time is None
    assert minutes_off(found.nearest, clock.minutes) <= 10
    straight = read(clocks.render(clock), clock)
    assert straight.nearest == straight.time


def test_the_hour_hand_must_agree_with_the_minute_hand():
    """Half past three with its hour hand on four is not read as half past four or half past three with confidence."""
    clock = replace(CLOCKS[1], hour=3, minute=30, second_hand=False, hands="black", face="white", tail=0.0)
    true = read(clocks.render(clock), clock)
    assert true.time == 210
    right, early = (templates(clock, 128).at(m) for m in (210, 183))
    assert float((right * early).sum() / (right**2).sum()) < 0.75


@pytest.mark.parametrize("size", [96, 192])
def test_pictures_of_other_sizes_are_read_as_well(size):
    assert all(minutes_off(read(clocks.render(c, size), c).time, c.minutes) <= 1.5 for c in CLOCKS[:8])


def test_minutes_go_the_shorter_way_round():
    assert minutes_off(5, 715) == 10
    assert minutes_off(360, 0) == 360
    assert minutes_off(None, 0) == float("inf")


def test_templates_lie_on_the_pictures():
    """Where a template is full the picture has the hands' colour: geometry and renderer agree to half a pixel."""
    for clock in CLOCKS[:10]:
        plain = replace(clock, face="white", hands="black", second_hand=False, blur=0.0, grain=0.0, light=(0.0, 0.0))
        fixed = templates(plain, 128)
        seen = fixed.grid.sample(np.asarray(clocks.render(plain), dtype=np.float32)).mean(-1)
        assert seen[(fixed.at(plain.minutes) > 0.98) & (fixed.weight > 0)].max() < 110


def test_marks_and_outlines_are_those_of_the_renderer():
    drawn = marks(CLOCKS[0], 128)
    assert set(drawn) == set(MARKS)
    assert all(mask.min() >= 0 and mask.max() <= 1 for mask in drawn.values())
    for shape, reach in zip(SHAPES, (1.0, 2**0.5, 1.0), strict=True):
        assert outline(shape, 720)[90] == pytest.approx(reach, abs=1e-4)
        assert outline(shape, 720)[0] == pytest.approx(1.0, abs=1e-4)


def test_every_named_colour_is_told_from_the_others():
    for name, rgb in COLOURS.items():
        assert judge.name_of(np.array(rgb, dtype=np.float32) + 7) == name
    assert judge.name_of(np.array((0, 255, 255), dtype=np.float32)) is None
    assert legible("red", "white", "black", "white")


def test_the_judge_has_no_network_and_nothing_of_the_rewards():
    folder = Path(judge.__file__).parent
    for name in ("judge", "hands", "looks", "dial"):
        used = set()
        for node in ast.parse((folder / f"{name}.py").read_text()).body:
            if isinstance(node, ast.ImportFrom):
                used.add(node.module.split(".")[0])
            elif isinstance(node, ast.Import):
                used |= {alias.name.split(".")[0] for alias in node.names}
        assert not used & {"torch", "transformers", "diffusers", "rewards", "editor"}
