"""`python -m editor doctor`: can this machine run a profile, and if not, what to do. Asks, never downloads."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from math import ceil
from pathlib import Path

import torch
from huggingface_hub import constants
from packaging.requirements import Requirement

from editor.hub import Hub, faults, fetch_command
from editor.memory import choose, host_need, need, spread
from editor.profiles import ASSETS, PROFILES, Profile, chosen
from editor.repos import FLUX_PIPELINE, VLMS, Repo
from editor.types import EditError

REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements.txt"
MEMINFO = Path("/proc/meminfo")
CARDS = (12, 16, 24, 48, 80)
"""GB of the GPUs that the memory model is shown for."""


@dataclass(frozen=True)
class Finding:
    """One line of the report: what was looked at, whether it is fine, and the state or what to do."""

    what: str
    ok: bool
    text: str


@dataclass(frozen=True)
class Gpu:
    name: str
    free: float
    """GB."""
    total: float
    """GB."""


def usable_gpus() -> list[Gpu]:
    """The NVIDIA GPUs that torch can use."""
    if not torch.cuda.is_available():
        return []
    count = range(torch.cuda.device_count())
    return [Gpu(torch.cuda.get_device_name(i), *(part / 1e9 for part in torch.cuda.mem_get_info(i))) for i in count]


def driver() -> str | None:
    """The version of the NVIDIA driver as nvidia-smi tells it, or None where that is missing, fails or hangs."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.split("\n")[0].strip() or None


def installed(package: str) -> str | None:
    """The version of a package, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def disk_free(folder: Path) -> float:
    """GB free where `folder` is or will be."""
    return shutil.disk_usage(next(parent for parent in (folder, *folder.parents) if parent.exists())).free / 1e9


def ram() -> float | None:
    """GB of main memory; None where the system doesn't tell."""
    told = meminfo("MemTotal")
    if told is not None:
        return told
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (AttributeError, OSError, ValueError):
        return None


def swap() -> float:
    """GB of swap space; 0 where the system doesn't tell."""
    return meminfo("SwapTotal") or 0.0


def meminfo(name: str, table: Path = MEMINFO) -> float | None:
    """GB of an entry of Linux's table of memory; None where there is no such table or entry."""
    try:
        entries = dict(line.split(":", 1) for line in table.read_text().splitlines() if ":" in line)
        return int(entries[name].split()[0]) * 1024 / 1e9
    except (OSError, ValueError, LookupError):
        return None


@dataclass(frozen=True)
class Machine:
    """What the doctor looks at, as functions, so that tests bring their own."""

    gpus: Callable[[], list[Gpu]] = usable_gpus
    driver: Callable[[], str | None] = driver
    installed: Callable[[str], str | None] = installed
    disk_free: Callable[[Path], float] = disk_free
    ram: Callable[[], float | None] = ram
    swap: Callable[[], float] = swap
    hub: Hub = field(default_factory=Hub)
    cache: Path = Path(constants.HF_HUB_CACHE)
    models: Path = ASSETS


def main(profile_name: str, as_json: bool, machine: Machine | None = None, vlm: str | None = None) -> int:
    """Print the report, as one JSON object if asked; 0 if the profile can run here, else 1. Raises EditError.

    `vlm` is another VLM than the profile's own, see `profiles.chosen`.
    """
    profile = chosen(profile_name, vlm)
    findings = list(examine(profile, machine or Machine()))
    healthy = all(finding.ok for finding in findings)
    table, judges = list(memory_table(profile)), list(judge_table(profile))
    if as_json:
        told = {"profile": profile.name, "ok": healthy, "findings": [asdict(f) for f in findings]}
        print(json.dumps(told | {"memory": table, "vlms": judges}))
        return 0 if healthy else 1
    for finding in findings:
        print(f"{'ok ' if finding.ok else 'FIX'}  {finding.what}: {finding.text}")
    for row in table:
        print(f"     a GPU of {row['card_gb']} GB (computed, not measured): {row['plan']}")
    for row in judges:
        print(f"     --vlm {row['name']} ({row['gb']} GB): {row['licence']}")
    return 0 if healthy else 1


def examine(profile: Profile, machine: Machine) -> Iterator[Finding]:
    """Everything that the profile needs, one finding after the other."""
    yield Finding("Python", True, platform.python_version())
    yield from packages(machine)
    if not profile.repos:
        yield bundled(profile, machine)
        return
    yield from gpu(profile, machine)
    to_come = 0.0
    for repo in profile.repos:
        finding, gigabytes = files(repo, machine, fetch_command(profile))
        to_come += gigabytes
        yield finding
        if gigabytes:
            yield access(repo, machine)
    free = machine.disk_free(machine.cache)
    text = f"{free:.0f} GB free in {machine.cache}, {to_come:.1f} GB to come"
    yield Finding(
        "disk", free > to_come, text if free > to_come else f"{text}: free space or set HF_HOME to another disk"
    )
    yield memory(profile, machine)
    for repo in profile.repos:
        yield Finding("licence", True, f"{repo.id}: {repo.licence}")


