"""The Hugging Face Hub: what of a profile is on this machine, what is missing, and fetching it when asked.

Nothing here starts a download unless `fetch` is called. Every failure is one sentence that says what to do.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, get_token, snapshot_download
from huggingface_hub.errors import (
    DryRunError,
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from editor.profiles import Profile
from editor.repos import Repo
from editor.types import EditError

UNREACHABLE = (HTTPError, ConnectionError, OfflineModeIsEnabled, LocalEntryNotFoundError, DryRunError)
"""What the libraries raise when the Hub cannot be reached."""
FETCH = "fetch it with python -m editor.fetch and the name of the profile"
TOKENS = "https://huggingface.co/settings/tokens"


@dataclass(frozen=True)
class Hub:
    """The outside world as functions, so that tests bring their own."""

    snapshot: Callable[..., str | list] = snapshot_download
    authorise: Callable[[str], None] = lambda repo: HfApi().auth_check(repo)
    token: Callable[[], str | None] = get_token

    def folder(self, repo: Repo) -> Path:
        """Where the repository lies on this machine. Raises EditError when it is absent or incomplete."""
        try:
            folder = Path(self.snapshot(repo.id, allow_patterns=list(repo.files), local_files_only=True))
        except OSError as error:
            raise EditError(f"{repo.id} is not on this machine: {FETCH}.") from error
        torn = missing(folder, repo)
        if torn:
            raise EditError(f"The download of {repo.id} stopped half-way ({torn[0]} is missing): {FETCH}.")
        return folder

    def gigabytes(self, repo: Repo) -> float:
        """How much of the repository is still to come, asked of the Hub. Raises EditError when it cannot be asked."""
        files = self._ask(repo, lambda: self.snapshot(repo.id, allow_patterns=list(repo.files), dry_run=True))
        return sum(file.file_size for file in files if file.will_download) / 1e9

    def check_access(self, repo: Repo) -> None:
        """Raises EditError unless the token on this machine may read the repository."""
        self._ask(repo, lambda: self.authorise(repo.id))

    def fetch(self, repo: Repo) -> Path:
        """Download what is missing; goes on where it stopped. Raises EditError."""
        self._ask(repo, lambda: self.snapshot(repo.id, allow_patterns=list(repo.files)))
        return self.folder(repo)

    def _ask(self, repo: Repo, call: Callable[[], object]):
        try:
            return call()
        except (HTTPError, OSError) as error:
            raise EditError(self.explain(repo, error)) from error

    def explain(self, repo: Repo, error: Exception) -> str:
        """One sentence for what went wrong with the Hub, and what to do about it."""
        if isinstance(error, GatedRepoError):
            if self.token() is None:
                return f"{repo.id} is gated: run hf auth login, then accept its licence at {repo.page}."
            if "fine-grained" in str(error):
                return f"Your token may not read gated repositories such as {repo.id}: allow it at {TOKENS}."
            return f"The licence of {repo.id} is not accepted yet: accept it at {repo.page} as the owner of your token."
        if isinstance(error, RepositoryNotFoundError):
            return (
                f"The Hub does not show {repo.id} to you: run hf auth login again, the token may be wrong or expired."
            )
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            return f"The disk is full: free space for {repo.id} or set HF_HOME to a larger disk, then fetch again."
        if isinstance(error, UNREACHABLE) and not isinstance(error, HfHubHTTPError):
            return f"The Hub cannot be reached for {repo.id}: go online and fetch again, it goes on where it stopped."
        return f"{repo.id} could not be read from the Hub ({type(error).__name__}): try again later."


def missing(folder: Path, repo: Repo) -> list[str]:
    """Files that the folder's own indices and the repository's patterns name and that are not there."""
    named = [pattern for pattern in repo.files if "*" not in pattern]
    for pattern in (pattern for pattern in repo.files if pattern.endswith("/*")):
        named += [pattern[:-2]] if not (folder / pattern[:-2]).is_dir() else []
    named += [pattern for pattern in repo.files if pattern == "*.safetensors" and not any(folder.glob(pattern))]
    for index in folder.rglob("*.safetensors.index.json"):
        place = index.parent.relative_to(folder)
        named += [str(place / shard) for shard in sorted(set(json.loads(index.read_text())["weight_map"].values()))]
    return [name for name in named if not (folder / name).exists()]


def folders(profile: Profile, hub: Hub) -> dict[str, Path]:
    """The folder of every repository of a profile by its id. Raises EditError for the first that is not there."""
    return {repo.id: hub.folder(repo) for repo in profile.repos}
