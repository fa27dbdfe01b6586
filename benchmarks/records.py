"""What ClockBench keeps of a measured edit, and the file of such records that sessions and machines share."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from editor.types import EditError

DIGITS = 5
"""Significant digits of what is kept: more than any table shows."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """A measured edit, as it stands in the JSON."""

    method: str
    budget: int
    case: int
    kind: str
    instruction: str
    refused: str
    """Why there was no edit, or nothing; the source then counts as the result."""
    plan_exact: bool
    success_3: bool
    """What should change did, a time to within 3 minutes; never for a refusal."""
    success_10: bool
    minutes_off: float | None
    """From the time that should be shown; None where none could be read or no time was to change."""
    moved: tuple[str, ...]
    """Attributes that should have stayed and did not."""
    psnr: float
    """dB to the perfect answer."""
    ssim: float
    source_psnr: float
    """dB of the source to the perfect answer: what doing nothing reaches."""
    score: float | None
    source_score: float | None
    least: float | None
    """The least probability that the VLM gives a check of the plan; None where none was asked."""
    believed: bool | None
    """Whether it holds every check for more likely met than not."""
    nfe: int
    inversion_nfe: int
    vlm_calls: int
    decodes: int
    seconds: float
    peak_mb: float
    """Largest resident memory of the process during the edit, models included."""
    made: str = ""
    """When it was measured and by what: the date, how the models were held, which weights."""

    @property
    def key(self) -> tuple[str, int, int]:
        """Method, budget and case: what there is one record of."""
        return self.method, self.budget, self.case

    @classmethod
    def from_line(cls, line: str) -> Self:
        """Of one line of a file. Raises ValueError or TypeError for anything else."""
        values = json.loads(line)
        return cls(**values | {"moved": tuple(values["moved"])})

    def kept(self, made: str) -> Self:
        """As it is kept: with `made`, and numbers of DIGITS digits."""
        short = {name: float(f"{value:.{DIGITS}g}") for name, value in vars(self).items() if isinstance(value, float)}
        return replace(self, made=made, **short)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def to_line(self) -> str:
        """As it stands in a file."""
        return json.dumps(self.to_json()) + "\n"


def read_records(path: Path) -> list[Record]:
    """Those of a file of JSON lines, gzipped where its name ends in .gz; none where there is no such file.

    Raises EditError for a file of anything else.
    """
    if not path.exists():
        return []
    try:
        data = path.read_bytes()
        lines = (gzip.decompress(data) if path.suffix == ".gz" else data).decode().splitlines()
        return [Record.from_line(line) for line in lines]
    except (ValueError, TypeError, KeyError, OSError, EOFError) as error:
        raise EditError(f"{path} holds no records of ClockBench: name another file, or remove it.") from error


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write all of them, in their order, as `read_records` takes them; the same records give the same bytes."""
    data = "".join(record.to_line() for record in records).encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def merged(known: Iterable[Record], newer: Iterable[Record]) -> list[Record]:
    """One record of each key, the newer one of two, ordered by key."""
    found = {record.key: record for record in (*known, *newer)}
    return [found[key] for key in sorted(found)]


def conditions(records: Sequence[Record]) -> str:
    """How many of the edits were measured when and by what, a line each."""
    counts: dict[str, int] = {}
    for record in sorted(records, key=lambda r: r.made):
        counts[record.made] = counts.get(record.made, 0) + 1
    return "\n".join(f"{count} of the edits: {made or 'conditions not recorded'}." for made, count in counts.items())
