"""A world is what the studio models are trained on: pictures with known descriptions, and a language about them.

`training.clock_world.CLOCKS` is the first. A second one implements `World` and takes its place in the trainings.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Protocol, TypeVar

from PIL import Image

Scene = TypeVar("Scene")

TRAIN, TUNE, TEST = 0, 1_000_000_000, 2_000_000_000
"""First seeds of the splits. Training draws below TUNE, tuning below TEST, the benchmark from TEST on."""


@dataclass(frozen=True)
class Question:
    """One exchange about a picture."""

    text: str
    answer: str


@dataclass(frozen=True)
class Request:
    """An instruction with the JSON reply that a perfect planner writes, and what it changes."""

    instruction: str
    reply: str
    changes: tuple[tuple[str, str | int], ...] = ()
    """(attribute, new value); empty for "change nothing" and for refusals."""
    kind: str = "refuse"
    """'time', 'relative', a name of an attribute, 'two', 'three', 'nothing' or 'refuse'."""


class World(Protocol[Scene]):
    """Pictures with full descriptions, and the language about them. All randomness comes from the arguments."""

    name: str

    def sample(self, seed: int) -> Scene:
        """The scene of this seed: what it shows and every nuisance of how."""

    def render(self, scene: Scene, size: int = 128) -> Image.Image:
        """The picture of a scene, RGB, size x size; the same bytes every time."""

    def caption(self, scene: Scene, rng: Random | None = None) -> str:
        """The looks, and not what the flow map must leave to the reward; canonical without `rng`."""

    def description(self, scene: Scene) -> str:
        """All that the picture shows, in its canonical words."""

    def questions(self, scene: Scene, rng: Random) -> list[Question]:
        """Open and yes/no questions with hard negatives, in varied phrasings."""

    def request(self, scene: Scene, rng: Random, kind: str | None = None) -> Request:
        """An instruction about this scene with its perfect plan; of the given kind, or a random one."""

    def apply(self, scene: Scene, request: Request) -> Scene:
        """The scene after the edit: its render is the perfect answer."""
