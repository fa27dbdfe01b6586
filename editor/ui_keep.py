"""What is kept of a finished run: its result with a recipe and a report, and how long it took."""

from __future__ import annotations

from dataclasses import dataclass

from editor.history import History
from editor.jobs import Job, Jobs, searched
from editor.recipe import Recipe
from editor.report import report_of
from editor.types import EditError


@dataclass(frozen=True)
class Keeper:
    """Puts finished runs into the history."""

    history: History
    profile: str

    def __call__(self, job: Job, candidate: int = 0) -> str:
        """The id of the kept edit of the best candidate, or of another one. Raises EditError if there is none."""
        request, update = job.request, job.update
        if update is None or not update.candidates:
            raise EditError("The run was stopped before there was a picture: run it again.")
        report = report_of(request, update, candidate)
        recipe = Recipe.of(request, update, self.profile, candidate)
        return self.history.add(job.owner, request.image, update.candidates[candidate].image, recipe, report).id


def learn(jobs: Jobs, history: History, profile: str) -> None:
    """Let the jobs know how long the latest runs of a profile took, so that they can say what to expect."""
    for edit in filter(lambda edit: edit.readable, reversed(history.latest())):
        recipe, report = edit.recipe, edit.report
        whole = recipe.stopped is None and searched(recipe.settings.method, report["parents"])
        if whole and recipe.profile == profile:
            jobs.learn(recipe.settings, report["cost"]["seconds"])
