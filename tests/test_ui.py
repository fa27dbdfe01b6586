"""The page's handlers as generators, without a browser."""

import os
import re
import threading
from dataclasses import asdict, replace
from html import unescape
from pathlib import Path

import gradio as gr
import pytest
from PIL import Image
from sqlalchemy import update
from sqlmodel import Session

from editor import images, ui_files
from editor.engine import EFFORTS
from editor.history import Edit
from editor.loading import MAX_BYTES
from editor.mark import bears_mark
from editor.recipe import read_recipe
from editor.registration import Offset
from editor.types import Candidate, EditError, EditRequest, SearchSettings
from editor.ui import build_page, launch_options, translated
from editor.ui_desk import Desk
from editor.ui_forms import LEFT, PROTECT, changed, read_plan
from editor.ui_layout import lay_out
from editor.ui_parts import owner_of, past_cards
from tests.fakes import FakeEditor, FakeLaid, clock_like
from tests.page import all_of, came, click, form, plan_of


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
    assert last["more"]["visible"]
    watched = next(line for line in lines if "more" in line)
    assert not any(watched[name]["visible"] for name in ("make_plan", "more", "result"))


def test_a_plan_on_the_page_is_used_as_edited(desk, picture):
    edited = form(picture, table=[["Is it night?", "Yes", "2"]], caption="a clock at night", keep="the rim\n\nthe face")
    last = all_of(desk.run(edited, "ann", came()))
    plan = desk.history.get(last["shown"]).recipe.plan
    assert [(c.question, c.expected, c.weight) for c in plan.checks] == [("Is it night?", "yes", 2.0)]
    assert (plan.caption, plan.keep) == ("a clock at night", ("the rim", "the face"))


def test_a_plan_for_another_instruction_is_made_anew(desk, picture):
    planned = all_of(desk.plan(picture, "make it dark"))
    again = form(picture, **plan_of(planned), instruction="make it darker")
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
    *_, last = desk.run(form(picture, **changes), "ann", came())
    assert words in unescape(last["status"])
    assert last["run"]["interactive"], "in the same message: the page may lose one that another follows at once"
    assert not last["stop"]["visible"]


def test_while_a_run_is_planned_what_was_shown_stays_and_it_can_be_stopped(desk, picture, monkeypatch):
    gate, plan = threading.Event(), desk.editor.plan
    monkeypatch.setattr(desk.editor, "plan", lambda *asked: gate.wait(5) and plan(*asked))
    running = desk.run(form(picture), "ann", came())
    planning = next(running)
    assert "Planning" in planning["status"]
    assert planning["stop"]["visible"]
    assert not {"live", "result", "candidates"} & set(planning)
    desk.stop(planning["job"], "ann", came())
    last = all_of(running)
    assert "stopped before it began" in last["status"]
    assert last["run"]["interactive"]
    gate.set()


def test_reloading_while_a_run_is_planned_finds_it_and_then_its_plan(desk, picture, monkeypatch):
    gate, plan = threading.Event(), desk.editor.plan
    monkeypatch.setattr(desk.editor, "plan", lambda *asked: gate.wait(5) and plan(*asked))
    next(desk.run(form(picture), "ann", came()))
    again = desk.arrive("ann", came())
    seen = next(again)
    assert (seen["instruction"], "Planning" in seen["status"]) == ("make it dark", True)
    gate.set()
    last = all_of(again)
    assert last["table"][0][0] == "Is it so: make it dark?"
    assert "checks hold" in last["status"]


def test_a_reload_shows_the_candidate_that_was_chosen(desk, picture):
    last = all_of(desk.run(form(picture), "ann", came()))
    chosen = desk.pick(click(2), last["job"], "ann", came())
    again = all_of(desk.arrive("ann", came()))
    assert again["shown"] == chosen["shown"] != last["shown"]
    assert again["candidates"] == chosen["candidates"]


def test_where_the_disk_is_full_for_what_the_page_shows_the_edit_is_kept_and_said_to_be(desk, picture, monkeypatch):
    lines, save = desk.run(form(picture), "ann", came()), ui_files.save_bytes_to_cache

    def full(data, name, cache_dir):
        if name.startswith("tiltedit-"):
            raise OSError(28, "No space left on device")
        return save(data, name, cache_dir)

    monkeypatch.setattr(ui_files, "save_bytes_to_cache", full)
    last = all_of(lines)
    assert "free space on the disk of the history. The edit itself is kept" in last["status"]
    assert len(desk.history.list(owner_of("ann", came()))) == 1


