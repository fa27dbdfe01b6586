"""FlowEdit as a peer of ClockBench, through the engine's parts; its edits themselves are those of `test_drafts`."""

import torch

from benchmarks import clockbench, flowedit
from benchmarks.cases import cases
from benchmarks.flowedit import METHOD, flowedited
from benchmarks.presets import settings
from benchmarks.trials import Planned, trial
from editor.judge import MET
from editor.types import EditRequest, SearchSettings
from training.world import TUNE

CASE = cases(TUNE, 1)[0]
SMALL = SearchSettings(method=METHOD, particles=3, steps=4, seed=5, keep=1)


def test_the_best_by_the_reward_is_taken_and_counted(tiny_editor):
    request = EditRequest(image=CASE.image, instruction=CASE.request.instruction, plan=CASE.plan, settings=SMALL)
    found, again = flowedited(tiny_editor, request), flowedited(tiny_editor, request)
    assert found.image.tobytes() == again.image.tobytes()
    assert found.image.size == CASE.image.size
    assert (found.nfe, found.inversion_nfe) == (2 * 3 * 4, 0)
    assert found.decodes == 1 + 1 + SMALL.particles, "the reconstruction, and the source among the edits"
    assert found.vlm_calls > 0
    assert 0 <= found.least <= 1
    assert found.least > MET or found.score > found.source_score - 1e-4, "but for rounding, which depends on the batch"


def test_a_source_that_is_best_comes_back_bit_for_bit(tiny_editor, monkeypatch):
    monkeypatch.setattr(flowedit, "draft", lambda *rest: (torch.zeros(3, *rest[2].shape[1:]) + 9, 0))
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
