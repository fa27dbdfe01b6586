"""Run the recipe of a result again: with the same source it gives the same bytes on the same machine."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from threading import Event
from typing import NamedTuple

from PIL import Image

from editor import images
from editor.engine import Editor
from editor.profiles import Profile
from editor.recipe import Recipe, computed_by, encode_result
from editor.types import EditError, EditRequest, EditUpdate


class Again(NamedTuple):
    """What running a recipe again led to."""

    png: bytes
    """The result with its own recipe, as a file."""
    recipe: Recipe
    same: bool
    """Whether every pixel is the one that the first run made."""


def check_profile(recipe: Recipe, profile: Profile) -> None:
    """Raises EditError unless it is the recipe's profile."""
    if profile.name != recipe.profile:
        raise EditError(
            f"This result was made with the profile {recipe.profile} and not with {profile.name}: "
            "leave out --profile and --vlm, or edit the source anew."
        )


def request_of(recipe: Recipe, source: Image.Image, mask: Image.Image | None = None) -> EditRequest:
    """The request of the recipe's run for its source, as loaded; `mask` is needed only where the recipe lacks it.

    Raises EditError if source or mask are not those of the recipe.
    """
    if images.fingerprint(source) != recipe.source:
        raise EditError(
            "The source is another picture than the one that this result was made from: give that one, "
            "at its full size and not saved anew with a loss."
        )
    return EditRequest(
        image=source,
        instruction=recipe.instruction,
        plan=recipe.plan,
        mask=_mask(recipe, source.size, mask),
        settings=recipe.settings,
    )


def _mask(recipe: Recipe, size: tuple[int, int], given: Image.Image | None) -> Image.Image | None:
    if recipe.mask is None:
        if given is not None:
            raise EditError("This result was made without a mask: leave out --mask.")
        return None
    mask = given or recipe.load_mask(size)
    if mask is None:
        raise EditError("The mask of this result was too large for its recipe: give it with --mask.")
    if images.fingerprint(mask) != recipe.mask:
        raise EditError("The mask is another one than this result was made with: give that one with --mask.")
    return mask


def differences(recipe: Recipe, held: str) -> list[str]:
    """A sentence for all that computed the result and is another now: packages, weights, how the models are held."""
    installed = {name: _installed(name) for name in recipe.versions} | computed_by(recipe.profile)
    said = [
        f"The result was made with {name} {then} and here is {installed[name]}: the pixels may differ."
        for name, then in recipe.versions.items()
        if installed[name] != then
    ]
    if not recipe.held:
        said.append("The result was made by an earlier version of Tiltedit: the pixels may differ.")
    elif recipe.held != held:
        said.append(f"The result was made in {recipe.held}, and here it is {held}: the pixels may differ.")
    return said


def _installed(name: str) -> str:
    try:
        return version(name)
    except (PackageNotFoundError, ValueError):  # the name comes from the recipe and may be anything
        return "none"


def rerun(editor: Editor, request: EditRequest, stopped: int | None) -> Iterator[EditUpdate]:
    """The updates of the run; it is stopped after the step at which a person stopped the first one."""
    stop = Event()
    for update in editor.edit(request, stop):
        if update.stage == "search" and update.step == stopped:
            stop.set()
        yield update


def outcome(recipe: Recipe, request: EditRequest, last: EditUpdate, profile: str) -> Again:
    """The picture that the recipe names among those of the finished run. Raises EditError if there is none such."""
    if recipe.candidate >= len(last.candidates):
        raise EditError(
            f"The recipe names candidate {recipe.candidate + 1} and the run has {len(last.candidates)}: it is damaged."
        )
    picture = last.candidates[recipe.candidate].image if recipe.candidate else last.best
    again = Recipe.of(request, last, profile, recipe.candidate)
    return Again(encode_result(picture, again), again, again.result == recipe.result)
