"""Profiles: named sets of models and settings, as data; and the choice of one, with another VLM if wanted."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

from editor.repos import (
    FLOW_MAP_256,
    FLOW_MAP_512,
    FLUX_DEV,
    FLUX_SCHNELL,
    SANA_SPRINT,
    TAEF1,
    VLMS,
    Repo,
    flow_map_lora,
)
from editor.types import EditError
from rewards.base import FAMILIES

ASSETS = Path(__file__).resolve().parent.parent / "assets" / "models"
"""Where the models that come with the repository lie."""
DIGITS = 16
"""Of the SHA-256 that tells weights apart."""
KINDS = {"flux": 16, "sana": 32}
"""Families of flow maps with the side of the square, in pixels, that becomes one token of their network."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What a profile is made of. `flow` and `vlm` are folders beside each other (studio) or Hub repositories."""

    name: str
    description: str
    """A line or two for the page: what it can edit, and on what machine."""
    flow: str | Repo
    vlm: str | Repo | Path
    """A path is a folder of the user's own; see `chosen`."""
    kind: str = "flux"
    """The family of the flow map's network: a key of KINDS."""
    lora: Repo | None = None
    """The LoRA that makes a map of two times of the transformer; its one file."""
    draft: Repo | None = None
    """A small autoencoder of the same latents, to differentiate where the full one is too big."""
    size: int
    """Side of the square images that the models see, in pixels."""
    time_grid: str = "even"
    """'even', or 'scheduler': inversion and search place their times as the pipeline's own scheduler does."""
    least_psnr: float = 18.0
    """A picture whose round trip is worse than this many dB is refused: the models cannot represent it."""
    two_time: bool
    """Whether the flow map is a map between any two times; if not, exact sampling is refused."""
    text_tokens: int = 512
    """Length of the prompt's token sequence."""
    plan_template: str = "general"
    """Name of the planner's prompt in `rewards.plan`."""
    can: str = ""
    """What may be asked for, as a sentence; empty where that is anything."""
    licence: str
    """Of the flow map's weights, with what they may be used for."""
    notices: tuple[str, ...] = ()
    """What a user of these weights must know or do, one sentence each."""

    @property
    def repos(self) -> tuple[Repo, ...]:
        """Everything that has to be fetched; nothing for a profile that comes with the repository."""
        return tuple(part for part in (self.flow, self.lora, self.draft, self.vlm) if isinstance(part, Repo))

    @property
    def image_tokens(self) -> int:
        """Tokens of one image in the flow map's network."""
        return (self.size // KINDS[self.kind]) ** 2


_QWEN = VLMS["Qwen/Qwen2.5-VL-3B-Instruct"]
_DEV_NOTICES = (
    "Accept the licence of FLUX.1-dev on its page on the Hub before the download.",
    "The licence asks you to filter unlawful or infringing output, and to disclose that an image was made by AI.",
)
_ONE_END = "This model knows where a candidate lands but no map between two times: it can search, not sample exactly."


def _needs(gigabytes: int, guided: int) -> str:
    """The end of a description; a test holds the figures against `editor.memory`."""
    return (
        f"Needs {gigabytes} GB of free GPU memory with its own VLM, and {guided} GB to follow the reward's gradient "
        "(computed, in 4 bits)."
    )


def _flux(name: str, size: int, file: str, needs: str) -> Profile:
    return Profile(
        name=name,
        description=f"Any picture at {size} pixels, with FLUX.1-dev's flow map. {needs}",
        flow=FLUX_DEV,
        lora=flow_map_lora(file),
        draft=TAEF1,
        vlm=_QWEN,
        size=size,
        time_grid="scheduler",
        two_time=True,
        licence=FLUX_DEV.licence,
        notices=_DEV_NOTICES,
    )


_ALL = (
    Profile(
        name="studio",
        description="Pictures of clocks at 128 pixels, on any CPU, offline.",
        flow="studio/flow",
        vlm="studio/vlm",
        size=128,
        two_time=True,
        text_tokens=36,
        plan_template="studio",
        can="The studio changes a clock's time, its shape, its marks, the colours of rim, face, hands and background, "
        "and whether it has a second hand.",
        licence="The weights are of this repository, and under its terms.",
    ),
    _flux("flux", 512, FLOW_MAP_512, _needs(14, 18)),
    _flux("flux-256", 256, FLOW_MAP_256, _needs(13, 15)),
    Profile(
        name="flux-schnell",
        description=f"Any picture at 512 pixels, with FLUX.1-schnell as look-ahead. {_needs(13, 18)}",
        flow=FLUX_SCHNELL,
        draft=TAEF1,
        vlm=_QWEN,
        size=512,
        time_grid="scheduler",
        two_time=False,
        text_tokens=256,
        licence=FLUX_SCHNELL.licence,
        notices=(
            "Log in to the Hub and accept the conditions of FLUX.1-schnell on its page before the download.",
            _ONE_END,
        ),
    ),
    Profile(
        name="sana",
        description=f"Any picture at 1024 pixels, with SANA-Sprint 0.6B as look-ahead. {_needs(8, 27)}",
        kind="sana",
        flow=SANA_SPRINT,
        vlm=_QWEN,
        size=1024,
        two_time=False,
        text_tokens=300,
        licence=SANA_SPRINT.licence,
        notices=(_ONE_END,),
    ),
)
PROFILES = {profile.name: profile for profile in _ALL}


def chosen(name: str, vlm: str | None = None) -> Profile:
    """The profile of that name; with another VLM if one is named, by a name of VLMS or by its folder.

    "flux+Qwen3-VL-4B-Instruct" is such a choice as one name, the one that the profile then bears, so that recipes
    tell it. Raises EditError with a sentence.
    """
    name, _, named = name.partition("+")
    vlm = vlm or named or None
    if name not in PROFILES:
        raise EditError(f"There is no profile {name!r}: choose one of {', '.join(PROFILES)}.")
    profile = PROFILES[name]
    if profile.repos:
        judge = profile.vlm if vlm is None else chosen_vlm(vlm)
        if judge != profile.vlm:
            profile = replace(profile, name=f"{name}+{judge.name}", vlm=judge)
        said = judge.licence if isinstance(judge, Repo) else "a folder of your own, under the licence it came with."
        return replace(profile, notices=(*profile.notices, f"The VLM is {judge.name}: {said}"))
    if vlm is not None:
        raise EditError(f"The profile {name} comes with its own VLM: leave out the choice of another.")
    return profile


def own_weights(name: str) -> str | None:
    """The start of the SHA-256 of a profile's weights, in hexadecimal; None unless they come with the repository."""
    if name not in PROFILES or PROFILES[name].repos:
        return None
    files = sorted((ASSETS / name).rglob("*.safetensors"))
    digests = b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)
    return hashlib.sha256(digests).hexdigest()[:DIGITS]


def chosen_vlm(wanted: str) -> Repo | Path:
    """The VLM of a folder on this machine, or of VLMS by its name with or without owner and "-Instruct".

    Raises EditError for any other name, and for a folder that holds none or one of another family.
    """
    folder = Path(wanted).expanduser()
    if folder.is_dir():
        return _checked(folder.resolve())
    for repo in VLMS.values():
        if wanted.lower() in (known.lower() for known in (repo.id, repo.name, repo.name.removesuffix("-Instruct"))):
            return repo
    raise EditError(f"There is no VLM {wanted!r}: name a folder that holds one, or one of {', '.join(VLMS)}.")


def _checked(folder: Path) -> Path:
    try:
        family = json.loads((folder / "config.json").read_text())["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EditError(f"{folder} holds no VLM: name a folder with the config.json of one.") from error
    if family not in FAMILIES:
        raise EditError(f"{folder} holds a {family} model, which can't judge here: choose a Qwen2.5-VL or Qwen3-VL.")
    return folder