@pytest.mark.parametrize("can_plan", [True, False])
def test_the_first_plan_alone_is_said_to_wait_for_the_models(desk, picture, can_plan):
    desk.editor.can_plan = can_plan
    for lines in (desk.plan(picture, "darker"), desk.run(form(picture), "ann", came())):
        said = next(line["status"] for line in lines if "Planning" in line.get("status", ""))
        assert ("waits for the models" in said) != can_plan


def test_a_past_edit_that_is_opened_during_a_run_takes_neither_the_stop_button_nor_the_candidates(desk, picture):
    first = all_of(desk.run(form(picture), "ann", came()))
    desk.editor.gate.clear()
    running, seen = desk.run(form(picture, steps=60), "ann", came()), {}
    while "step 2" not in seen.get("status", ""):
        seen |= next(running)
    opened = desk.recall(click(0), first["listed"], seen["job"], "ann", came())
    assert not {"job", "candidates"} & set(opened)
    desk.stop((seen | opened)["job"], "ann", came())
    assert "Stopped after step" in (seen | all_of(running))["status"]
    desk.editor.gate.set()
    assert desk.recall(click(0), first["listed"], seen["job"], "ann", came())["job"] == first["job"]


def test_a_result_that_cannot_be_kept_is_there_to_be_saved(desk, picture, monkeypatch):
    def full(*_):
        raise EditError("The file 'x.png' can't be written: check the folder and the free space.")

    monkeypatch.setattr("editor.history.save_result", full)
    last = all_of(desk.run(form(picture), "ann", came()))
    assert "check the folder and the free space" in last["status"]
    assert "not kept" in last["refused"]["label"]
    assert read_recipe(last["refused"]["value"][1]).instruction == "make it dark"


def test_a_run_that_breaks_off_shows_the_best_until_then_and_says_why(desk, picture, monkeypatch):
    edit = desk.editor.edit

    def broken(request, stop=None):
        *updates, last = edit(request, stop)
        yield from [*updates, replace(last, broken="The score is not finite.", stopped=True)]

    monkeypatch.setattr(desk.editor, "edit", broken)
    last = all_of(desk.run(form(picture), "ann", came()))
    assert "The score is not finite. This is the best until then." in last["status"]
    assert desk.history.get(last["shown"]).recipe.stopped is not None
    assert desk.history.get(last["shown"]).report["broken"] == "The score is not finite."


def test_what_a_run_had_found_before_an_error_that_nobody_foresaw_is_there_to_be_saved(desk, picture, monkeypatch):
    edit, best = desk.editor.edit, clock_like((90, 80))

    def breaks(request, stop=None):
        for seen in edit(request, stop):
            found = Candidate(laid=FakeLaid(best), score=1.0, checks=(0.9, 0.9), place=(1, 0))
            yield replace(seen, best_so_far=found, roundtrip=best)
            if seen.step == 1:
                raise RuntimeError

    monkeypatch.setattr(desk.editor, "edit", breaks)
    last = all_of(desk.run(form(picture), "ann", came()))
    assert "error " in last["status"]
    assert "The best so far" in last["refused"]["label"]
    saved = images.load(last["refused"]["value"][1]).image
    assert saved.tobytes() == best.tobytes()
    assert bears_mark(saved)


def test_edits_of_another_version_are_left_out_and_keep_nothing_from_starting(desk, picture, examples):
    first = all_of(desk.run(form(picture), "ann", came()))
    all_of(desk.run(form(picture, seed=8), "ann", came()))
    with Session(desk.history.database) as session:
        session.exec(update(Edit).where(Edit.id == first["shown"]).values(recipe_json='{"format": 99}'))
        session.commit()
    again = Desk.open(FakeEditor(), desk.history.folder, examples)
    assert len(all_of(again.arrive("ann", came()))["listed"]) == 1
    (seen,) = again.arrive("bob", came(edit=first["shown"]))
    assert "another version" in seen["status"]
    assert seen["run"]["interactive"]
    assert "All 2 edits" in again.forget_all("ann", came())["status"]
    again.close()


