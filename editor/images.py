"""Bytes <-> PIL <-> tensors, sizes and compositing; the only file with 255 in it.

Pictures of people are PIL images, RGB or RGBA, upright, of any size. Tensors are (1, 3, H, W) or (3, H, W) floats in
[0, 1]. The model sees squares of S pixels: `fit` makes one of a picture, `composite` and `unfit` lead back to its size.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image, ImageChops, ImageFilter
from torch import Tensor

from editor.loading import Loaded, Source, load, read
from editor.mark import XMP, bears_mark, exif, png_text
from editor.types import EditError

__all__ = [
    "Loaded", "Placement", "Source", "at_most", "composite", "difference", "feathered", "fingerprint", "fit",
    "inverted", "load", "load_mask", "painted_mask", "psnr", "read", "spotlight", "to_mask", "to_pil", "to_png",
    "to_thumbnail", "to_unit", "unfit",
]  # fmt: skip


@dataclass(frozen=True)
class Placement:
    """Where the whole of a picture lies in the model's square, in model pixels; around it the edges are repeated."""

    size: int
    left: int
    top: int
    width: int
    height: int


# -------------------------------------------------------------------------------------------------------------- masks


def load_mask(source: Source, size: tuple[int, int]) -> Image.Image:
    """A mask of mode L and the given (width, height): white where the edit may act, black where pixels must stay.

    Transparent pixels count as black. Raises EditError if its shape isn't the picture's or if it is all black.
    """
    return to_mask(load(source).image, size)


