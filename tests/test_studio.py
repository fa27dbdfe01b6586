"""The studio as it is committed: its figures may rise, not fall, and its edits are the same bytes every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.studio import drawn
from editor import images
from editor.engine import EFFORTS
from editor.types import EditError, EditRequest
from rewards.base import Check, Plan
from training import clocks
from training.world import TEST

pytestmark = pytest.mark.slow
ASSETS = Path(__file__).resolve().parent.parent / "assets"
FOLDER, EXAMPLE = ASSETS / "models" / "studio", ASSETS / "examples" / "school-clock.png"
CLOCKS = [clocks.sample(TEST + 900_000 + i) for i in range(24)]


@pytest.fixture(scope="module")
def squares() -> torch.Tensor:
    return torch.cat([images.to_unit(clocks.render(clock)) for clock in CLOCKS])


def test_the_weights_are_safetensors_and_at_most_40_megabytes():
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 40_000_000
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".jinja", ".txt", ".model"}


def test_the_autoencoder_shows_unseen_clocks(studio, squares):
    codec = studio.models.codec
    with torch.no_grad():
        back = codec.render(codec.encode(squares))
    values = [images.psnr(a, b) for a, b in zip(back, squares, strict=True)]
    assert np.mean(values) > 26.5


def test_the_inversion_returns_to_the_autoencoders_picture(studio):
    trips = [studio.invert(clocks.render(clock), EFFORTS["balanced"].start).inversion_psnr for clock in CLOCKS[:6]]
    assert min(trips) > 40


def test_the_flow_map_draws_hands_that_can_be_read(studio):
    found = drawn(studio, 12)
    assert found["from t = 0.6"] >= 9 / 12
    assert found["from t = 0.3"] >= 4 / 12


def test_a_picture_of_something_else_is_refused_with_the_profile_that_can(studio):
    pixels = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    plan = Plan((Check("Is the rim red?"),), "a clock")
    with pytest.raises(EditError, match="--profile flux"):
        list(studio.edit(EditRequest(image=Image.fromarray(pixels), instruction="make it red", plan=plan)))


def test_a_landscape_that_is_planned_for_as_if_it_were_a_clock_is_refused(studio):
    scene = Image.new("RGB", (200, 200), (90, 150, 230))
    scene.paste((60, 150, 60), (0, 120, 200, 200))
    scene.paste((220, 40, 40), (120, 20, 170, 70))
    with pytest.raises(EditError, match=r"sees only \d of the \d things .* changes a clock's time"):
        list(studio.edit(EditRequest(image=scene, instruction="make the face blue", settings=EFFORTS["fast"])))


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("set it to 5", ["5:00", "yes"]),
        ("make it 20 to 6!", ["5:40", "yes"]),
        ("change it from 10:09 to 16:45", ["4:45", "yes"]),
        ("add an hour and 20 minutes", ["11:29", "yes"]),
        ("make the black frame blue, but keep the hands", ["blue", "yes"]),
        ("half past four and no second hand", ["4:30", "yes", "yes"]),
        ("change the numbers to Roman numerals", ["Roman numerals", "yes"]),
    ],
)
def test_sentences_near_the_studios_language_are_planned_rightly(studio, said, wanted):
    with Image.open(EXAMPLE) as clock:
        assert [check.expected for check in studio.plan(clock, said).checks] == wanted


@pytest.mark.parametrize(
    "said",
    [
        "remove the hands",
        "make the second hand red",
        "make the clock yellow",
        "set the second hand to 12",
        "set it to 25:70",
        "make the hands red, the face yellow, the rim blue and the background green",
    ],
)
def test_sentences_that_the_studio_would_misread_are_refused(studio, said):
    told = r"The VLM (took this|left out|did not understand)"
    with Image.open(EXAMPLE) as clock, pytest.raises(EditError, match=told):
        studio.plan(clock, said)


def test_the_same_edit_is_the_same_bytes(studio):
    request = EditRequest(
        image=clocks.render(CLOCKS[0]), instruction="make the face blue", plan=Plan((Check("Is the face blue?"),), ""),
        settings=EFFORTS["fast"].but(steps=3, particles=2),
    )  # fmt: skip
    first, second = (list(studio.edit(request))[-1] for _ in range(2))
    assert first.best.tobytes() == second.best.tobytes()
    assert first.score >= first.source_score
