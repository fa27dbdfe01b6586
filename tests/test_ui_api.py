"""The page's programming interface: its handlers, and the whole through gradio_client and plain HTTP."""

import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import gradio as gr
import httpx
import pytest
from gradio_client import Client, handle_file
from PIL import Image

from editor import images
from editor.history import History
from editor.jobs import Jobs
from editor.recipe import read_recipe
from editor.types import EditError
from editor.ui import build_page, launch_options
from editor.ui_api import Api
from editor.ui_desk import Desk
from editor.ui_forms import FIRST_EFFORT
from editor.ui_keep import Keeper
from tests.fakes import FakeEditor
from tests.page import came

README = Path(__file__).resolve().parent.parent / "README.md"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image": None}, "no picture yet"),
        ({"image": "absent.png"}, "no longer on the server"),
        ({"instruction": "a dog"}, "clocks only"),
        ({"plan": {"checks": []}}, "check"),
        ({"plan": ["x"]}, "plan"),
        ({"plan": {"checks": [{}]}}, "needs a question"),
        ({"mask": "absent.png"}, "no file"),
        ({"strength": 2.0}, "strength must be above 0"),
        ({"strength": float("nan")}, "strength must be above 0"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"seed": 1e30}, "seed must be a whole number"),
    ],
)
def test_callers_get_sentences_too(desk, picture, changes, words):
    asked = {"image": picture, "instruction": "dark", "effort": "fast", "request": came()} | changes
    with pytest.raises(gr.Error, match=words) as raised:
        list(Api(desk).edit(**asked))
    assert "error" not in str(raised.value.message)


def test_what_callers_leave_empty_is_taken_as_unsaid(desk, picture):
    *_, (report, png) = Api(desk).edit(picture, "dark", seed=None, effort=None, request=came())
    assert report["seed"] == 0
    assert report["recipe"]["settings"]["particles"] == desk.editor.efforts[FIRST_EFFORT].particles
    assert read_recipe(png)


def test_callers_own_their_runs_by_login_and_no_browser_gets_at_those_of_the_others(desk, picture):
    *_, (report, _) = Api(desk).edit(picture, "dark", request=came())
    *_, (mine, _) = Api(desk).edit(picture, "dark", request=came("ann"))
    assert [desk.history.get(told["edit"]).owner for told in (report, mine)] == ["api", "user:ann"]
    for token in ("api", "", None):
        assert not list(desk.arrive(token, came()))[-1]["listed"]
    with pytest.raises(EditError, match="still loading"):
        desk.stop(report["job"], None, came())


@pytest.fixture
def served(desk):
    page = build_page(desk)
    _, url, _ = page.launch(**launch_options(prevent_thread_lock=True, quiet=True, server_port=None))
    yield url, desk
    page.close()


@pytest.mark.slow
def test_the_interface_plans_edits_and_answers_later(served, picture):
    url, _ = served
    client = Client(url, verbose=False)
    plan = client.predict(handle_file(picture), "make it dark", api_name="/plan")
    plan["checks"][0]["question"] = "Is it night?"
    report, png = client.predict(
        image=handle_file(picture), instruction="make it dark", plan=plan, effort="fast", seed=3, api_name="/edit"
    )
    assert report["checks"][0]["question"] == "Is it night?"
    assert (report["seed"], report["state"], report["checks"][0]["after"]) == (3, "done", 0.97)
    assert read_recipe(png).to_json() == report["recipe"]
    again, _ = client.predict(report["job"], api_name="/result")
    assert again["score"] == report["score"]
    with pytest.raises(Exception, match="clocks only"):
        client.predict(handle_file(picture), "a dog", api_name="/plan")
    with pytest.raises(Exception, match="no longer known"):
        client.predict("nonsense", api_name="/result")
    with pytest.raises(Exception, match=r"\(error [0-9a-f]{8}\)"):
        client.predict(image=handle_file(picture), instruction="a bug", effort="fast", seed=3, api_name="/edit")
    client.close()


@pytest.mark.slow
def test_the_example_in_the_readme_runs(served, capsys):
    url, _ = served
    example = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)[1]
    seen = {}
    exec(example.replace("http://127.0.0.1:7860", url).replace("assets/", f"{README.parent}/assets/"), seen)
    assert (seen["report"]["state"], seen["report"]["seed"]) == ("done", 1)
    assert read_recipe(seen["png"]).plan.checks[0].weight == 3.0
    assert "api_name=\"/plan\"" in capsys.readouterr().out
    seen["client"].close()


@pytest.mark.slow
def test_a_caller_that_is_gone_frees_the_worker(served, picture):
    url, desk = served
    desk.editor.pause = 4.0
    call = (
        "import sys; from gradio_client import Client, handle_file; client = Client(sys.argv[1], verbose=False); "
        "job = client.submit(image=handle_file(sys.argv[2]), instruction='dark', effort='thorough', api_name='/edit'); "
        "print(next(job)[0]['state'], flush=True); job.result()"
    )
    with subprocess.Popen([sys.executable, "-c", call, url, picture], stdout=subprocess.PIPE, text=True) as caller:
        assert caller.stdout.readline().strip() in ("waiting", "running"), "it listens now"
        caller.kill()
    (job,) = desk.jobs._jobs.values()
    deadline = time.monotonic() + 60
    while not job.over:
        assert time.monotonic() < deadline, "the run goes on for nobody"
        time.sleep(0.05)
    assert job.update.stopped


