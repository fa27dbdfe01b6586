"""`python -m editor.fetch flux`: download a profile's models; sizes and licence first; goes on where it stopped."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from editor.hub import Hub
from editor.profiles import PROFILES, Profile, chosen
from editor.repos import VLMS
from editor.types import EditError


def fetch(profile: Profile, hub: Hub) -> None:
    """Download what is missing of a profile. Raises EditError."""
    if not profile.repos:
        raise EditError(f"The profile {profile.name} comes with the repository: nothing has to be fetched.")
    print(profile.name, *profile.notices, sep="\n")
    for repo in profile.repos:
        print(f"{repo.id}: {hub.gigabytes(repo):.1f} GB to come ({repo.page}). {repo.licence}")
    for repo in profile.repos:
        print(f"{repo.id} is in {hub.fetch(repo)}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m editor.fetch", description=__doc__)
    names = ", ".join(name for name, profile in PROFILES.items() if profile.repos)
    parser.add_argument("profile", help=f"{names}; or with a VLM as recipes name it, like flux+Qwen3-VL-4B-Instruct")
    parser.add_argument("--vlm", help=f"another VLM than the profile's own: {', '.join(r.name for r in VLMS.values())}")
    options = parser.parse_args(arguments)
    try:
        fetch(chosen(options.profile, options.vlm), Hub())
    except EditError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