def test_older_edits_can_be_listed_too_and_stay_listed_when_one_is_shown(desk, picture, monkeypatch):
    monkeypatch.setattr("editor.ui_desk.LISTED", 2)
    monkeypatch.setattr(past_cards, "__defaults__", ("", 2))
    runs = [all_of(desk.run(form(picture, seed=seed), "ann", came())) for seed in range(5)]
    assert (len(runs[1]["listed"]), runs[1]["older"]["visible"]) == (2, False)
    assert (len(runs[-1]["listed"]), runs[-1]["reach"], runs[-1]["older"]["visible"]) == (2, 2, True)
    more = desk.older(runs[-1]["reach"], runs[-1]["shown"], "ann", came())
    assert more["listed"] == [run["shown"] for run in runs[:0:-1]]
    assert more["past"].count("<button") == 4
    oldest = more["listed"][3]
    shown = desk.recall(click(3), more["listed"], "", "ann", came(), more["reach"])
    assert (shown["shown"], shown["listed"], shown["older"]["visible"]) == (oldest, more["listed"], True)
    chosen = desk.pick(click(2), runs[-1]["job"], "ann", came(), more["reach"])
    assert chosen["listed"] == [chosen["shown"], *more["listed"][:3]]
    desk.forget(chosen["shown"], "ann", came(), more["reach"])
    less = desk.forget(oldest, "ann", came(), shown["reach"])
    assert less["listed"] == [*more["listed"][:3], runs[0]["shown"]]
    assert not less["older"]["visible"]


@pytest.mark.parametrize("part", ["source", "result", "thumbnail"])
def test_files_that_are_missing_from_the_history_lock_nobody_out(desk, picture, tmp_path, part):
    clock_like((90, 80)).save(tmp_path / "other.png")
    first = all_of(desk.run(form(picture), "ann", came()))
    second = all_of(desk.run(form(str(tmp_path / "other.png")), "ann", came()))
    lost = desk.history.get(second["shown"])
    getattr(desk.history, f"{part}_path")(lost).unlink()
    back = all_of(desk.arrive("ann", came()))
    assert (back["token"], back["listed"]) == ("ann", [first["shown"]])
    assert back["run"]["interactive"]
    assert back["past"].count("<button") == 1
    if part != "thumbnail":
        assert "missing from the history folder" in unescape(all_of(desk.arrive("bob", came(edit=lost.id)))["status"])
        with pytest.raises(EditError, match="missing from the history folder"):
            desk.recall(click(0), second["listed"], "", "ann", came())
    assert "All 2 edits" in desk.forget_all("ann", came())["status"]


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


def test_a_new_picture_takes_the_mask_of_the_last_one_away(desk, picture):
    taken = desk.take(picture)
    assert (taken["mask"], taken["paint"]["value"], taken["paint"]["visible"]) == (None, None, False)
    assert desk.paint_on(picture)["paint"]["visible"]


def test_a_plan_of_ones_own_is_for_the_sentence_that_it_ran_with(desk, picture):
    own = form(picture, table=[["Is it night?", "yes", 1]])
    planned = all_of(desk.run(own, "ann", came()))["planned"]
    again = all_of(desk.run(own | {"planned": planned}, "ann", came()))
    assert [c.question for c in desk.history.get(again["shown"]).recipe.plan.checks] == ["Is it night?"]
    (asked,) = desk.run(own | {"planned": planned, "instruction": "make the rim green"}, "ann", came())
    assert "You changed this plan for another picture or sentence" in asked["status"]


@pytest.mark.parametrize("other", ["sentence", "picture"])
@pytest.mark.parametrize(
    "change", [{"table": [["Is it night?", "yes", 1]]}, {"caption": "a clock at night"}, {"keep": "the hands"}]
)
def test_a_plan_that_a_person_changed_is_lost_to_nothing_else_unasked(desk, picture, tmp_path, change, other):
    planned = all_of(desk.plan(picture, "make it dark"))
    mine = form(picture, **plan_of(planned) | change)
    clock_like((90, 80)).save(tmp_path / "other.png")
    taken = desk.take(str(tmp_path / "other.png"), mine)
    assert not {"table", "planned", "plan_shown"} & set(taken)
    assert "table" in desk.take(str(tmp_path / "other.png"), form(picture, **plan_of(planned)))
    mine |= {"instruction": "make it darker"} if other == "sentence" else {"picture": taken["picture"]}
    (asked,) = desk.run(mine, "ann", came())
    assert "press Run again to use it as it stands, or “Make a plan”" in asked["status"]
    assert asked["run"]["interactive"]
    assert desk.jobs.latest("browser:ann") is None
    last = all_of(desk.run(mine | {"planned": asked["planned"]}, "ann", came()))
    assert desk.history.get(last["shown"]).recipe.plan == read_plan(mine)
    assert not changed(all_of(desk.plan(mine["picture"], mine["instruction"])))


