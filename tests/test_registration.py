"""Known offsets are found to a small part of a pixel; edits, flat pictures and what is masked raise no alarm."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter

from editor import images
from editor.finish import COMPARED, Canvas, Landed
from editor.registration import NOTICEABLE, Offset, offset, warning


def blobs(size, seed=0, grain=7):
    """A picture of smooth blobs, about `grain` pixels wide."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (size[1] // grain, size[0] // grain, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def discs(size, seed=0):
    """Sharp edges on flat ground."""
    image, rng = Image.new("RGB", size, (60, 90, 160)), np.random.default_rng(seed)
    for _ in range(30):
        x, y, r = (int(rng.integers(0, length)) for length in (*size, min(size) // 5))
        colour = tuple(int(v) for v in rng.integers(0, 256, 3))
        ImageDraw.Draw(image).ellipse((x - r, y - r, x + r, y + r), fill=colour)
    return image


def seen(scene, x=0.0, y=0.0, size=(128, 96), scale=8):
    """A part of a scene that is drawn `scale` times as large, its content moved by (x, y) of the part's pixels."""
    width, height = (scale * length for length in size)
    window = (1, 0, scale * (8 - x), 0, 1, scale * (8 - y))
    large = scene.transform((width, height), Image.Transform.AFFINE, window, Image.Resampling.BICUBIC)
    return large.resize(size, Image.Resampling.BOX)


def between(a, b, counted=None):
    return offset(images.to_unit(a), images.to_unit(b), counted)


@pytest.fixture(scope="module", params=[blobs, discs], ids=["blobs", "discs"])
def scene(request):
    return request.param((1200, 900), 1, 60) if request.param is blobs else request.param((1200, 900), 1)


@pytest.mark.parametrize("blur", [0, 1])
@pytest.mark.parametrize("moved", [(0, 0), (0.25, 0), (0, 0.5), (0.5, -0.25), (1.3, 0.7), (-2, 0), (0, -2), (5, -4)])
def test_known_offsets_are_found(scene, moved, blur):
    softer = seen(scene, *moved).filter(ImageFilter.GaussianBlur(blur)) if blur else seen(scene, *moved)
    found = between(seen(scene), softer)
    assert found == pytest.approx(moved, abs=0.1)
    if abs(np.hypot(*moved) - NOTICEABLE) > 0.1:
        assert bool(warning(found)) == (np.hypot(*moved) > NOTICEABLE)


def test_a_picture_lies_exactly_on_itself():
    assert between(blobs((128, 128)), blobs((128, 128))) == (0, 0)
    assert between(blobs((40, 33)), blobs((40, 33))) == (0, 0)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.6])
def test_a_part_that_is_repainted_raises_no_alarm(share):
    source, other = blobs((256, 192)), blobs((256, 192), seed=9)
    edited = source.copy()
    edited.paste(other.crop((0, 0, round(256 * share), 192)), (0, 0))
    assert warning(between(source, edited)) == ""


@pytest.mark.parametrize("pixels", [1, 3, 8])
def test_a_part_that_moves_raises_no_alarm_while_the_rest_stays(pixels):
    source = blobs((256, 192))
    edited = source.copy()
    edited.paste(source.crop((0, 0, 90, 192)), (pixels, 0))
    assert warning(between(source, edited)) == ""


def test_other_colours_and_light_raise_no_alarm(scene):
    source = seen(scene)
    red, green, blue = source.split()
    for edited in (source.point(lambda v: v // 2), Image.merge("RGB", (blue, red, green)), source.convert("L")):
        assert warning(between(source, edited.convert("RGB"))) == ""


def test_what_has_no_texture_or_nothing_in_common_cannot_tell():
    flat = Image.new("RGB", (128, 128), "red")
    ramp = Image.linear_gradient("L").resize((128, 128)).convert("RGB")
    for a, b in [(flat, flat), (flat, blobs((128, 128))), (ramp, ramp), (blobs((128, 128)), blobs((128, 128), seed=5))]:
        assert between(a, b) is None
    assert warning(None) == ""


def test_only_what_counts_is_looked_at():
    source = blobs((256, 192))
    half = torch.zeros(1, 1, 192, 256, dtype=torch.bool)
    half[..., 128:] = True
    left, right = source.copy(), source.copy()
    left.paste(source.crop((0, 0, 120, 192)), (3, 0))
    right.paste(source.crop((100, 0, 250, 192)), (103, 0))
    assert between(source, left, half) == (0, 0)
    assert between(source, right, half) == pytest.approx((3, 0), abs=0.2)
    assert between(source, right, torch.zeros_like(half)) is None


def test_the_sentence_says_how_far_and_what_to_do():
    assert warning(Offset(0.3, 0.4)) == ""
    said = warning(Offset(-1.2, 0.5))
    assert "1.3 pixels" in said
    assert "-1.2 across" in said
    assert "lower the strength" in said
    assert said.count(".") == 1 + said.count(".3") + said.count("1.2") + said.count("0.5")


# ----------------------------------------------------------------------------------------- landings over their canvas


def landed(source, moved=0, mask=None):
    """A model that sees the source through its square, and whose result lies `moved` of the square's pixels to the
    right of that."""
    square, place = images.fit(source, 128)
    before = images.to_unit(square)[0]
    return Landed(Canvas(source, before, place, mask), before.roll(moved, -1))


def test_a_model_that_moves_the_picture_is_found_out_in_the_sources_pixels():
    source = blobs((256, 192), grain=14)
    assert landed(source).offset() == (0, 0)
    assert landed(source, 1).offset() == pytest.approx((2, 0), abs=0.3)


def test_behind_a_mask_the_model_is_looked_at_and_not_what_was_pasted_back():
    source, mask = blobs((256, 192), grain=14), Image.new("L", (256, 192))
    mask.paste(255, (0, 0, 100, 192))
    off = landed(source, 1, mask)
    assert np.array_equal(np.asarray(off.image())[:, 100:], np.asarray(source)[:, 100:])
    assert off.offset() == pytest.approx((2, 0), abs=0.3)
    assert landed(source, 0, mask).offset() == (0, 0)
    assert landed(source, 1, Image.new("L", (256, 192), 255)).offset() is None


def test_large_pictures_are_compared_at_a_bounded_size_and_told_of_in_their_own_pixels():
    source = blobs((2 * COMPARED, COMPARED), grain=40)
    assert landed(source).offset() == (0, 0)
    assert landed(source, 1).offset() == pytest.approx((16, 0), abs=2)
    assert max(landed(source, 1).preview().size) < COMPARED
