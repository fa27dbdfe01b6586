"""What the handlers are made of: showing edits, naming owners, saying how things stand."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import gradio as gr

from editor import images, ui_plots, ui_views
from editor.history import LISTED, Edit, History
from editor.jobs import Job, Jobs
from editor.mark import marked
from editor.progress import UNTOUCHED
from editor.types import Candidate, EditError, EditRequest, EditUpdate, SearchSettings
from editor.ui_files import serve, serve_bytes
from editor.ui_forms import Form, plan_key, show_mask, show_plan, show_settings
from editor.ui_views import Card
from rewards.base import Plan

CARD = 256
"""Longest side in pixels of a candidate's picture on its card."""
DRAFT = "A draft that captions alone made was enough"
OWN_EDGES = "Only colours changed: what keeps your picture's own edges comes before a higher score"
COMPARED = 2048
"""Longest side in pixels of the pictures to compare: before, after, and their difference."""

T = TypeVar("T")


def live_cards(update: EditUpdate) -> str:
    """Where each candidate would land, with its score."""
    cards = [
        Card(images.to_thumbnail(marked(image), CARD), f"{score:.2f}", f"Candidate {k + 1} so far")
        for k, (image, score) in enumerate(zip(update.previews, update.scores, strict=True))
    ]
    return ui_views.candidates(ui_views.cards(cards, "Candidates", best=_best(update.scores)))


def final_cards(candidates: Sequence[Candidate], plan: Plan, chosen: int) -> str:
    """The candidates that a run ended with, to choose from."""
    cards = [
        Card(
            images.to_thumbnail(marked(candidate.preview), CARD),
            f"{candidate.score:.2f}" + " own edges" * candidate.recoloured,
            f"Use candidate {k + 1}",
            tuple((check.question, after >= 0.5) for check, after in zip(plan.checks, candidate.checks, strict=True)),
            OWN_EDGES * candidate.recoloured,
        )
        for k, candidate in enumerate(candidates)
    ]
    return ui_views.candidates(ui_views.cards(cards, "Candidates", best=chosen, choosable=True), choosable=True)


def example_cards(examples: Sequence[tuple[str, str]]) -> str:
    """The examples, to start from."""
    cards = [
        Card(images.to_thumbnail(images.load(path).image, CARD), instruction, f"Example: {instruction}")
        for path, instruction in examples
    ]
    return ui_views.cards(cards, "Examples", choosable=True)


def _best(scores: Sequence[float]) -> int | None:
    return max(range(len(scores)), key=scores.__getitem__, default=None)


def past_cards(history: History, owner: str, shown: str = "", reach: int = LISTED) -> Form:
    """An owner's latest edits to come back to, but for those of another version and those whose files are missing.

    Of so many as `reach`; whether there are older ones decides whether they can be asked for.
    """
    kept, listed, cards = history.list(owner, reach + 1), [], []
    for edit in kept[:reach]:
        picture = history.thumbnail(edit) if edit.readable else None
        if picture is not None:
            listed.append(edit.id)
            cards.append(_past_card(edit, picture))
    best = listed.index(shown) if shown in listed else None
    past = ui_views.cards(cards, "Your edits, newest first", best=best, choosable=True)
    more = gr.update(visible=len(kept) > reach)
    return {"listed": listed, "past": past, "past_box": gr.update(visible=bool(kept)), "reach": reach, "older": more}


def _past_card(edit: Edit, picture: bytes) -> Card:
    said, when = edit.recipe.instruction, time.strftime("%Y-%m-%d %H:%M", time.localtime(edit.created))
    return Card(picture, ("↳ " if edit.parent else "") + said, f"Show: {said}", hint=f"{said} · {when}")


def chosen(event: gr.EventData, items: Sequence[T]) -> T:
    """The item that was clicked. Raises EditError for an index that is none of them."""
    index = event.index
    if type(index) is not int or not 0 <= index < len(items):
        raise EditError("This is no longer there: reload the page.")
    return items[index]


def file_name(edit: Edit) -> str:
    """Of the download; it doesn't tell the edit's id."""
    return f"tiltedit-{edit.result[:8]}.png"


def owner_of(token: str, request: gr.Request, anybody: str = "") -> str:
    """Whose pictures these are: the user who logged in, or else `anybody`, or the browser by its secret token."""
    if request.username:
        return f"user:{request.username}"
    if anybody:
        return anybody
    if not token:
        raise EditError("The page is still loading: try again in a moment.")
    return f"browser:{token}"


def link_to(edit: Edit, request: gr.Request) -> str:
    """The address of a kept edit, on the host by which its reader came here."""
    here = urlsplit(request.headers.get("referer") or str(request.base_url))
    return urlunsplit((here.scheme, here.netloc, here.path, f"edit={edit.id}", ""))


def read_examples(folder: Path) -> tuple[tuple[str, str], ...]:
    """Paths of the pictures with an instruction each, as examples.json lists them; none if there is no such file."""
    index = folder / "examples.json"
    if not index.is_file():
        return ()
    listed = json.loads(index.read_text(encoding="utf-8"))
    return tuple((str(folder / entry["image"]), entry["instruction"]) for entry in listed)


# ---------------------------------------------------------------------------------------------------------- sentences


def waiting_line(jobs: Jobs, job: Job) -> str:
    """Where the job stands before there is something to see."""
    place, seconds = jobs.place(job), jobs.wait(job)
    if place:
        soon = "" if seconds is None else f", about {seconds:.0f} s"
        return f"Waiting: {place} run{'s' if place > 1 else ''} before yours{soon}."
    return running_line(job.update) if job.update else "Starting…"


