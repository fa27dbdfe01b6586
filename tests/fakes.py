"""A stand-in for the engine: no models, no waiting unless asked, every number known."""

import threading
import time
from dataclasses import dataclass
from types import SimpleNamespace

from PIL import Image, ImageDraw, ImageEnhance

from editor.registration import Offset
from editor.types import Candidate, CheckResult, Cost, EditError, EditUpdate, SearchSettings, Stays
from rewards.base import Check, Plan


@dataclass(frozen=True)
class FakeLaid:
    """A landing that is laid already, `offset` beside its source."""

    picture: Image.Image
    where: Offset | None = None

    def preview(self):
        return self.picture

    def image(self):
        return self.picture

    def offset(self):
        return self.where


class FakeEditor:
    """Makes the picture darker step by step; refuses instructions about dogs and breaks on those about bugs.

    A run waits `pause` seconds a step, and after step 2 for its `gate` to be open.
    """

    def __init__(self, pause=0.0):
        self.pause, self.can_plan = pause, True
        self.offset = Offset(0.0, 0.0)
        self.gate = threading.Event()
        self.gate.set()
        self.profile = SimpleNamespace(
            name="fake", description="Darkens", licence="MIT", notices=("No models.",), two_time=True
        )
        self.efforts = {
            "fast": SearchSettings(particles=3, steps=3, keep=1),
            "balanced": SearchSettings(particles=4, steps=5),
            "thorough": SearchSettings(steps=9),
        }

    def load_models(self):
        """There are none."""

    def plan(self, image, instruction):
        if "dog" in instruction:
            raise EditError("The studio knows clocks only: start with --profile flux for other pictures.")
        checks = (Check(f"Is it so: {instruction}?"), Check("Is the rim blue?", "no", 0.5))
        return Plan(checks, instruction, ("the rim",))

    def edit(self, request, stop=None):
        if "bug" in request.instruction:
            raise RuntimeError("secret detail")
        plan = request.plan or self.plan(request.image, request.instruction)
        particles, total = range(request.settings.particles), request.settings.steps
        yield EditUpdate(stage="invert", message="Carrying the picture back", plan=plan)
        rewards = []
        for step in range(total + 1):
            time.sleep(self.pause)
            light = [1 - 0.5 * step / total + 0.05 * i for i in particles]
            dark = [ImageEnhance.Brightness(request.image.convert("RGB")).enhance(value) for value in light]
            rewards.append(tuple(-2 + 4 * step / total - 0.3 * i + request.settings.seed % 7 / 10 for i in particles))
            stopped = stop is not None and stop.is_set()
            update = EditUpdate(
                stage="search",
                message=f"Searching: step {step} of {total}",
                plan=plan,
                step=step,
                steps=total,
                t=step / total,
                previews=tuple(image.resize((128, 128)) for image in dark),
                scores=rewards[-1],
                history=tuple(rewards),
                parents=tuple(tuple(max(0, i - 1) for i in particles) for _ in rewards),
                score=rewards[-1][0],
                source_score=-2.0,
                cost=Cost(nfe=len(particles) * step, decodes=step, seconds=0.1 * step),
            )
            yield update
            while step == 2 and not self.gate.is_set() and not (stop and stop.is_set()):
                self.gate.wait(0.05)
            if stopped:
                break
        yield EditUpdate(
            **vars(update)
            | {
                "stage": "done",
                "message": "Done",
                "stopped": stopped,
                "best": dark[0],
                "roundtrip": request.image.convert("RGB"),
                "roundtrip_psnr": 41.5,
                "checks": tuple(CheckResult(check, 0.02, 0.97) for check in plan.checks),
                "kept": tuple(Stays(thing, 0.95, 0.9) for thing in plan.keep),
                "candidates": tuple(
                    Candidate(
                        laid=FakeLaid(image, self.offset),
                        score=score,
                        checks=(0.97,) * len(plan.checks),
                        kept=(0.9,) * len(plan.keep),
                        place=(len(rewards) - 1, i),
                        met=True,
                    )
                    for i, (image, score) in enumerate(zip(dark, rewards[-1], strict=True))
                ),
            }
        )


def clock_like(size=(160, 120)):
    """A picture for uploads: a light disc on blue."""
    image = Image.new("RGB", size, (60, 90, 160))
    ImageDraw.Draw(image).ellipse((40, 20, 120, 100), fill=(240, 235, 220), outline=(180, 40, 40), width=4)
    return image
