"""Between the page's fields and the engine's types, both ways; a form is never trusted."""

from __future__ import annotations

import json
import secrets
from abc import ABCMeta
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import gradio as gr
from PIL import Image

from editor import images
from editor.baselines import METHODS
from editor.engine import SAMPLING
from editor.history import LISTED
from editor.profiles import Profile
from editor.recipe import Recipe, parse_settings
from editor.types import EditError, SearchSettings
from editor.ui_files import is_ours, used
from rewards.base import YES, Check, Plan

Form = dict[str, Any]
"""Values of the page's fields by the names of their components."""

UNASKED = (
    "The plan has a caption or things to keep and no check: write a question with its answer, or press “Make a plan” "
    "for a new one."
)
CONTROLS = (
    "strength", "method", "lookahead", "particles", "steps", "lookahead_steps", "corrections", "draws", "searches",
    "renoise", "noise", "guidance", "guided", "preserve", "outlines", "drift", "focus", "jitters", "undo",
)  # fmt: skip
"""The settings that have a control of their own on the page."""
RANGES = {
    "strength": (0.05, 1), "particles": (1, 64), "steps": (1, 100), "lookahead_steps": (1, 8), "corrections": (0, 16),
    "draws": (1, 64), "searches": (1, 12), "renoise": (0, 1), "noise": (0, 3), "guidance": (0, 20), "guided": (0, 1),
    "preserve": (0, 50), "outlines": (0, 50), "drift": (0, 50), "focus": (0, 1), "jitters": (0, 16), "undo": (0, 0.5),
}  # fmt: skip
"""The least and the most that a control can be set to."""
PLAN = ("table", "caption", "keep", "source_caption", "planned", "plan_shown")
MASK = ("paint", "mask", "mask_means", "feather")
FIELDS = ("picture", "instruction", *PLAN, *MASK, "base", "seed", "lock", *CONTROLS)
"""What a run needs of the page."""
LEFT = ("picture", "instruction", *PLAN)
"""What a person puts on the page before a run, but for settings and a mask."""
GROUPS = {"form": FIELDS, "plan": PLAN, "left": LEFT}
"""What a handler's parameter of that name stands for."""
FIRST_EFFORT = "balanced"
"""What the page and the programming interface take when nobody chooses."""
ANY = "*"
"""In the place of a picture for which a plan was made; see `plan_key`."""
PROTECT = "Protect this"
EDIT_ONLY = "Edit only this"


def methods(profile: Profile) -> list[str]:
    """The methods that a profile can run: those that sample exactly need a flow map of two times."""
    return [name for name in METHODS if name != SAMPLING or profile.two_time]


def possible(recipe: Recipe, profile: Profile, said: list[str]) -> Recipe:
    """The recipe with settings that the profile can run and the controls can show; `said` grows where these differ."""
    settings, changes = recipe.settings, {}
    if settings.method not in methods(profile):
        said.append(f"This profile cannot run its method {settings.method}: fmtt is set instead.")
        changes["method"] = "fmtt"
    for name, (low, high) in RANGES.items():
        value = getattr(settings, name)
        if not low <= value <= high:
            changes[name] = min(max(value, low), high)
            said.append(f"Its {name} of {value:g} is beyond the page's control: {changes[name]:g} is set instead.")
    keep = min(settings.keep, changes.get("particles", settings.particles))
    return replace(recipe, settings=settings.but(**changes, keep=keep))


def read_picture(path: str | None) -> Image.Image:
    if path is None:
        raise EditError("There is no picture yet: upload one or choose an example.")
    return images.load(used(path)).image


def _reading(kind: type, preprocess: Callable[[Any, Any], Any]) -> type:
    """A kind of component that reads what the page sends by `preprocess(component, payload)`.

    It is a class because Gradio makes components anew of their class whenever they are updated, and isn't made by a
    class statement because Gradio would then write a file beside this one.
    """
    own = {"preprocess": preprocess, "is_template": True, "__module__": __name__}
    return ABCMeta.__new__(type(kind), kind.__name__, (kind,), own)


