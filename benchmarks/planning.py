"""How well the VLM plans: instructions of every kind against the world's perfect plans, and sentences to refuse."""

from __future__ import annotations

import json
import time
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.judge import minutes_off
from editor import images
from editor.engine import Editor
from rewards.plan import STUDIO, worked_out
from rewards.vlm import VLM
from training import clock_language as language
from training import clocks
from training.clocks import Clock
from training.world import Request

BATCH = 25
KINDS = tuple(kind for kind in language.KINDS if kind != "refuse")


def elsewhere() -> list[str]:
    """Sentences about other pictures, questions and nonsense, none with a noun of the training: all to be refused."""
    return Path(__file__).with_name("elsewhere.txt").read_text().splitlines()


class Planned(NamedTuple):
    """An instruction with the reply it got, and what the VLM reads on the clock it is about."""

    source: Clock
    request: Request
    reply: dict[str, Any]
    read: int | None
    """The time the VLM tells, in minutes since twelve."""

    @property
    def exact(self) -> bool:
        """Whether the plan is the perfect one, word for word."""
        return self.reply == parsed(self.request.reply)

    @property
    def checks(self) -> bool:
        """Whether the checks are the perfect ones: what decides the edit."""
        return self.reply.get("checks") == parsed(self.request.reply)["checks"]

    def aim(self, within: float) -> bool:
        """Whether the time that the plan asks for is within so many minutes of the perfect plan's."""
        wanted = language.apply(self.source, self.request).minutes
        told = [c.get("expected") for c in self.reply.get("checks", []) if c.get("question") == language.ASK_TIME[0]]
        return bool(told) and minutes_off(minutes_of(str(told[0])), wanted) <= within


def minutes_of(text: str) -> int | None:
    """Minutes since twelve of "H:MM"; None for anything else."""
    hour, colon, minute = text.partition(":")
    readable = colon and hour.isdecimal() and minute.isdecimal() and int(minute) < 60
    return int(hour) % 12 * 60 + int(minute) if readable else None


@torch.no_grad()
def replies(vlm: VLM, shown: list[Clock], prompts: list[str], longest: int) -> list[str]:
    """What a VLM answers to a prompt about each clock."""
    found: list[str] = []
    for i in range(0, len(shown), BATCH):
        seen = torch.cat([images.to_unit(clocks.render(clock)) for clock in shown[i : i + BATCH]])
        found += vlm.answers(seen, prompts[i : i + BATCH], longest)
    return found


def parsed(reply: str) -> dict[str, Any]:
    """The JSON object of a reply with its sums of times worked out; empty when it is none."""
    try:
        found = json.loads(worked_out(reply))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def plans(editor: Editor, shown: list[Clock]) -> dict[str, float]:
    """Shares of instructions, one about each clock and an equal number of every kind, that are planned rightly."""
    asked = [language.request(clock, Random(i), KINDS[i % len(KINDS)]) for i, clock in enumerate(shown)]
    vlm = editor.models.vlm
    said = replies(vlm.planner, shown, [STUDIO.fill(request.instruction) for request in asked], 320)
    told = replies(vlm, shown, [language.ASK_TIME[0]] * len(shown), 12)
    made = [Planned(clock, request, parsed(reply), minutes_of(time))
            for clock, request, reply, time in zip(shown, asked, said, told, strict=True)]  # fmt: skip
    found = {"exact": share([p.exact for p in made]), "checks exact": share([p.checks for p in made])}
    for kind in KINDS[: len(shown)]:
        found[f"{kind}, checks exact"] = share([p.checks for p in made if p.request.kind == kind])
    relative = [p for p in made if p.request.kind == "relative"]
    for most in (1, 3):
        near = [p for p in relative if minutes_off(p.read, p.source.minutes) <= most]
        found[f"relative, aims within {most} min"] = share([p.aim(most) for p in relative])
        if near:
            found[f"relative, checks exact where the clock is read within {most} min"] = share([p.checks for p in near])
    return found


def alone(editor: Editor, shown: list[Clock]) -> dict[str, float]:
    """Median seconds and mean passes of the text tower for a plan by itself, with guesses and without.

    And the share of replies that are the same either way. See `rewards.lookup`.
    """
    planner, passes = editor.models.vlm.planner, []
    hook = planner.text.register_forward_hook(lambda *_: passes.append(1))
    found, said = {}, []
    for name, like in (("without guesses", ""), ("with them", STUDIO.like)):
        took, replies = [], []
        passes.clear()
        for i, clock in enumerate(shown):
            asked = STUDIO.fill(language.request(clock, Random(i), KINDS[i % len(KINDS)]).instruction)
            image, began = images.to_unit(clocks.render(clock))[0], time.perf_counter()
            replies.append(planner.answer(image, asked, 320, like=like))
            took.append(time.perf_counter() - began)
        found |= {f"seconds {name}": median(took), f"passes {name}": len(passes) / len(shown)}
        said.append(replies)
    hook.remove()
    return found | {"the same text": share([a == b for a, b in zip(*said, strict=True)])}


def refusals(editor: Editor, shown: list[Clock], sentences: list[str]) -> dict[str, float]:
    """Share of the sentences that is refused, over the given clocks in turn."""
    about = [shown[i % len(shown)] for i in range(len(sentences))]
    said = replies(editor.models.vlm.planner, about, [STUDIO.fill(text) for text in sentences], 48)
    return {"refused out of language": share(["refuse" in parsed(reply) for reply in said])}


def share(hits: list[bool]) -> float:
    return float(np.mean(hits))
