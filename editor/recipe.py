"""The recipe of an edit: everything that decided it, carried by its PNG beside a mark that it is AI-edited.

A PNG comes from anywhere, so a recipe that is read is untrusted: its size, schema and ranges are checked.
"""

from __future__ import annotations

import base64
import io
import json
import os
import secrets
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from PIL import Image

from editor import images
from editor.mark import AI_NOTE, XMP, exif, png_text
from editor.profiles import own_weights
from editor.types import MAX_INSTRUCTION, EditError, EditRequest, EditUpdate, SearchSettings
from rewards.base import Plan, is_text

FORMAT = 1
KEY = "tiltedit"
"""The keyword of the PNG text that holds the recipe as JSON."""
MAX_MASK = 192 * 2**10
"""Bytes of the mask's PNG that a recipe carries; a painted mask of 12 megapixels takes some tens of thousands."""
MAX_RECIPE = 64 * 2**10 + MAX_MASK * 4 // 3
"""Characters of the JSON, with the mask in base64."""
LIMITS = {
    "particles": 256, "steps": 512, "lookahead_steps": 16, "corrections": 16, "selections": 256, "draws": 256,
    "searches": 64, "least": 64, "draft_jumps": 64, "drafts": 256, "ascents": 64,
}  # fmt: skip
"""The largest settings that a recipe may ask for, and so a run."""
MAX_STEPS = 2**20
"""No run has more steps, whatever its settings within these limits."""
MAX_CANDIDATES = 4 * LIMITS["drafts"] + 3
"""No run ends with more: two batches of drafts, each drawn again, and the best before, less its needless changes."""
MAX_TIMES = 256
"""The most time steps that a recipe may list."""
MAX_NAME = 300
"""Characters of a profile's name, which may hold that of a folder."""
MAX_HELD = 200
"""Characters of how the models were held."""
PACKAGES = ("torch", "diffusers", "transformers", "pillow", "numpy", "scipy", "scikit-image")
WEIGHTS = "weights"
"""Beside the packages, what names the weights that come with the repository."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What to run again for the same bytes on the same machine, given the same source."""

    profile: str
    instruction: str
    plan: Plan
    settings: SearchSettings
    source: str
    """`images.fingerprint` of the source."""
    mask: str | None = None
    """`images.fingerprint` of the mask."""
    mask_png: str | None = None
    """The mask as a PNG of one channel, in base64; None without a mask or for one above MAX_MASK."""
    result: str
    """`images.fingerprint` of the result."""
    candidate: int = 0
    """Which of the final candidates the result is, best first."""
    stopped: int | None = None
    """The step after which a person stopped the run; None if it ran to its end."""
    versions: dict[str, str]
    """Of the packages and of the repository's own weights that computed it; see `computed_by`."""
    held: str = ""
    """How the models were held, as `EditUpdate` has it; empty where an earlier version wrote the recipe."""

    @classmethod
    def of(cls, request: EditRequest, update: EditUpdate, profile: str, candidate: int = 0) -> Recipe:
        """The recipe of a run that is done, for its best candidate or another one."""
        result = update.candidates[candidate].image if candidate else update.best
        if result is None:
            raise ValueError("A recipe is written of a run that is done.")
        return cls(
            profile=profile,
            instruction=request.instruction,
            plan=update.plan,
            settings=request.settings,
            source=images.fingerprint(request.image),
            mask=images.fingerprint(request.mask) if request.mask else None,
            mask_png=_packed(request.mask) if request.mask else None,
            result=images.fingerprint(result),
            candidate=candidate,
            stopped=update.step if update.stopped else None,
            versions=computed_by(profile),
            held=update.held,
        )

    def load_mask(self, size: tuple[int, int]) -> Image.Image | None:
        """The mask that the recipe carries, for a source of that (width, height); None if it carries none.

        Raises EditError if it isn't a mask of that shape. Whether it is the mask of the run, its fingerprint tells.
        """
        return None if self.mask_png is None else images.load_mask(base64.b64decode(self.mask_png), size)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data, in the layout that `from_json` reads."""
        return {"format": FORMAT} | asdict(self) | {"plan": self.plan.to_json()}

    @classmethod
    def from_json(cls, data: Any) -> Recipe:
        """A recipe from untrusted data. Raises EditError with a sentence."""
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise EditError("The recipe is of another version: use the version of Tiltedit that made it.")
        try:
            return cls(
                profile=_text(data, "profile", MAX_NAME),
                instruction=_text(data, "instruction", MAX_INSTRUCTION, least=0),
                plan=Plan.from_json(data.get("plan")),
                settings=parse_settings(data.get("settings")),
                source=_digest(data.get("source")),
                mask=None if data.get("mask") is None else _digest(data["mask"]),
                mask_png=None if data.get("mask_png") is None else _base64(data["mask_png"]),
                result=_digest(data.get("result")),
                candidate=_whole(data.get("candidate", 0), MAX_CANDIDATES),
                stopped=None if data.get("stopped") is None else _whole(data["stopped"], MAX_STEPS),
                versions=_versions(data.get("versions")),
                held=_text(data, "held", MAX_HELD, least=0) if "held" in data else "",
            )
        except ValueError as error:
            raise EditError(f"The recipe can't be used: {error}") from error


def computed_by(profile: str) -> dict[str, str]:
    """What computes the edits of a profile: packages with their versions, and its weights if they come along."""
    weights = own_weights(profile)
    return {name: version(name) for name in PACKAGES} | ({} if weights is None else {WEIGHTS: weights})


def _text(data: dict[str, Any], name: str, longest: int, least: int = 1) -> str:
    value = data.get(name)
    if not isinstance(value, str) or not least <= len(value) <= longest or not is_text(value):
        raise ValueError(f"its {name} must be a text of {least} to {longest} characters.")
    return value


def _digest(value: Any) -> str:
    if not isinstance(value, str) or len(value) != 64 or set(value) - set("0123456789abcdef"):
        raise ValueError("a picture is named in it by something other than its SHA-256.")
    return value


def _packed(mask: Image.Image) -> str | None:
    """A mask as a small PNG in base64: one bit a pixel where it is only black and white; None above MAX_MASK bytes."""
    hard = mask.convert("1", dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    smallest = hard if hard.convert("L").tobytes() == mask.tobytes() else mask
    smallest.save(buffer, "PNG", compress_level=9, icc_profile=None)
    return base64.b64encode(buffer.getvalue()).decode("ascii") if buffer.tell() <= MAX_MASK else None


def _base64(value: Any) -> str:
    try:
        size = len(base64.b64decode(value, validate=True)) if isinstance(value, str) else None
    except ValueError:
        size = None
    if size is None or not 0 < size <= MAX_MASK:
        raise ValueError(f"its mask must be a PNG of at most {MAX_MASK // 2**10} kB in base64.")
    return value


def _whole(value: Any, highest: int) -> int:
    if type(value) is not int or not 0 <= value <= highest:
        raise ValueError(f"{value!r} should be a whole number from 0 to {highest}.")
    return value


def _versions(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or len(value) > 32 or any(not isinstance(v, str) for v in value.values()):
        raise ValueError("its versions must be a few names with their version.")
    return {str(name)[:64]: number[:64] for name, number in value.items()}


def parse_settings(data: Any) -> SearchSettings:
    """Settings of untrusted JSON data: known names, the right types, in range. Raises ValueError."""
    if not isinstance(data, dict):
        raise ValueError("its settings are missing.")
    hints = get_type_hints(SearchSettings)
    for name, value in data.items():
        if name not in hints:
            raise ValueError(f"it has an unknown setting {str(name)[:40]!r}.")
        if not _is_a(value, hints[name]):
            raise ValueError(f"its setting {name} has the wrong type.")
        if name in LIMITS and value > LIMITS[name]:
            raise ValueError(f"its setting {name} is {value}, and at most {LIMITS[name]} is allowed.")
    return SearchSettings(**{name: _frozen(value) for name, value in data.items()})


def _is_a(value: Any, hint: Any) -> bool:
    """Whether JSON data is of a setting's type: bool, int, float, str, tuple[float, ...] or one of those or None."""
    if get_origin(hint) is tuple:
        return isinstance(value, list | tuple) and len(value) <= MAX_TIMES and all(_is_a(v, float) for v in value)
    if get_args(hint):
        return any(_is_a(value, part) for part in get_args(hint))
    if hint is float:
        return type(value) in (int, float)
    return type(value) is hint


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