def _path(_: gr.Image, payload: Any) -> str | None:
    return payload.path if payload else None


def _layers(paint: gr.ImageEditor, payload: Any) -> dict[str, list[Any]]:
    sent = paint.blob_storage.pop(payload.id, None) if payload and payload.id else payload
    layers = (sent.layers if sent else None) or []
    return {"layers": [layer if isinstance(layer, bytes) else layer.path for layer in layers if layer]}


def _words(_: gr.Textbox, payload: Any) -> str:
    return payload if isinstance(payload, str) else ""


def _ids(_: gr.JSON, payload: Any) -> list[str]:
    return [item for item in payload if isinstance(item, str)] if isinstance(payload, list) else []


def _reach(_: gr.Number, payload: Any) -> int:
    return payload if type(payload) is int and payload > LISTED else LISTED


Picture = _reading(gr.Image, _path)
"""Hands on an upload's path as it came, so that nothing but the safe loader opens it."""
Paint = _reading(gr.ImageEditor, _layers)
"""Hands on the painted layers as they came: bytes or paths."""
Words = _reading(gr.Textbox, _words)
"""Hands on a text, empty where something else was sent."""
Ids = _reading(gr.JSON, _ids)
"""Hands on the texts of a list."""
Reach = _reading(gr.Number, _reach)
"""Hands on how many past edits are listed, as many as at first where something else was sent."""


def read_plan(form: Form) -> Plan | None:
    """The plan as it stands on the page; None if nothing does. Raises EditError for what is no plan."""
    rows = _rows(form["table"])
    if not _wording(form):
        return None
    if not rows:
        raise EditError(UNASKED)
    try:
        checks = tuple(Check.of(question, expected or YES, _weight(weight)) for question, expected, weight in rows)
        return Plan(checks, form["caption"].strip(), _lines(form["keep"]), form["source_caption"])
    except ValueError as error:
        raise EditError(f"The plan can't be used: {error}") from error


def same_plan(form: Form, plan: Plan) -> bool:
    """Whether it is this plan that stands on the page."""
    try:
        return read_plan(form) == plan
    except EditError:
        return False


def _rows(table: Sequence[Sequence[Any]]) -> list[list[str]]:
    """Question, expected answer and weight of each row that has a question."""
    rows = [[str(cell or "").strip() for cell in (*row, "", "")[:3]] for row in table]
    return [row for row in rows if row[0]]


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def _wording(plan: Form) -> str:
    """What stands in a plan's fields, as one text, empty for nothing; a weight is the same with a point and without."""
    rows = [[question, expected, weight.removesuffix(".0")] for question, expected, weight in _rows(plan["table"])]
    written = [rows, plan["caption"].strip(), _lines(plan["keep"])]
    return json.dumps(written) if any(written) else ""


def changed(plan: Form) -> bool:
    """Whether a person wrote a plan of their own or changed the one that the page showed.

    What stands there tells it: Gradio's textboxes say that they were written in only where a key makes a letter.
    """
    wording = _wording(plan)
    return bool(wording) and wording != plan["plan_shown"]


def _weight(text: str) -> float:
    try:
        return float(text or 1)
    except ValueError as error:
        raise EditError(f"The plan can't be used: a weight must be a number, not {text[:40]!r}.") from error


def plan_key(image: Image.Image | None, instruction: str) -> str:
    """Names what a plan was made for: a picture, or any, and an instruction."""
    return f"{images.fingerprint(image) if image else ANY} {instruction}"


def fits(form: Form, image: Image.Image, instruction: str) -> bool:
    """Whether the plan on the page was made for this picture and instruction, or written for any."""
    return form["planned"] in ("", plan_key(image, instruction), plan_key(None, instruction))


