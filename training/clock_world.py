"""The clock world as one object: what `training.world.World` asks for, from the modules about clocks."""

from __future__ import annotations

from random import Random

from PIL import Image

from training import clock_language as language
from training import clocks
from training.clocks import Clock
from training.world import Question, Request, World


class ClockWorld:
    """Analog clocks with every attribute known; see `World` for what each method promises."""

    name = "clocks"

    def sample(self, seed: int) -> Clock:
        return clocks.sample(seed)

    def render(self, scene: Clock, size: int = 128) -> Image.Image:
        return clocks.render(scene, size)

    def caption(self, scene: Clock, rng: Random | None = None) -> str:
        return language.caption(scene, rng)

    def description(self, scene: Clock) -> str:
        return language.description(scene)

    def questions(self, scene: Clock, rng: Random) -> list[Question]:
        return language.questions(scene, rng)

    def request(self, scene: Clock, rng: Random, kind: str | None = None) -> Request:
        return language.request(scene, rng, kind)

    def apply(self, scene: Clock, request: Request) -> Clock:
        return language.apply(scene, request)


CLOCKS: World[Clock] = ClockWorld()