def test_a_plan_that_was_written_before_any_other_is_for_any_sentence_and_stays_with_a_new_picture(desk, picture):
    own = form(picture, table=[["Is it night?", "yes", 1]])
    assert "table" not in desk.take(picture, own)
    assert "table" not in desk.take_example(click(0), own)
    shown = all_of(desk.run(own | {"instruction": "make the rim green"}, "ann", came()))["shown"]
    assert [c.question for c in desk.history.get(shown).recipe.plan.checks] == ["Is it night?"]


def test_the_next_edit_begins_without_the_plan_that_made_this_one(desk, picture):
    own = form(picture, table=[["Is it night?", "yes", 1]])
    shown = all_of(desk.run(own, "ann", came()))["shown"]
    assert desk.further(shown, own)["table"] == [["", "yes", 1.0]]
    assert "table" not in desk.further(shown, own | {"table": [["Is it late?", "yes", 1]]})


def test_an_example_fills_picture_and_instruction(desk):
    taken = desk.take_example(click(0), form(None))
    assert taken["instruction"] == "make it dark"
    assert images.load(taken["picture"]).image.size == (160, 120)
    for index in (1, -1, "0", None, True):
        with pytest.raises(EditError, match="no longer there"):
            desk.take_example(click(index), form(None))


def test_another_candidate_becomes_the_result_and_is_kept_once(desk, picture):
    first = all_of(desk.run(form(picture), "ann", came()))
    for _ in range(2):
        picked = desk.pick(click(2), first["job"], "ann", came())
    assert desk.history.get(picked["shown"]).recipe.candidate == 2
    assert len(desk.history.list("browser:ann")) == 2
    with pytest.raises(EditError, match="no longer known"):
        desk.pick(click(1), first["job"], "bob", came())


def test_the_candidates_of_an_earlier_run_are_there_again_while_it_is_remembered(desk, picture, examples):
    first = all_of(desk.run(form(picture), "ann", came()))
    picked = desk.pick(click(2), first["job"], "ann", came())
    second = all_of(desk.run(form(picture, seed=8), "ann", came()))
    for at, shown, pressed in ((2, first, 0), (1, picked, 2)):
        back = desk.recall(click(at), second["listed"], second["job"], "ann", came())
        assert (back["shown"], back["job"]) == (shown["shown"], first["job"])
        assert re.findall(r'data-index="(.)" aria-pressed="true"', back["candidates"]) == [str(pressed)]
        assert back["roundtrip"]["visible"]
    assert desk.pick(click(1), back["job"], "ann", came())["shown"] not in {first["shown"], picked["shown"]}
    again = Desk.open(FakeEditor(), desk.history.folder, examples)
    old = again.recall(click(1), second["listed"], "", "ann", came())
    assert (old["job"], old["candidates"]) == ("", "")
    again.close()


@pytest.mark.parametrize("instruction", ["a bug", "stopped"])
def test_a_run_that_brings_nothing_leaves_what_was_shown_before(desk, picture, instruction):
    first = all_of(desk.run(form(picture), "ann", came()))
    desk.editor.gate.clear()
    blocking = desk.jobs.submit(desk.jobs.get(first["job"], "browser:ann").request, "browser:bob")
    running = desk.run(form(picture, instruction=instruction), "ann", came(), first["shown"])
    seen = first | next(running) | next(running)
    assert seen["shown"] == ""
    if instruction == "stopped":
        desk.stop(seen["job"], "ann", came())
    desk.editor.gate.set()
    last = seen | all_of(running)
    assert "was stopped before it began" in last["status"] or "(error " in last["status"]
    assert (last["shown"], last["job"]) == (first["shown"], first["job"])
    assert last["candidates"].count("<button") == 3
    assert last["result"]["visible"]
    assert not last["refused"]["visible"]
    assert list(desk.jobs.follow(blocking))


def test_history_goes_back_branches_restores_and_deletes(desk, picture):
    first = all_of(desk.run(form(picture), "ann", came()))
    further = desk.further(first["shown"], form(picture))
    assert further["lock"] is False
    second = all_of(desk.run(form(further["picture"], instruction="darker still"), "ann", came()))
    assert [e.id for e in desk.history.lineage(desk.history.get(second["shown"]))] == [first["shown"], second["shown"]]
    assert (">↳ darker still" in second["past"], ">↳ make it dark" in second["past"]) == (True, False)
    back = desk.recall(click(1), second["listed"], second["job"], "ann", came())
    assert back["shown"] == first["shown"]
    restored = desk.restore(first["shown"])
    assert (restored["instruction"], restored["seed"], restored["particles"]) == ("make it dark", 7, 3)
    again = form(restored["picture"], **plan_of(restored), base=restored["base"])
    rerun = all_of(desk.run(again, "ann", came()))
    assert desk.history.get(rerun["shown"]).result == desk.history.get(first["shown"]).result
    assert desk.forget(first["shown"], "ann", came())["shown"] == ""
    with pytest.raises(EditError, match="no longer in the history"):
        desk.forget(second["shown"], "bob", came())
    assert "All 2 edits" in desk.forget_all("ann", came())["status"]