def memory(profile: Profile, machine: Machine) -> Finding:
    """Main memory for what is loaded through it, together with swap space, which is slower."""
    wanted, found, swapped = host_need(profile), machine.ram(), machine.swap()
    if found is None:
        return Finding("RAM", True, f"{ceil(wanted)} GB wanted (computed); this system does not tell how much it has")
    text = f"{found:.0f} GB of main memory and {swapped:.0f} GB of swap space, {ceil(wanted)} GB wanted (computed)"
    short = wanted - found - swapped
    if short <= 0:
        return Finding("RAM", True, text)
    fitting = [name for name, other in PROFILES.items() if not other.repos or host_need(other) <= found + swapped]
    return Finding("RAM", False, f"{text}: add {ceil(short)} GB of either, or use the profile {' or '.join(fitting)}")


def packages(machine: Machine) -> Iterator[Finding]:
    """Each package that requirements.txt names up to its first blank line: what the app runs on."""
    for line in REQUIREMENTS.read_text().split("\n\n")[0].splitlines():
        if line.startswith("#"):
            continue
        wanted, found = Requirement(line), machine.installed(Requirement(line).name)
        ok = found is not None and wanted.specifier.contains(found, prereleases=True)
        yield Finding(wanted.name, ok, found if ok else f"{found or 'absent'}, needs {wanted}: make clean run")


def bundled(profile: Profile, machine: Machine) -> Finding:
    """The models that come with the repository."""
    flow, vlm = machine.models / str(profile.flow), machine.models / str(profile.vlm)
    wrong = faults(flow, Repo("", FLUX_PIPELINE, 0)) + faults(vlm, Repo("", ("config.json", "model.safetensors"), 0))
    text = f"{wrong[0]}: fetch the repository again" if wrong else f"in {machine.models}"
    return Finding("models", not wrong, text)


def gpu(profile: Profile, machine: Machine) -> Iterator[Finding]:
    """GPU, driver, and the plan that fits."""
    found, release = machine.gpus(), machine.driver()
    if release is not None:
        yield Finding("driver", True, release)
    elif found:
        yield Finding("driver", True, "its version is not known, since nvidia-smi does not answer; torch finds the GPU")
    else:
        yield Finding("driver", False, "no NVIDIA driver answers: install one, or use the profile studio")
    if not found:
        yield Finding(
            "GPU", False, "torch finds none: install a torch build for your driver, or use the profile studio"
        )
        return
    for card in found:
        yield Finding("GPU", True, f"{card.name}, {card.free:.1f} of {card.total:.1f} GB free")
    try:
        way = spread(profile, [card.free for card in found])
    except EditError as error:
        yield Finding("memory", False, str(error))
    else:
        where = f"on GPU {way.flow}" if way.vlm is None else f"on GPU {way.flow}, VLM on GPU {way.vlm}"
        yield Finding("memory", True, f"{way.plan}, {where} ({sum(need(profile, way.plan).values()):.0f} GB computed)")


def files(repo: Repo, machine: Machine, command: str) -> tuple[Finding, float]:
    """Whether the repository is on this machine, and the GB that are still to come, asked of the Hub if it answers.

    `command` is what fetches it.
    """
    try:
        return Finding(repo.id, True, f"in {machine.hub.folder(repo, command)}"), 0.0
    except EditError as error:
        absent = str(error)
    try:
        gigabytes = machine.hub.gigabytes(repo)
        size = f"{gigabytes:.1f} GB to come."
    except EditError as error:
        gigabytes = repo.gigabytes
        size = f"{gigabytes:.1f} GB to come, computed and not asked of the Hub: {error}"
    return Finding(repo.id, False, f"{absent} {size}"), max(gigabytes, 0.001)


def access(repo: Repo, machine: Machine) -> Finding:
    """Whether the token may read a repository that must still be fetched."""
    if repo.gated and machine.hub.token() is None:
        return Finding("token", False, f"{repo.id} is gated: run hf auth login, then accept its licence at {repo.page}")
    try:
        machine.hub.check_access(repo)
    except EditError as error:
        return Finding("token", False, str(error))
    return Finding("token", True, f"{repo.id} may be read")


def judge_table(profile: Profile) -> Iterator[dict[str, object]]:
    """The VLMs on offer with their size in GB and their licence; none for the studio, which has its own."""
    for repo in VLMS.values() if profile.repos else ():
        yield {"name": repo.name, "gb": repo.gigabytes, "licence": repo.licence}


def memory_table(profile: Profile) -> Iterator[dict[str, object]]:
    """For each size of GPU the plan and its arithmetic in GB; nothing for the studio. Computed, not measured."""
    for card in CARDS if profile.repos else ():
        try:
            plan = choose(profile, card)
        except EditError as error:
            yield {"card_gb": card, "plan": str(error), "parts_gb": None, "computed": True}
        else:
            parts = {name: round(value, 1) for name, value in need(profile, plan).items()}
            yield {"card_gb": card, "plan": f"{plan}; {parts}", "parts_gb": parts, "computed": True}
