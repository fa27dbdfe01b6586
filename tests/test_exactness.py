"""The exactness benchmark: its measures measure, its problems are what they say, its commands write what they say."""

import json
import math

import pytest
import torch

from benchmarks import exactness, placement
from benchmarks.exactness import gaussian_row, mixture_row, mmd, moments, ring_row, sliced_w2, slope, slopes
from benchmarks.problems import eight_modes, gaussian, ring
from editor.types import SearchSettings


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_moments_of_exact_draws_are_right():
    problem, law = gaussian(2)
    mean, cov = moments(problem.draw(20000, generator()), torch.zeros(20000, dtype=torch.float64), law)
    assert mean.norm() < 0.03
    assert cov < 0.05


def test_log_z_of_each_problem_by_plain_monte_carlo():
    for problem in (gaussian(2)[0], eight_modes(16)[0], ring()):
        x = problem.flow.sample(100000, 1.0, generator())
        worth = problem.reward(x).exp()
        error = worth.std() / math.sqrt(len(x))
        assert abs(worth.mean() - math.exp(problem.log_z)) < 4.5 * error


def test_half_plane_numbers_by_weighted_data():
    problem, exact = eight_modes(16)
    x = problem.flow.sample(100000, 1.0, generator())
    w = torch.softmax(problem.reward(x), 0)
    assert float(w @ (x[:, 0] > 0).double()) == pytest.approx(exact.share, abs=0.01)
    assert float(w @ problem.reward(x)) == pytest.approx(exact.reward, abs=0.005)
    assert float(problem.reward(x).mean()) == pytest.approx(exact.data_reward, abs=0.1)


def test_ring_density_and_reward_agree():
    """rho_1 e^r is constant on the ring, whatever the direction."""
    x = torch.tensor([[2.0, 0.0], [0.0, -2.0], [2**0.5, 2**0.5]], dtype=torch.float64)
    values = ring().flow.log_density(x, 1.0) + ring().reward(x)
    torch.testing.assert_close(values, values[:1].expand(3))
    radii = ring().draw(5000, generator()).norm(dim=1)
    assert radii.mean() == pytest.approx(2.005, abs=0.01)


def test_distances_of_samples():
    g = generator()
    x, y = (torch.randn(500, 2, generator=g, dtype=torch.float64) for _ in range(2))
    assert mmd(x, y) < 0.06
    assert mmd(x, y + 1) > 0.2
    assert sliced_w2(x, x) == 0
    assert sliced_w2(x, x + torch.tensor([3.0, 0.0])) == pytest.approx(3 / math.sqrt(2))


def test_slope_is_the_order():
    rows = [{"step": 1 / n, "log_z_error": 3 / n**2} for n in (2, 4, 8)]
    assert slope(rows, "step", "log_z_error") == pytest.approx(2)


def test_slopes_against_steps_and_particles_of_every_rule():
    """Errors made up as step^p N^q come back as p and q; exact draws have no steps and no error of log Z."""

    def row(rule, steps, n):
        size = {"mean_error": n**-0.5, "cov_error": n**-0.4, "log_z_error": n**-0.3}
        made = {name: value / (steps or 1) ** (i + 1) for i, (name, value) in enumerate(size.items())}
        return {"d": 2, "discretisation": rule, "steps": steps, "particles": n, "z_bias": 3.0, "z_bias_se": 1.0} | made

    rows = [row(rule, steps, 64) for rule in exactness.DISCRETISATIONS for steps in (2, 4, 8)]
    rows += [row(rule, 8, 16) for rule in exactness.DISCRETISATIONS]
    rows += [row("exact", 0, n) for n in (16, 64)]
    transport, euler, exact = slopes(rows)
    by_particles = {"mean_by_particles": -0.5, "cov_by_particles": -0.4, "log_z_by_particles": -0.3}
    by_step = {"mean_by_step": 1, "cov_by_step": 2, "log_z_by_step": 3}
    for found in (transport, euler):
        assert {k: found[k] for k in by_particles | by_step} == pytest.approx(by_particles | by_step, abs=1e-5)
        assert found["largest_z"] == 3
    assert exact == {"d": 2, "discretisation": "exact", "mean_by_particles": pytest.approx(-0.5, abs=1e-5),
                     "cov_by_particles": pytest.approx(-0.4, abs=1e-5)}  # fmt: skip


def test_euler_maruyama_has_step_size_bias_where_transport_has_none():
    rows = [gaussian_row(2, n, steps, rule, 6) for rule in exactness.DISCRETISATIONS
            for n, steps in ((300, 2), (300, 8), (75, 8))]  # fmt: skip
    transport, euler, exact = slopes(rows + [gaussian_row(2, n, 0, "exact", 6) for n in (75, 300)])
    assert euler["largest_z"] > 8
    assert transport["largest_z"] < 4
    assert euler["log_z_by_step"] > 0.7
    assert transport["mean_by_particles"] < -0.2
    assert exact["mean_by_particles"] < -0.2


