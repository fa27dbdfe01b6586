"""Every way on which a picture that a model made leaves: page, files, command line. Each bears the AI mark."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from editor import __main__ as cli
from editor import images
from editor.engine import Editor
from editor.mark import AI_NOTE, DIGITAL_SOURCE_TYPE, bears_mark, marked
from editor.recipe import encode_result
from editor.ui_api import Api
from editor.ui_desk import Desk
from rewards.base import Check, Plan
from tests.fakes import clock_like
from tests.page import all_of, came, click, form

PLAN = Plan((Check("Is the rim red?"),), "a clock with a red rim")


@pytest.fixture
def engine(tiny_editor, monkeypatch):
    """The untrained engine, which plans as if it could."""
    monkeypatch.setattr(Editor, "_plan", lambda self, image, instruction, calls: PLAN)
    return tiny_editor


@pytest.fixture
def real_desk(engine, tmp_path, examples, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    desk = Desk.open(engine, tmp_path / "history", examples)
    yield desk
    desk.close()


def told(picture: str | Path | bytes) -> bool:
    """Whether a file bears the mark, in EXIF and in XMP alike."""
    with Image.open(io.BytesIO(picture if isinstance(picture, bytes) else Path(picture).read_bytes())) as opened:
        info = opened.info
        xmp = str(info.get("XML:com.adobe.xmp", "")) + info.get("xmp", b"").decode()
        comment = opened.getexif().get_ifd(0x8769).get(0x9286, b"")
    assert (DIGITAL_SOURCE_TYPE in xmp) == (AI_NOTE.encode() in comment)
    return DIGITAL_SOURCE_TYPE in xmp


def cards(page: str) -> list[bytes]:
    """The pictures on cards."""
    return [base64.b64decode(data) for data in re.findall(r"data:image/webp;base64,([^\"]+)", page)]


SETTINGS = {"particles": 2, "steps": 2, "corrections": 1, "draws": 1, "searches": 1, "focus": 0.5}


def test_every_picture_of_the_page_that_a_model_made_is_marked_and_the_users_own_is_not(real_desk, picture):
    lines = list(real_desk.run(form(picture, **SETTINGS), "ann", came()))
    last, live = all_of(lines), [line["candidates"] for line in lines if line.get("candidates")]
    shown = [card for page in live for card in cards(page)]
    assert len(shown) >= 2 * 3
    assert all(map(told, shown))
    source, result = last["slider"]
    assert (told(source), told(result), told(last["difference"])) == (False, True, True)
    for name in ("roundtrip", "spotlight"):
        assert last[name]["visible"], name
        assert told(last[name]["value"])
    assert all(map(told, cards(last["past"])))
    for strip in (True, False):
        assert told(real_desk.download(last["shown"], strip)["download"])
    again = real_desk.pick(click(1), last["job"], "ann", came())
    assert told(again["slider"][1])
    assert not told(real_desk.take_example(click(0))["picture"])


def test_what_descends_from_an_edit_is_marked_wherever_it_goes(real_desk, picture):
    first = all_of(real_desk.run(form(picture, **SETTINGS), "ann", came()))
    further = real_desk.further(first["shown"])["picture"]
    assert told(further)
    assert told(real_desk.paint_on(further)["paint"]["value"]["background"])
    second = all_of(real_desk.run(form(further, **SETTINGS), "bob", came()))
    assert told(second["slider"][0])
    assert told(real_desk.restore(second["shown"])["picture"])
    assert not told(real_desk.restore(first["shown"])["picture"])
    assert told(all_of(real_desk.arrive("bob", came()))["picture"])


def test_a_picture_that_is_refused_comes_with_a_marked_round_trip(real_desk, picture, monkeypatch):
    monkeypatch.setattr(real_desk.editor.models, "profile", replace(real_desk.editor.profile, least_psnr=200.0))
    source, back = all_of(real_desk.run(form(picture, **SETTINGS), "ann", came()))["refused"]["value"]
    assert (told(source), told(back)) == (False, True)


def test_the_programming_interface_gives_marked_pictures(real_desk, picture):
    request = came(username="ann")
    *_, (_, data) = Api(real_desk).edit(picture, "make it red", PLAN.to_json(), effort="fast", request=request)
    assert told(data)


def test_every_file_of_the_command_line_and_of_batches_is_marked(engine, picture, tmp_path, monkeypatch):
    monkeypatch.setattr(Editor, "load", classmethod(lambda cls, name, vlm=None: engine))
    monkeypatch.setattr(cli, "prepare", lambda: None)
    edited, again, back = (tmp_path / f"{name}.png" for name in ("edited", "again", "back"))
    small = ("--particles", "2", "--steps", "2")
    assert cli.main(["edit", picture, "make it red", "-o", str(edited), *small]) == 0
    assert cli.main(["reproduce", str(edited), "--source", picture, "-o", str(again)]) == 0
    assert cli.main(["roundtrip", picture, "-o", str(back)]) == 0
    assert all(map(told, (edited, again, back)))
    assert edited.read_bytes() == again.read_bytes()
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    clock_like().save(pictures / "a.png")
    assert cli.main(["batch", str(pictures), "make it red", "-o", str(tmp_path / "out"), *small]) == 0
    made = [file for file in (tmp_path / "out").iterdir() if file.suffix in (".png", ".jpg")]
    assert {file.suffix for file in made} == {".png", ".jpg"}
    assert all(map(told, made))


def test_the_mark_goes_through_files_and_leaves_pixels_and_fingerprints_alone():
    plain = clock_like()
    for data in (images.to_png(marked(plain)), encode_result(plain, None)):
        loaded = images.load(data).image
        assert bears_mark(loaded)
        assert images.fingerprint(loaded) == images.fingerprint(plain)
        assert told(images.to_png(images.at_most(loaded, 64)))
    for data in (images.to_png(plain), images.to_thumbnail(plain, 64)):
        assert not told(data)
        assert not bears_mark(images.load(data).image)
    assert not bears_mark(plain)