@pytest.mark.slow
def test_the_interface_tells_what_it_takes_and_does_as_the_page_does(served, picture):
    url, desk = served
    client = Client(url, verbose=False)
    described = client.view_api(return_format="dict")["named_endpoints"]
    assert set(described) == {"/plan", "/edit", "/result"}
    for endpoint in described.values():
        for parameter in endpoint["parameters"]:
            assert f"`{parameter['parameter_name']}`" in endpoint["description"]
    report, _ = client.predict(image=handle_file(picture), instruction="make it dark", api_name="/edit")
    chosen = desk.editor.efforts[FIRST_EFFORT]
    assert report["recipe"]["settings"]["particles"] == chosen.particles
    assert report["offset"] == [0.0, 0.0]
    assert report["warning"] == ""
    client.close()


@pytest.fixture
def launch(tmp_path, monkeypatch):
    """Opens pages over fake engines whose queue holds one run; closes them at the end."""
    opened = []
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))

    def start(**options):
        editor, history = FakeEditor(), History.open(tmp_path / f"history{len(opened)}")
        desk = Desk(editor, history, Jobs(editor, Keeper(history, "fake"), waiting=1), ())
        page = build_page(desk)
        _, url, _ = page.launch(**launch_options(prevent_thread_lock=True, quiet=True, **options))
        opened.append((page, desk))
        return url, desk

    yield start
    for page, desk in opened:
        desk.editor.gate.set()
        page.close()
        desk.close()


@pytest.mark.slow
def test_a_full_queue_says_so_to_a_caller_and_the_others_go_on(launch, picture):
    url, desk = launch()
    desk.editor.gate.clear()
    client = Client(url, verbose=False)
    asked = {"image": handle_file(picture), "instruction": "make it dark", "effort": "fast", "api_name": "/edit"}
    running = client.submit(**asked)
    while not any(job.state == "running" for job in desk.jobs._jobs.values()):
        threading.Event().wait(0.02)
    waiting = client.submit(**asked)
    while not desk.jobs._queue:
        threading.Event().wait(0.02)
    with pytest.raises(Exception, match="The queue is full with 1 runs: try again in a minute"):
        client.predict(**asked)
    desk.editor.gate.set()
    assert [job.result(timeout=60)[0]["state"] for job in (running, waiting)] == ["done", "done"]
    client.close()


@pytest.mark.slow
def test_a_login_guards_the_page_the_interface_and_every_file(launch, picture):
    url, desk = launch(auth=("ann", "secret"))
    for path in ("config", "gradio_api/info", "gradio_api/file=" + picture, "gradio_api/queue/data?session_hash=x"):
        assert httpx.get(url + path).status_code in (401, 403)
    assert httpx.post(url + "gradio_api/upload", files={"files": b"x"}).status_code == 401
    assert httpx.post(url + "gradio_api/call/plan", json={"data": [None, "x"]}).status_code == 401
    assert "make_plan" not in httpx.get(url).text
    for login in (None, ("ann", "guess"), ("bob", "secret")):
        with pytest.raises(Exception, match=r"(?i)auth|credentials|login|sign"):
            Client(url, auth=login, verbose=False)
    client = Client(url, auth=("ann", "secret"), verbose=False)
    report, png = client.predict(image=handle_file(picture), instruction="dark", effort="fast", api_name="/edit")
    assert read_recipe(png).instruction == "dark"
    assert desk.history.get(report["edit"]).owner == "user:ann"
    assert client.predict(report["job"], api_name="/result")[0]["state"] == "done"
    client.close()


@pytest.mark.slow
def test_cancelling_a_call_stops_its_run_and_two_clients_stay_apart(served, picture, tmp_path):
    url, desk = served
    desk.editor.pause = 0.05
    Image.new("RGB", (100, 100), "red").save(tmp_path / "red.png")
    first, second = Client(url, verbose=False), Client(url, verbose=False)
    running = first.submit(image=handle_file(picture), instruction="dark", effort="thorough", seed=1, api_name="/edit")
    other = second.submit(
        image=handle_file(str(tmp_path / "red.png")), instruction="red", effort="fast", seed=1, api_name="/edit"
    )
    while not any(job.state == "running" for job in desk.jobs._jobs.values()):
        threading.Event().wait(0.05)
    running.cancel()
    report, png = other.result(timeout=60)
    assert report["recipe"]["instruction"] == "red"
    assert images.load(png).image.getpixel((50, 50))[1:] == (0, 0)
    deadline = time.monotonic() + 30
    while not all(job.stop.is_set() or job.state == "done" for job in desk.jobs._jobs.values()):
        assert time.monotonic() < deadline, "the cancelled run was never told to stop"
        threading.Event().wait(0.05)
    first.close()
    second.close()