def to_mask(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """As `load_mask`, of a picture that is loaded already."""
    black = Image.new("RGBA", image.size, "black")
    return _as_mask(Image.alpha_composite(black, image.convert("RGBA")).convert("L"), size)


def painted_mask(layers: Sequence[Source], size: tuple[int, int]) -> Image.Image | None:
    """A mask like `load_mask`'s that is white where anything was painted on transparent layers; None if nothing was."""
    painted = [image.getchannel("A") for image in (load(layer).image for layer in layers) if image.mode == "RGBA"]
    masks = [_as_mask(alpha, size) for alpha in painted if alpha.getextrema()[1]]
    return reduce(ImageChops.lighter, masks) if masks else None


def _as_mask(mask: Image.Image, size: tuple[int, int]) -> Image.Image:
    if abs(mask.width * size[1] - mask.height * size[0]) > 0.02 * mask.height * size[0]:
        raise EditError(f"The mask is {mask.width} x {mask.height} pixels: make it {size[0]} x {size[1]}.")
    if mask.size != size:
        mask = mask.resize(size, Image.Resampling.BILINEAR)
    if mask.getextrema()[1] == 0:
        raise EditError("The mask is all black: paint white where the edit may act.")
    return mask


def difference(before: Image.Image, after: Image.Image, gain: int = 4) -> Image.Image:
    """Where two pictures of one size differ: mid-grey where they are equal, the change times `gain` around it."""
    change = np.asarray(after.convert("RGB")).astype(np.int16) - np.asarray(before.convert("RGB"))
    return Image.fromarray(np.clip(128 + gain * change, 0, 255).astype(np.uint8))


def inverted(mask: Image.Image) -> Image.Image:
    """A mask with edit and protect exchanged."""
    return mask.point(lambda value: 255 - value)


NEARLY_BLACK = 17
"""The least grey of a mask that marks a part: what is darker comes of video's black, or of a loss in saving."""


def is_white(mask: Image.Image) -> bool:
    """Whether a mask lets an edit act everywhere."""
    return mask.getextrema()[0] == 255


def _marked(mask: Image.Image) -> Image.Image:
    """White wherever a mask is not black, or nearly."""
    return mask.point(lambda value: 255 * (value >= NEARLY_BLACK))


def feathered(mask: Image.Image, share: float) -> Image.Image:
    """The mask with an edge that is soft over a share of the picture's short side, inwards: black stays black.

    Raises EditError where nothing of the marked part would be left.
    """
    if share <= 0:
        return mask
    blurred = _marked(mask).filter(ImageFilter.GaussianBlur(share * min(mask.size) / 2))
    softened = ImageChops.multiply(mask, blurred.point(lambda value: max(0, 2 * value - 255)))
    if softened.getextrema()[1] < mask.getextrema()[1] / 2:
        raise EditError("The soft edge is wider than the marked part: lower it, or mark more.")
    return softened


def to_png(image: Image.Image) -> bytes:
    """The picture as a PNG, without a loss; quick rather than small.

    Of metadata it has its colour profile, and the mark that it is AI-edited where the picture bears that.
    """
    buffer = io.BytesIO()
    mark = {"pnginfo": png_text(), "exif": exif()} if bears_mark(image) else {}
    image.save(buffer, "PNG", compress_level=1, **mark)
    return buffer.getvalue()


def to_thumbnail(image: Image.Image, side: int) -> bytes:
    """A small WebP of at most `side` pixels a side, to look at and for nothing else; with the mark as in `to_png`."""
    small = image.copy()
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    mark = {"exif": exif(), "xmp": XMP.encode()} if bears_mark(image) else {}
    small.save(buffer, "WEBP", quality=85, **mark)
    return buffer.getvalue()


def fingerprint(image: Image.Image) -> str:
    """SHA-256 of mode, size and pixels, in hexadecimal: the same for every file that holds the same picture."""
    return hashlib.sha256(f"{image.mode} {image.size} ".encode() + image.tobytes()).hexdigest()


# ------------------------------------------------------------------------------------------------------------ tensors


def to_unit(image: Image.Image) -> Float[Tensor, "1 3 height width"]:
    """Pixels as floats in [0, 1]; what is transparent is shown on white."""
    pixels = np.array(_on_white(image), dtype=np.uint8)
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


def _on_white(image: Image.Image) -> Image.Image:
    """The picture in RGB."""
    if "A" in image.getbands():
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert("RGB")


def to_pil(images: Tensor) -> Image.Image:
    """(3, H, W) or (1, 3, H, W) floats, clamped to [0, 1], as an RGB image. Raises ValueError if one isn't finite."""
    pixels = images.detach()[0] if images.ndim == 4 else images.detach()
    if not torch.isfinite(pixels).all():
        raise ValueError("The image holds numbers that are not finite.")
    return Image.fromarray(_bytes(pixels).permute(1, 2, 0).contiguous().cpu().numpy())


def _bytes(unit: Tensor) -> Tensor:
    return (unit.float().clamp(0, 1) * 255).round().to(torch.uint8)


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of two tensors in [0, 1] of one shape; 100 for equal ones."""
    error = (a.double() - b.double()).square().mean().item()
    return 100.0 if error < 1e-10 else -10 * math.log10(error)


# -------------------------------------------------------------------------------------------------------------- sizes


def at_most(image: Image.Image, side: int = 1024) -> Image.Image:
    """The picture with its longer side at most `side` pixels, to look at or to compare; itself if it is that small."""
    if max(image.size) <= side:
        return image
    scale = side / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)


def fit(image: Image.Image, size: int) -> tuple[Image.Image, Placement]:
    """The whole picture in a square of `size` pixels, RGB: resized with antialiasing, never cropped.

    The margin of a picture that isn't square repeats its edge pixels. A picture of the right size isn't resampled.
    """
    scale = size / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    place = Placement(size, (size - width) // 2, (size - height) // 2, width, height)
    seen = _on_white(image)
    if seen.size != (width, height):
        seen = seen.resize((width, height), Image.Resampling.LANCZOS)
    rows, columns = (size - height - place.top, size - width - place.left)
    padded = np.pad(np.asarray(seen), ((place.top, rows), (place.left, columns), (0, 0)), mode="edge")
    return Image.fromarray(padded), place


def _to_size(maps: Tensor, place: Placement, size: tuple[int, int]) -> Tensor:
    """(C, S, S) maps of the model's square -> (C, height, width) maps of the picture, size = (width, height)."""
    inner = maps.float()[:, place.top : place.top + place.height, place.left : place.left + place.width]
    if (place.width, place.height) == size:
        return inner
    return F.interpolate(inner[None], size=size[::-1], mode="bicubic", antialias=True, align_corners=False)[0]


def unfit(edited: Tensor, place: Placement, source: Image.Image) -> Image.Image:
    """A model's square (3, S, S) as an RGB image of the source's exact size, with nothing of the source in it."""
    return to_pil(_to_size(edited, place, source.size))


def spotlight(source: Image.Image, lit: Tensor, place: Placement) -> Image.Image:
    """The picture, RGB, dimmed to a quarter where a map (1, S, S) in [0, 1] of the model's square is zero."""
    share = 0.25 + 0.75 * _to_size(lit.cpu(), place, source.size).clamp(0, 1)
    pixels = torch.from_numpy(np.array(source.convert("RGB"), dtype=np.float32)).permute(2, 0, 1) / 255
    return to_pil(pixels * share)


# -------------------------------------------------------------------------------------------------------- compositing

NOTICEABLE = (1.5 / 255, 5 / 255)
"""Change of a pixel at the model's size that begins to count as an edit, and that counts fully."""
REPAINTED = (8 / 255, 32 / 255)
"""Change at which the source's fine detail begins to be dropped, and at which it is gone."""


def composite(
    source: Image.Image, before: Tensor, after: Tensor, place: Placement, mask: Image.Image | None = None
) -> Image.Image:
    """The edit laid into the source's own pixels, at its size, alpha and colour profile kept.

    `before` (3, S, S) is the model's reconstruction of the source and `after` the edited square. With d = after -
    before and detail = source - before (what the model can't represent: sharpness, texture, and at larger sizes most of
    the picture), the result is

        source + m * (u * d - v * detail),      0 <= v <= u <= 1,  m the feathered mask,

    where u and v rise with |d| around each pixel. Where nothing changed u = v = 0 and the source stays bit for bit;
    where little changed (light, tint) the change is added and the detail stays; where the model repainted, u = v = 1
    and the result is `after`, with no ghost of the detail that was there. Outside the mask pixels stay bit for bit.
    The model sees the source on white, and so do these: what is half transparent gets twice the change.
    """
    change = (after - before).float().abs().amax(0, keepdim=True)
    change = F.avg_pool2d(F.max_pool2d(change, 3, 1, 1), 3, 1, 1, count_include_pad=False)
    weights = torch.cat([_ramp(change, *NOTICEABLE), _ramp(change, *REPAINTED)])
    weights = _to_size(weights, place, source.size).clamp(0, 1)
    inside, seen, alpha = _feathered(mask, source.size), np.array(_on_white(source)), _alpha(source)
    pixels = np.array(source.convert("RGB"), dtype=np.uint8)
    for channel in range(3):  # one at a time, for the memory of large pictures
        old, new = _to_size(torch.stack([before[channel], after[channel]]), place, source.size)
        own = torch.from_numpy(seen[..., channel]).float() / 255
        change = inside * (weights[0] * (new - old) - weights[1] * (own - old))
        pixels[..., channel] = _added(pixels[..., channel], change, alpha)
    return _like(source, pixels)


def recolour(source: Image.Image, maps: Tensor, place: Placement, mask: Image.Image | None = None) -> Image.Image:
    """The source's own pixels, at its size, under maps of colours; alpha and colour profile kept.

    `maps` (12, h, w) of the model's square are those of `editor.recolour`. With d what a pixel's map adds to it, the
    result is source + m * u * d, u and m as in `composite`, so that pixels stay bit for bit where nothing changes.
    """
    inside, pixels = _feathered(mask, source.size), np.array(source.convert("RGB"), dtype=np.uint8)
    own, alpha = torch.from_numpy(np.array(_on_white(source))).permute(2, 0, 1).float() / 255, _alpha(source)
    square = (place.size, place.size)
    added = []
    for shift, *slopes in maps.unflatten(0, (4, 3)).unbind(1):
        wide = F.interpolate(torch.stack([shift, *slopes])[None], size=square, mode="bilinear", align_corners=False)[0]
        shift, *slopes = _to_size(wide, place, source.size)
        added.append(shift + sum(slope * channel for slope, channel in zip(slopes, own, strict=True)))
    weight = inside * _ramp(torch.stack([a.abs() for a in added]).amax(0), *NOTICEABLE)
    for channel, change in enumerate(added):
        pixels[..., channel] = _added(pixels[..., channel], weight * change, alpha)
    return _like(source, pixels)


def _alpha(source: Image.Image) -> Tensor | float:
    """How far each pixel covers what is behind it (H, W), in [0, 1]; 1 where none lets anything through."""
    if "A" not in source.getbands() or source.getchannel("A").getextrema()[0] == 255:
        return 1.0
    return torch.from_numpy(np.array(source.getchannel("A"))).float() / 255


def _added(channel: np.ndarray, change: Tensor, alpha: Tensor | float) -> np.ndarray:
    """A channel (H, W) of 8 bits with a change, in [0, 1] and as it is seen on white; none where nothing is seen."""
    if isinstance(alpha, Tensor):
        change = torch.where(alpha > 0, change / alpha.clamp(min=1 / 255), 0.0)
    return _bytes(torch.from_numpy(channel.copy()).float() / 255 + change).numpy()


def _like(source: Image.Image, pixels: np.ndarray) -> Image.Image:
    """Pixels (H, W, 3) of 8 bits as a picture with the source's alpha and colour profile."""
    result = Image.fromarray(pixels)
    if "A" in source.getbands():
        result.putalpha(source.getchannel("A"))
    result.info = {key: value for key, value in source.info.items() if key == "icc_profile"}
    return result


def _ramp(x: Tensor, low: float, high: float) -> Tensor:
    """0 up to `low`, 1 from `high`, smooth between."""
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def _feathered(mask: Image.Image | None, size: tuple[int, int]) -> Tensor | float:
    """Weights (H, W) in [0, 1]: 0 wherever the mask is 0, rising to the mask's own value inside the edge of that.

    The band is 1 % of the short side, and narrower where the mask would otherwise have no inside.
    """
    if mask is None:
        return 1.0
    if mask.mode != "L" or mask.size != size:
        raise EditError(f"The mask must be greyscale and {size[0]} x {size[1]} pixels.")
    value, marked = torch.from_numpy(np.array(mask)).float() / 255, _marked(mask)
    radius = min(size) / 100
    while radius >= 0.5:
        blurred = torch.from_numpy(np.array(marked.filter(ImageFilter.GaussianBlur(radius)))).float() / 255
        inner = (2 * blurred - 1).clamp(min=0)
        if inner.amax() > 0.9:
            return value * inner
        radius /= 2
    return value
