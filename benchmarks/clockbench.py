"""ClockBench: instruction edits of rendered clocks against their perfect answers, read without any model.

    python -m benchmarks.clockbench [--quick] [--methods A B] [--budgets N M] [--kinds K L] [--cases N] [--tune]
                                    [--oracle-plan] [--swap reward|latent] [--work DIR] [--continue]
                                    [--reread] [--records FILE] [--json OUT] [--plots DIR]

Each edit runs through the engine as a user's would, with the VLM's plan unless --oracle-plan. Records and pictures are
kept in the work folder as they come; --continue leaves out what already stands there, and --reread has the judge read
those pictures once more. --records leaves out what stands in a file, and adds to it what this run measured: so many
sessions, and machines, share one run.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date
from itertools import product
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from benchmarks.cases import KINDS, Case, cases, make
from benchmarks.flowedit import METHOD
from benchmarks.judge_error import Degrade, blurred, measure
from benchmarks.presets import budgets, presets, settings
from benchmarks.records import Record, conditions, merged, read_records, write_records
from benchmarks.report import (
    budgets_table,
    contact_sheets,
    failures_table,
    kinds_table,
    picture_path,
    plots,
    rows,
    table,
)
from benchmarks.trials import SWAPS, Planned, planned, trial, verdict
from editor.engine import Editor
from editor.profiles import own_weights
from editor.types import EditError
from training.world import TEST, TUNE

QUICK = {"cases": 24, "budgets": [100], "methods": ["prompt-only", "best-of-n", "fmtt-map-1"], "judge": 48}
FULL = {"cases": 200, "budgets": [25, 50, 100, 200, 400], "judge": 300}


class Bench:
    """A run of the benchmark with its work folder, in which every record is a line of JSON."""

    def __init__(self, editor: Editor, work: Path, oracle: bool, swap: str | None, keep: bool,
                 known: Sequence[Record] = (), made: str = "") -> None:  # fmt: skip
        """`keep` goes on from the records of an earlier run instead of starting the folder anew.

        `known` are records of other folders, whose edits are not run again; `made` is what the new ones say of
        themselves.
        """
        self.editor, self.work, self.oracle, self.swap, self.made = editor, work, oracle, swap, made
        work.mkdir(parents=True, exist_ok=True)
        self.path, self.pictures = work / "records.jsonl", work / "pictures"
        here = read_records(self.path)
        if not keep:
            for path in (self.path, *(picture_path(self.pictures, record) for record in here)):
                path.unlink(missing_ok=True)
        self.records = merged(known, here if keep else ())

    def reread(self, first: int) -> None:
        """Have the judge, which may have changed, read all pictures again; cases are from the seed `first` on."""
        for index, record in enumerate(self.records):
            path = picture_path(self.pictures, record)
            if path.exists():
                with Image.open(path) as image:
                    found = verdict(make(first, record.case), image.convert("RGB"), record.refused)
                self.records[index] = replace(record, **found)
        write_records(self.path, self.records)

    def left(self, chosen: Sequence[Case], arms: Sequence[tuple[str, int]]) -> list[tuple[Case, list[tuple[str, int]]]]:
        """The cases that lack records, each with the (method, budget) of those."""
        done = {record.key for record in self.records}
        missing = [(case, [arm for arm in arms if (*arm, case.index) not in done]) for case in chosen]
        return [(case, lacks) for case, lacks in missing if lacks]

    def run(self, left: Sequence[tuple[Case, Sequence[tuple[str, int]]]]) -> Iterator[Record]:
        """Measure these cases by these (method, budget); all methods share a case's plan."""
        for case, arms in left:
            wanted = planned(self.editor, case, self.oracle)
            for arm in arms:
                yield self._measure(wanted, *arm)

    def _measure(self, wanted: Planned, method: str, budget: int) -> Record:
        now = settings(method, budget, seed=wanted.case.index)
        record, image = trial(self.editor, wanted, method, budget, now, self.swap)
        record = record.kept(self.made)
        path = picture_path(self.pictures, record)
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
        with self.path.open("a") as file:
            file.write(record.to_line())
        self.records.append(record)
        return record

    def of(self, chosen: Sequence[Case], arms: Sequence[tuple[str, int]]) -> list[Record]:
        """The records of these cases and arms, in the order of the arms."""
        wanted = {case.index for case in chosen}
        return [r for arm in arms for r in self.records if (r.method, r.budget) == arm and r.case in wanted]