def test_a_recipe_that_was_dropped_sets_everything_but_the_picture(desk, picture, tmp_path):
    after = all_of(desk.run(form(picture, strength=0.55), "ann", came()))["slider"][1]
    same = desk.use_recipe(after, picture)
    assert (same["instruction"], same["seed"], same["strength"], same["lock"]) == ("make it dark", 7, 0.55, True)
    assert "another picture" not in same["status"]
    clock_like((90, 80)).save(tmp_path / "other.png")
    assert "made for another picture" in desk.use_recipe(after, str(tmp_path / "other.png"))["status"]
    with pytest.raises(EditError, match="no recipe"):
        desk.use_recipe(picture, None)


def test_a_recipe_waits_for_its_picture_but_not_for_another_sentence(desk, picture):
    own = form(picture, table=[["Is it night?", "yes", 2.0]])
    first = all_of(desk.run(own, "ann", came()))
    dropped = desk.use_recipe(first["slider"][1], None)
    assert "Upload the picture that it was made for" in dropped["status"]
    taken = desk.take(picture, dropped)
    assert "table" not in taken
    fields = plan_of(dropped) | {"base": dropped["base"], "seed": dropped["seed"]}
    again = all_of(desk.run(form(taken["picture"], **fields), "ann", came()))
    assert desk.history.get(again["shown"]).result == desk.history.get(first["shown"]).result
    other = all_of(desk.run(form(taken["picture"], **fields, instruction="make the rim green"), "ann", came()))
    assert other["table"][0][0] == "Is it so: make the rim green?"
    assert "table" in desk.take(picture, dropped | {"planned": again["planned"]})


def test_a_recipe_beyond_the_controls_is_set_to_what_they_can_show(desk, picture):
    beyond = form(picture, particles=100, base=asdict(SearchSettings(particles=100, keep=80)))
    shown = all_of(desk.run(beyond, "ann", came()))["shown"]
    restored = desk.restore(shown)
    assert (restored["particles"], restored["base"]["keep"]) == (64, 64)
    assert "particles of 100 is beyond the page&#x27;s control: 64 is set instead" in restored["status"]


@pytest.mark.parametrize("two_time", [True, False])
def test_exact_sampling_is_offered_only_where_the_profile_can_do_it(desk, picture, two_time):
    sampled = form(picture, method="fmtt-sampling")
    shown = all_of(desk.run(sampled, "ann", came()))["shown"]
    desk.editor.profile.two_time = two_time
    with gr.Blocks():
        choices = [value for _, value in lay_out(desk)["method"].choices]
    assert ("fmtt-sampling" in choices) == two_time
    assert "fmtt" in choices
    restored = desk.restore(shown)
    assert restored["method"] == ("fmtt-sampling" if two_time else "fmtt")
    assert ("cannot run its method fmtt-sampling: fmtt is set" in restored["status"]) != two_time
    dropped = desk.use_recipe(str(desk.history.result_path(desk.history.get(shown))), None)
    assert dropped["method"] == restored["method"]


def test_a_link_is_whole_where_the_browser_does_not_say_where_it_is(desk, picture):
    shy = came()
    shy.headers = {}
    shown = all_of(desk.run(form(picture), "ann", shy))
    assert shown["link"] == f"https://base/?edit={shown['shown']}"


def test_a_shared_link_shows_the_edit_to_another_browser(desk, picture):
    shown = all_of(desk.run(form(picture), "ann", came()))
    edit_id = shown["link"].split("edit=")[1]
    seen = all_of(desk.arrive("", came(edit=edit_id)))
    assert seen["shown"] == edit_id
    assert seen["checks"] == shown["checks"]
    assert seen["past"] == ""
    assert (seen["forget"]["visible"], shown["forget"]["visible"]) == (False, True)
    assert desk.restore(edit_id)["instruction"] == "make it dark"
    (lost,) = desk.arrive("", came(edit="guess"))
    assert "no longer in the history" in lost["status"]
    assert lost["token"]


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


