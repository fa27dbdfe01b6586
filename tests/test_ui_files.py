"""Files between the browser and the page: they outlive the server, but not a day without use."""

import os
import time
from pathlib import Path

import pytest
from gradio.utils import get_upload_folder

from editor.types import EditError
from editor.ui_files import AGE, FOLDER, kept_in, serve, serve_bytes, sweep, used
from tests.fakes import clock_like


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.delenv(FOLDER, raising=False)
    with kept_in(tmp_path / "shown"):
        yield tmp_path / "shown"
    assert FOLDER not in os.environ


def aged(path, seconds):
    """The path of a file that nobody has used for so long."""
    then = time.time() - seconds
    os.utime(path, (then, then))
    return path


def test_what_is_served_is_found_again_when_the_folder_is_opened_anew(folder):
    shown = serve(clock_like())
    with kept_in(folder):
        assert get_upload_folder() == str(folder)
        assert used(shown) == shown
    assert get_upload_folder() == str(folder), "the outer folder is back"


def test_what_nobody_used_for_a_day_goes_and_what_is_used_stays(folder):
    old, young, kept = (serve_bytes(name.encode(), f"{name}.txt") for name in ("old", "young", "kept"))
    aged(old, AGE + 60)
    aged(young, AGE - 60)
    used(aged(kept, AGE + 60))
    sweep(folder)
    assert not Path(old).parent.exists()
    assert [Path(path).exists() for path in (young, kept)] == [True, True]
    with pytest.raises(EditError, match="no longer on the server"):
        used(old)
    aged(young, AGE + 60)
    with kept_in(folder):
        assert not Path(young).exists(), "opening sweeps as well"


def test_a_folder_that_is_not_there_is_swept_and_one_that_cannot_be_made_is_told(tmp_path):
    sweep(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(EditError, match="--history"), kept_in(tmp_path / "file"):
        pass
