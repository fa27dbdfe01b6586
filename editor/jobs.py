"""Runs as jobs: one worker thread does all model work, one bounded queue serves everybody.

A job goes on when nobody watches it, so that closing and reloading a page loses nothing. Between two steps of a run the
worker does short calls (a plan), which therefore never wait for a whole run.
"""

from __future__ import annotations

import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from editor.faults import unexpected
from editor.types import EditError, EditRequest, EditUpdate, SearchSettings
from rewards.base import Plan

T = TypeVar("T")
PULSE = 2.0
"""Seconds after which a follower at the latest hears of a job, whether it has changed or not."""


class Runs(Protocol):
    """What jobs need of an editor."""

    def edit(self, request: EditRequest, stop: threading.Event | None = None) -> Iterator[EditUpdate]: ...


@dataclass(eq=False, kw_only=True)
class Job:
    """One run. The worker alone writes to it, but for `choices`; everybody may read."""

    owner: str
    request: EditRequest
    id: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    stop: threading.Event = field(default_factory=threading.Event)
    state: str = "waiting"
    """'planning', 'waiting', 'running', 'done' or 'failed'."""
    update: EditUpdate | None = None
    """The latest."""
    error: str = ""
    """A sentence for a person; only when failed."""
    kept: Any = None
    """What `keep` returned for the finished run."""
    choices: dict[Any, int] = field(default_factory=dict)
    """What was kept of it, by what `keep` returned: which of the final candidates each is."""
    version: int = 0
    """Counts changes."""

    @property
    def over(self) -> bool:
        return self.state in ("done", "failed")


def work(settings: SearchSettings) -> int:
    """What a run costs in units of one particle looking ahead once, about."""
    return settings.particles * (settings.steps + 1) * (1 + settings.corrections)


def searched(method: str, parents: Sequence[Sequence[int]]) -> bool:
    """Whether a run whose steps have these parents took as long as others: where drafts or the source were enough, no
    candidate of fmtt has one."""
    return method != "fmtt" or any(parents)


