"""Batches as a user types them: folders and tables, going on where they stopped, failures that stop nothing."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import replace

import pytest
from PIL import Image

from editor import __main__ as cli
from editor import contact_sheet, images
from editor.engine import Editor
from editor.recipe import read_recipe, save_result
from editor.tasks import tasks
from editor.types import EditError
from tests.fakes import FakeEditor, clock_like


class Counting(FakeEditor):
    """Knows which instructions were run; Ctrl-C comes at "interrupt"."""

    def __init__(self):
        super().__init__()
        self.ran = []

    def edit(self, request, stop=None):
        self.ran.append(request)
        if "interrupt" in request.instruction:
            raise KeyboardInterrupt
        return super().edit(request, stop)


@pytest.fixture
def fake(monkeypatch):
    editor = Counting()
    monkeypatch.setattr(Editor, "load", classmethod(lambda cls, name, vlm=None: editor))
    monkeypatch.setattr(cli, "prepare", lambda: None)
    return editor


@pytest.fixture
def folder(tmp_path):
    """Two pictures of one name, one that is broken, and a file that is no picture."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    clock_like().save(folder / "a.jpg")
    clock_like((120, 160)).save(folder / "a.png")
    (folder / "broken.png").write_text("I am no picture")
    (folder / "notes.txt").write_text("nor am I, and don't pretend")
    return folder


@pytest.fixture
def table(tmp_path):
    """Writes a table beside picture.png and mask.png."""
    clock_like().save(tmp_path / "picture.png")
    Image.new("L", (160, 120), "white").save(tmp_path / "mask.png")

    def write(text, encoding="utf-8"):
        path = tmp_path / "table.csv"
        path.write_bytes(text.encode(encoding))
        return path

    return write


def batch(capsys, *arguments):
    """(exit status, what --json says, standard error)."""
    status = cli.main(["batch", *map(str, arguments), "--effort", "fast", "--json"])
    out, err = capsys.readouterr()
    return status, json.loads(out) if out else None, err


def states(told):
    return [item["state"] for item in told["items"]]


