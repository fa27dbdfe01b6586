"""FlowEdit as a peer of ClockBench: what it must do on flows whose answer is known, and through the engine's parts."""

import pytest
import torch

from benchmarks import clockbench, flowedit
from benchmarks.cases import cases
from benchmarks.flowedit import METHOD, carry, flowedited, planned_nfe
from benchmarks.presets import settings
from benchmarks.trials import Planned, trial
from editor.types import EditRequest, SearchSettings
from tests.exact import Straight
from training.world import TUNE

CASE = cases(TUNE, 1)[0]
SMALL = SearchSettings(method=METHOD, particles=3, steps=4, seed=5, keep=1)


@pytest.fixture
def images():
    return torch.randn(3, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_what_both_captions_draw_alike_cancels(images):
    source, other, _ = images
    edits, nfe = carry(Straight(other), Straight(other), source, SMALL)
    assert nfe == planned_nfe(SMALL) == 24
    torch.testing.assert_close(edits, source.expand(3, -1, -1, -1))


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_an_edit_moves_by_what_the_captions_differ(images, shift):
    """d' = d + (t - s) / (1 - s) (D - d) of the edit's own d and the captions' D, whatever source and noise are."""
    source, wanted, there = images
    edits, _ = carry(Straight(wanted), Straight(there), source, SMALL, shift)
    torch.testing.assert_close(edits, (source + wanted - there).expand(3, -1, -1, -1))


def test_noise_is_of_the_seed_and_differs_among_edits(images):
    class Noisy(Straight):
        def velocity(self, x, t):
            return super().velocity(x, t) + x.sin()

    def edits(seed):
        return carry(Noisy(images[1]), Straight(images[2]), images[0], SMALL.but(seed=seed))[0]

    assert torch.equal(edits(1), edits(1))
    assert not torch.equal(edits(1), edits(2))
    assert not torch.equal(edits(1)[0], edits(1)[1])


def test_the_best_by_the_reward_is_taken_and_counted(tiny_editor):
    request = EditRequest(image=CASE.image, instruction=CASE.request.instruction, plan=CASE.plan, settings=SMALL)
    found, again = flowedited(tiny_editor, request), flowedited(tiny_editor, request)
    assert found.image.tobytes() == again.image.tobytes()
    assert found.image.size == CASE.image.size
    assert (found.nfe, found.inversion_nfe) == (planned_nfe(SMALL), 0)
    assert found.decodes == 1 + 1 + SMALL.particles, "the reconstruction, and the source among the edits"
    assert found.vlm_calls > 0
    assert found.believed or found.score >= found.source_score


def test_a_source_that_is_best_comes_back_bit_for_bit(tiny_editor, monkeypatch):
    monkeypatch.setattr(flowedit, "carry", lambda *rest: (torch.zeros(3, *rest[2].shape[1:]) + 9, 0))
    monkeypatch.setattr("editor.judge.MET", 1.0)
    held = EditRequest(image=CASE.image, instruction="x", plan=CASE.plan, settings=SMALL.but(preserve=1e4))
    assert flowedited(tiny_editor, held).image.tobytes() == CASE.image.convert("RGB").tobytes()


def test_the_benchmark_runs_it_beside_the_searches(tiny_editor):
    record, _ = trial(tiny_editor, Planned(CASE, CASE.plan, "", 0.0), METHOD, 25, settings(METHOD, 25), None)
    assert (record.method, record.nfe, record.refused) == (METHOD, 24, "")


def test_the_truth_cannot_take_its_part(capsys, tmp_path):
    asked = ["--methods", METHOD, "--swap", "reward", "--work", str(tmp_path)]
    assert clockbench.main(asked) == 2
    assert "name other --methods" in capsys.readouterr().err
    every, swapped = (clockbench._methods(clockbench._parser().parse_args(a)) for a in ([], ["--swap", "latent"]))
    assert set(every) - set(swapped) == {METHOD}