def progress_line(jobs: Jobs, job: Job) -> Form:
    """How a run that is not over stands."""
    update = job.update
    seen = update is not None and update.previews
    if job.stop.is_set():
        return status("Stopping: the best so far is kept…" if seen else "Stopping…", "busy")
    if not seen:
        return status(waiting_line(jobs, job), "busy")
    share = 0.0 if update.drafted else update.step / max(1, update.steps)  # how many drafts there will be nobody knows
    return status(running_line(update), "busy", share)


def running_line(update: EditUpdate) -> str:
    """How far the run has come, and how long that took."""
    return f"{update.message} · {update.cost.seconds:.0f} s"


def ending_line(update: EditUpdate) -> str:
    """How the run ended."""
    if update.untouched:
        return UNTOUCHED
    held = sum(result.after >= 0.5 for result in update.checks)
    said = f"{held} of {len(update.checks)} checks hold (model opinion)."
    if update.broken:
        return f"{update.broken} This is the best until then. {said}"
    if update.stopped:
        return f"Stopped after step {update.step} of {update.steps}; this is the best so far. {said}"
    recoloured = update.candidates[0].recoloured
    if update.drafted:
        draft = "Drafts that captions alone made told the colours" if recoloured else DRAFT
        said += f" {draft}: nothing was searched for."
    if recoloured:
        said += " Only colours changed: every edge is your picture's own."
    return f"Done in {update.cost.seconds:.1f} s. {said}"


def status(text: str, kind: str = "idle", share: float | None = None) -> Form:
    return {"status": ui_views.status(text, kind, share)}


# ------------------------------------------------------------------------------------------------------------- states


def joined(*changes: Form) -> Form:
    """Several changes as one; later ones prevail, and updates of the same component come together."""
    whole: Form = {}
    for change in changes:
        for name, value in change.items():
            updates = [v for v in (whole.get(name), value) if isinstance(v, dict) and v.get("__type__") == "update"]
            whole[name] = {**updates[0], **updates[1]} if len(updates) == 2 else copy(value)
    return whole


def repeated(first: Form, messages: Iterator[Form], seconds: float = 1.0) -> Iterator[Form]:
    """Messages with what belongs to the first one said again in all of the first seconds.

    What the next message leaves out, Gradio's client may take back before it is on the page.
    """
    began = time.monotonic()
    for message in messages:
        yield joined(first, message) if time.monotonic() - began < seconds else message


def idle() -> Form:
    """The buttons when no run is watched. Made anew each time, because Gradio empties the updates that it is given."""
    return {
        "run": gr.update(interactive=True, value="Run"),
        "stop": gr.update(visible=False),
        "make_plan": gr.update(visible=True),
    }


def busy(job: Job) -> Form:
    """The buttons while a run is watched, or planned for: it is stopped once."""
    return {
        "run": gr.update(interactive=False, value="Running…"),
        "stop": gr.update(visible=True, interactive=not job.stop.is_set()),
        "make_plan": gr.update(visible=False),
        "job": job.id,
    }


def show_request(request: EditRequest, efforts: Mapping[str, SearchSettings]) -> Form:
    """The fields as they were when this was asked for."""
    settings, free = request.settings, {"seed": 0, "strength": 1.0, "times": None}
    same = (name for name, effort in efforts.items() if effort.but(**free) == settings.but(**free))
    return {
        "picture": serve(request.image),
        "instruction": request.instruction,
        **show_mask(serve(request.mask) if request.mask else None),
        **show_plan(request.plan, plan_key(request.image, request.instruction)),
        **show_settings(settings),
        "seed": settings.seed,
        "effort": gr.update(value=next(same, None)),
    }


def show_edit(history: History, edit: Edit, request: gr.Request) -> Form:
    """A kept edit with everything that is known of it. Raises EditError where its files are missing."""
    source, data = history.read(history.source_path(edit)), history.read(history.result_path(edit))
    file, report = serve_bytes(data, file_name(edit)), edit.report
    before, after = (images.load(part).image for part in (source, data))
    large = max(before.size) > COMPARED
    before, after = images.at_most(before, COMPARED), marked(images.at_most(after, COMPARED))
    pair = (serve(before), serve(after)) if large else (serve_bytes(source, "picture.png"), file)
    return {
        "shown": edit.id,
        "welcome": gr.update(visible=False),
        "refused": gr.update(visible=False),
        "result": gr.update(visible=True),
        "live": gr.update(visible=True),
        "more": gr.update(visible=True),
        "forget": gr.update(visible=True),
        "slider": pair,
        "before": pair[0],
        "after": pair[1],
        "difference": serve(marked(images.difference(before, after))),
        "download": file,
        "strip": False,
        "link": link_to(edit, request),
        "checks": ui_views.checks(report["checks"], report.get("warning", ""), report.get("kept", ())),
        "curve": ui_plots.curve(report["history"], report["source_score"], 0),
        "details": ui_views.details(report) + _ancestry(report),
        "roundtrip": gr.update(visible=False),
        "spotlight": gr.update(visible=False),
    }


def _ancestry(report: dict[str, Any]) -> str:
    """Empty for an edit that was kept before reports told which candidate it is."""
    place = report.get("place")
    return ui_plots.ancestry(report["history"], report["parents"], place) if place else ""


def nothing() -> Form:
    """No result is shown."""
    return {"shown": ""} | {name: gr.update(visible=False) for name in ("result", "live", "more")}
