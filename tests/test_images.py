"""The loader against hostile and odd files, and the laws of sizes and compositing."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageOps

from editor import images, loading
from editor.types import EditError


def picture(size=(48, 40), mode="RGB", seed=0):
    channels = {"L": 1, "RGB": 3, "RGBA": 4, "CMYK": 4}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)
    return Image.fromarray(pixels.squeeze(-1) if channels == 1 else pixels, mode=None if channels < 4 else mode)


def encoded(image, format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def same(a, b):
    return a.mode == b.mode and a.size == b.size and a.tobytes() == b.tobytes()


def smooth(size, seed=0):
    """A picture that a small square represents well."""
    return picture((6, 6), seed=seed).resize(size, Image.Resampling.BICUBIC)


# ------------------------------------------------------------------------------------------------------------ loading


@pytest.mark.parametrize(("format", "options"), [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True})])
def test_lossless_formats_come_back_bit_for_bit_from_every_kind_of_source(format, options, tmp_path):
    image = picture()
    data = encoded(image, format, **options)
    path = tmp_path / "misnamed.jpg"
    path.write_bytes(data)
    for source in (data, path, str(path), io.BytesIO(data)):
        loaded = images.load(source)
        assert same(loaded.image, image)
        assert loaded.notices == ()


def test_jpeg_and_gif_are_read():
    assert images.load(encoded(picture(), "JPEG")).image.mode == "RGB"
    assert images.load(encoded(picture(), "GIF")).image.mode == "RGB"


def test_alpha_is_kept():
    assert same(images.load(encoded(picture(mode="RGBA"))).image, picture(mode="RGBA"))
    grey = picture(mode="L")
    grey.putalpha(picture(mode="L", seed=1))
    loaded = images.load(encoded(grey)).image
    assert same(loaded.getchannel("A"), picture(mode="L", seed=1))
    assert same(loaded.getchannel("G"), picture(mode="L"))


def test_palette_transparency_becomes_alpha():
    image = picture().quantize(8)
    data = encoded(image, transparency=3)
    alpha = np.asarray(images.load(data).image.getchannel("A"))
    assert set(np.unique(alpha)) == {0, 255}
    assert ((np.asarray(image) == 3) == (alpha == 0)).all()


@pytest.mark.parametrize("big_endian", [False, True])
def test_sixteen_bit_grey_is_scaled_and_not_saturated(big_endian):
    values = np.linspace(0, 65535, 48 * 40).round().astype(">u2" if big_endian else "<u2").reshape(40, 48)
    image = Image.fromarray(values.astype("<u2"))
    data = encoded(image, "TIFF" if big_endian else "PNG", **({"big_endian": True} if big_endian else {}))
    pixels = np.asarray(images.load(data).image)
    assert (pixels[..., 0] == np.round(values.astype(float) / 257)).all()


def test_thirty_two_bit_numbers_are_refused():
    with pytest.raises(EditError, match="8 or 16 bits"):
        images.load(encoded(Image.new("F", (40, 40)), "TIFF"))


def test_cmyk_becomes_rgb_with_a_notice():
    white = Image.new("CMYK", (40, 40), (0, 0, 0, 0))
    loaded = images.load(encoded(white, "TIFF"))
    assert same(loaded.image, Image.new("RGB", (40, 40), "white"))
    assert "CMYK" in loaded.notices[0]


def test_an_rgb_colour_profile_is_kept_with_its_pixels():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    loaded = images.load(encoded(picture(), icc_profile=profile)).image
    assert same(loaded, picture())
    assert loaded.info == {"icc_profile": profile}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_exif_orientation_is_applied_once(orientation, format):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(picture(), format, exif=exif.tobytes() if format == "PNG" else exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert same(images.load(data).image, expected)
    assert expected.size == ((48, 40) if orientation < 5 else (40, 48))


def test_damaged_exif_is_said():
    data = encoded(picture(), exif=b"Exif\0\0not a TIFF header at all")
    loaded = images.load(data)
    assert same(loaded.image, picture())
    assert "EXIF" in loaded.notices[0]


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_of_several_is_used_and_said(format):
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "lime")]
    options = {"lossless": True} if format == "WEBP" else {}
    loaded = images.load(encoded(frames[0], format, save_all=True, append_images=frames[1:], **options))
    assert loaded.image.getpixel((20, 20))[:3] == (255, 0, 0)
    assert "first is used" in loaded.notices[0]


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_cut_off_files_are_refused_with_a_sentence(format, share):
    data = encoded(picture((80, 80)), format)
    with pytest.raises(EditError, match=r"\.$"):
        images.load(data[: int(len(data) * share)])


def huge_png(width, height):
    """The header of a PNG of any size, with next to no data behind it."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"hello, this is text and not a picture", "not a picture"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"></svg>', "not a picture"),
        (b"8BPS" + bytes(100), "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n", "not a picture"),
        (huge_png(7000, 7000), "40 megapixels"),
        (huge_png(11000, 11000), "40 megapixels"),
        (huge_png(60000, 60000), "40 megapixels"),
        (huge_png(17000, 100), "megapixels"),
        (huge_png(100, 8), "at least 32"),
        (huge_png(1000, 100), "4 times"),
    ],
)
def test_what_is_no_usable_picture_has_its_own_sentence(data, words):
    with pytest.raises(EditError, match=words):
        images.load(data)