def judge_error(count: int) -> dict[str, dict[str, float]]:
    """The judge's own error on clean and on blurred pictures."""
    degraded: dict[str, Degrade] = {"clean": lambda image: image, "blur 0.8": blurred(0.8), "blur 1.2": blurred(1.2)}
    return {name: measure(degrade, count)[0] for name, degrade in degraded.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    asked = _parser().parse_args(arguments)
    size = QUICK if asked.quick else FULL
    first = TUNE if asked.tune else TEST
    chosen = cases(first, asked.cases or size["cases"], asked.kinds)
    try:
        arms = _arms(_methods(asked), asked.budgets or size["budgets"])
        keep = asked.reread or getattr(asked, "continue")
        known = _known(asked)
        editor = Editor.load("studio")
        made = f"{date.today()}, {editor.models.hardware.held}, weights {own_weights('studio')}"
        bench = Bench(editor, asked.work, asked.oracle_plan, asked.swap, keep, known, made)
    except (ValueError, EditError) as error:
        print(error, file=sys.stderr)
        return 2
    for method, budget in product(_methods(asked), asked.budgets or size["budgets"]):
        if (method, budget) not in arms:
            print(f"{method} is left out at {budget} NFE: it has no settings for that.", file=sys.stderr)
    if asked.reread:
        bench.reread(first)
    started = time.monotonic()
    left = bench.left(chosen, arms)
    for _ in tqdm(bench.run(left), total=sum(len(lacks) for _, lacks in left), file=sys.stderr, unit="edit"):
        pass
    if asked.records:
        write_records(asked.records, bench.records)
    records = bench.of(chosen, arms)
    found, judge = rows(records), judge_error(size["judge"])
    tables = table(found), budgets_table(found), kinds_table(found), failures_table(records), conditions(records)
    print(*tables, sep="\n\n")
    for name, row in judge.items():
        print(f"\nThe judge on {name} pictures: " + ", ".join(f"{key} {value:.4g}" for key, value in row.items()))
    if asked.json:
        asked.json.write_text(json.dumps({
            "split": "tune" if asked.tune else "test", "plan": "oracle" if asked.oracle_plan else "vlm",
            "swap": asked.swap, "seconds": time.monotonic() - started, "judge": judge, "rows": found,
            "records": [record.to_json() for record in records],
        }, indent=1) + "\n")  # fmt: skip
    if asked.plots:
        plots(found, asked.plots)
        contact_sheets(records, bench.pictures, first, asked.plots)
    return 0


def _known(asked: argparse.Namespace) -> list[Record]:
    """What stands in the file of records. Raises ValueError for a run whose edits don't belong there."""
    if not asked.records:
        return []
    if asked.tune or asked.oracle_plan or asked.swap:
        raise ValueError("--records holds edits of the test split by the VLM's plans: leave out --tune, --oracle-plan "
                         "and --swap.")  # fmt: skip
    return read_records(asked.records)


def _methods(asked: argparse.Namespace) -> list[str]:
    """Those that were asked for; of all methods, where the truth takes a search's part, those that search."""
    if asked.swap and METHOD in (asked.methods or ()):
        raise ValueError(f"{METHOD} is no search, so nothing of it can be swapped: name other --methods.")
    quick = QUICK["methods"] if asked.quick else None
    return asked.methods or quick or [name for name in presets() if not (asked.swap and name == METHOD)]


def _arms(methods: Sequence[str], wanted: Sequence[int]) -> list[tuple[str, int]]:
    """(method, budget) to run: those of these budgets that a method has settings for. Raises ValueError for none."""
    for method in methods:
        if not set(wanted) & set(budgets(method)):
            settings(method, wanted[0])
    return [(method, budget) for method in methods for budget in wanted if budget in budgets(method)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clockbench", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="24 cases, three methods, one budget")
    parser.add_argument("--methods", nargs="+", choices=list(presets()), metavar="METHOD", help=", ".join(presets()))
    parser.add_argument("--budgets", nargs="+", type=int, metavar="NFE", help="network evaluations of a search")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--cases", type=int, help="how many edits of each method; 200, or 24 with --quick")
    parser.add_argument("--tune", action="store_true", help="cases of the tuning split in place of the test split")
    parser.add_argument("--oracle-plan", action="store_true", help="the world's perfect plans in place of the VLM's")
    parser.add_argument("--swap", choices=SWAPS, help="put the truth in the place of a part")
    parser.add_argument("--work", type=Path, default=Path("runs/clockbench"), help="where records and pictures go")
    parser.add_argument("--continue", action="store_true", help="go on from the records in the work folder")
    parser.add_argument("--reread", action="store_true", help="as --continue, but judge the pictures there once more")
    parser.add_argument("--records", type=Path, metavar="FILE", help="go on from these records, and add the new ones")
    parser.add_argument("--json", type=Path, help="write rows and records here")
    parser.add_argument("--plots", type=Path, help="write plots and contact sheets into this folder")
    return parser


if __name__ == "__main__":
    sys.exit(main())
