"""The page's programming interface for `gradio_client` and plain HTTP: /plan, /edit and /result."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from editor import images
from editor.faults import unexpected
from editor.jobs import Job
from editor.report import report_of
from editor.types import EditError, EditRequest
from editor.ui_desk import Desk
from editor.ui_files import serve_bytes
from editor.ui_forms import FIRST_EFFORT, read_picture
from editor.ui_parts import owner_of
from rewards.base import Plan

API = "api"
"""Owns the runs of all callers without a login; no token of a browser names it."""


@dataclass(frozen=True)
class Api:
    """Handlers that raise gr.Error with the sentence of an EditError."""

    desk: Desk

    def plan(self, image: str, instruction: str) -> dict[str, Any]:
        """Ask the model what it makes of an instruction.

        `image` is a file with the picture, `instruction` one sentence. Returns the plan: checks (question, expected,
        weight), caption, keep, source. Change it as you like and hand it to /edit.
        """
        try:
            picture = read_picture(image)
            return self.desk.jobs.call(lambda: self.desk.editor.plan(picture, instruction or "")).to_json()
        except Exception as error:
            raise told(error) from error

    def edit(
        self,
        image: str,
        instruction: str,
        plan: dict[str, Any] | None = None,
        mask: str | None = None,
        effort: str = FIRST_EFFORT,
        strength: float | None = None,
        seed: float = 0,
        request: gr.Request = None,
    ) -> Iterator[tuple[dict[str, Any], str | None]]:
        """Edit an image from one sentence.

        `image` is a file with the picture, `instruction` one sentence. `plan` is what /plan returned, changed or not;
        without it the model plans. `mask` is a file, white where the edit may act. `effort` is fast, balanced or
        thorough. `strength` in (0, 1] is how much may change; without it the effort's own. The same `seed` gives the
        same result. The run is stopped when the call is cancelled. Returns the report (job, state, place in the queue,
        step, steps; at the end also score, checks, offset, warning, cost, seed, recipe) and the PNG; the report is sent
        after every step, the PNG at the end. Scores are the model's opinion.
        """
        job = None
        try:
            picture = read_picture(image)
            settings = self.desk.editor.efforts[effort or FIRST_EFFORT].but(seed=int(seed or 0))
            todo = EditRequest(
                image=picture,
                instruction=instruction or "",
                plan=Plan.from_json(plan) if plan else None,
                mask=images.load_mask(mask, picture.size) if mask else None,
                settings=settings if strength is None else settings.but(strength=strength, times=None),
            )
            job = self.desk.jobs.submit(todo, owner_of("", request, API))
            for seen in self.desk.jobs.follow(job):
                yield self._answer(seen)
        except Exception as error:
            raise told(error) from error
        finally:
            if job is not None and not job.over:
                self.desk.jobs.stop(job)

    def result(self, job: str, request: gr.Request) -> tuple[dict[str, Any], str | None]:
        """Ask where a run of /edit stands, or for its result.

        `job` is the id in the report of /edit. Returns the same report and PNG as that does.
        """
        try:
            return self._answer(self.desk.jobs.get(job, owner_of("", request, API)))
        except Exception as error:
            raise told(error) from error

    def _answer(self, job: Job) -> tuple[dict[str, Any], str | None]:
        if job.state == "failed":
            raise EditError(job.error)
        update = job.update
        report: dict[str, Any] = {"job": job.id, "state": job.state, "place": self.desk.jobs.place(job)}
        if update is not None:
            report |= {"stage": update.stage, "step": update.step, "steps": update.steps}
        if job.state != "done":
            return report, None
        history = self.desk.history
        edit = history.get(job.kept)
        data = history.read(history.result_path(edit))
        report |= report_of(job.request, update) | {"edit": edit.id, "recipe": edit.recipe.to_json()}
        return report, serve_bytes(data, "tiltedit.png")


def told(error: Exception) -> gr.Error:
    """The error as a caller may see it."""
    known = isinstance(error, EditError | ValueError)
    return gr.Error(str(error) if known else unexpected("A call failed"), print_exception=False)


def add_api(desk: Desk) -> None:
    """Add the endpoints to the page that is being built."""
    api, efforts = Api(desk), list(desk.editor.efforts)
    with gr.Column(visible=False):
        # Files and not images, so that nothing but the safe loader opens them.
        image = gr.File(label="image")
        instruction = gr.Textbox(label="instruction")
        plan = gr.JSON(None, label="plan")
        mask = gr.File(label="mask")
        effort = gr.Radio(efforts, value=FIRST_EFFORT, label="effort")
        strength = gr.Number(None, label="strength")
        seed = gr.Number(0, label="seed", precision=0)
        job = gr.Textbox(label="job")
        report, file = gr.JSON(label="report"), gr.File(label="PNG")
        gr.Button().click(api.plan, [image, instruction], plan, api_name="plan")
        fields = [image, instruction, plan, mask, effort, strength, seed]
        gr.Button().click(api.edit, fields, [report, file], api_name="edit", concurrency_limit=16)
        gr.Button().click(api.result, job, [report, file], api_name="result")
