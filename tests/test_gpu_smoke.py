"""The script that a GPU owner runs once, here on untrained networks and a CPU."""

from __future__ import annotations

from dataclasses import replace

from PIL import Image

from benchmarks.gpu_smoke import main, smoke
from editor.engine import Editor
from editor.models import Place

PICTURE = Image.linear_gradient("L").convert("RGB").resize((48, 40))


def test_every_part_passes_on_models_that_work(tiny_editor):
    results = list(smoke(tiny_editor, PICTURE))
    assert [(r.part, r.passed) for r in results] == [
        ("load", True),
        ("look-ahead", True),
        ("gradient", True),
        ("edit", True),
    ], results
    assert all(result.seconds > 0 for result in results)


def test_models_that_are_not_there_fail_the_load_and_end_it(tiny_editor, tmp_path):
    (result,) = smoke(Editor(replace(tiny_editor.models, place=Place(tmp_path, tmp_path))), PICTURE)
    assert not result.passed
    assert "fetch it again" in result.text


def test_a_machine_without_the_profile_gets_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["--profile", "flux", "--image", "x.png"]) == 2
    assert "needs an NVIDIA GPU" in capsys.readouterr().err