def test_bytes_are_limited_before_decoding(monkeypatch):
    monkeypatch.setattr(loading, "MAX_BYTES", 1000)
    with pytest.raises(EditError, match="too large"):
        images.load(io.BytesIO(bytes(1001)))


def test_paths_that_are_no_files_are_refused(tmp_path):
    with pytest.raises(EditError, match="no file"):
        images.load(tmp_path / "absent.png")
    with pytest.raises(EditError, match="no file"):
        images.load(tmp_path)


# ------------------------------------------------------------------------------------------------------------ tensors


def test_all_256_values_come_back():
    ramp = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    unit = images.to_unit(Image.fromarray(ramp))
    assert unit.shape == (1, 3, 16, 16)
    assert 0 <= unit.min() < unit.max() <= 1
    assert (np.asarray(images.to_pil(unit)) == ramp).all()


def test_transparent_pixels_are_shown_on_white():
    assert images.to_unit(Image.new("RGBA", (4, 4), (9, 9, 9, 0))).eq(1).all()


def test_to_pil_refuses_nan():
    with pytest.raises(ValueError, match="finite"):
        images.to_pil(torch.full((3, 4, 4), float("nan")))


def test_psnr():
    a = torch.zeros(3, 8, 8)
    assert images.psnr(a, a + 0.1) == pytest.approx(20)
    assert images.psnr(a, a) == 100


def test_fingerprint_is_of_the_picture_and_not_of_the_file():
    first, second = (images.load(encoded(picture(), format)).image for format in ("PNG", "BMP"))
    assert images.fingerprint(first) == images.fingerprint(second)
    assert images.fingerprint(first) != images.fingerprint(picture(seed=1))


# ---------------------------------------------------------------------------------------------- sizes and compositing


@pytest.mark.parametrize("size", [(128, 128), (603, 644), (33, 127), (300, 80), (64, 64), (129, 128)])
def test_fit_and_unfit_keep_the_whole_picture_and_its_size(size):
    source = smooth(size)
    square, place = images.fit(source, 128)
    assert square.size == (128, 128)
    back = images.unfit(images.to_unit(square)[0], place, source)
    assert back.size == size
    assert images.psnr(images.to_unit(back), images.to_unit(source)) > (100 - 1e-9 if size == (128, 128) else 33)


def test_at_most_bounds_the_longer_side_and_leaves_small_pictures_alone():
    assert images.at_most(picture((300, 200)), 150).size == (150, 100)
    assert images.at_most(picture((200, 300), "RGBA"), 150).mode == "RGBA"
    small = picture((150, 100))
    assert images.at_most(small, 150) is small


def test_the_margin_repeats_the_edge():
    square, place = images.fit(picture((128, 64)), 128)
    assert (place.left, place.top, place.width, place.height) == (0, 32, 128, 64)
    pixels = np.asarray(square)
    assert (pixels[32:96] == np.asarray(picture((128, 64)))).all()
    assert (pixels[:32] == pixels[32]).all()
    assert (pixels[96:] == pixels[95]).all()


def edited(source, size=128):
    """The model's blurred reconstruction of the source, and the same with a red box painted into it."""
    square, place = images.fit(source, size)
    before = torch.nn.functional.avg_pool2d(images.to_unit(square), 3, 1, 1, count_include_pad=False)[0]
    after = before.clone()
    after[:, 40:80, 50:90] = torch.tensor([1.0, 0.0, 0.0])[:, None, None]
    return before, after, place


