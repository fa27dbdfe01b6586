"""One safe loader for pictures from anywhere: checked by content and header before anything is decoded."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from editor.mark import BEARS, file_bears_mark
from editor.types import EditError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
MAX_PIXELS = 40_000_000
MAX_BYTES = 4 * MAX_PIXELS
"""What a PNG of so many pixels may need, so that every result can be loaded again."""
MAX_SIDE = 16_384
MIN_SIDE = 32
MAX_ASPECT = 4

Source = str | Path | bytes | BinaryIO


@dataclass(frozen=True)
class Loaded:
    """A picture as the editor uses it, and what a person should know about how it was read."""

    image: Image.Image
    """RGB or RGBA, upright; `info` holds at most "icc_profile" and the mark of `editor.mark`."""
    notices: tuple[str, ...] = ()
    """Sentences such as "The file is animated: its first frame is used."."""


def load(source: Source) -> Loaded:
    """Read one picture from a path, bytes or an open binary file, whatever its name says.

    The header is checked before anything is decoded. Raises EditError with a sentence for everything that isn't a whole
    PNG, JPEG, WebP, BMP, TIFF or GIF picture within the limits above.
    """
    data = read(source)
    try:
        # Pillow itself warns above 89 million pixels and refuses above 179; both mean "too large" here.
        opened = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise EditError(f"This file is not a picture that can be read: save it as {_list(FORMATS)}.") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise EditError(f"The picture is too large: make it at most {MAX_PIXELS // 10**6} megapixels.") from error
    except Exception as error:  # a decoder may fail in any way on a hostile header
        raise EditError("The picture's header is damaged: export it again.") from error
    with opened:
        _check_size(*opened.size)
        notices: list[str] = []
        try:
            opened.load()
            image = _upright(_to_rgb(opened, notices), opened, notices)
            if file_bears_mark(opened):
                image.info[BEARS] = True
            several = _has_more_frames(opened)
        except EditError:
            raise
        except Exception as error:  # likewise for hostile or cut-off pixel data
            raise EditError("The picture is cut off or damaged: export or download it again.") from error
    if several:
        notices.insert(0, "The file holds several frames or pages: the first is used.")
    return Loaded(image, tuple(notices))


def read(source: Source) -> bytes:
    """The bytes of a source. Raises EditError if there are none or more than MAX_BYTES."""
    if isinstance(source, bytes):
        data = source
    elif isinstance(source, str | Path):
        path = Path(source)
        try:
            if not path.is_file():
                raise EditError(f"There is no file {path.name!r}: check the path.")
            with path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise EditError(f"The file {path.name!r} can't be read: check its permissions.") from error
    else:
        data = source.read(MAX_BYTES + 1)
    if not data:
        raise EditError("The file is empty: choose a picture.")
    if len(data) > MAX_BYTES:
        raise EditError(f"The file is too large: pictures may have at most {MAX_BYTES // 2**20} MB.")
    return data


def _check_size(width: int, height: int) -> None:
    seen = f"The picture is {width} x {height} pixels"
    if min(width, height) < MIN_SIDE:
        raise EditError(f"{seen}: its sides must be at least {MIN_SIDE}.")
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise EditError(f"{seen}: make it at most {MAX_PIXELS // 10**6} megapixels and {MAX_SIDE} pixels a side.")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise EditError(f"{seen}: crop it so that the long side is at most {MAX_ASPECT} times the short one.")


def _has_more_frames(opened: Image.Image) -> bool:
    try:
        opened.seek(1)
    except Exception:  # EOFError for one frame; a damaged second frame is of no interest
        return False
    return True


def _to_rgb(image: Image.Image, notices: list[str]) -> Image.Image:
    """RGB or RGBA pixels with 8 bits, whatever the mode; colours of an RGB profile are kept with their profile."""
    profile = image.info.get("icc_profile") or b""
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image).astype(np.uint32) + 128) // 257
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise EditError("The picture has 32-bit numbers for pixels: save it with 8 or 16 bits.")
    if image.mode in ("CMYK", "LAB"):
        notices.append("The picture was converted from print colours (CMYK or Lab): check them.")
        return _from_print(image, profile)
    has_alpha = image.mode in ("LA", "PA", "RGBa", "RGBA") or "transparency" in image.info
    result = image.convert("RGBA" if has_alpha else "RGB")
    if has_alpha and result.getextrema()[3][0] == 0:
        notices.append("The picture has transparent parts: they stay transparent, whatever the edit paints there.")
    result.info = {"icc_profile": profile} if profile[16:20] == b"RGB " else {}
    return result


def _from_print(image: Image.Image, profile: bytes) -> Image.Image:
    """CMYK or Lab to sRGB, by the picture's own profile where it has a sound one."""
    srgb = ImageCms.createProfile("sRGB")
    try:
        own = ImageCms.createProfile("LAB") if image.mode == "LAB" else ImageCms.ImageCmsProfile(io.BytesIO(profile))
        result = ImageCms.profileToProfile(image, own, srgb, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        result = image.convert("RGB")
    result.info = {}
    return result


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _upright(image: Image.Image, opened: Image.Image, notices: list[str]) -> Image.Image:
    """The image turned as the EXIF orientation of the opened file says."""
    try:
        orientation = opened.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # EXIF comes from anywhere and its parser may fail in any way
        notices.append("The picture's EXIF data is damaged: its orientation was not applied.")
        return image
    if orientation not in _TURNS:
        return image
    turned = image.transpose(_TURNS[orientation])
    turned.info = image.info
    return turned


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(names[:-1]) + " or " + names[-1]
