"""Page and command line ask nobody: programs of their own in which every way out of the machine is closed."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CLOCK = str(ROOT / "assets" / "examples" / "school-clock.png")
CLOSED = """
import os, sys
HERE, asked = ("127.0.0.1", "::1", "localhost", "0.0.0.0", "", None), []

def close(event, arguments):
    if event in ("socket.connect", "socket.sendto"):
        host = arguments[1][0] if isinstance(arguments[1], tuple) else None
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    else:
        return
    if host not in HERE:
        asked.append((event, host))
        raise OSError(f"{host} is out of reach")

sys.addaudithook(close)
"""
"""Raises at the first connection, name look-up or message to another machine, and remembers it."""
SERVED = f"""
import gradio, tempfile, threading, urllib.request
import app

def seen(page):
    assert b"Tiltedit" in urllib.request.urlopen(page.local_url).read()
    for thread in threading.enumerate():
        if "load_models" in thread.name:
            thread.join()
    page.close()

gradio.Blocks.block_thread = seen
from editor.__main__ import main
with tempfile.TemporaryDirectory() as folder:
    status = app.main(["--port", "PORT", "--history", folder])
    status += main(["score", {CLOCK!r}, "Is the rim red?"])
    status += main(["roundtrip", {CLOCK!r}, "-o", folder + "/back.png"])
import bitsandbytes
assert (status, asked) == (0, []), (status, asked)
"""
FETCHING = '''
from huggingface_hub import snapshot_download

def get_kernel(repo, version):
    """As the library's own does."""
    snapshot_download(repo)
'''


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The code in a process whose home and caches are new folders, with `folder` among its libraries."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder / "home"), "PYTHONPATH": f"{ROOT}:{folder}"}
    return subprocess.run(
        [sys.executable, "-c", CLOSED + code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@pytest.mark.slow
def test_the_page_and_the_command_line_make_no_connection(tmp_path, unused_port):
    (tmp_path / "kernels.py").write_text(FETCHING)
    done = run(SERVED.replace("PORT", str(unused_port)), tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("prepared", "status"), [("from editor.runtime import prepare; prepare()", 0), ("", 1)])
def test_a_prepared_process_does_not_ask_the_hub(prepared, status, tmp_path):
    """The other process shows that what is forbidden would have been noticed."""
    (tmp_path / "kernels.py").write_text(FETCHING)
    asking = "import kernels\ntry:\n    kernels.get_kernel('a/b', 1)\nexcept Exception:\n    sys.exit(bool(asked))\n"
    done = run(f"{prepared}\n{asking}", tmp_path)
    assert done.returncode == status, done.stderr


def test_importing_the_programs_forbids_nothing(tmp_path):
    """Fetch and doctor must be able to ask."""
    code = (
        "import app, editor.__main__, editor.doctor, editor.fetch, huggingface_hub\n"
        "assert 'HF_HUB_OFFLINE' not in os.environ\n"
        "assert not huggingface_hub.is_offline_mode()\n"
    )
    done = run(code, tmp_path)
    assert done.returncode == 0, done.stderr
