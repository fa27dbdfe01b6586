"""The page without a browser: handlers as generators, views as strings, the interface through gradio_client."""

import json
import threading
import time
from types import SimpleNamespace

import gradio as gr
import httpx
import pytest
from gradio_client import Client, handle_file
from PIL import Image

from editor import images, ui_plots, ui_views
from editor.history import History
from editor.jobs import Jobs
from editor.recipe import read_recipe
from editor.registration import Offset
from editor.types import EditError, SearchSettings
from editor.ui import build_page, launch_options, translated
from editor.ui_api import Api
from editor.ui_desk import Desk
from editor.ui_forms import EDIT_ONLY, FIRST_EFFORT, PROTECT, read_mask, read_plan, read_settings
from editor.ui_parts import Keeper
from tests.fakes import FakeEditor, clock_like


@pytest.fixture
def examples(tmp_path):
    folder = tmp_path / "examples"
    folder.mkdir()
    clock_like().save(folder / "clock.png")
    (folder / "examples.json").write_text(json.dumps([{"image": "clock.png", "instruction": "make it dark"}]))
    return folder


@pytest.fixture
def desk(tmp_path, examples, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    desk = Desk.open(FakeEditor(), tmp_path / "history", examples)
    yield desk
    desk.close()


def came(username=None, **query):
    """A request as the handlers see it."""
    return SimpleNamespace(username=username, query_params=query, headers={"referer": "https://host/path/?x=1"})


def form(image, **changes):
    first = SearchSettings(particles=3, steps=4)
    controls = ("strength", "method", "particles", "steps", "guidance", "noise", "lookahead", "lookahead_steps")
    fields = {name: getattr(first, name) for name in controls}
    fields |= {"picture": image, "instruction": "make it dark", "table": [["", "yes", 1]], "caption": "", "keep": ""}
    fields |= {
        "planned": "",
        "paint": None,
        "mask": None,
        "mask_means": EDIT_ONLY,
        "feather": 0,
        "base": first,
        "seed": 7,
        "lock": True,
    }
    return fields | {"lock": True} | changes


@pytest.fixture
def picture(tmp_path):
    clock_like().save(tmp_path / "clock.png")
    return str(tmp_path / "clock.png")


def all_of(changes):
    """Changes of a whole generator, the later over the earlier."""
    merged = {}
    for change in changes:
        merged |= change
    return merged


def click(index):
    return SimpleNamespace(index=index)


# ----------------------------------------------------------------------------------------------------------- handlers


def test_a_run_plans_searches_and_shows_its_result(desk, picture):
    lines = list(desk.run(form(picture), "ann", came()))
    last = all_of(lines)
    assert last["table"][0] == ["Is it so: make it dark?", "yes", 1.0]
    assert last["seed"] == 7
    assert "No 2 % <u>→</u> Yes 97 %" in last["checks"]
    assert "2 of 2 checks hold (model opinion)" in last["status"]
    assert last["candidates"].count("<button") == 3
    before, after = last["slider"]
    assert images.load(before).image.tobytes() == clock_like().tobytes()
    assert read_recipe(after).settings.seed == 7
    assert last["link"].startswith("https://host/path/?edit=")
    assert any("Searching: step" in line.get("status", "") for line in lines)
    assert last["run"]["interactive"]
    assert not last["stop"]["visible"]


def test_a_plan_on_the_page_is_used_as_edited(desk, picture):
    edited = form(picture, table=[["Is it night?", "Yes", "2"]], caption="a clock at night", keep="the rim\n\nthe face")
    last = all_of(desk.run(edited, "ann", came()))
    plan = desk.history.get(last["shown"]).recipe.plan
    assert [(c.question, c.expected, c.weight) for c in plan.checks] == [("Is it night?", "yes", 2.0)]
    assert (plan.caption, plan.keep) == ("a clock at night", ("the rim", "the face"))


def test_a_plan_for_another_instruction_is_made_anew(desk, picture):
    planned = all_of(desk.plan(picture, "make it dark"))
    again = form(picture, table=planned["table"], planned=planned["planned"], instruction="make it darker")
    assert all_of(desk.run(again, "ann", came()))["table"][0][0] == "Is it so: make it darker?"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"picture": None}, "upload one"),
        ({"instruction": "a dog"}, "clocks only"),
        ({"table": [["Is it?", "yes", "heavy"]]}, "plan can't be used"),
        ({"table": [["Is it?", "yes", -1]]}, "plan can't be used"),
        ({"strength": 0}, "strength"),
        ({"seed": -1}, "seed"),
    ],
)
def test_what_a_person_can_put_right_is_said_and_frees_the_page(desk, picture, changes, words):
    seen = {}
    running = (seen.update(change) for change in desk.run(form(picture, **changes), "ann", came()))
    with pytest.raises(EditError, match=words):
        list(running)
    assert seen["run"]["interactive"]
    assert not seen["stop"]["visible"]


