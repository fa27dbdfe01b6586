"""Is it really sampling? FMTT against closed forms on exact flow maps.

python -m benchmarks.exactness [--quick] [--json OUT] [--plots DIR]
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.exactness_plots import draw
from benchmarks.problems import Problem, eight_modes, gaussian, noise, ring
from editor.fmtt import sample, search
from editor.oracles import Gaussian
from editor.particles import systematic
from editor.types import SearchSettings, Step

LOOKAHEADS = ("map", "denoiser", "none")
DISCRETISATIONS = ("transport", "euler-maruyama")
ERRORS = ("mean", "cov", "log_z")
PUBLISHED_NOISE = {"map": 1.5, "denoiser": 1.0, "none": 1.5}
"""eps of the paper's mixture figure for each look-ahead."""
SAMPLING = SearchSettings(method="fmtt-sampling", strength=1.0, renoise=0.0, noise=1.0, corrections=1)
Row = dict[str, Any]


def run(problem: Problem, settings: SearchSettings) -> Step:
    """The last step of a search or a sampler, from fresh noise."""
    method = sample if settings.method == "fmtt-sampling" else search
    *_, last = method(problem.flow, problem.score, noise(settings.particles, problem.d, settings.seed), settings)
    return last


def thermodynamics(last: Step) -> Row:
    """What a run says of itself."""
    return {name: last.diagnostics[name] for name in ("length", "discrepancy", "resamplings")} | {"nfe": last.nfe}


# Gaussian


def moments(x: Tensor, log_weights: Tensor, law: Gaussian) -> tuple[Tensor, float]:
    """Error of the weighted mean, in units of the law's root-mean-square radius, and of the covariance, relatively."""
    w = torch.softmax(log_weights, 0)
    mean = w @ x
    cov = (x - mean).T @ (w[:, None] * (x - mean))
    return (mean - law.mean) / law.variances.sum().sqrt(), float((cov - law.cov).norm() / law.cov.norm())


def gaussian_row(d: int, particles: int, steps: int, discretisation: str, seeds: int) -> Row:
    """Root-mean-square errors over seeds; and the bias of Z^ / Z, which tells a wrong law from too few particles.

    `z_bias` is the mean of Z^ / Z - 1 over seeds, `z_bias_se` its standard error; of an exact sampler the first is
    zero for any number of steps and particles, within the second.
    """
    problem, law = gaussian(d)
    means, covs, log_zs, lengths, resamplings = [], [], [], [], []
    for seed in range(seeds):
        if discretisation == "exact":
            x = problem.draw(particles, torch.Generator().manual_seed(seed))
            log_weights, log_z = torch.zeros(particles, dtype=x.dtype), problem.log_z
        else:
            settings = SAMPLING.but(particles=particles, steps=steps, discretisation=discretisation, seed=seed)
            last = run(problem, settings)
            x, log_weights, log_z = last.x, last.log_weights, last.diagnostics["log_z"]
            lengths.append(last.diagnostics["length"])
            resamplings.append(last.diagnostics["resamplings"])
        mean, cov = moments(x, log_weights, law)
        means.append(mean)
        covs.append(cov)
        log_zs.append(log_z - problem.log_z)
    means, log_zs = torch.stack(means), torch.tensor(log_zs)
    row = {"d": d, "particles": particles, "steps": steps, "discretisation": discretisation, "seeds": seeds}
    row |= {"mean_error": rms(means.norm(dim=1)), "cov_error": rms(torch.tensor(covs)), "log_z_error": rms(log_zs)}
    if lengths:
        ratios = log_zs.expm1()
        row |= {"z_bias": float(ratios.mean()), "z_bias_se": float(ratios.std() / math.sqrt(seeds))}
        row |= {"length": sum(lengths) / seeds, "resamplings": sum(resamplings) / seeds}
    return row


def rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


def gaussian_rows(quick: bool) -> list[Row]:
    """Errors against the steps at the most particles, against the particles at eight steps, and of exact draws."""
    seeds, grid = (8, (2, 4, 8, 16)) if quick else (16, (2, 4, 8, 16, 32, 64))
    rows = []
    for d in (2, 16, 256):
        counts = (64, 256) if quick and d == 256 else (64, 256, 512) if quick else (64, 256, 1024)
        for discretisation in DISCRETISATIONS:
            rows += [gaussian_row(d, counts[-1], steps, discretisation, seeds) for steps in grid]
            rows += [gaussian_row(d, n, 8, discretisation, seeds) for n in counts[:-1]]
        rows += [gaussian_row(d, n, 0, "exact", seeds) for n in counts]
    return rows


