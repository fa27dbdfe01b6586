"""The script that a GPU owner runs once, here on untrained networks and a CPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
from PIL import Image

from benchmarks import gpu_smoke
from benchmarks.gpu_smoke import main, smoke
from benchmarks.question_order import cases
from editor.engine import Editor
from editor.models import Place
from editor.progress import Progress
from editor.types import EditError
from tests.tiny_profiles import flux_models

PICTURE = Image.linear_gradient("L").convert("RGB").resize((48, 40))


def refuse(*_):
    raise ValueError("The edit went wrong.")


PARTS = ("load", "look-ahead", "gradient", "edit", "question-order")


def test_every_part_passes_on_models_that_work(tiny_editor):
    kept = {}
    results = list(smoke(tiny_editor, PICTURE, list(cases(1)), kept.__setitem__))
    assert [(r.part, r.passed) for r in results] == [(part, True) for part in PARTS], results
    assert all(result.seconds > 0 for result in results)
    assert list(kept) == ["studio"]
    assert kept["studio"]["questions"] == 2
    assert f"better: {kept['studio']['better']}" in results[-1].text


def test_a_plan_in_4_bits_without_gradients_skips_them_and_measures_the_vlm_as_it_is_held(flux_place):
    kept, tight = {}, flux_models(flux_place, flow="nf4", vlm="nf4", full_decoder=False, gradient=False)
    results = list(smoke(Editor(tight), PICTURE, list(cases(1)), kept.__setitem__))
    verdicts = {r.part: r.passed for r in results}
    assert verdicts == {part: None if part == "gradient" else True for part in PARTS}, results
    assert next(r.text for r in results if r.part == "gradient") == "not in this plan"
    assert list(kept) == ["Qwen2.5-VL-3B-Instruct in nf4"]


@pytest.mark.parametrize(("failing", "status"), [(None, 0), ("edit", 1)])
def test_the_command_tries_an_example_and_records_when_asked(failing, status, tiny_editor, monkeypatch, capsys):
    recorded = []
    monkeypatch.setattr(Editor, "load", classmethod(lambda cls, name, vlm: tiny_editor))
    monkeypatch.setattr(gpu_smoke, "prepare", lambda: None)
    monkeypatch.setattr(gpu_smoke, "CLOCKS", 1)
    monkeypatch.setattr(gpu_smoke, "record", lambda name, measured: recorded.append(name))
    if failing:
        monkeypatch.setattr(gpu_smoke, failing, refuse)
    assert main(["--profile", "studio", *(["--record"] if status == 0 else [])]) == status
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["FAIL" if part == failing else "pass", part] for part in PARTS]
    assert recorded == (["studio"] if status == 0 else [])


def test_an_edit_that_breaks_off_does_not_pass(tiny_editor, monkeypatch):
    stock = Progress.after

    def after(self, step):
        if step.index == 1:
            raise RuntimeError("a kernel failed")
        return stock(self, step)

    monkeypatch.setattr(Progress, "after", after)
    with pytest.raises(EditError, match="went wrong"):
        gpu_smoke.edit(tiny_editor, PICTURE)


def test_models_that_are_not_there_fail_the_load_and_end_it(tiny_editor, tmp_path):
    (result,) = smoke(Editor(replace(tiny_editor.models, place=Place(tmp_path, tmp_path))), PICTURE, [])
    assert not result.passed
    assert "fetch it again" in result.text


def test_a_machine_without_the_profile_gets_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(gpu_smoke, "prepare", lambda: None)
    assert main(["--profile", "flux"]) == 2
    assert "needs an NVIDIA GPU" in capsys.readouterr().err
