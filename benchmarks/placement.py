"""Where should the time steps go? Places them at equal thermodynamic length from a pilot run.

python -m benchmarks.placement --problem ring [--lookahead map] [--pilot-steps 100] [--steps 8] [--json OUT]
python -m benchmarks.placement --pilot RUN.json --steps 8

RUN.json holds {"times": [...], "lengths": [...]}: the times t of a run's steps, and the Lambda spent between them,
which is how much the diagnostic 'length' grew from step to step. `SearchSettings.times` takes the printed times.
"""

from __future__ import annotations

import argparse
import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.exactness import LOOKAHEADS, SAMPLING, run
from benchmarks.problems import Problem, eight_modes, gaussian, noise, ring
from editor.fmtt import sample
from editor.schedules import place_times
from editor.types import SearchSettings

PROBLEMS = {
    "gaussian": lambda: gaussian(16)[0],
    "mixture": lambda: eight_modes(24)[0],
    "ring": ring,
}


def pilot(problem: Problem, settings: SearchSettings) -> tuple[list[float], list[float]]:
    """Times of a pilot run's steps and the length spent between them."""
    x = noise(settings.particles, problem.d, settings.seed)
    steps = [(s.t, s.diagnostics["length"]) for s in sample(problem.flow, problem.score, x, settings)]
    return [t for t, _ in steps], [b - a for (_, a), (_, b) in pairwise(steps)]


def compare(problem: Problem, settings: SearchSettings, times: tuple[float, ...]) -> dict[str, dict[str, float]]:
    """Length, discrepancy and error of log Z with even times and with the placed ones."""
    found = {}
    for name, candidate in (("even", settings), ("placed", settings.but(times=times))):
        numbers = run(problem, candidate).diagnostics
        found[name] = {key: numbers[key] for key in ("length", "discrepancy", "resamplings")}
        found[name]["log_z_error"] = abs(numbers["log_z"] - problem.log_z)
    return found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.placement", description=__doc__.splitlines()[0])
    parser.add_argument("--problem", choices=PROBLEMS, default="ring")
    parser.add_argument("--pilot", type=Path, metavar="RUN.json", help="use this run in place of a problem's")
    parser.add_argument("--lookahead", choices=LOOKAHEADS, default="map")
    parser.add_argument("--particles", type=int, default=400)
    parser.add_argument("--pilot-steps", type=int, default=100)
    parser.add_argument("--steps", type=int, default=8, help="time steps to place")
    parser.add_argument("--json", type=Path, metavar="OUT")
    args = parser.parse_args(argv)
    result: dict[str, Any] = {"steps": args.steps}
    if args.pilot:
        record = json.loads(args.pilot.read_text())
        times, lengths = record["times"], record["lengths"]
        result["times"] = place_times(times, lengths, args.steps)
    else:
        problem = PROBLEMS[args.problem]()
        settings = SAMPLING.but(particles=args.particles, lookahead=args.lookahead)
        times, lengths = pilot(problem, settings.but(steps=args.pilot_steps))
        result["times"] = place_times(times, lengths, args.steps)
        result |= compare(problem, settings.but(steps=args.steps), result["times"])
    print(json.dumps(result, indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
