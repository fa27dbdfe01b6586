"""Profiles: named sets of models and settings, as data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ASSETS = Path(__file__).resolve().parent.parent / "assets" / "models"
"""Where the models that come with the repository lie."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What a profile is made of. `flow` and `vlm` are folders under the models' folder, or Hub repositories."""

    name: str
    description: str
    """One line for the page: what it can edit, and on what machine."""
    flow: str
    vlm: str
    bundled: bool = False
    """The models come with the repository; otherwise they are fetched from the Hub."""
    size: int
    """Side of the square images that the models see, in pixels."""
    two_time: bool
    """Whether the flow map is a true map of two times; if not, exact sampling is refused."""
    text_tokens: int = 512
    """Length of the T5 sequence."""
    plan_template: str = "general"
    """Name of the planner's prompt in `rewards.plan`."""
    licence: str
    """Of the weights, with what they may be used for."""
    notices: tuple[str, ...] = ()
    """What a user of these weights must know or do, one sentence each."""


STUDIO = Profile(
    name="studio",
    description="Pictures of clocks at 128 pixels, on any CPU, offline.",
    flow="studio/flow",
    vlm="studio/vlm",
    bundled=True,
    size=128,
    two_time=True,
    text_tokens=32,
    plan_template="studio",
    licence="The licence of this repository: free for any use.",
)

PROFILES = {profile.name: profile for profile in (STUDIO,)}
