"""The rules of the house: imports go one way, and nothing happens on import."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("app", "editor", "rewards", "training", "benchmarks")
FILES = sorted(p for p in [ROOT / "app.py", *ROOT.glob("*/*.py")] if p.parent.name in PACKAGES or p.name == "app.py")


def imported(path: Path) -> set[str]:
    """Full names of the modules that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
    return found


def packages(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path):
    package, used = path.parent.name if path.parent != ROOT else "app", packages(path)
    forbidden = {
        "rewards": {"app", "editor", "training", "benchmarks", "gradio"},
        "editor": {"app", "training", "benchmarks"},
        "training": {"app", "benchmarks", "gradio"},
        "benchmarks": {"app", "gradio"},
        "app": {"training", "benchmarks", "torch", "diffusers", "transformers"},
    }[package]
    assert not used & forbidden


def test_the_core_knows_no_page_no_pipeline_and_no_vlm():
    core = ("types", "flowmap", "fmtt", "baselines", "inversion", "landing", "particles", "run", "schedules", "oracles")
    for name in core:
        path = ROOT / "editor" / f"{name}.py"
        assert not packages(path) & {"gradio", "diffusers", "transformers"}
        assert not imported(path) & {"editor.engine", "editor.models", "editor.ui", "rewards.vlm"}


def test_only_the_page_imports_gradio():
    with_gradio = {p.name for p in (ROOT / "editor").glob("*.py") if "gradio" in packages(p)}
    assert with_gradio
    assert all(name.startswith("ui") for name in with_gradio)


def test_importing_the_engine_touches_nothing(tmp_path):
    """No folder is made, no weights are read, no thread count changes."""
    code = (
        "import os, torch; before = torch.get_num_threads()\n"
        "import editor.engine, editor.ui, rewards.vlm\n"
        "assert torch.get_num_threads() == before\n"
        "assert os.listdir('.') == [], os.listdir('.')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(tmp_path / "no")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "no").exists()


def test_a_page_starts_without_the_libraries_of_the_models():
    """Diffusers, transformers and what they bring along take longer to import than everything that a page needs."""
    heavy = ("accelerate bitsandbytes diffusers matplotlib networkx peft scipy sympy torch._dynamo torch._inductor "
             "torchvision transformers").split()  # fmt: skip
    code = (
        "import sys, app\n"
        "assert not [name for name in sys.modules if name.split('.')[0] in ('editor', 'gradio', 'torch')]\n"
        "import editor.ui, editor.ui_desk\n"
        "from editor.engine import Editor\n"
        "assert Editor.load().profile.name == 'studio'\n"
        f"found = [name for name in {heavy} if name in sys.modules]\n"
        "assert not found, found\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_range_of_pixels_changes_in_one_place():
    """255 as a number stands in editor/images.py alone; recipes use it as a length."""
    holding = {
        path.name
        for path in (ROOT / "editor").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value == 255 and isinstance(node.value, int)
    }
    assert holding - {"recipe.py", "loading.py"} == {"images.py"}