def test_a_folder_is_edited_and_a_failure_stops_nothing(fake, folder, tmp_path, capsys):
    out = tmp_path / "out"
    status, told, err = batch(capsys, folder, "make it dark", "-o", out, "--seed", 5)
    assert status == 1
    assert (told["done"], told["skipped"], told["failed"], told["not_run"]) == (2, 0, 1, 0)
    assert [item["result"] for item in told["items"]] == ["a.png", "a-2.png", "broken.png"]
    assert "broken.png: This file is not a picture" in err
    assert "batch: 100%" in err
    assert read_recipe(out / "a-2.png").settings.seed == 5
    assert images.load(out / "a-2.png").image.size == (120, 160)
    assert json.loads((out / "summary.json").read_text()) == told
    with (out / "summary.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == ["done", "done", "failed"]
    assert float(rows[0]["score"]) == pytest.approx(told["items"][0]["score"])


def test_the_contact_sheet_shows_pairs_and_is_marked(fake, folder, tmp_path, capsys):
    _, told, _ = batch(capsys, folder, "make it dark", "-o", tmp_path / "out")
    (name,) = told["contact_sheets"]
    with Image.open(tmp_path / "out" / name) as sheet:
        assert "AI" in sheet.getexif()[0x0131]
        gap, side = contact_sheet.GAP, contact_sheet.SIDE
        assert sheet.width == gap + 2 * (2 * side + 1 + gap)
        middle = gap + side - 70
        before = sheet.getpixel((gap + side // 2, middle))
        after = sheet.getpixel((gap + side + 1 + side // 2, middle))
    assert sum(after) < 0.7 * sum(before)


def test_what_is_made_is_skipped_and_what_changed_is_made_anew(fake, folder, tmp_path, capsys):
    out = tmp_path / "out"
    (folder / "broken.png").unlink()
    first = batch(capsys, folder, "make it dark", "-o", out)[1]
    made = (out / "a.png").read_bytes()
    status, second, _ = batch(capsys, folder, "make it dark", "-o", out)
    assert status == 0
    assert states(second) == ["skipped", "skipped"]
    assert len(fake.ran) == 2
    assert [i["score"] for i in second["items"]] == [i["score"] for i in first["items"]]
    assert (out / "a.png").read_bytes() == made
    clock_like().rotate(90, expand=True).save(folder / "a.png")
    assert states(batch(capsys, folder, "make it dark", "-o", out)[1]) == ["skipped", "done"]
    assert states(batch(capsys, folder, "make it dark", "-o", out, "--seed", 3)[1]) == ["done", "done"]
    assert states(batch(capsys, folder, "make it night", "-o", out, "--seed", 3)[1]) == ["done", "done"]


def test_a_lost_or_damaged_journal_costs_the_scores_alone(fake, folder, tmp_path, capsys):
    out = tmp_path / "out"
    batch(capsys, folder, "make it dark", "-o", out)
    (out / "journal.jsonl").write_text('[1]\n{"key": "a.png", "told"')
    told = batch(capsys, folder, "make it dark", "-o", out)[1]
    assert states(told) == ["skipped", "skipped", "failed"]
    assert "score" not in told["items"][0]


@pytest.mark.parametrize(("delimiter", "encoding"), [(",", "utf-8"), (";", "utf-8-sig"), ("\t", "utf-8")])
def test_a_table_sets_what_it_names_for_each_row(fake, table, tmp_path, capsys, delimiter, encoding):
    rows = (
        "Image,instruction,seed,mask,strength,effort",
        "picture.png,dünkel",
        ",,,,,",
        "picture.png,night,4,mask.png,0.5,",
    )
    text = "\n".join(rows)
    path = table(text.replace(",", delimiter), encoding)
    status, told, err = batch(capsys, path, "-o", tmp_path / "out", "--seed", 9)
    assert status == 0, err
    assert [item["result"] for item in told["items"]] == ["picture.png", "picture-2.png"]
    plain, masked = fake.ran
    assert (plain.instruction, plain.settings.seed, plain.mask) == ("dünkel", 9, None)
    assert (masked.settings.seed, masked.settings.strength, masked.mask.size) == (4, 0.5, (160, 120))


def test_rows_fail_one_by_one(fake, table, tmp_path, capsys, caplog):
    path = table(
        "image,instruction,steps,effort,mask\npicture.png,a dog,,,\npicture.png,a bug,,,\nabsent.png,dark,,,\n"
        "picture.png,dark,many,,\npicture.png,dark,0,,\npicture.png,dark,,great,\n,dark,,,\n"
        "picture.png,dark,,,absent.png\npicture.png,dark,,,\n"
    )
    status, told, err = batch(capsys, path, "-o", tmp_path / "out")
    assert status == 1
    assert states(told) == ["failed"] * 8 + ["done"]
    says = ["clocks only", "report the id", "no file", "'many'", "steps", "no effort 'great'", "no file", "no file"]
    for item, said in zip(told["items"], says, strict=False):
        assert said in item["error"]
        assert item["error"] in err
    assert "secret detail" in caplog.text
    assert "secret detail" not in json.dumps(told)
    assert all(item["error"].endswith(".") for item in told["items"][:8])


def test_an_interrupted_batch_goes_on(fake, table, tmp_path, capsys):
    path = table("image,instruction\npicture.png,dark\npicture.png,interrupt\npicture.png,night\n")
    status, told, err = batch(capsys, path, "-o", tmp_path / "out")
    assert status == 130
    assert states(told) == ["done", "not run", "not run"]
    assert "goes on" in err
    table("image,instruction\npicture.png,dark\npicture.png,light\npicture.png,night\n")
    assert states(batch(capsys, path, "-o", tmp_path / "out")[1]) == ["skipped", "done", "done"]


def test_files_that_are_no_results_are_never_overwritten(fake, folder, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    clock_like().save(out / "a.png")
    own = (out / "a.png").read_bytes()
    told = batch(capsys, folder, "make it dark", "-o", out)[1]
    assert "in the way" in told["items"][0]["error"]
    assert (out / "a.png").read_bytes() == own
    status, _, err = batch(capsys, folder, "make it dark", "-o", folder)
    assert (status, fake.ran) == (2, fake.ran[:1])
    assert "another folder" in err


@pytest.mark.parametrize("name", ["summary.csv", "summary.json", "contact-sheet-1.jpg"])
def test_a_folder_with_files_like_a_summary_that_are_none_of_ours_is_refused(fake, folder, tmp_path, capsys, name):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("mine")
    status, _, err = batch(capsys, folder, "make it dark", "-o", out)
    assert (status, fake.ran, (out / name).read_text()) == (2, [], "mine")
    assert f"{name} in" in err


def test_contact_sheets_of_an_earlier_run_go_and_no_other_files(fake, folder, tmp_path, capsys):
    out = tmp_path / "out"
    batch(capsys, folder, "make it dark", "-o", out)
    for name in ("contact-sheet-7.jpg", "contact-sheet-holiday.jpg"):
        (out / name).write_text("?")
    batch(capsys, folder, "make it dark", "-o", out)
    assert {path.name for path in out.glob("*.jpg")} == {"contact-sheet-1.jpg", "contact-sheet-holiday.jpg"}


def test_a_journal_that_was_cut_off_takes_new_lines(fake, folder, tmp_path, capsys):
    out = tmp_path / "out"
    batch(capsys, folder, "make it dark", "-o", out)
    with (out / "journal.jsonl").open("a") as file:
        file.write('{"key": "cut')
    for _ in range(2):
        told = batch(capsys, folder, "make it light", "-o", out)[1]
    assert states(told) == ["skipped", "skipped", "failed"]
    assert all("score" in item for item in told["items"][:2])


def test_names_of_any_bytes_and_length_are_edited(fake, tmp_path, capsys):
    folder, out = tmp_path / "pictures", tmp_path / "out"
    folder.mkdir()
    names = [os.fsdecode(b"caf\xe9.png"), "\u65f6" * 83 + "a.jpg", "\u65f6" * 83 + "a.png"]
    for name in names:
        clock_like().save(folder / name, "PNG")
    status, told, _ = batch(capsys, folder, "make it dark", "-o", out)
    assert (status, states(told)) == (0, ["done"] * 3)
    assert len(list(out.glob("*.png"))) == 3
    assert "caf\\udce9.png" in (out / "summary.csv").read_text(encoding="utf-8")
    assert json.loads((out / "summary.json").read_text(encoding="utf-8"))["done"] == 3


def test_a_stopped_result_is_made_to_its_end(fake, folder, tmp_path, capsys):
    out = tmp_path / "out"
    batch(capsys, folder, "make it dark", "-o", out)
    recipe = read_recipe(out / "a.png")
    save_result(out / "a.png", images.load(out / "a.png").image, replace(recipe, stopped=1))
    assert states(batch(capsys, folder, "make it dark", "-o", out)[1]) == ["done", "skipped", "failed"]


def test_a_result_that_broke_off_counts_as_failed_and_is_made_again(fake, folder, tmp_path, capsys, monkeypatch):
    out, edit = tmp_path / "out", Counting.edit

    def broken(self, request, stop=None):
        *updates, last = edit(self, request, stop)
        yield from [*updates, replace(last, broken="The score is not finite.", stopped=True)]

    monkeypatch.setattr(Counting, "edit", broken)
    status, told, err = batch(capsys, folder, "make it dark", "-o", out)
    assert (status, states(told)) == (1, ["failed"] * 3)
    assert "a.png: The score is not finite." in err
    assert read_recipe(out / "a.png").stopped is not None, "the best so far is kept"
    monkeypatch.setattr(Counting, "edit", edit)
    assert states(batch(capsys, folder, "make it dark", "-o", out)[1]) == ["done", "done", "failed"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "first row"),
        ("picture,instruction\n", "first row"),
        ("image,instruction,sed\n", "'sed'"),
        ("image,instruction,seed,seed\n", "once"),
        ("image,instruction\n", "nothing to edit"),
        ("image,instruction\npicture.png,set it to 4:45, please\n", "quotes"),
    ],
)
def test_a_table_that_makes_no_sense_runs_nothing(fake, table, tmp_path, capsys, text, says):
    status, told, err = batch(capsys, table(text), "-o", tmp_path / "out")
    assert (status, told, fake.ran) == (2, None, [])
    assert says in err
    assert not (tmp_path / "out").exists()


def test_what_is_neither_folder_nor_table_is_said(fake, folder, table, tmp_path):
    path = table("image,instruction\n")
    for source, instruction, says in [
        (folder, None, "needs an instruction"),
        (path, "dark", "brings its own"),
        (tmp_path / "absent", None, "no folder or table"),
        (tmp_path / "picture.png", None, "UTF-8"),
    ]:
        with pytest.raises(EditError, match=says):
            tasks(source, instruction)
    (tmp_path / "empty").mkdir()
    with pytest.raises(EditError, match="nothing to edit"):
        tasks(tmp_path / "empty", "dark")


def test_captions_hold_what_can_be_drawn(tmp_path):
    pair = contact_sheet.Pair(
        before=tmp_path, after=tmp_path / "été.png", instruction="Größer, 大 " * 30, source_score=None, score=None
    )
    lines = pair.caption.split("\n")
    assert lines[0] == "ete.png"
    assert len(lines) == 4
    assert lines[-1] == "score not known"
    assert pair.caption.isascii()


def test_many_pairs_take_several_sheets(tmp_path, monkeypatch):
    monkeypatch.setattr(contact_sheet, "PER_SHEET", 4)
    path = tmp_path / "a.png"
    clock_like().save(path)
    pair = contact_sheet.Pair(before=path, after=path, instruction="dark", source_score=0.0, score=1.0)
    heights = [sheet.height for sheet in contact_sheet.sheets([pair] * 5)]
    row = contact_sheet.SIDE + contact_sheet.CAPTION + contact_sheet.GAP
    assert heights == [contact_sheet.GAP + 2 * row, contact_sheet.GAP + row]