def slopes(rows: list[Row]) -> list[Row]:
    """How the errors of mean, covariance and log Z depend on the step size and on the particles, by d and rule.

    `*_by_step` are regressions of log error on log (1 / steps), at the most particles: 1 is first order.
    `*_by_particles` are those on log N, at eight steps: -0.5 is Monte Carlo's. Errors against steps contain the noise
    of finitely many particles, which too may fall with more steps, so `largest_z` says what is bias: over the numbers
    of steps, the largest |z_bias| in its standard errors. A rule without step-size bias stays at what chance gives,
    about 2 to 4.
    Exact draws have particles alone, and no error of log Z.
    """
    found = []
    for d in sorted({row["d"] for row in rows}):
        for rule in (*DISCRETISATIONS, "exact"):
            mine = [row for row in rows if row["d"] == d and row["discretisation"] == rule]
            most = max(row["particles"] for row in mine)
            stepped = [row | {"step": 1 / row["steps"]} for row in mine if row["particles"] == most and row["steps"]]
            fits: Row = {f"{name}_by_step": slope(stepped, "step", f"{name}_error") for name in ERRORS if stepped}
            counted = [row for row in mine if row["steps"] in (0, 8)]
            names = ERRORS if stepped else ERRORS[:2]
            fits |= {f"{name}_by_particles": slope(counted, "particles", f"{name}_error") for name in names}
            if stepped:
                fits["largest_z"] = max(abs(row["z_bias"]) / row["z_bias_se"] for row in stepped)
            found.append({"d": d, "discretisation": rule, **fits})
    return found


def slope(series: list[Row], key: str, error: str) -> float:
    """Of the regression of log error on the logarithm of the key."""
    x, y = (torch.tensor([math.log(row[name]) for row in series]) for name in (key, error))
    return float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())


# Mixture of eight


def mixture_row(problem: Problem, lookahead: str, mode: str, particles: int, steps: int) -> tuple[Row, Tensor]:
    """Share of x_0 > 0 in per cent and mean reward of the particles as they lie, and as their weights count them."""
    settings = SAMPLING.but(particles=particles, steps=steps, lookahead=lookahead, noise=PUBLISHED_NOISE[lookahead])
    if mode == "top-32":
        settings = settings.but(
            method="fmtt", keep=32, selections=3, guided=1.0, guidance=1.0, normalise=False, temperature=None
        )
    else:
        settings = settings.but(discretisation="euler-maruyama", resamplings=int(mode == "one resampling"))
    last = run(problem, settings)
    right, w = (last.x[:, 0] > 0).double(), torch.softmax(last.log_weights, 0)
    modes = torch.cdist(last.x, problem.flow.means).argmin(1)
    return {
        "lookahead": lookahead,
        "mode": mode,
        "particles": particles,
        "steps": steps,
        "share": 100 * float(right.mean()),
        "weighted_share": 100 * float(w @ right),
        "reward": float(last.scored.reward.mean()),
        "weighted_reward": float(w @ last.scored.reward),
        "modes": int((torch.bincount(modes, minlength=8) > particles / 100).sum()),
        "ancestors": len(set(last.ancestry)),
        "ess": last.diagnostics.get("ess", float(particles)) / particles,
        **thermodynamics(last),
    }, last.x


def mixture_rows(quick: bool) -> tuple[list[Row], dict[str, Tensor]]:
    particles, steps, resolution = (400, 40, 24) if quick else (2000, 100, 48)
    problem, exact = eight_modes(resolution)
    rows: list[Row] = [
        {"lookahead": "", "mode": "data", "share": 100 * exact.data_share, "reward": exact.data_reward},
        {"lookahead": "", "mode": "exact law", "share": 100 * exact.share, "reward": exact.reward},
    ]
    clouds = {}
    for mode in ("no resampling", "one resampling", "top-32"):
        for lookahead in LOOKAHEADS:
            row, clouds[f"mixture, {lookahead}, {mode}"] = mixture_row(problem, lookahead, mode, particles, steps)
            rows.append(row)
    return rows, clouds


# Ring