def read_left(noted: Any, owner: str) -> Form:
    """What an owner's browser noted of `LEFT`; empty where it is nothing, another's or a page's of another version.

    So it is where the picture is gone: without it the rest is about nothing.
    """
    if not isinstance(noted, dict) or noted.get("owner") != owner or not noted.keys() >= set(LEFT):
        return {}
    left = {name: noted[name] for name in LEFT}
    picture, table = left["picture"], left["table"]
    texts = (left[name] for name in LEFT if name not in ("picture", "table"))
    if not all(isinstance(text, str) for text in texts) or not isinstance(table, list):
        return {}
    if not all(isinstance(row, list) for row in table) or not (picture or left["instruction"] or changed(left)):
        return {}
    if picture is None:
        return left
    return left | {"picture": used(picture)} if isinstance(picture, str) and is_ours(picture) else {}


def read_mask(form: Form, image: Image.Image) -> Image.Image | None:
    """The mask of the form, white where the edit may act: the painted one, or else the uploaded one, softened."""
    layers = form["paint"]["layers"] if form["paint"] else []
    mask = images.painted_mask(layers, image.size)
    if mask is None and form["mask"] is not None:
        mask = images.load_mask(used(form["mask"]), image.size)
    if mask is None:
        return None
    mask = images.inverted(mask) if form["mask_means"] == PROTECT else mask
    return images.feathered(mask, form["feather"] / 100)


def read_settings(form: Form) -> SearchSettings:
    """The base settings with what the controls say; the seed is new unless it is locked. Raises EditError."""
    base = _read_base(form["base"])
    seed = int(form["seed"] or 0) if form["lock"] else secrets.randbelow(2**32)
    controls = {name: form[name] for name in CONTROLS}
    if (controls["steps"], controls["strength"]) != (base.steps, base.strength):
        controls["times"] = None  # they belonged to the other number of steps and the other start
    try:
        return base.but(seed=seed, keep=min(base.keep, controls["particles"]), **controls)
    except ValueError as error:
        raise EditError(f"The settings can't be used: {error}") from error


def _read_base(sent: Any) -> SearchSettings:
    """The settings that the controls change. Raises EditError for what is none."""
    try:
        return parse_settings(sent)
    except ValueError as error:
        raise EditError("The page's settings can't be read: choose an effort, or reload the page.") from error


def show_settings(settings: SearchSettings) -> Form:
    """The controls at these settings."""
    return {"base": asdict(settings), **{name: getattr(settings, name) for name in CONTROLS}}


def show_plan(plan: Plan | None, planned: str = "") -> Form:
    """The plan's fields, in sight; `planned` is the `plan_key` of what it was made for, empty where a person did."""
    if plan is None:
        empty = {"table": [["", "yes", 1.0]], "caption": "", "keep": "", "source_caption": "", "planned": ""}
        return {**empty, "plan_shown": ""}
    rows = [[check.question, check.expected, check.weight] for check in plan.checks]
    written = {"table": rows, "caption": plan.caption, "keep": "\n".join(plan.keep)}
    about = {"source_caption": plan.source, "planned": planned, "plan_shown": _wording(written)}
    return {**written, **about, "plan_box": gr.update(open=True)}


def show_mask(path: str | None) -> Form:
    """The mask's fields at a mask that is white where the edit may act; None is no mask. The brush is put away."""
    return {"mask": path, "paint": gr.update(value=None, visible=False), "mask_means": EDIT_ONLY, "feather": 0}


def show_recipe(recipe: Recipe, image: Image.Image | None) -> Form:
    """Instruction, plan and settings of a recipe, for this picture or for any, with its seed locked."""
    return {
        "instruction": recipe.instruction,
        **show_plan(recipe.plan, plan_key(image, recipe.instruction)),
        **show_settings(recipe.settings),
        "seed": recipe.settings.seed,
        "lock": True,
        "effort": gr.update(value=None),
    }
