"""The Hugging Face Hub: what of a profile is on this machine, what is missing, and fetching it when asked.

Nothing here starts a download unless `fetch` is called. Every failure is one sentence that says what to do.
"""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, get_token, snapshot_download
from huggingface_hub.errors import (
    DryRunError,
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    IncompleteSnapshotError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    XetDownloadError,
)

from editor.profiles import PROFILES, Profile
from editor.repos import VOCABULARIES, Repo
from editor.types import EditError

UNREACHABLE = (HTTPError, ConnectionError, OfflineModeIsEnabled, LocalEntryNotFoundError, DryRunError)
"""What the libraries raise when the Hub cannot be reached."""
FETCH = "python -m editor.fetch and the name of the profile"
"""How to fetch what no profile is known of; see `fetch_command`."""
SHARD = re.compile(r"-\d+-of-\d+\.safetensors$")
INDEX = "*.safetensors.index.json"
VARIANT = re.compile(r"\.(fp16|bf16)[.-]")
"""In the names of weights that some repositories hold a second time in half precision; nothing here loads them."""
MAX_HEADER = 100_000_000
"""The most bytes of a header that the format allows."""
TOKENS = "https://huggingface.co/settings/tokens"


@dataclass(frozen=True)
class Hub:
    """The outside world as functions, so that tests bring their own."""

    snapshot: Callable[..., str | list] = snapshot_download
    authorise: Callable[[str], None] = lambda repo: HfApi().auth_check(repo)
    token: Callable[[], str | None] = get_token

    def folder(self, repo: Repo, command: str = FETCH) -> Path:
        """Where the repository lies on this machine.

        Raises EditError when it is absent or incomplete, with the command that fetches it.
        """
        try:
            folder = Path(self.snapshot(repo.id, allow_patterns=list(repo.files), local_files_only=True))
        except IncompleteSnapshotError as error:
            raise EditError(f"The download of {repo.id} stopped half-way: fetch it with {command}.") from error
        except OSError as error:
            raise EditError(f"{repo.id} is not on this machine: fetch it with {command}.") from error
        wrong = faults(folder, repo)
        if wrong:
            raise EditError(f"The download of {repo.id} stopped half-way ({wrong[0]}): fetch it with {command}.")
        return folder

    def damaged(self, repo: Repo) -> dict[str, int]:
        """See `cut_off`, of the repository on this machine; empty if files are missing too."""
        try:
            return cut_off(Path(self.snapshot(repo.id, allow_patterns=list(repo.files), local_files_only=True)))
        except OSError:
            return {}

    def gigabytes(self, repo: Repo) -> float:
        """How much of the repository is still to come, asked of the Hub. Raises EditError when it cannot be asked."""
        files = self._ask(repo, lambda: self.snapshot(repo.id, allow_patterns=list(repo.files), dry_run=True))
        coming = sum(file.file_size for file in files if file.will_download)
        return (coming + sum(self.damaged(repo).values())) / 1e9

    def check_access(self, repo: Repo) -> None:
        """Raises EditError unless the token on this machine may read the repository."""
        self._ask(repo, lambda: self.authorise(repo.id))

    def fetch(self, repo: Repo) -> Path:
        """Download what is missing or cut off; files that are whole stay. Raises EditError."""
        self._ask(repo, lambda: self.snapshot(repo.id, allow_patterns=list(repo.files)))
        damaged = self.damaged(repo)
        if damaged:
            self._ask(repo, lambda: self.snapshot(repo.id, allow_patterns=list(damaged), force_download=True))
        return self.folder(repo)

    def _ask(self, repo: Repo, call: Callable[[], object]):
        try:
            return call()
        except (HTTPError, OSError, XetDownloadError) as error:
            raise EditError(self.explain(repo, error)) from error

    def explain(self, repo: Repo, error: Exception) -> str:
        """One sentence for what went wrong with the Hub, and what to do about it."""
        error = answered(error)
        status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
        gated = isinstance(error, GatedRepoError) or (repo.gated and status in (401, 403))
        if gated and self.token() is None:
            return f"{repo.id} is gated: run hf auth login, then accept its licence at {repo.page}."
        if status == 403 and "fine-grained" in str(error):
            return f"Your token may not read gated repositories such as {repo.id}: allow it at {TOKENS}."
        if isinstance(error, GatedRepoError):
            return f"The licence of {repo.id} is not accepted yet: accept it at {repo.page} as the owner of your token."
        if isinstance(error, RepositoryNotFoundError) or status == 401:
            return (
                f"The Hub does not show {repo.id} to you: run hf auth login again, the token may be wrong or expired."
            )
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            return f"The disk is full: free space for {repo.id} or set HF_HOME to a larger disk, then fetch again."
        if isinstance(error, UNREACHABLE) and status is None:
            return f"The Hub cannot be reached for {repo.id}: go online and fetch again, it goes on where it stopped."
        return f"{repo.id} could not be read from the Hub ({type(error).__name__}): try again later."