def test_the_mixture_by_its_weights_has_the_exact_share():
    problem, exact = eight_modes(16)
    row, x = mixture_row(problem, "map", "no resampling", 200, 12)
    assert abs(row["weighted_share"] - 100 * exact.share) < 10
    assert row["share"] > 100 * exact.data_share
    assert len(x) == 200
    assert row["resamplings"] == 0
    assert row["length"] > 0
    assert mixture_row(problem, "map", "one resampling", 100, 6)[0]["resamplings"] == 1
    found = mixture_row(problem, "none", "top-32", 200, 12)[0]
    assert found["share"] > 80
    assert found["resamplings"] == 3
    assert found["length"] > 0


def test_the_ring_needs_the_map_to_look_ahead():
    by_map, by_denoiser = (ring_row(kind, 30, "euler-maruyama", 300)[0] for kind in ("map", "denoiser"))
    assert by_map["mmd"] < by_denoiser["mmd"] / 2
    assert by_map["resamplings"] < by_denoiser["resamplings"] / 3


def test_the_command_writes_json_and_figures(tmp_path, monkeypatch, capsys):
    """With the measurements made small."""
    small = {
        "gaussian": [gaussian_row(d, n, k, r, 2) for d in (2, 16) for n, k, r in
                     ((16, 2, "transport"), (16, 4, "transport"), (16, 2, "euler-maruyama"), (16, 0, "exact"))],
        "slopes": [], "mixture": [], "ring": [],
    }  # fmt: skip
    clouds = {name: torch.zeros(4, 2) for name in ("mixture, map, top-32", "ring, exact", "ring, map, transport, 50")}
    monkeypatch.setattr(exactness, "measure", lambda quick: (small, clouds))
    out = tmp_path / "out.json"
    assert exactness.main(["--quick", "--json", str(out), "--plots", str(tmp_path / "plots")]) == 0
    written = json.loads(out.read_text())
    assert {"gaussian", "mixture", "ring"} <= set(written)
    wanted = {"d", "particles", "steps", "discretisation", "mean_error", "cov_error", "log_z_error"}
    assert all(wanted <= set(row) for row in written["gaussian"])
    assert {p.name for p in (tmp_path / "plots").iterdir()} == {"exactness-gaussian.png", "exactness-laws.png"}
    assert "| d | particles |" in capsys.readouterr().out


@pytest.mark.slow
def test_the_quick_mode_finds_the_weights_unbiased_and_the_map_ahead(tmp_path):
    out = tmp_path / "out.json"
    assert exactness.main(["--quick", "--json", str(out)]) == 0
    found = json.loads(out.read_text())
    assert found["quick"]
    worst = {(row["d"], row["discretisation"]): row["largest_z"] for row in found["slopes"] if "largest_z" in row}
    assert {d for d, _ in worst} == {2, 16, 256}
    assert all(z < 4.5 if rule == "transport" else z > 10 for (_, rule), z in worst.items())
    shares = {row["lookahead"]: row["share"] for row in found["mixture"] if row["mode"] == "no resampling"}
    assert shares["map"] > shares["denoiser"] > shares["none"]
    rings = [row for row in found["ring"] if row["discretisation"] == "transport"]
    mmds = {(row["lookahead"], row["steps"]): row["mmd"] for row in rings}
    assert all(mmds["map", steps] < mmds["denoiser", steps] / 2 for steps in (50, 100))


def test_placement_from_a_pilot_run_evens_out_the_length(tmp_path):
    out = tmp_path / "times.json"
    assert placement.main(["--problem", "gaussian", "--particles", "200", "--pilot-steps", "20", "--steps", "4",
                           "--json", str(out)]) == 0  # fmt: skip
    result = json.loads(out.read_text())
    SearchSettings(strength=1.0, times=tuple(result["times"]))
    for numbers in (result["even"], result["placed"]):
        assert numbers["discrepancy"] >= numbers["length"] ** 2 - 1e-9
    assert result["placed"]["discrepancy"] < result["even"]["discrepancy"]


def test_placement_from_a_file(tmp_path, capsys):
    run = tmp_path / "run.json"
    run.write_text(json.dumps({"times": [0.0, 0.5, 1.0], "lengths": [3.0, 1.0]}))
    assert placement.main(["--pilot", str(run), "--steps", "2"]) == 0
    assert json.loads(capsys.readouterr().out)["times"] == [pytest.approx(1 / 3)]