def mmd(x: Tensor, y: Tensor) -> float:
    """Maximum mean discrepancy of (n, d) and (m, d), kernel exp(-|x - y|^2 / 2), diagonals left out; 0 if negative."""

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return torch.exp(-torch.cdist(a, b).square() / 2)

    n, m = len(x), len(y)
    within = (kernel(x, x).sum() - n) / (n * (n - 1)) + (kernel(y, y).sum() - m) / (m * (m - 1))
    return math.sqrt(max(0.0, float(within - 2 * kernel(x, y).mean())))


def sliced_w2(x: Tensor, y: Tensor, slices: int = 64) -> float:
    """Wasserstein-2 distance of two equally large samples of the plane, root mean square over directions."""
    angles = torch.arange(slices, dtype=x.dtype) * math.pi / slices
    axes = torch.stack([angles.cos(), angles.sin()])
    return float(((x @ axes).sort(0).values - (y @ axes).sort(0).values).square().mean().sqrt())


def ring_row(lookahead: str, steps: int, discretisation: str, particles: int) -> tuple[Row, Tensor]:
    """With the published settings: ramp over the first tenth, eps 0.1 (1 - t), resampling under 0.9 N."""
    problem = ring()
    settings = SAMPLING.but(particles=particles, steps=steps, lookahead=lookahead, discretisation=discretisation)
    last = run(problem, settings.but(noise=0.1, ess=0.9, ramp=0.1))
    x = last.x[systematic(last.log_weights, torch.Generator().manual_seed(0))]
    truth = problem.draw(particles, torch.Generator().manual_seed(1))
    row = {"lookahead": lookahead, "steps": steps, "discretisation": discretisation, "particles": particles}
    row |= {"mmd": mmd(x, truth), "sliced_w2": sliced_w2(x, truth), "ancestors": len(set(last.ancestry))}
    return row | {"log_z_error": abs(last.diagnostics["log_z"] - problem.log_z)} | thermodynamics(last), x


def ring_rows(quick: bool) -> tuple[list[Row], dict[str, Tensor]]:
    particles, grid = (400, (50, 100)) if quick else (2000, (50, 100, 200, 500))
    g = torch.Generator().manual_seed(2)
    pairs = [[ring().draw(particles, g) for _ in range(2)] for _ in range(8)]
    floor = {"lookahead": "", "discretisation": "exact", "steps": 0, "particles": particles}
    floor |= {"mmd": rms(torch.tensor([mmd(*p) for p in pairs]))}
    floor |= {"sliced_w2": rms(torch.tensor([sliced_w2(*p) for p in pairs]))}
    rows, clouds = [floor], {"ring, exact": pairs[0][0]}
    for discretisation in DISCRETISATIONS:
        for lookahead in LOOKAHEADS:
            for steps in grid:
                row, x = ring_row(lookahead, steps, discretisation, particles)
                rows.append(row)
                clouds[f"ring, {lookahead}, {discretisation}, {steps}"] = x
    return rows, clouds


def table(title: str, rows: list[Row]) -> str:
    """Rows as Markdown; a column that a row lacks stays empty."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    lines = [f"## {title}", "", "| " + " | ".join(keys) + " |", "|" + "---|" * len(keys)]
    for row in rows:
        cells = (row.get(key, "") for key in keys)
        lines.append("| " + " | ".join(f"{c:.3g}" if isinstance(c, float) else str(c) for c in cells) + " |")
    return "\n".join([*lines, ""])


def measure(quick: bool) -> tuple[dict[str, list[Row]], dict[str, Tensor]]:
    """All rows by section, and the final particles of the two-dimensional problems by name."""
    gaussians = gaussian_rows(quick)
    mixture, mixture_clouds = mixture_rows(quick)
    rings, ring_clouds = ring_rows(quick)
    rows = {"gaussian": gaussians, "slopes": slopes(gaussians), "mixture": mixture, "ring": rings}
    return rows, mixture_clouds | ring_clouds


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.exactness", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer particles, steps and seeds: under a minute")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write all rows there")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="write the figures there")
    args = parser.parse_args(argv)
    wall, cpu = time.perf_counter(), time.process_time()
    result, clouds = measure(args.quick)
    took = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu, "quick": args.quick}
    for title, rows in result.items():
        print(table(title, rows))
    print(f"{took['seconds']:.1f} s, {took['cpu_seconds']:.1f} s of processor time", file=sys.stderr)
    if args.json:
        args.json.write_text(json.dumps(result | took, indent=1) + "\n")
    if args.plots:
        draw(result["gaussian"], clouds, args.plots)
    return 0


if __name__ == "__main__":
    sys.exit(main())
