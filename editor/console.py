"""What the commands of `python -m editor` share: settings from words, a run under a progress bar, its report."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Event, current_thread, main_thread
from typing import Any

from tqdm import tqdm

from editor.engine import EFFORTS
from editor.report import report_of
from editor.types import EditError, EditRequest, EditUpdate, SearchSettings

SETTINGS: Mapping[str, type] = {
    "effort": str,
    "method": str,
    "particles": int,
    "steps": int,
    "strength": float,
    "seed": int,
}
"""What flags and the columns of a table may set, with the type of each."""


def settings_of(values: Mapping[str, Any]) -> SearchSettings:
    """The settings of `values["effort"]`, else of the balanced effort, with the other values named in SETTINGS.

    A value that is None counts as not given; other names are of no concern. Raises EditError.
    """
    given = {name: values[name] for name in SETTINGS if values.get(name) is not None}
    effort = given.pop("effort", "balanced")
    if effort not in EFFORTS:
        raise EditError(f"There is no effort {effort!r}: choose one of {', '.join(EFFORTS)}.")
    try:
        return EFFORTS[effort].but(**given)
    except ValueError as error:
        raise EditError(str(error)) from error


@contextmanager
def stoppable() -> Iterator[Event]:
    """An event that the first Ctrl-C sets, so that a run ends with its best so far; the second one interrupts.

    Where Ctrl-C does anything else already, as in the background of a shell, or is another thread's, that stays.
    """
    stop = Event()
    if current_thread() is not main_thread() or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield stop
        return

    def set_once(*_: Any) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)
        print("\nStopping: the best so far is kept.", file=sys.stderr)

    before = signal.signal(signal.SIGINT, set_once)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def follow(updates: Iterator[EditUpdate], steps: int) -> EditUpdate:
    """Exhaust the updates of an edit of about so many steps under a progress bar on standard error; the last one."""
    with tqdm(total=steps, file=sys.stderr, unit="step", desc="edit") as bar:
        for update in updates:
            bar.set_description(update.message)
            if update.stage == "search":
                bar.total = bar.total if update.drafted else max(1, update.steps)
                bar.set_postfix(score=f"{update.score:.2f}", refresh=False)
                bar.update(update.step - bar.n)
        if not update.stopped:
            bar.update(bar.total - bar.n)
    return update


def told_of(request: EditRequest, update: EditUpdate, profile: str) -> dict[str, Any]:
    """What --json tells of an edit that is done: its report, each part of its cost by itself, plan and profile."""
    report = report_of(request, update)
    cost = report.pop("cost")
    return report | cost | {"plan": update.plan.to_json(), "profile": profile}