@pytest.mark.parametrize("size", [(128, 128), (500, 333), (64, 100), (200, 260)])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_without_a_change_the_source_stays_bit_for_bit(size, mode):
    source = picture(size, mode)
    before, _, place = edited(source)
    noise = 0.002 * torch.randn(before.shape, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    assert same(images.composite(source, before, before, place), source)
    assert same(images.composite(source, before, before + noise, place), source)


def test_a_repainted_region_is_the_edit_itself_and_the_rest_the_source_itself():
    source = picture((128, 128))
    before, after, place = edited(source)
    result = np.asarray(images.composite(source, before, after, place)).astype(int)
    assert (result[40:80, 50:90] == np.asarray(images.to_pil(after))[40:80, 50:90]).all()
    far = np.ones((128, 128), bool)
    far[37:83, 47:93] = False
    assert (result[far] == np.asarray(source)[far]).all()


def test_a_slight_change_of_light_keeps_the_sources_detail():
    source = picture((128, 128)).point(lambda v: 60 + v // 2)
    before, _, place = edited(source)
    result = images.composite(source, before, before + 6 / 255, place)
    difference = np.asarray(result).astype(int) - np.asarray(source).astype(int)
    assert (difference == 6).all()


def test_what_is_half_transparent_is_seen_on_white_as_the_edit_has_it():
    source = Image.new("RGBA", (128, 128), (0, 0, 0, 128))
    square, place = images.fit(source, 128)
    before = images.to_unit(square)[0]
    after = before.clone()
    after[0, 40:80, 50:90] = 0.9
    maps = torch.zeros(12, 32, 32)
    maps[0] = 0.9 - before[0, 0, 0]
    laid = images.composite(source, before, after, place)
    coloured = images.recolour(source, maps, place)
    for result in (laid, coloured):
        assert result.getchannel("A").tobytes() == source.getchannel("A").tobytes()
        assert abs(images.to_unit(result)[0, :, 60, 70] - after[:, 60, 70]).max() <= 2 / 255
    assert laid.getpixel((5, 5)) == source.getpixel((5, 5))
    clear = Image.new("RGBA", (128, 128), (9, 9, 9, 0))
    assert same(images.composite(clear, torch.ones_like(before), after, place), clear)


def test_a_large_source_keeps_its_detail_away_from_the_edit():
    source = picture((512, 512))
    before, after, place = edited(source)
    result = np.asarray(images.composite(source, before, after, place)).astype(int)
    away = np.ones((512, 512), bool)
    away[4 * 36 : 4 * 84, 4 * 46 : 4 * 94] = False
    assert (result[away] == np.asarray(source)[away]).all()
    middle = result[4 * 44 : 4 * 76, 4 * 54 : 4 * 86]
    assert abs(middle - [255, 0, 0]).max() <= 1


@pytest.mark.parametrize("size", [(128, 128), (400, 300)])
def test_outside_the_mask_nothing_changes_and_inside_its_edge_is_soft(size):
    source = picture(size, "RGBA")
    before, after, place = edited(source)
    left, top, right, bottom = (int(v * size[i % 2]) for i, v in enumerate((0.45, 0.4, 0.6, 0.55)))
    mask = Image.new("L", size)
    mask.paste(255, (left, top, right, bottom))
    result = images.composite(source, before, after, place, mask)
    outside = np.asarray(mask) == 0
    assert (np.asarray(result)[outside] == np.asarray(source)[outside]).all()
    assert not same(result, source)
    assert same(result.getchannel("A"), source.getchannel("A"))
    inside = np.asarray(result)[(top + bottom) // 2, (left + right) // 2, :3]
    assert abs(inside.astype(int) - [255, 0, 0]).max() <= 8, "its alpha makes more of what resizing loses"
    weights = images._feathered(mask, size)
    assert (weights[torch.from_numpy(outside.copy())] == 0).all()
    assert weights.unique().numel() > 3


def test_a_thin_mask_still_edits():
    mask = Image.new("L", (1000, 1000))
    mask.paste(255, (500, 0, 503, 1000))
    assert images._feathered(mask, (1000, 1000)).max() > 0.9


def test_parts_of_a_mask_keep_their_own_share_inside_their_edge():
    mask = Image.new("L", (400, 300))
    mask.paste(255, (20, 20, 180, 280))
    mask.paste(110, (220, 20, 380, 280))
    for weights in (images._feathered(mask, mask.size), np.asarray(images.feathered(mask, 0.02)) / 255):
        assert weights[150, 100] == pytest.approx(1.0)
        assert weights[150, 300] == pytest.approx(110 / 255, abs=0.005)
        assert weights[150, 221] < 0.2
        assert weights[150, 210] == 0
    ramp = Image.linear_gradient("L").resize((400, 300))
    kept = images._feathered(ramp, ramp.size)[40:-20, 200]
    torch.testing.assert_close(kept, torch.from_numpy(np.asarray(ramp)[40:-20, 200] / 255).float(), atol=0.02, rtol=0)
    grey = Image.new("L", (400, 300), 8)  # black, as some programs write it
    grey.paste(255, (100, 50, 300, 250))
    assert len(np.unique(np.asarray(images.feathered(grey, 0.05)))) > 8


def test_masks_are_sized_to_the_picture_or_refused():
    mask = Image.new("L", (100, 80), 255)
    assert images.to_mask(mask, (200, 160)).size == (200, 160)
    with pytest.raises(EditError, match="make it 100 x 100"):
        images.to_mask(mask, (100, 100))
    with pytest.raises(EditError, match="all black"):
        images.to_mask(Image.new("RGBA", (50, 50), (255, 255, 255, 0)), (50, 50))
    with pytest.raises(EditError, match="greyscale"):
        images.composite(picture((128, 128)), *edited(picture((128, 128)))[:2], images.fit(picture(), 128)[1], mask)


def test_a_spotlight_dims_to_a_quarter_what_it_does_not_light():
    source = Image.new("RGB", (64, 32), (200, 100, 40))
    place = images.fit(source, 64)[1]
    lit = torch.zeros(1, 64, 64)
    lit[..., 32:] = 1
    shown = np.asarray(images.spotlight(source, lit, place))
    assert shown.shape == (32, 64, 3)
    assert shown[:, 40:].reshape(-1, 3).tolist() == [[200, 100, 40]] * (32 * 24)
    assert shown[:, :24].reshape(-1, 3).tolist() == [[50, 25, 10]] * (32 * 24)