class Jobs:
    """The queue and its worker. `keep(job)` is called in the worker when a run is done; `close` ends the thread.

    At most `waiting` jobs wait; the last `remembered` jobs that are over can still be asked for, with their pictures.
    """

    def __init__(self, editor: Runs, keep: Callable[[Job], Any], *, waiting: int = 8, remembered: int = 8) -> None:
        self._editor, self._keep = editor, keep
        self._most_waiting, self._remembered = waiting, remembered
        self._jobs: dict[str, Job] = {}
        self._queue: deque[Job] = deque()
        self._calls: deque[tuple[Future, Callable[[], Any]]] = deque()
        self._running: Job | None = None
        self._closing = False
        self._pace: float | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="tiltedit-models", daemon=True)
        self._thread.start()

    # ------------------------------------------------------------------------------------------------ for front ends

    def submit(self, request: EditRequest, owner: str, plan: Callable[[], Plan] | None = None) -> Job:
        """Queue a run. Raises EditError if too many wait already.

        `plan` makes the plan that the request lacks: a short call, done before the run's turn has come.
        """
        job = Job(owner=owner, request=request, state="planning" if plan else "waiting")
        with self._changed:
            ahead = len(self._queue) + sum(other.state == "planning" for other in self._jobs.values())
            if ahead >= self._most_waiting:
                raise EditError(f"The queue is full with {ahead} runs: try again in a minute.")
            self._jobs[job.id] = job
            for old in [j.id for j in self._jobs.values() if j.over][: -self._remembered]:
                del self._jobs[old]
            if plan is None:
                self._queue.append(job)
            else:
                planned: Future[Plan] = Future()
                planned.add_done_callback(lambda made: self._planned(job, made))
                self._calls.append((planned, plan))
            self._changed.notify_all()
        return job

    def call(self, function: Callable[[], T]) -> T:
        """The result of a short call of a model, done by the worker before the next step of a run."""
        future: Future[T] = Future()
        with self._changed:
            self._calls.append((future, function))
            self._changed.notify_all()
        return future.result()

    def follow(self, job: Job) -> Iterator[Job]:
        """Yield the job now and after every change that is seen, until it is over. Leaving early changes nothing.

        At least every PULSE seconds, so that who follows for somebody that has gone can leave.
        """
        seen, over = -1, False
        while not over:
            with self._changed:
                if job.version == seen:
                    self._changed.wait(PULSE)
                seen, over = job.version, job.over
            yield job

    def get(self, job_id: str, owner: str) -> Job:
        """The owner's job of this id. Raises EditError if there is none."""
        job = self._jobs.get(job_id)
        if job is None or job.owner != owner:
            raise EditError("This run is no longer known: look for its result in the history, or run it again.")
        return job

    def is_on(self, job_id: str) -> bool:
        """Whether this job waits or runs."""
        job = self._jobs.get(job_id)
        return job is not None and not job.over

    def latest(self, owner: str) -> Job | None:
        """The owner's job that runs, or else the latest that is not over, or that is remembered."""
        with self._changed:
            newest_first = [job for job in reversed(self._jobs.values()) if job.owner == owner]
        return max(newest_first, key=lambda job: (job.state == "running", not job.over), default=None)

    def chose(self, job: Job, kept: Any, candidate: int) -> None:
        """Take note that a candidate of a finished run was kept, the latest of `choices`."""
        with self._changed:
            job.choices.pop(kept, None)
            job.choices[kept] = candidate

    def chosen(self, job: Job, candidate: int) -> list[Any]:
        """All that was kept of a candidate of a finished run."""
        with self._changed:
            return [kept for kept, index in job.choices.items() if index == candidate]

    def of(self, kept: Any, owner: str) -> Job | None:
        """The owner's latest finished run that something was kept of, if it is still remembered."""
        with self._changed:
            made = [job for job in self._jobs.values() if job.state == "done" and job.owner == owner]
            return next((job for job in reversed(made) if kept in job.choices), None)

    def forget(self, owner: str) -> None:
        """Remember nothing of this owner's jobs that are over."""
        with self._changed:
            self._jobs = {job.id: job for job in self._jobs.values() if job.owner != owner or not job.over}

    def stop(self, job: Job) -> None:
        """End the run within a step, keeping the best so far; a job that waits is taken out of the queue."""
        job.stop.set()
        with self._changed:
            if job in self._queue or job.state == "planning":
                if job in self._queue:
                    self._queue.remove(job)
                self._change(job, state="failed", error="The run was stopped before it began.")
                self._moved_up()
            elif not job.over:
                self._change(job)

    def place(self, job: Job) -> int:
        """How many runs come before this one; 0 when it runs."""
        with self._changed:
            return self._queue.index(job) + (self._running is not None) if job in self._queue else 0

    def expected(self, settings: SearchSettings) -> float | None:
        """Seconds that a run of these settings takes, from the last runs on this machine; None before the first."""
        return None if self._pace is None else self._pace * work(settings)

    def wait(self, job: Job) -> float | None:
        """Seconds until the job begins, about; None before the first run has ended."""
        with self._changed:
            line = [*filter(None, [self._running]), *self._queue]
            before = [other.request.settings for other in line[: self.place(job)]]
        return None if self._pace is None else sum(self._pace * work(settings) for settings in before)

    def learn(self, settings: SearchSettings, seconds: float) -> None:
        """Take note of how long a run took."""
        pace = seconds / work(settings)
        self._pace = pace if self._pace is None else 0.5 * (self._pace + pace)

    def close(self) -> None:
        """Stop the run at hand and end the worker."""
        with self._changed:
            self._closing = True
            for job in list(self._queue):
                self.stop(job)
            if self._running is not None:
                self._running.stop.set()
            self._changed.notify_all()
        self._thread.join()
        while self._calls:
            self._calls.popleft()[0].cancel()

    # ------------------------------------------------------------------------------------------------- in the worker

    def _work(self) -> None:
        while (job := self._next()) is not None:
            self._run(job)
            with self._changed:
                self._running = None

    def _next(self) -> Job | None:
        """The next job, doing calls while there is none; None when closing."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._calls or self._closing)
                if self._closing:
                    return None
                if not self._calls:
                    self._running = self._queue.popleft()
                    self._change(self._running, state="running")
                    self._moved_up()
                    return self._running
            self._serve_calls()

    def _run(self, job: Job) -> None:
        try:
            for update in self._editor.edit(job.request, job.stop):
                self._serve_calls()
                if not update.done:
                    self._change(job, update=update)
            job.kept = self._keep_done(job, update)
            self.chose(job, job.kept, 0)
            self._change(job, update=update, state="done")
        except EditError as error:
            self._change(job, state="failed", error=str(error))
        except Exception:
            self._change(job, state="failed", error=unexpected("A run failed"))

    def _keep_done(self, job: Job, update: EditUpdate) -> Any:
        job.update = update
        if not update.stopped and searched(job.request.settings.method, update.parents):
            self.learn(job.request.settings, update.cost.seconds)
        return self._keep(job)

    def _serve_calls(self) -> None:
        while self._calls:
            future, function = self._calls.popleft()
            try:
                future.set_result(function())
            except BaseException as error:  # it belongs to the caller
                future.set_exception(error)

    def _planned(self, job: Job, made: Future[Plan]) -> None:
        """Put a job whose plan is made into the queue, or say why there is none."""
        if job.over:  # it was stopped meanwhile
            return
        try:
            request = replace(job.request, plan=made.result())
        except CancelledError:
            self.stop(job)
        except EditError as error:
            self._change(job, state="failed", error=str(error))
        except Exception:
            self._change(job, state="failed", error=unexpected("A plan failed"))
        else:
            with self._changed:
                self._queue.append(job)
                self._change(job, state="waiting", request=request)
                if self._closing:
                    self.stop(job)

    def _moved_up(self) -> None:
        for job in self._queue:
            self._change(job)

    def _change(self, job: Job, **values: Any) -> None:
        with self._changed:
            for name, value in values.items():
                setattr(job, name, value)
            job.version += 1
            self._changed.notify_all()