def test_reloading_after_a_run_with_times_of_its_own_leaves_a_page_to_use(desk, picture, monkeypatch):
    desk.editor.efforts = EFFORTS
    settings = EFFORTS["fast"].but(restart=0.0, times=(0.5, 0.7), particles=3, seed=4)
    plan = desk.editor.plan(None, "make it dark")
    todo = EditRequest(image=clock_like(), instruction="make it dark", plan=plan, settings=settings)
    *_, job = desk.jobs.follow(desk.jobs.submit(todo, "browser:ann"))
    back = all_of(desk.arrive("ann", came()))
    assert (back["job"], back["seed"], back["effort"]["value"]) == (job.id, 4, None)
    monkeypatch.setattr("editor.ui_desk.show_request", None)
    lost = all_of(desk.arrive("ann", came()))
    assert "went wrong" in lost["status"]
    assert lost["run"]["interactive"]
    assert lost["token"] == "ann"


def test_a_run_that_failed_while_nobody_watched_is_found_with_what_was_asked_for(desk, picture, tmp_path):
    shared = all_of(desk.run(form(picture), "bob", came()))["shown"]
    Image.linear_gradient("L").resize((160, 120)).save(tmp_path / "mask.png")
    table = [["Is it night?", "yes", 1.0]]
    asked = form(picture, instruction="a bug", table=table, mask=str(tmp_path / "mask.png"))
    left = desk.run(asked, "ann", came())
    next(left)
    left.close()
    assert all_of(vars(seen) for seen in desk.jobs.follow(desk.jobs.latest("browser:ann")))["state"] == "failed"
    back = all_of(desk.arrive("ann", came()))
    assert "(error " in back["status"]
    assert (back["instruction"], back["table"]) == ("a bug", table)
    assert images.load(back["picture"]).image.tobytes() == clock_like().tobytes()
    assert back["mask"]
    assert back["run"]["interactive"]
    assert not back["result"]["visible"]
    assert all_of(desk.arrive("ann", came(edit=shared)))["shown"] == shared
    desk.forget_all("ann", came())
    assert "instruction" not in all_of(desk.arrive("ann", came()))


def test_reloading_brings_back_mask_settings_seed_and_what_the_plan_is_for(desk, picture, tmp_path):
    Image.linear_gradient("L").resize((160, 120)).save(tmp_path / "mask.png")
    asked = form(picture, mask=str(tmp_path / "mask.png"), strength=0.55, particles=2)
    first = all_of(desk.run(asked, "ann", came()))
    first_message, *rest = desk.arrive("ann", came())
    back = all_of([first_message, *rest])
    assert (back["strength"], back["particles"], back["seed"]) == (0.55, 2, 7)
    assert rest == [], "what a second message leaves out, the page may lose"
    assert first_message["effort"]["value"] is None
    assert len(first_message["effort"]["choices"]) == len(desk.editor.efforts)
    fields = plan_of(back) | {name: back[name] for name in ("mask", "mask_means", "feather", "base", "strength")}
    again = all_of(desk.run(form(back["picture"], particles=2, **fields), "ann", came()))
    assert desk.history.get(again["shown"]).result == desk.history.get(first["shown"]).result
    other = all_of(desk.run(form(back["picture"], **fields, instruction="one hour later"), "ann", came()))
    assert other["table"][0][0] == "Is it so: one hour later?"
    all_of(desk.run(form(picture, **desk.adopt("fast"), strength=0.55), "ann", came()))
    assert all_of(desk.arrive("ann", came()))["effort"]["value"] == "fast"


def noted(desk, picture, **changes):
    """What Ann's browser notes of a page with this picture."""
    left = {name: form(picture, **changes)[name] for name in LEFT}
    return desk.note(left, "ann", came())["noted"]


def test_a_page_that_comes_back_is_as_it_was_left(desk, picture):
    loaded = desk.take(picture)["picture"]
    table = [["Is it night?", "yes", 1.0]]
    left = noted(desk, loaded, table=table)
    back = all_of(desk.arrive("ann", came(), left))
    assert (back["picture"], back["instruction"], back["table"]) == (loaded, "make it dark", table)
    assert "as you left them" in back["status"]
    assert back["run"]["interactive"]
    shared = all_of(desk.run(form(picture), "bob", came()))["shown"]
    for other in (desk.arrive("bob", came(edit=shared), left), desk.arrive("ann", came(edit=shared), left)):
        assert all_of(other).get("table") != table
    strange = [{"owner": "browser:ann"}, *(left | {name: 7} for name in LEFT), left | {"table": [7]}]
    strange += [left | {"picture": path} for path in ("\0", "", str(Path(loaded).parent), "9" * 9999)]
    for nothing in (None, "", [], {}, noted(desk, None, instruction=""), *strange):
        back = all_of(desk.arrive("ann", came(), nothing))
        assert "picture" not in back
        assert "status" not in back, "as if nothing had been noted"
        assert back["run"]["interactive"]
    assert all_of(desk.arrive("ann", came(), noted(desk, None)))["instruction"] == "make it dark"