def answered(error: Exception) -> Exception:
    """The Hub's own answer among the causes of an error, if it gave one; the libraries wrap it as a lost connection."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, HfHubHTTPError):
        cause = cause.__cause__
    return error if cause is None else cause


def faults(folder: Path, repo: Repo) -> list[str]:
    """What is wrong with a repository's folder, as ends of sentences: files that are missing, weights cut off."""
    absent = [f"{name} is missing" for name in missing(folder, repo)]
    return absent + [f"{name} is cut off or damaged" for name in cut_off(folder)]


def cut_off(folder: Path) -> dict[str, int]:
    """The weights in a folder whose size is not what their header says: paths in it, with the bytes of a whole file.

    Those are 0 where the header itself is damaged, and for an index of weights that is. Reads the headers alone.
    """
    files = [file for file in sorted(folder.rglob("*.safetensors")) if not VARIANT.search(file.name) and file.is_file()]
    lengths = {file: length(file) for file in files}
    broken = {file: wanted or 0 for file, wanted in lengths.items() if file.stat().st_size != wanted}
    broken |= {index: 0 for index in sorted(folder.rglob(INDEX)) if shards(index) is None}
    return {file.relative_to(folder).as_posix(): wanted for file, wanted in broken.items()}


def length(file: Path) -> int | None:
    """Bytes of a safetensors file by its header: eight for the header's length, JSON, data; None if it is damaged."""
    try:
        with file.open("rb") as opened:
            size = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(min(size, MAX_HEADER)))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        return 8 + size + max(ends, default=0)
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


def shards(index: Path) -> list[str] | None:
    """The files of weights that an index names; None if it is damaged."""
    try:
        return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


def missing(folder: Path, repo: Repo) -> list[str]:
    """What the repository's patterns, the parts of a pipeline and the folder's own indices need and is not there."""
    named = [pattern for pattern in repo.files if "*" not in pattern]
    for part in (pattern[:-2] for pattern in repo.files if pattern.endswith("/*")):
        named += lacking(folder / part) if (folder / part).is_dir() else [part]
    named += [pattern for pattern in repo.files if pattern == "*.safetensors" and not any(folder.glob(pattern))]
    for shard in (file for file in sorted(folder.rglob("*-of-*.safetensors")) if not VARIANT.search(file.name)):
        named.append(SHARD.sub(".safetensors.index.json", shard.relative_to(folder).as_posix()))
    for index in folder.rglob(INDEX):
        place = index.parent.relative_to(folder)
        named += [str(place / shard) for shard in shards(index) or ()]
    return [name for name in named if not (folder / name).exists()]


def lacking(part: Path) -> list[str]:
    """What a part of a pipeline needs and is not there: a tokenizer's words, a scheduler's settings, or weights."""
    if part.name.startswith("tokenizer"):
        return [] if any((part / name).is_file() for name in VOCABULARIES) else [f"{part.name}/{VOCABULARIES[0]}"]
    if part.name == "scheduler":
        return [f"{part.name}/scheduler_config.json"] if not (part / "scheduler_config.json").is_file() else []
    found = any(not VARIANT.search(file.name) for file in part.glob("*.safetensors"))
    weights = [] if found else [f"{part.name}/*.safetensors"]
    return weights if (part / "config.json").is_file() else [f"{part.name}/config.json", *weights]


def fetch_command(profile: Profile) -> str:
    """The command that fetches what a profile needs, with the VLM if it is another one of the Hub than its own."""
    name = profile.name.partition("+")[0]
    other = isinstance(profile.vlm, Repo) and profile.vlm != PROFILES[name].vlm
    return f"python -m editor.fetch {name}" + (f" --vlm {profile.vlm.name}" if other else "")


def folders(profile: Profile, hub: Hub) -> dict[str, Path]:
    """The folder of every repository of a profile by its id. Raises EditError for the first that is not there."""
    return {repo.id: hub.folder(repo, fetch_command(profile)) for repo in profile.repos}