# ---------------------------------------------------------------------------------------------------------------- PNG


def encode_result(image: Image.Image, recipe: Recipe | None) -> bytes:
    """A PNG marked as AI-edited in PNG text, EXIF and XMP (IPTC); None leaves the recipe out and keeps the mark."""
    text = png_text()
    if recipe is not None:
        text.add_text(KEY, json.dumps(recipe.to_json(), sort_keys=True))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=text, exif=exif(), compress_level=6)
    return buffer.getvalue()


def encode_sheet(image: Image.Image) -> bytes:
    """A JPEG of an RGB overview of results, marked as AI-edited like them."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90, exif=exif(), xmp=XMP.encode())
    return buffer.getvalue()


def save_result(path: str | Path, image: Image.Image, recipe: Recipe | None) -> None:
    """Write `encode_result` to a file, whole or not at all. Raises EditError if it can't be written."""
    write(Path(path), encode_result(image, recipe))


def write(path: Path, data: bytes) -> None:
    """Put bytes into a file at once: a reader sees the old file or the new one, never a half."""
    partial = path.with_name(f".tiltedit-{secrets.token_hex(8)}")  # short, however long the file's own name is
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    except OSError as error:
        raise EditError(f"The file {path.name!r} can't be written: check the folder and the free space.") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def read_recipe(source: images.Source) -> Recipe:
    """The recipe that a PNG carries; nothing of its pixels is decoded. Raises EditError with a sentence."""
    data = images.read(source)
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as opened:
            text, marked = opened.info.get(KEY), opened.info.get("Comment") == AI_NOTE
    except Exception as error:  # a decoder may fail in any way on a hostile header
        raise EditError("Recipes are read from PNG files that Tiltedit saved, and this is none.") from error
    if text is None and marked:
        raise EditError("This PNG carries no recipe, only the AI mark: use one that was saved with its recipe.")
    if not isinstance(text, str):
        raise EditError("This PNG carries no recipe: choose one that Tiltedit saved with its recipe.")
    if len(text) > MAX_RECIPE:
        raise EditError(f"The recipe is too long: at most {MAX_RECIPE} characters are read.")
    try:
        return Recipe.from_json(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise EditError("The recipe in this PNG is damaged: choose another file.") from error