def test_of_a_picture_that_is_gone_or_never_was_the_pages_nothing_comes_back(desk, picture):
    loaded = desk.take(picture)["picture"]
    assert "instruction" not in all_of(desk.arrive("ann", came(), noted(desk, picture))), "it may be anybody's"
    Path(loaded).unlink()
    assert "instruction" not in all_of(desk.arrive("ann", came(), noted(desk, loaded)))


def test_coming_sweeps_what_nobody_uses(desk, picture):
    loaded = desk.take(picture)["picture"]
    os.utime(loaded, (0, 0))
    list(desk.arrive("bob", came()))
    assert not Path(loaded).exists()
    assert "no longer on the server" in all_of(desk.run(form(loaded), "ann", came()))["status"]


def test_beside_a_run_comes_back_what_was_put_on_the_page_since(desk, picture, tmp_path):
    Image.linear_gradient("L").resize((160, 120)).save(tmp_path / "mask.png")
    mask, loaded = desk.take(str(tmp_path / "mask.png"))["picture"], desk.take(picture)["picture"]
    run = all_of(desk.run(form(loaded, mask=mask), "ann", came()))
    same = noted(desk, loaded, **plan_of(run))
    back = all_of(desk.arrive("ann", came(), same))
    assert (back["shown"], back["table"], bool(back["mask"])) == (run["shown"], run["table"], True)
    written = [["Is it night?", "yes", 1.0]]
    back = all_of(desk.arrive("ann", came(), same | {"table": written}))
    assert (back["shown"], back["table"], bool(back["mask"])) == (run["shown"], written, True)
    clock_like((200, 200)).save(tmp_path / "next.png")
    later = desk.take(str(tmp_path / "next.png"))["picture"]
    back = all_of(desk.arrive("ann", came(), noted(desk, later, instruction="")))
    assert (back["shown"], back["picture"], back["instruction"], back["mask"]) == (run["shown"], later, "", None)
    assert back["table"] == [["", "yes", 1]]


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


def test_a_run_that_is_told_to_stop_says_so_until_it_has_stopped(desk, picture):
    desk.editor.gate.clear()
    running, seen = desk.run(form(picture, steps=60), "ann", came()), {}
    while "step 2" not in seen.get("status", ""):
        seen |= next(running)
    assert seen["stop"]["interactive"]
    desk.editor.pause = 0.3
    desk.stop(seen["job"], "ann", came())
    told, *later = running
    assert "Stopping: the best so far is kept" in told["status"]
    assert told["candidates"] == seen["candidates"]
    assert all("Stopping" in message["status"] for message in later[:-1])
    assert not any(message["stop"]["interactive"] for message in (told, *later[:-1]))
    assert not later[-1]["stop"]["visible"]
    began = next(message for message in desk.run(form(picture), "ann", came()) if "job" in message)
    assert began["stop"]["interactive"]


def test_the_recipe_can_be_left_out_of_the_download(desk, picture):
    shown = all_of(desk.run(form(picture), "ann", came()))["shown"]
    assert read_recipe(desk.download(shown, False)["download"])
    with pytest.raises(EditError, match="no recipe"):
        read_recipe(desk.download(shown, True)["download"])


def test_a_large_picture_is_compared_small_and_downloaded_whole(desk, picture, tmp_path, monkeypatch):
    monkeypatch.setattr("editor.ui_parts.COMPARED", 100)
    shown = all_of(desk.run(form(picture), "ann", came()))
    before, after = shown["slider"]
    assert (shown["before"], shown["after"]) == (before, after)
    assert {images.load(path).image.size for path in (before, after, shown["difference"])} == {(100, 75)}
    assert [bears_mark(images.load(path).image) for path in (before, after)] == [False, True]
    assert images.load(shown["download"]).image.size == (160, 120)
    assert read_recipe(shown["download"]).instruction == "make it dark"
    further = all_of(desk.run(form(desk.further(shown["shown"], form(picture))["picture"]), "ann", came()))
    assert bears_mark(images.load(further["slider"][0]).image), "a source that was edited already keeps its mark"


