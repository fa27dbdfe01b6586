"""Fixtures that several test files share."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from editor.engine import Editor
from editor.hub import Hub, folders
from editor.models import Models, Place, load_profile, placed
from editor.profiles import PROFILES
from editor.ui_desk import Desk
from editor.ui_files import kept_in
from tests.fakes import FakeEditor, clock_like
from tests.published import publish
from tests.tiny_flow import save_tiny_flow
from tests.tiny_vlm import tiny_qwen25

GRADIO_WARNINGS = (
    # The server thread of a page that was closed leaves its event loop and the loop's own sockets to the collector.
    "ignore:unclosed event loop:ResourceWarning",
    r"ignore:unclosed <socket\.socket:ResourceWarning",
    # Its image component leaves the pictures of its own cache to the collector too.
    r"ignore:unclosed file <_io\.BufferedReader name='[^']*/cache/:ResourceWarning",
    # Gradio's queue uses what was new in pandas 2 and is outdated in pandas 3.
    "ignore:'future.no_silent_downcasting' is deprecated",
    "ignore:The copy keyword is deprecated",
)
"""Warnings of Gradio's own code, which nobody here can put right; all others are errors."""


def pytest_configure(config: pytest.Config) -> None:
    for line in GRADIO_WARNINGS:
        config.addinivalue_line("filterwarnings", line)


def pytest_sessionfinish() -> None:
    """Collect what the last pages left while the filters above still hold; after this hook they are gone."""
    gc.collect()


@pytest.fixture(scope="session")
def tiny_editor(tmp_path_factory: pytest.TempPathFactory) -> Editor:
    """The real engine over untrained networks of the studio's classes, for 32 px squares of any picture."""
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny_flow(folder / "flow")
    for part in tiny_qwen25():
        part.save_pretrained(folder / "vlm")
    profile = replace(PROFILES["studio"], size=32, least_psnr=-100.0)
    return Editor(Models(profile, Place(folder / "flow", folder / "vlm")))


@pytest.fixture(scope="session")
def studio() -> Editor:
    """The studio as a user gets it."""
    return Editor(load_profile("studio"))


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Hub:
    """A hub that finds the repositories of the GPU profiles as downloads leave them, tiny and random."""
    return publish(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="session")
def flux_place(published: Hub) -> Place:
    """Where the parts of the profile flux lie among them."""
    return placed(PROFILES["flux"], folders(PROFILES["flux"], published))


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """A folder with one example."""
    folder = tmp_path / "examples"
    folder.mkdir()
    clock_like().save(folder / "clock.png")
    (folder / "examples.json").write_text(json.dumps([{"image": "clock.png", "instruction": "make it dark"}]))
    return folder


@pytest.fixture
def desk(tmp_path: Path, examples: Path) -> Iterator[Desk]:
    """What the page stands on, over the fake engine."""
    desk = Desk.open(FakeEditor(), tmp_path / "history", examples)
    with kept_in(desk.history.shown):
        yield desk
    desk.close()


@pytest.fixture
def picture(tmp_path: Path) -> str:
    """The path of a picture to upload."""
    clock_like().save(tmp_path / "clock.png")
    return str(tmp_path / "clock.png")
