"""The start of the page: flags, sentences and exit statuses, without a server."""

import gc
import signal
import stat
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from gradio.utils import get_upload_folder

import app
from editor.types import EditError
from editor.ui_files import FOLDER
from tests.fakes import FakeEditor


class Damaged:
    """Models that cannot be read; knows who asked for them."""

    def __init__(self):
        self.asked, self.thread = threading.Event(), None

    def __call__(self):
        self.thread = threading.current_thread()
        self.asked.set()
        raise EditError("The model in vae is missing files or holds damaged ones: fetch it again.")


@pytest.fixture
def launched(monkeypatch, tmp_path):
    """Runs app.main over a fake engine; returns its status and the arguments that the page was launched with."""
    seen = {}

    def load(name, vlm=None):
        if name != "studio":
            raise EditError(f"There is no profile {name!r}: choose studio.")
        return FakeEditor()

    def launch(public=None, taken=False, **options):
        if taken:
            raise OSError("Cannot find empty port")
        seen.update(options)
        return None, "http://127.0.0.1:7860/", public

    def run(*argv, waits=lambda: None, **launching):
        page = SimpleNamespace(launch=lambda **options: launch(**launching, **options), block_thread=waits)
        monkeypatch.setattr("editor.runtime.prepare", lambda: None)
        monkeypatch.setattr("editor.engine.Editor.load", load)
        monkeypatch.setattr("editor.ui.build_page", lambda desk: page)
        return app.main(["--history", str(tmp_path / "history"), *argv]), seen

    return run


def test_the_page_stays_on_this_machine_unless_asked(launched, capsys):
    status, options = launched()
    assert status == 0
    assert (options["server_name"], options["server_port"], options["share"], options["auth"]) == (
        "127.0.0.1", 7860, False, None,
    )  # fmt: skip
    assert capsys.readouterr().err == ""


def test_flags_reach_the_launch(launched):
    logins = ("--auth", "ann:a:b", "--auth", "bob:c")
    _, options = launched("--host", "0.0.0.0", "--port", "8000", "--share", *logins, public="https://x")
    assert (options["server_name"], options["server_port"], options["share"]) == ("0.0.0.0", 8000, True)
    assert options["auth"] == [("ann", "a:b"), ("bob", "c")]


def test_a_tunnel_that_cannot_be_had_is_said_and_the_page_runs(launched, capsys):
    assert launched("--share")[0] == 0
    assert "No public link could be had" in capsys.readouterr().err


def test_the_models_are_read_once_the_page_is_there(launched, monkeypatch, capsys):
    monkeypatch.setattr(FakeEditor, "load_models", damaged := Damaged())
    assert launched()[0] == 0
    assert damaged.asked.wait(10)
    damaged.thread.join(10)
    assert damaged.thread is not threading.current_thread()
    assert "fetch it again" in capsys.readouterr().err


def test_garbage_is_collected_again_after_the_imports(launched):
    assert launched()[0] == 0
    assert gc.isenabled()


def test_an_open_page_is_warned_about(launched, capsys):
    assert launched("--host", "0.0.0.0")[0] == 0
    assert "add --auth" in capsys.readouterr().err


def test_to_terminate_the_page_keeps_what_runs(launched, monkeypatch):
    kept, before = [], signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("editor.ui_desk.Desk.close", lambda desk: kept.append(desk))
    assert launched(waits=lambda: signal.raise_signal(signal.SIGTERM))[0] == 130
    assert len(kept) == 1
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_the_page_shows_lies_in_the_history_where_no_other_user_may_read(launched, monkeypatch, tmp_path):
    seen = []

    def look():
        folder = Path(get_upload_folder())
        seen.append((folder, stat.S_IMODE(folder.stat().st_mode)))

    monkeypatch.setenv(FOLDER, str(tmp_path))
    launched(waits=look)
    assert seen == [(tmp_path / "history" / "shown", 0o700)]
    assert get_upload_folder() == str(tmp_path)


def test_what_cannot_start_is_one_sentence_and_status_2(launched, capsys, tmp_path):
    assert launched("--profile", "dream")[0] == 2
    assert "no profile" in capsys.readouterr().err
    assert launched(taken=True)[0] == 2
    assert "--port" in capsys.readouterr().err
    (tmp_path / "file").write_text("x")
    assert launched("--history", str(tmp_path / "file"))[0] == 2
    assert "choose another" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        app.parse(["--auth", "nobody"])


def test_a_start_that_is_interrupted_ends_without_a_traceback(launched, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "start", interrupted)
    assert launched()[0] == 130
    assert capsys.readouterr().err == ""