def test_a_result_that_lies_off_its_source_is_warned_about_now_and_later(desk, picture):
    desk.editor.offset = Offset(1.3, -0.2)
    off = all_of(desk.run(form(picture), "ann", came()))
    assert "lies 1.3 pixels off your picture" in off["checks"]
    assert "+1.30, -0.20 px" in off["details"]
    desk.editor.offset = Offset(0.3, 0.0)
    fine = all_of(desk.run(form(picture, seed=8), "ann", came()))
    assert "warning" not in fine["checks"]
    assert "pixels off" in desk.recall(click(1), fine["listed"], fine["job"], "ann", came())["checks"]


def test_a_plan_without_its_checks_does_not_keep_a_result_from_being_edited_further(desk, picture):
    last = all_of(desk.run(form(picture), "ann", came()))
    further = desk.further(last["shown"], form(picture, **plan_of(last) | {"table": [["", "yes", "1"]]}))
    assert further["picture"]
    assert "what should be different next" in further["status"]


def test_where_a_result_is_lost_the_page_does_not_say_that_it_is_the_picture_now(desk, picture):
    shown = all_of(desk.run(form(picture), "ann", came()))["shown"]
    desk.history.result_path(desk.history.get(shown)).unlink()
    lost = desk.further(shown)
    assert lost["picture"] is None
    assert "no file" in lost["status"]
    Path(desk.examples[0][0]).unlink()
    assert "no file" in desk.take_example(click(0))["status"]


def test_a_candidate_is_kept_with_the_plan_of_its_own_run(desk, picture):
    """A draft may come out the same by another plan."""
    first = all_of(desk.run(form(picture, lock=True), "ann", came()))
    heavier = form(picture, lock=True, **plan_of(first))
    heavier["table"] = [[question, expected, "3"] for question, expected, _ in heavier["table"]]
    second = all_of(desk.run(heavier, "ann", came()))
    desk.pick(click(1), first["job"], "ann", came())
    picked = desk.pick(click(1), second["job"], "ann", came())
    assert desk.history.get(picked["shown"]).recipe.plan.checks[0].weight == 3
    assert desk.pick(click(1), second["job"], "ann", came())["shown"] == picked["shown"]
    desk.forget(picked["shown"], "ann", came())
    anew = desk.pick(click(1), second["job"], "ann", came())["shown"]
    assert anew != picked["shown"]
    assert desk.pick(click(1), second["job"], "ann", came())["shown"] == anew


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
        fields = plan_of(back) | {name: back[name] for name in ("mask", "mask_means", "feather", "base")}
        rerun = all_of(desk.run(form(picture, **fields), "ann", came()))
        assert desk.history.get(rerun["shown"]).recipe.mask == used.mask
    assert "drop this PNG again" in desk.use_recipe(first["slider"][1], None)["status"]
    plain = all_of(desk.run(form(picture), "ann", came()))
    assert desk.restore(plain["shown"])["mask"] is None


def test_logged_in_users_own_their_edits_wherever_they_are(desk, picture):
    all_of(desk.run(form(picture), "token", came("ann")))
    assert all_of(desk.arrive("other token", came("ann")))["listed"]
    assert not all_of(desk.arrive("token", came("bob")))["listed"]


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


def test_the_page_keeps_to_itself(desk):
    options = launch_options(share=False)
    assert not options["share"]
    assert options["max_file_size"] == f"{MAX_BYTES // 2**20}mb"
    assert not options["run_history"]
    assert not options["enable_monitoring"]
    page = build_page(desk)
    assert not page.analytics_enabled
    theme = options["theme"]
    assert all(type(font) is gr.themes.Font for font in (*theme._font, *theme._font_mono))
    assert "http" not in options["css"]
    assert "http" not in options["js"]


def test_each_message_of_a_run_says_that_it_goes_on(desk, picture):
    *live, last = list(desk.run(form(picture), "ann", came()))
    shown = [message for message in live if message.get("candidates")]
    assert len(shown) > 1
    planned = [message for message in live if "Planning" not in message["status"]]
    assert all(message["table"] == last["table"] for message in planned), "in the first second"
    for message in shown:
        assert message["job"] == shown[0]["job"] != ""
        assert message["live"]["visible"]
        assert message["stop"]["visible"]
        assert not message["run"]["interactive"]
        assert not message["welcome"]["visible"]
    assert last["run"]["interactive"]
    assert not last["stop"]["visible"]
