"""What the page does: one small handler for each event, between the components and the engine.

A handler's parameters are names of components whose values it gets, or of groups of them (`ui_forms.GROUPS`), besides
the request and the event. It returns or yields changes: names of components with their new values; the others stay.
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

from editor import images, ui_plots
from editor.faults import unexpected
from editor.history import LISTED, Edit, History
from editor.jobs import Job, Jobs
from editor.mark import marked
from editor.recipe import Recipe, encode_result, read_recipe
from editor.types import EditError, EditRequest
from editor.ui_files import serve, serve_bytes, sweep
from editor.ui_forms import (
    ANY,
    PLAN,
    Form,
    changed,
    fits,
    plan_key,
    possible,
    read_left,
    read_mask,
    read_picture,
    read_plan,
    read_settings,
    same_plan,
    show_mask,
    show_plan,
    show_recipe,
    show_settings,
)
from editor.ui_keep import Keeper, learn
from editor.ui_parts import (
    busy,
    chosen,
    ending_line,
    file_name,
    final_cards,
    idle,
    joined,
    live_cards,
    nothing,
    owner_of,
    past_cards,
    progress_line,
    read_examples,
    repeated,
    show_edit,
    show_request,
    status,
)

REFUSED = "The picture, and what the model makes of it without any edit"
CHANGED = (
    "You changed this plan for another picture or sentence: press Run again to use it as it stands, or “Make a plan” "
    "for a new one."
)
AS_LEFT = "Your picture, sentence and plan are as you left them."
PLANNING, FIRST = "Planning…", "Planning… The first plan waits for the models to be loaded."
EXAMPLES = Path(__file__).resolve().parent.parent / "assets" / "examples"


def _tells(job: Job, listed: Sequence[str]) -> bool:
    """Whether a job that is over has something to show: why it failed, or an edit that is still listed."""
    return job.state == "failed" or not set(job.choices).isdisjoint(listed)


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
        jobs = Jobs(editor, Keeper(history, editor.profile.name))
        learn(jobs, history, editor.profile.name)
        return cls(editor, history, jobs, read_examples(examples))

    def close(self) -> None:
        self.jobs.close()
        self.history.close()

    # ------------------------------------------------------------------------------------------- coming to the page

    def arrive(self, token: str, request: gr.Request, noted: Form | None = None) -> Iterator[Form]:
        """Give a new browser its token and list its past edits; find its run or how that ended, or a shared edit.

        The left of the page is as it was left, which the browser `noted`.
        """
        token = token or secrets.token_urlsafe(16)
        owner, here = owner_of(token, request), {"token": token, **self._efforts(), **idle()}
        sweep(self.history.shown)
        try:
            past, shared = past_cards(self.history, owner), request.query_params.get("edit")
            here, job, left = {**here, **past}, self.jobs.latest(owner), read_left(noted, owner)
            if job is not None and (not job.over or (not shared and _tells(job, past["listed"]))):
                asked = show_request(job.request, self.editor.efforts)
                first = joined(here, asked, self._left(left, job.request), {"job": job.id})
                yield from self._followed(job, first, request)
            elif shared:
                yield {**here, **self._shared(shared, owner, request)}
            else:
                yield joined(here, self._left(left))
        except EditError as error:
            yield {**here, **status(str(error), "bad")}
        except Exception:  # whatever it was, the page can be used
            yield {**here, **status(unexpected("What the page had could not be shown"), "bad")}

    def _left(self, left: Form, asked: EditRequest | None = None) -> Form:
        """What stood on the left of the page (`read_left`); of what was `asked` for, only a plan changed since."""
        if not left or asked is None:
            return left and left | status(AS_LEFT)
        image = images.load(left["picture"]).image if left["picture"] else None
        if plan_key(image, left["instruction"]) != plan_key(asked.image, asked.instruction):
            return left | show_mask(None)
        return {name: left[name] for name in PLAN} if changed(left) else {}

    def note(self, left: Form, token: str, request: gr.Request) -> Form:
        """Have the browser note what stands on the left of the page."""
        return {"noted": {"owner": owner_of(token, request), **left}}

    def _shared(self, shared: str, owner: str, request: gr.Request) -> Form:
        """An edit whose link somebody opened, or why there is none."""
        try:
            edit = self.history.get(shared)
            said = f"“{edit.recipe.instruction}”: a result that was shared. Edit it further, or take over its settings."
            return {**status(said), **self._shown(edit, owner, request)}
        except EditError as error:
            return status(str(error), "bad")

    def _shown(self, edit: Edit, owner: str, request: gr.Request) -> Form:
        """A kept edit, whose owner alone may delete it. Raises EditError where its files are missing."""
        return {**show_edit(self.history, edit, request), "forget": gr.update(visible=edit.owner == owner)}

    def _efforts(self) -> Form:
        """The efforts with the seconds that each is expected to take on this machine, once that is known."""

        def said(name: str) -> str:
            seconds = self.jobs.expected(self.editor.efforts[name])
            return name.capitalize() + ("" if seconds is None else f" · about {max(1, round(seconds))} s")

        return {"effort": gr.update(choices=[(said(name), name) for name in self.editor.efforts])}

    # ------------------------------------------------------------------------------------------------ before the run

    def take(self, picture: str | None, plan: Form | None = None) -> Form:
        """Put an uploaded picture on the page as the editor reads it: upright, in RGB, as PNG.

        A plan stays that is for any picture, or that a person changed.
        """
        try:
            loaded = images.load(picture)
        except EditError as error:
            return {"picture": None, **status(str(error), "bad")}
        said = " ".join(loaded.notices) or "The picture is loaded: say what should be different."
        stays = plan is not None and (changed(plan) or plan["planned"].startswith(ANY))
        cleared = {} if stays else show_plan(None)
        return {"picture": serve(loaded.image), **show_mask(None), **cleared, **status(said)}

    def take_example(self, event: gr.EventData, plan: Form | None = None) -> Form:
        """Put an example with its instruction on the page; a plan stays that a person changed."""
        path, instruction = chosen(event, self.examples)
        said = status("An example is loaded: run it, or change it.")
        own = plan if plan is not None and changed(plan) else None
        taken = self.take(path, own)
        return {**taken, "instruction": instruction, **said} if taken["picture"] else taken

    def paint_on(self, picture: str | None) -> Form:
        """Put the picture under the brush."""
        under = {"background": serve(read_picture(picture)), "layers": [], "composite": None}
        return {"paint": gr.update(value=under, visible=True)}

    def adopt(self, effort: str) -> Form:
        """Set the controls to an effort's settings, but for how much may change, which is no matter of effort."""
        return {name: value for name, value in show_settings(self.editor.efforts[effort]).items() if name != "strength"}

    def plan(self, picture: str | None, instruction: str) -> Iterator[Form]:
        """Ask the model for a plan and show it."""
        image = read_picture(picture)
        yield self._planning()
        plan = self.jobs.call(lambda: self.editor.plan(image, instruction))
        said = status("This is the plan: change it as you like, then run.")
        yield {**said, **show_plan(plan, plan_key(image, instruction))}

    def _planning(self) -> Form:
        return status(PLANNING if self.editor.can_plan else FIRST, "busy")

    # ------------------------------------------------------------------------------------------------------- the run

    def run(self, form: Form, token: str, request: gr.Request, shown: str = "") -> Iterator[Form]:
        """Run with the plan on the page, or a new one if it was made for another picture or instruction; and watch.

        Where a person changed the plan that was made for another, nothing is lost unasked: it waits for a second press.
        """
        try:
            owner, image, instruction = owner_of(token, request), read_picture(form["picture"]), form["instruction"]
            plan, key, settings = read_plan(form), plan_key(image, instruction), read_settings(form)
            mask, fit = read_mask(form, image), fits(form, image, instruction)
            if changed(form) and not fit:
                yield {**idle(), "planned": key, **status(CHANGED, "ask")}
                return
            own = plan if fit else None
            todo = EditRequest(image=image, instruction=instruction, plan=own, mask=mask, settings=settings)
            job = self.jobs.submit(todo, owner, None if own else lambda: self.editor.plan(image, instruction))
            first = {"seed": settings.seed} | ({"planned": key} if own else {})
            yield from self._followed(job, first, request, shown)
        except EditError as error:  # what went wrong is told with the buttons that it sets free: see `repeated`
            yield {**idle(), **status(str(error), "bad")}
        except Exception:
            yield {**idle(), **status(unexpected("A run failed"), "bad")}

    def _followed(self, job: Job, first: Form, request: gr.Request, before: str = "") -> Iterator[Form]:
        """What becomes of a job from its plan on; `first` is said with all that comes in the first second.

        What was shown stays until there is a plan, and belongs to the edit `before`.
        """
        if job.state == "planning":
            for seen in self.jobs.follow(job):
                if seen.state != "planning":
                    break
                yield joined(first, busy(job), self._planning())
            if job.request.plan is not None:
                key = plan_key(job.request.image, job.request.instruction)
                first = joined(first, show_plan(job.request.plan, key))
        if not job.over:
            first = joined(first, self._watched(job))
        yield from repeated(first, self._watch(job, request, before))

    def _watched(self, job: Job) -> Form:
        """The page as it is while a job is waited for."""
        empty = {"curve": "", "candidates": "", "checks": "", "details": "", "shown": ""}
        empty["refused"] = gr.update(visible=False)
        gone = {name: gr.update(visible=False) for name in ("result", "more")}
        return {**self._on(job), **empty, **gone}

    def _on(self, job: Job) -> Form:
        """What belongs to a run that goes on, whatever else is shown beside it."""
        hidden, shown = gr.update(visible=False), gr.update(visible=True)
        return {**busy(job), "welcome": hidden, "live": shown}

    def _watch(self, job: Job, request: gr.Request, before: str = "") -> Iterator[Form]:
        """What the job does, until it is over; then its result, or the edit that was shown before where it has none.

        Each message says again that it goes on: Gradio's client drops one that the next overtakes.
        """
        told = -1
        for seen in self.jobs.follow(job):
            again, told = told == seen.version, seen.version
            if not seen.over:
                yield self._on(job) | (progress_line(self.jobs, job) if again else self._live(seen))
        if job.state == "failed":
            refused = self._refused(job)
            right = {**nothing(), **refused} if refused else self._again(before, job.owner, request)
            yield {**idle(), **right, **status(job.error, "bad")}
            return
        yield self._result(job, request)

    def _result(self, job: Job, request: gr.Request) -> Form:
        """What came of a job that is done, or why that can't be shown."""
        kept = next(filter(self.history.has, reversed(job.choices)), job.kept)  # the candidate that was chosen last
        try:
            edit = show_edit(self.history, self.history.get(kept), request)
            around = self._candidates(job, job.choices[kept])
        except EditError as error:
            there = " The edit itself is kept: reload the page then." if self.history.has(kept) else ""
            return {**idle(), **nothing(), **status(f"{error}{there}", "bad")}
        around |= {**past_cards(self.history, job.owner, kept), **self._efforts()}
        return {**idle(), **edit, **around, **status(ending_line(job.update), "ask" if job.update.broken else "done")}

    def _live(self, job: Job) -> Form:
        line, update = progress_line(self.jobs, job), job.update
        if update is None or not update.previews:
            return line
        curve = ui_plots.curve(update.history, update.source_score, update.steps)
        return {**line, "candidates": live_cards(update), "curve": curve}

    def _again(self, shown: str, owner: str, request: gr.Request) -> Form:
        """A kept edit with the other candidates of its run; nothing if there is none of this id."""
        try:
            edit = self.history.get(shown)
            return {**self._shown(edit, owner, request), **self._run_of(edit, owner)}
        except EditError:
            return nothing()

    def _run_of(self, edit: Edit, owner: str) -> Form:
        """The candidates of the run that made an edit, to choose from, if it is still remembered."""
        run = self.jobs.of(edit.id, owner)
        if run is None:
            return {"job": "", "candidates": ""}
        return {"job": run.id, **self._candidates(run, run.choices[edit.id])}

    def _refused(self, job: Job) -> Form:
        """What the model makes of a picture that it was to edit and could not; or the best that could not be kept."""
        update = job.update
        if update is None or update.roundtrip is None or (job.stop.is_set() and not update.done):
            return {}
        if update.done:
            recipe = Recipe.of(job.request, update, self.editor.profile.name)
            after, said = encode_result(update.best, recipe), "The result, which is not kept: save it from here"
        elif update.best_so_far is not None:
            best = marked(update.best_so_far.image)
            after, said = images.to_png(best), "The best so far, which is not kept: save it from here"
        else:
            after, said = images.to_png(marked(update.roundtrip)), REFUSED
        pair = serve(images.at_most(job.request.image)), serve_bytes(after, "tiltedit.png")
        return {"refused": gr.update(value=pair, label=said, visible=True)}

    def _candidates(self, job: Job, chosen: int) -> Form:
        """What only a run that is remembered can show."""
        update = job.update
        pictures = {"roundtrip": update.roundtrip, "spotlight": update.focus}
        served = {name: picture and serve(marked(picture)) for name, picture in pictures.items()}
        shown = {name: gr.update(value=path, visible=path is not None) for name, path in served.items()}
        return {"candidates": final_cards(update.candidates, update.plan, chosen), **shown}

    def stop(self, job: str, token: str, request: gr.Request) -> Form:
        """End the run within a step; who watches it sees that."""
        self.jobs.stop(self.jobs.get(job, owner_of(token, request)))
        return {}

    # ------------------------------------------------------------------------------------------------- after the run

    def pick(self, event: gr.EventData, job: str, token: str, request: gr.Request, reach: int = LISTED) -> Form:
        """Make another candidate the result."""
        owner = owner_of(token, request)
        run = self.jobs.get(job, owner)
        if run.state != "done":
            return {}
        chosen(event, run.update.candidates)
        kept = next((kept for kept in self.jobs.chosen(run, event.index) if self.history.has(kept)), None)
        kept = kept or Keeper(self.history, self.editor.profile.name)(run, event.index)
        self.jobs.chose(run, kept, event.index)
        said = status(f"Candidate {event.index + 1} is the result now.", "done")
        past = past_cards(self.history, owner, kept, reach)
        shown = show_edit(self.history, self.history.get(kept), request)
        return {**shown, **past, **self._candidates(run, event.index), **said}

    def recall(
        self, event: gr.EventData, listed: Sequence[str], job: str, token: str, request: gr.Request, reach: int = LISTED
    ) -> Form:
        """Show a past edit with its other candidates, or beside the run that the page watches if there is one."""
        edit = self.history.get(chosen(event, listed), owner := owner_of(token, request))
        depth = len(self.history.lineage(edit))
        said = f"“{edit.recipe.instruction}”" + (f", edit {depth} of its line" if depth > 1 else "")
        shown = {
            **show_edit(self.history, edit, request),
            **past_cards(self.history, owner, edit.id, reach),
            **status(said, "done"),
        }
        return shown if self.jobs.is_on(job) else {**shown, **self._run_of(edit, owner)}

    def older(self, reach: int, shown: str, token: str, request: gr.Request) -> Form:
        """List more of the past edits."""
        return past_cards(self.history, owner_of(token, request), shown, reach + LISTED)

    def restore(self, shown: str) -> Form:
        """Set picture, mask, instruction, plan and settings to those of the edit that is shown."""
        edit = self.history.get(shown)
        source = images.load(self.history.source_path(edit)).image
        said = ["Everything is as it was for this edit: run it again, or change it first."]
        mask = self._mask_of(edit.recipe, source, said)
        recipe = possible(edit.recipe, self.editor.profile, said)
        return {"picture": serve(source), **mask, **show_recipe(recipe, source), **status(" ".join(said))}

    def further(self, shown: str, plan: Form | None = None) -> Form:
        """Make the result the picture to edit next, with a seed of its own.

        A plan that a person changed stays, unless it made this result.
        """
        edit = self.history.get(shown)
        unused = plan is not None and changed(plan) and not same_plan(plan, edit.recipe.plan)
        taken = self.take(str(self.history.result_path(edit)), plan if unused else None)
        said = status("The result is the picture now: what should be different next?")
        return {**taken, "instruction": "", "lock": False, **said} if taken["picture"] else taken

    def use_recipe(self, recipe_file: str | None, picture: str | None) -> Form:
        """Set mask, instruction, plan and settings to those of a recipe that came with a PNG."""
        said = ["The recipe is loaded."]
        recipe = possible(read_recipe(recipe_file), self.editor.profile, said)
        image = read_picture(picture) if picture else None
        if image is None:
            said.append("Upload the picture that it was made for.")
        elif images.fingerprint(image) != recipe.source:
            said.append("It was made for another picture: upload that one to get the same result.")
            image = None
        mask = self._mask_of(recipe, image, said)
        if recipe.profile != self.editor.profile.name:
            said.append(f"It was made with the profile {recipe.profile}.")
        return {**mask, **show_recipe(recipe, image), "recipe_file": None, **status(" ".join(said))}

    def _mask_of(self, recipe: Recipe, image: Image.Image | None, said: list[str]) -> Form:
        """The mask's fields as a recipe has them for its picture, if that is there; `said` grows where it can't be."""
        mask = recipe.load_mask(image.size) if image else None
        if recipe.mask is not None and mask is None:
            where = "add that one too" if recipe.mask_png is None else "once its picture is here, drop this PNG again"
            said.append(f"It was made with a mask: {where}.")
        return show_mask(serve(mask) if mask else None)

    def download(self, shown: str, strip: bool) -> Form:
        """The result's file, with its recipe or with the AI mark alone."""
        edit = self.history.get(shown)
        data = self.history.read(self.history.result_path(edit))
        data = encode_result(images.load(data).image, None) if strip else data
        return {"download": serve_bytes(data, file_name(edit))}

    def forget(self, shown: str, token: str, request: gr.Request, reach: int = LISTED) -> Form:
        """Delete the edit that is shown."""
        owner = owner_of(token, request)
        self.history.delete(owner, shown)
        return {**past_cards(self.history, owner, reach=reach), **nothing(), **status("The edit is deleted.")}

    def forget_all(self, token: str, request: gr.Request) -> Form:
        """Delete all edits of this owner."""
        owner = owner_of(token, request)
        count = self.history.clear(owner)
        self.jobs.forget(owner)
        return {**past_cards(self.history, owner), **nothing(), **status(f"All {count} edits are deleted.")}