def test_a_failed_run_says_an_id_and_no_secret(desk, picture):
    last = all_of(desk.run(form(picture, instruction="a bug"), "ann", came()))
    assert "error " in last["status"]
    assert "secret" not in last["status"]
    assert last["run"]["interactive"]


def test_uploads_are_normalised_and_refusals_clear_the_picture(desk, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    clock_like().save(tmp_path / "turned.jpg", exif=exif)
    assert images.load(desk.take(str(tmp_path / "turned.jpg"))["picture"]).image.size == (120, 160)
    (tmp_path / "fake.png").write_bytes(b"8BPS no picture")
    refused = desk.take(str(tmp_path / "fake.png"))
    assert refused["picture"] is None
    assert "not a picture" in refused["status"]


def test_an_example_fills_picture_and_instruction(desk):
    taken = desk.take_example(click(0))
    assert taken["instruction"] == "make it dark"
    assert images.load(taken["picture"]).image.size == (160, 120)
    for index in (1, -1, "0", None, True):
        with pytest.raises(EditError, match="no longer there"):
            desk.take_example(click(index))


def test_another_candidate_becomes_the_result_and_is_kept_once(desk, picture):
    first = all_of(desk.run(form(picture), "ann", came()))
    for _ in range(2):
        picked = desk.pick(click(2), first["job"], "ann", came())
    assert desk.history.get(picked["shown"]).recipe.candidate == 2
    assert len(desk.history.list("browser:ann")) == 2
    with pytest.raises(EditError, match="no longer known"):
        desk.pick(click(1), first["job"], "bob", came())


def test_history_goes_back_branches_restores_and_deletes(desk, picture):
    first = all_of(desk.run(form(picture), "ann", came()))
    further = desk.further(first["shown"])
    second = all_of(desk.run(form(further["picture"], instruction="darker still"), "ann", came()))
    assert [e.id for e in desk.history.lineage(desk.history.get(second["shown"]))] == [first["shown"], second["shown"]]
    back = desk.recall(click(1), second["listed"], "ann", came())
    assert back["shown"] == first["shown"]
    restored = desk.restore(first["shown"])
    assert (restored["instruction"], restored["seed"], restored["particles"]) == ("make it dark", 7, 3)
    again = form(restored["picture"], table=restored["table"], planned=restored["planned"], base=restored["base"])
    rerun = all_of(desk.run(again, "ann", came()))
    assert desk.history.get(rerun["shown"]).result == desk.history.get(first["shown"]).result
    assert desk.forget(first["shown"], "ann", came())["shown"] == ""
    with pytest.raises(EditError, match="no longer in the history"):
        desk.forget(second["shown"], "bob", came())
    assert "All 2 edits" in desk.forget_all("ann", came())["status"]


def test_a_recipe_that_was_dropped_sets_everything_but_the_picture(desk, picture):
    after = all_of(desk.run(form(picture, strength=0.55), "ann", came()))["slider"][1]
    same = desk.use_recipe(after, picture)
    assert (same["instruction"], same["seed"], same["strength"], same["lock"]) == ("make it dark", 7, 0.55, True)
    assert "another picture" not in same["status"]
    assert "another picture" in desk.use_recipe(after, None)["status"]
    with pytest.raises(EditError, match="no recipe"):
        desk.use_recipe(picture, None)


def test_a_shared_link_shows_the_edit_to_another_browser(desk, picture):
    shown = all_of(desk.run(form(picture), "ann", came()))
    edit_id = shown["link"].split("edit=")[1]
    seen = all_of(desk.arrive("", came(edit=edit_id)))
    assert seen["shown"] == edit_id
    assert seen["checks"] == shown["checks"]
    assert seen["past"] == ""
    assert desk.restore(edit_id)["instruction"] == "make it dark"
    with pytest.raises(EditError, match="no longer in the history"):
        list(desk.arrive("", came(edit="guess")))


def test_reloading_during_a_run_finds_it(desk, picture):
    desk.editor.pause = 0.02
    running = desk.run(form(picture, steps=60), "ann", came())
    while "Searching" not in next(running).get("status", ""):
        pass
    running.close()
    assert "Ready" not in str(next(iter(desk.arrive("bob", came()))))
    assert "shown" not in all_of(desk.arrive("bob", came()))
    back = all_of(desk.arrive("ann", came()))
    assert back["instruction"] == "make it dark"
    assert back["shown"]
    again = all_of(desk.arrive("ann", came()))
    assert (again["shown"], again["instruction"]) == (back["shown"], "make it dark")
    assert again["run"]["interactive"]
    assert desk.pick(click(1), again["job"], "ann", came())["shown"] != back["shown"]
    desk.forget_all("ann", came())
    assert "shown" not in all_of(desk.arrive("ann", came()))


def test_stop_keeps_the_best_so_far(desk, picture):
    desk.editor.pause = 0.02
    running = desk.run(form(picture, steps=90), "ann", came())
    seen = {}
    for change in running:
        seen |= change
        if "Searching" in change.get("status", ""):
            with pytest.raises(EditError):
                desk.stop(seen["job"], "bob", came())
            desk.stop(seen["job"], "ann", came())
    assert "Stopped after step" in seen["status"]
    assert desk.history.get(seen["shown"]).recipe.stopped < 90


def test_the_recipe_can_be_left_out_of_the_download(desk, picture):
    shown = all_of(desk.run(form(picture), "ann", came()))["shown"]
    assert read_recipe(desk.download(shown, False)["download"])
    with pytest.raises(EditError, match="no recipe"):
        read_recipe(desk.download(shown, True)["download"])


def test_a_result_that_lies_off_its_source_is_warned_about_now_and_later(desk, picture):
    desk.editor.offset = Offset(1.3, -0.2)
    off = all_of(desk.run(form(picture), "ann", came()))
    assert "lies 1.3 pixels off your picture" in off["checks"]
    assert "+1.30, -0.20 px" in off["details"]
    desk.editor.offset = Offset(0.3, 0.0)
    fine = all_of(desk.run(form(picture, seed=8), "ann", came()))
    assert "warning" not in fine["checks"]
    assert "pixels off" in desk.recall(click(1), fine["listed"], "ann", came())["checks"]


def test_the_seconds_of_each_effort_are_known_after_a_run_and_after_a_restart(desk, picture, examples):
    assert "about" not in str(next(iter(desk.arrive("ann", came())))["effort"])
    said = str(all_of(desk.run(form(picture), "ann", came()))["effort"])
    assert said.count("about") == len(desk.editor.efforts)
    again = Desk.open(FakeEditor(), desk.history.folder, examples)
    assert again.jobs.expected(again.editor.efforts["fast"]) == pytest.approx(
        desk.jobs.expected(again.editor.efforts["fast"])
    )
    again.close()


def test_mask_and_all_come_back_with_an_edit_or_a_recipe(desk, picture, tmp_path):
    mask = Image.new("L", (160, 120))
    mask.paste(255, (0, 0, 80, 120))
    mask.save(tmp_path / "mask.png")
    masked = form(picture, mask=str(tmp_path / "mask.png"), mask_means=PROTECT, feather=3)
    first = all_of(desk.run(masked, "ann", came()))
    used = desk.history.get(first["shown"]).recipe
    for back in (desk.restore(first["shown"]), desk.use_recipe(first["slider"][1], picture)):
        fields = {name: back[name] for name in ("mask", "mask_means", "feather", "paint", "table", "base")}
        rerun = all_of(desk.run(form(picture, **fields), "ann", came()))
        assert desk.history.get(rerun["shown"]).recipe.mask == used.mask
    assert "add that one too" in desk.use_recipe(first["slider"][1], None)["status"]
    plain = all_of(desk.run(form(picture), "ann", came()))
    assert desk.restore(plain["shown"])["mask"] is None


def test_logged_in_users_own_their_edits_wherever_they_are(desk, picture):
    all_of(desk.run(form(picture), "token", came("ann")))
    assert all_of(desk.arrive("other token", came("ann")))["listed"]
    assert not all_of(desk.arrive("token", came("bob")))["listed"]


# -------------------------------------------------------------------------------------------------------------- forms


def test_the_effort_sets_the_controls_and_the_seed_is_new_unless_locked(desk, picture):
    assert desk.adopt("fast")["particles"] == 3
    seeds = {read_settings(form(picture, lock=False)).seed for _ in range(4)}
    assert len(seeds) == 4
    assert read_settings(form(picture)).seed == 7


def test_times_of_a_recipe_are_dropped_when_the_steps_change(picture):
    base = SearchSettings(particles=3, steps=4, times=(0.3, 0.6))
    assert read_settings(form(picture, base=base)).times == (0.3, 0.6)
    assert read_settings(form(picture, base=base, steps=9)).times is None


def test_an_empty_table_is_no_plan(picture):
    assert read_plan(form(picture)) is None
    assert read_plan(form(picture, table=[[None, None, None]])) is None


def test_masks_are_painted_or_uploaded_and_mean_edit_or_protect(picture, tmp_path):
    layer = Image.new("RGBA", (160, 120))
    layer.paste((20, 184, 166, 255), (0, 0, 80, 120))
    layer.save(tmp_path / "layer.png")
    layer.getchannel("A").save(tmp_path / "mask.png")
    painted = {"layers": [str(tmp_path / "layer.png")]}
    for fields in ({"paint": painted}, {"mask": str(tmp_path / "mask.png")}):
        mask = read_mask(form(picture, **fields), clock_like())
        assert (mask.getpixel((10, 10)), mask.getpixel((150, 10))) == (255, 0)
        mask = read_mask(form(picture, mask_means=PROTECT, **fields), clock_like())
        assert (mask.getpixel((10, 10)), mask.getpixel((150, 10))) == (0, 255)
    assert read_mask(form(picture), clock_like()) is None


def test_a_soft_edge_lies_inside_the_mask_and_must_leave_something(picture, tmp_path):
    mask = Image.new("L", (160, 120))
    mask.paste(255, (60, 0, 160, 120))
    mask.save(tmp_path / "mask.png")
    soft = read_mask(form(picture, mask=str(tmp_path / "mask.png"), feather=5), clock_like())
    row = [soft.getpixel((x, 60)) for x in range(50, 100)]
    assert row[:10] == [0] * 10
    assert row == sorted(row)
    assert len(set(row)) > 4
    assert row[-1] == 255
    with pytest.raises(EditError, match="wider than the marked part"):
        images.feathered(mask, 2.0)


# -------------------------------------------------------------------------------------------------------------- views


def test_what_people_write_is_escaped():
    evil = '<img src=x onerror="alert(1)">'
    row = {"question": evil, "expected": evil, "weight": 1.0, "before": 0.1, "after": 0.2}
    card = ui_views.Card(b"", evil, evil, ((evil, True),))
    shown = ui_views.checks([row]) + ui_views.status(evil) + ui_views.cards([card], evil, 0, True)
    shown += ui_views.header(evil, evil, evil, [evil])
    assert "<img src=x" not in shown
    assert shown.count("&lt;img") >= 9


@pytest.mark.parametrize(
    ("expected", "probability", "said"),
    [("yes", 0.97, "Yes 97 %"), ("yes", 0.02, "No 2 %"), ("no", 0.9, "No 90 %"), ("no", 0.1, "Yes 10 %"),
     ("4:45", 0.5, "4:45: 50 %")],
)  # fmt: skip
def test_answers(expected, probability, said):
    assert ui_views.answer(expected, probability) == said


def test_the_curve_says_what_it_shows_and_takes_any_history():
    assert ui_plots.curve([], None, 0) == ""
    assert "the best reward is 3.00, the worst 1.00" in ui_plots.curve([(0.0, 0.0), (3.0, 1.0)], None, 4)
    assert "nan" not in ui_plots.curve([(1.0,)], 1.0, 0)


def test_the_ancestry_marks_the_line_of_the_best():
    drawn = ui_plots.ancestry([(0.0, 1.0), (2.0, 1.0), (2.0, 5.0)], [(0, 1), (1, 0), (0, 0)])
    assert drawn.count('polyline class="best"') == 2
    assert "candidate 2 of 2 at the start" in drawn
    assert ui_plots.ancestry([(0.0,)], [(0,)]) == ""


# ---------------------------------------------------------------------------------------------------------- interface


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image": None}, "no picture yet"),
        ({"image": "absent.png"}, "no file"),
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
    *_, (report, png) = Api(desk).edit(picture, "dark", seed=None, effort="fast", request=came())
    assert report["seed"] == 0
    assert read_recipe(png)


def test_no_bare_value_goes_to_the_page_where_the_next_message_would_empty_it():
    parts = {"table": gr.Dataframe(), "stop": gr.Button("Stop")}

    def handler():
        yield {"table": [["Is it night?", "yes", 1.0]], "stop": gr.update(visible=False)}
        raise EditError("No.")

    sent = list(translated(handler, parts | {"status": gr.HTML()})({}, came()))
    assert [{part: change["__type__"] for part, change in changes.items()} for changes in sent] == [
        {parts["table"]: "update", parts["stop"]: "update"},
        {next(iter(sent[1])): "update"},
    ]
    assert sent[0][parts["table"]]["value"] == [["Is it night?", "yes", 1.0]]
    assert sent[0][parts["stop"]]["visible"] is False
    assert "No." in next(iter(sent[1].values()))["value"]


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


def test_the_page_keeps_to_itself(desk):
    options = launch_options(share=False)
    assert not options["share"]
    assert not options["run_history"]
    assert not options["enable_monitoring"]
    page = build_page(desk)
    assert not page.analytics_enabled
    assert page.delete_cache
    theme = options["theme"]
    assert all(type(font) is gr.themes.Font for font in (*theme._font, *theme._font_mono))
    assert "http" not in options["css"]
    assert "http" not in options["js"]
