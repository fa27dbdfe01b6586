"""What the page does: one small handler for each event, between the components and the engine.

A handler's parameters are names of components whose values it gets (`form` means all of `ui_parts.FIELDS`), besides the
request and the event. It returns or yields changes: names of components with their new values; the others stay.
Every picture goes through the safe loader, every model call through the jobs, every result into the history.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from editor import images, ui_plots, ui_views
from editor.history import Edit, History
from editor.jobs import Job, Jobs
from editor.recipe import Recipe, encode_result, read_recipe
from editor.types import EditError, EditRequest
from editor.ui_parts import (
    Form,
    Keeper,
    ending_line,
    link_to,
    owner_of,
    plan_key,
    read_examples,
    read_mask,
    read_picture,
    read_plan,
    read_settings,
    serve,
    serve_bytes,
    show_plan,
    show_settings,
    status,
    thumbnails,
    waiting_line,
)

EXAMPLES = Path(__file__).resolve().parent.parent / "assets" / "examples"

IDLE: Form = {"run": gr.update(interactive=True, value="Run"), "stop": gr.update(visible=False)}
BUSY: Form = {"run": gr.update(interactive=False, value="Running…"), "stop": gr.update(visible=True)}
NOTHING: Form = {"shown": "", "result": gr.update(visible=False), "live": gr.update(visible=False)}


@dataclass(frozen=True)
class Desk:
    """Everything that the handlers stand on."""

    editor: Any
    """An `editor.engine.Editor`."""
    history: History
    jobs: Jobs
    examples: tuple[tuple[str, str], ...]
    """Paths of pictures with an instruction each."""

    @classmethod
    def open(cls, editor: Any, folder: str | Path, examples: Path = EXAMPLES) -> Desk:
        """A desk with its history in `folder`, and its worker started. Raises EditError if the folder can't be used."""
        history = History.open(folder)
        return cls(editor, history, Jobs(editor, Keeper(history, editor.profile.name)), read_examples(examples))

    def close(self) -> None:
        self.jobs.close()
        self.history.close()

    # ------------------------------------------------------------------------------------------- coming to the page

    def arrive(self, token: str, request: gr.Request) -> Iterator[Form]:
        """Give a new browser its token, list its past edits, and find a run that is under way or a shared result."""
        token = token or secrets.token_urlsafe(16)
        owner = owner_of(token, request)
        efforts = [(self._effort(name), name) for name in self.editor.efforts]
        yield {"token": token, "effort": gr.update(choices=efforts), **self._past(owner)}
        if (job := self.jobs.active(owner)) is not None:
            source, plan = job.request, show_plan(job.request.plan)
            yield {"picture": serve(source.image), "instruction": source.instruction, **plan, **self._watched(job)}
            yield from self._watch(job, request)
        elif shared := request.query_params.get("edit"):
            edit = self.history.get(shared)
            yield {**status(f"“{edit.recipe.instruction}”: a result that was shared."), **self._show(edit, request)}

    def _effort(self, name: str) -> str:
        seconds = self.jobs.expected(self.editor.efforts[name])
        return name.capitalize() + ("" if seconds is None else f" · about {max(1, round(seconds))} s")

    # ------------------------------------------------------------------------------------------------ before the run

    def take(self, picture: str | None) -> Form:
        """Put an uploaded picture on the page as the editor reads it: upright, in RGB, as PNG."""
        try:
            loaded = images.load(picture)
        except EditError as error:
            return {"picture": None, **status(str(error), "bad")}
        said = " ".join(loaded.notices) or "The picture is loaded: say what should be different."
        return {"picture": serve(loaded.image), **show_plan(None), **status(said)}

    def take_example(self, event: gr.SelectData) -> Form:
        """Put an example with its instruction on the page."""
        path, instruction = self.examples[event.index]
        return {**self.take(path), "instruction": instruction, **status("An example is loaded: run it, or change it.")}

    def adopt(self, effort: str) -> Form:
        """Set the controls to an effort's settings."""
        return show_settings(self.editor.efforts[effort])

    def plan(self, picture: str | None, instruction: str) -> Iterator[Form]:
        """Ask the model for a plan and show it."""
        image = read_picture(picture)
        yield status("Planning…", "busy")
        plan = self.jobs.call(lambda: self.editor.plan(image, instruction))
        said = status("This is the plan: change it as you like, then run.")
        yield {**said, **show_plan(plan, plan_key(image, instruction)), "plan_box": gr.update(open=True)}

    # ------------------------------------------------------------------------------------------------------- the run

    def run(self, form: Form, token: str, request: gr.Request) -> Iterator[Form]:
        """Run with the plan on the page, or a new one if it was made for another picture or instruction; and watch."""
        try:
            owner, image, instruction = owner_of(token, request), read_picture(form["picture"]), form["instruction"]
            plan, key, settings, mask = read_plan(form), plan_key(image, instruction), read_settings(form), None
            mask = read_mask(form, image)
            if plan is None or form["planned"] not in ("", key):
                yield {**BUSY, **status("Planning…", "busy")}
                plan = self.jobs.call(lambda: self.editor.plan(image, instruction))
                yield show_plan(plan, key)
            todo = EditRequest(image=image, instruction=instruction, plan=plan, mask=mask, settings=settings)
            job = self.jobs.submit(todo, owner)
            yield {"seed": settings.seed, **self._watched(job)}
            yield from self._watch(job, request)
        except Exception:
            yield IDLE
            raise

    def _watched(self, job: Job) -> Form:
        """The page as it is while a job is waited for."""
        empty = {"curve": "", "candidates": [], "checks": "", "details": "", "shown": ""}
        return {**BUSY, **empty, "job": job.id, "result": gr.update(visible=False), "live": gr.update(visible=True)}

    def _watch(self, job: Job, request: gr.Request) -> Iterator[Form]:
        """What the job does, until it is over; then its result."""
        for seen in self.jobs.follow(job):
            if not seen.over:
                yield self._live(seen)
        if job.state == "failed":
            yield {**IDLE, **NOTHING, **status(job.error, "bad")}
            return
        kept = {**self._show(self.history.get(job.kept), request), **self._past(job.owner)}
        final = {"candidates": thumbnails(job.update.candidates), "roundtrip": job.update.roundtrip}
        yield {**IDLE, **kept, **final, **status(ending_line(job.update), "done")}

    def _live(self, job: Job) -> Form:
        update = job.update
        if update is None or not update.previews:
            return status(waiting_line(self.jobs, job), "busy")
        previews = [(image, f"{score:.2f}") for image, score in zip(update.previews, update.scores, strict=True)]
        said = f"{update.message}: step {update.step} of {update.steps}"
        curve = ui_plots.curve(update.history, update.source_score, update.steps)
        return {**status(said, "busy", update.step / max(1, update.steps)), "candidates": previews, "curve": curve}

    def stop(self, job: str, token: str, request: gr.Request) -> Form:
        """End the run within a step."""
        self.jobs.stop(self.jobs.get(job, owner_of(token, request)))
        return status("Stopping: the best so far is kept…", "busy")

    # ------------------------------------------------------------------------------------------------- after the run

    def pick(self, event: gr.SelectData, job: str, token: str, request: gr.Request) -> Form:
        """Make another candidate the result."""
        owner = owner_of(token, request)
        run = self.jobs.get(job, owner)
        if run.state != "done":
            return {}
        kept = self.history.made(owner, images.fingerprint(run.update.candidates[event.index].image))
        kept = kept or Keeper(self.history, self.editor.profile.name)(run, event.index)
        said = status(f"Candidate {event.index + 1} is the result now.", "done")
        return {**self._show(self.history.get(kept), request), **self._past(owner), **said}

    def recall(self, event: gr.SelectData, listed: Sequence[str], token: str, request: gr.Request) -> Form:
        """Show a past edit."""
        edit = self.history.get(listed[event.index], owner_of(token, request))
        depth = len(self.history.lineage(edit))
        said = f"“{edit.recipe.instruction}”" + (f", edit {depth} of its line" if depth > 1 else "")
        return {**self._show(edit, request), "candidates": [], "job": "", **status(said, "done")}

    def _show(self, edit: Edit, request: gr.Request) -> Form:
        """A kept edit with everything that is known of it."""
        data = self.history.result_path(edit).read_bytes()
        before, after = images.load(self.history.source_path(edit)).image, images.load(data).image
        pair, report = (serve(before), serve_bytes(data, file_name(edit))), edit.report
        return {
            "shown": edit.id,
            "result": gr.update(visible=True),
            "live": gr.update(visible=True),
            "slider": pair,
            "before": pair[0],
            "after": pair[1],
            "difference": serve(images.difference(before, after)),
            "download": pair[1],
            "strip": False,
            "link": link_to(edit, request),
            "checks": ui_views.checks(report["checks"]),
            "curve": ui_plots.curve(report["history"], report["source_score"], 0),
            "details": ui_views.details(report) + ui_plots.ancestry(report["history"], report["parents"]),
            "roundtrip": None,
        }

    def restore(self, shown: str) -> Form:
        """Set picture, instruction, plan and settings to those of the edit that is shown."""
        edit = self.history.get(shown)
        source = images.load(self.history.source_path(edit)).image
        said = status("Everything is as it was for this edit: run it again, or change it first.")
        return {"picture": serve(source), **self._use(edit.recipe, source), **said}

    def further(self, shown: str) -> Form:
        """Make the result the picture to edit next."""
        taken = self.take(str(self.history.result_path(self.history.get(shown))))
        return {**taken, "instruction": "", **status("The result is the picture now: what should be different next?")}

    def use_recipe(self, recipe_file: str | None, picture: str | None) -> Form:
        """Set instruction, plan and settings to those of a recipe that came with a PNG."""
        recipe = read_recipe(recipe_file)
        image = read_picture(picture) if picture else None
        said = ["The recipe is loaded."]
        if image is None or images.fingerprint(image) != recipe.source:
            said.append("It was made for another picture: upload that one to get the same result.")
        if recipe.mask is not None:
            said.append("It was made with a mask: add that one too.")
        if recipe.profile != self.editor.profile.name:
            said.append(f"It was made with the profile {recipe.profile}.")
        return {**self._use(recipe, image), "recipe_file": None, **status(" ".join(said))}

    def _use(self, recipe: Recipe, image: Image.Image | None) -> Form:
        key = plan_key(image, recipe.instruction) if image else ""
        seed = {"seed": recipe.settings.seed, "lock": True, "effort": gr.update(value=None)}
        plan = {**show_plan(recipe.plan, key), "plan_box": gr.update(open=True)}
        return {"instruction": recipe.instruction, **plan, **show_settings(recipe.settings), **seed}

    def download(self, shown: str, strip: bool) -> Form:
        """The result's file, with its recipe or with the AI mark alone."""
        edit = self.history.get(shown)
        data = self.history.result_path(edit).read_bytes()
        data = encode_result(images.load(data).image, None) if strip else data
        return {"download": serve_bytes(data, file_name(edit))}

    def forget(self, shown: str, token: str, request: gr.Request) -> Form:
        """Delete the edit that is shown."""
        owner = owner_of(token, request)
        self.history.delete(owner, shown)
        return {**self._past(owner), **NOTHING, **status("The edit is deleted.")}

    def forget_all(self, token: str, request: gr.Request) -> Form:
        """Delete all edits of this owner."""
        owner = owner_of(token, request)
        count = self.history.clear(owner)
        return {**self._past(owner), **NOTHING, **status(f"All {count} edits are deleted.")}

    def _past(self, owner: str) -> Form:
        edits = self.history.list(owner)
        paths = [serve_bytes(self.history.thumbnail_path(edit).read_bytes(), "edit.png") for edit in edits]
        past = [(path, edit.recipe.instruction) for path, edit in zip(paths, edits, strict=True)]
        return {"listed": [edit.id for edit in edits], "past": past, "past_box": gr.update(visible=bool(edits))}


def file_name(edit: Edit) -> str:
    """Of the download; it doesn't tell the edit's id."""
    return f"tiltedit-{edit.result[:8]}.png"
