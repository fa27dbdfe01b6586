"""Recipes are complete, marked and mistrusted; the store branches, restores, deletes and keeps its limits."""

import io
import json
import stat
from dataclasses import replace

import pytest
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from editor import images
from editor.history import History
from editor.mark import DIGITAL_SOURCE_TYPE, bears_mark
from editor.recipe import KEY, Recipe, encode_result, read_recipe, save_result
from editor.types import EditError, EditRequest, SearchSettings
from tests.fakes import FakeEditor, clock_like


def run(mask=None, **settings):
    settings = SearchSettings(**settings)
    request = EditRequest(image=clock_like(), instruction="make it dark", mask=mask, settings=settings)
    *_, last = FakeEditor().edit(request)
    return request, last


@pytest.fixture
def recipe():
    request, last = run(Image.new("L", (160, 120), 255), seed=5, steps=2, times=(0.4, 0.7))
    return Recipe.of(request, last, "fake")


@pytest.fixture
def store(tmp_path):
    now = [1e9]
    history = History.open(tmp_path / "history", clock=lambda: now[0])
    yield history, now
    history.close()


def test_no_other_user_of_the_machine_reads_a_new_history_and_a_folder_that_is_there_stays_as_it_is(store, tmp_path):
    assert stat.S_IMODE(store[0].folder.stat().st_mode) == 0o700
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o755)
    History.open(tmp_path / "shared").close()
    assert stat.S_IMODE((tmp_path / "shared").stat().st_mode) == 0o755


def test_a_recipe_comes_back_from_its_png(recipe, tmp_path):
    path = tmp_path / "result.png"
    save_result(path, clock_like(), recipe)
    assert read_recipe(path) == recipe
    assert recipe.settings.seed == 5
    assert recipe.source == images.fingerprint(clock_like())
    assert images.load(path).image.tobytes() == clock_like().tobytes()
    assert [p.name for p in tmp_path.iterdir()] == ["result.png"]


def test_the_same_recipe_gives_the_same_bytes(recipe):
    assert encode_result(clock_like(), recipe) == encode_result(clock_like(), recipe)


@pytest.mark.parametrize("soft", [False, True])
def test_the_mask_comes_back_from_the_recipe(soft, tmp_path):
    mask = Image.radial_gradient("L").resize((160, 120))
    mask = mask if soft else mask.point(lambda value: 255 * (value > 128))
    request, last = run(mask)
    save_result(tmp_path / "result.png", last.best, Recipe.of(request, last, "fake"))
    found = read_recipe(tmp_path / "result.png")
    assert images.fingerprint(found.load_mask((160, 120))) == images.fingerprint(mask) == found.mask
    assert len(found.mask_png) < (20_000 if soft else 2_000)
    with pytest.raises(EditError, match="mask"):
        found.load_mask((160, 40))


def test_a_mask_that_takes_too_much_room_is_named_by_its_hash_alone():
    noise = Image.effect_noise((600, 450), 50)
    request, last = run(noise)
    found = Recipe.of(request, last, "fake")
    assert found.mask_png is None
    assert found.mask == images.fingerprint(noise)
    assert found.load_mask(noise.size) is None


def test_recipes_from_before_masks_were_carried_are_read(recipe):
    data = recipe.to_json()
    del data["mask_png"]
    assert Recipe.from_json(data) == replace(recipe, mask_png=None)


def test_an_edit_by_a_plan_alone_is_read(recipe):
    silent = replace(recipe, instruction="")
    assert Recipe.from_json(silent.to_json()) == silent


def test_a_mask_that_is_no_picture_is_refused(recipe):
    with pytest.raises(EditError, match="not a picture"):
        replace(recipe, mask_png="bm8gcGljdHVyZQ==").load_mask((160, 120))


@pytest.mark.parametrize("stripped", [False, True])
def test_the_mark_stays_when_the_recipe_is_stripped(recipe, stripped):
    data = encode_result(clock_like(), None if stripped else recipe)
    with Image.open(io.BytesIO(data)) as opened:
        assert DIGITAL_SOURCE_TYPE in opened.info["XML:com.adobe.xmp"]
        assert "AI" in opened.info["Comment"]
        assert "AI" in opened.getexif()[0x0131]
        assert b"AI" in opened.getexif().get_ifd(0x8769)[0x9286]
        assert (KEY in opened.info) != stripped
    if stripped:
        with pytest.raises(EditError, match="no recipe"):
            read_recipe(data)


def test_another_candidate_and_a_stopped_run_are_recorded():
    request, last = run()
    assert Recipe.of(request, last, "fake", 2).result == images.fingerprint(last.candidates[2].image)
    assert Recipe.of(request, replace(last, stopped=True), "fake").stopped == last.step
    late = Recipe.of(request, replace(last, stopped=True, step=300), "fake")
    assert Recipe.from_json(late.to_json()) == late


@pytest.mark.parametrize(
    "change",
    [
        lambda data: [],
        lambda data: data | {"format": 99},
        lambda data: data | {"instruction": "x" * 501},
        lambda data: data | {"instruction": 7},
        lambda data: data | {"plan": {"checks": []}},
        lambda data: data | {"plan": {"checks": ["x"]}},
        lambda data: data | {"source": "../../etc/passwd"},
        lambda data: data | {"mask_png": 7},
        lambda data: data | {"mask_png": ""},
        lambda data: data | {"mask_png": "<script>"},
        lambda data: data | {"mask_png": "é"},
        lambda data: data | {"mask_png": "AAAA" * 70_000},
        lambda data: data | {"candidate": -1},
        lambda data: data | {"candidate": True},
        lambda data: data | {"versions": {"a": ["b"]}},
        lambda data: data | {"held": 16},
        lambda data: data | {"held": "x" * 201},
        lambda data: data | {"settings": None},
        lambda data: data | {"settings": {"particles": 10**6}},
        lambda data: data | {"settings": {"particles": True}},
        lambda data: data | {"settings": {"draws": 4096}},
        lambda data: data | {"settings": {"searches": 4096}},
        lambda data: data | {"stopped": 2**40},
        lambda data: data | {"settings": {"strength": "1"}},
        lambda data: data | {"settings": {"strength": float("nan")}},
        lambda data: data | {"settings": {"steps": 4.5}},
        lambda data: data | {"settings": {"rm": "-rf"}},
        lambda data: data | {"settings": {"times": [0.5] * 1000}},
        lambda data: data | {"settings": {"times": ["0.5"]}},
    ],
)
def test_recipes_are_untrusted(recipe, change):
    text = PngInfo()
    text.add_text(KEY, json.dumps(change(recipe.to_json())))
    buffer = io.BytesIO()
    clock_like().save(buffer, "PNG", pnginfo=text)
    with pytest.raises(EditError, match=r"\.$"):
        read_recipe(buffer.getvalue())


@pytest.mark.parametrize("text", ["{", "[" * 50_000, "{" + " " * 400_000 + "}", "null"])
def test_text_that_is_no_recipe_is_refused(text):
    info = PngInfo()
    info.add_text(KEY, text)
    buffer = io.BytesIO()
    clock_like().save(buffer, "PNG", pnginfo=info)
    with pytest.raises(EditError, match=r"\.$"):
        read_recipe(buffer.getvalue())


def test_a_profile_may_have_the_name_of_a_long_folder(recipe):
    long = replace(recipe, profile="flux-schnell+" + "n" * 255)
    assert Recipe.from_json(json.loads(json.dumps(long.to_json()))) == long


def test_a_file_that_is_no_png_carries_no_recipe():
    with pytest.raises(EditError, match="PNG"):
        read_recipe(b"not a picture at all")


def keep(history, owner="ann", source=None):
    request = EditRequest(image=source or clock_like(), instruction="make it dark")
    *_, last = FakeEditor().edit(request)
    return history.add(owner, request.image, last.best, Recipe.of(request, last, "fake"), {"score": last.score})


def keep_further(history, edit, owner="ann"):
    return keep(history, owner, images.load(history.result_path(edit)).image)


def test_edits_survive_a_restart_with_pictures_recipe_and_report(store):
    history, _ = store
    edit = keep(history)
    history.close()
    again = History.open(history.folder)
    found = again.get(edit.id, "ann")
    assert found.recipe == edit.recipe
    assert found.report == edit.report
    assert read_recipe(again.result_path(found)) == found.recipe
    assert found.source.startswith(images.fingerprint(images.load(again.source_path(found)).image))
    again.close()


def test_the_latest_edits_of_everybody_are_told_newest_first(store):
    history, now = store
    kept = []
    for owner in ("ann", "bob", "ann"):
        now[0] += 1
        kept.append(keep(history, owner).id)
    assert [edit.id for edit in history.latest(2)] == [kept[2], kept[1]]


@pytest.mark.parametrize("part", ["source", "result", "thumbnail"])
def test_an_edit_whose_files_are_missing_is_known_as_such(store, part):
    history, _ = store
    edit = keep(history)
    assert images.load(history.thumbnail(edit)).image.size == (160, 120)
    path = getattr(history, f"{part}_path")(edit)
    assert images.load(history.read(path)).image.size == (160, 120)
    path.unlink()
    assert history.thumbnail(edit) is None
    with pytest.raises(EditError, match="missing from the history folder"):
        history.read(path)


def test_owners_are_apart(store):
    history, _ = store
    edit = keep(history, "ann")
    keep(history, "bob")
    assert [e.id for e in history.list("ann")] == [edit.id]
    assert history.get(edit.id).id == edit.id
    for act in (history.get, lambda i, o: history.delete(o, i)):
        with pytest.raises(EditError, match="no longer"):
            act(edit.id, "bob")


def test_going_back_and_editing_again_makes_a_branch(store):
    history, now = store
    first = keep(history)
    now[0] += 1
    second = keep_further(history, first)
    now[0] += 1
    branch = keep_further(history, first)
    assert [e.id for e in history.list("ann")] == [branch.id, second.id, first.id]
    assert [e.id for e in history.lineage(branch)] == [first.id, branch.id]
    assert [e.id for e in history.lineage(second)] == [first.id, second.id]


def test_deleting_removes_files_and_closes_the_gap_in_the_lineage(store):
    history, _ = store
    first = keep(history)
    second = keep_further(history, first)
    third = keep_further(history, second)
    history.delete("ann", second.id)
    assert [e.id for e in history.lineage(history.get(third.id))] == [first.id, third.id]
    assert not history.result_path(second).exists()
    assert not history.thumbnail_path(second).exists()
    assert history.source_path(first).exists()
    assert history.clear("ann") == 2
    assert [*history.folder.glob("*/*.*")] == []
    assert history.list("ann") == []


def test_a_source_of_two_owners_stays_while_one_uses_it(store):
    history, _ = store
    ann, bob = keep(history, "ann"), keep(history, "bob")
    assert ann.source == bob.source
    history.clear("ann")
    assert history.source_path(bob).exists()


def test_the_same_pixels_with_other_colours_are_another_source(store):
    history, _ = store
    plain, wide = clock_like(), clock_like()
    wide.info["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    first, second = keep(history, "ann", plain), keep(history, "ann", wide)
    profiles = [images.load(history.source_path(edit)).image.info.get("icc_profile") for edit in (first, second)]
    assert profiles == [None, wide.info["icc_profile"]]
    further = keep_further(history, first)
    assert bears_mark(images.load(history.source_path(further)).image)
    stripped = images.load(history.result_path(first)).image.copy()
    stripped.info.clear()
    bare = keep(history, "bob", stripped)
    assert not bears_mark(images.load(history.source_path(bare)).image)
    assert bare.recipe.source == further.recipe.source
    assert first.recipe.source == second.recipe.source


@pytest.mark.parametrize("fails", ["editor.history.save_result", "sqlmodel.Session.commit"])
def test_what_cannot_be_kept_leaves_no_file(store, monkeypatch, fails):
    history, _ = store
    there = keep(history)
    error = EditError("The disk is full.") if "save" in fails else OperationalError("insert", {}, Exception("full"))

    def full(*_, **__):
        raise error

    monkeypatch.setattr(fails, full)
    with pytest.raises(EditError, match=r"full|can't be kept"):
        keep(history, source=clock_like((80, 80)))
    monkeypatch.undo()
    kept = {path.name for path in history.folder.glob("*/*.*")}
    assert kept == {p(there).name for p in (history.source_path, history.result_path, history.thumbnail_path)}


def test_limits_of_age_and_size_remove_the_oldest_and_say_so(store):
    history, now = store
    old = keep(history)
    now[0] += 91 * 86_400
    new = keep(history)
    assert [e.id for e in history.list("ann")] == [new.id]
    assert not history.result_path(old).exists()
    shared = history.source_path(new).stat().st_size
    small = replace(history, max_bytes=2 * new.size - shared)
    now[0] += 1
    newest = keep(small)
    assert [e.id for e in small.list("ann")] == [newest.id, new.id], "their source lies there once"
    assert replace(small, max_bytes=2 * new.size - shared - 1).prune() == 1
    assert [e.id for e in small.list("ann")] == [newest.id]
    assert "90 days" in history.limits
    assert "2.0 GB" in history.limits


def test_an_edit_that_is_kept_reads_no_recipe_of_the_others(store):
    history, _ = store
    for _ in range(3):
        keep(history)
    asked = []
    event.listen(history.database, "before_cursor_execute", lambda *args: asked.append(args[2]))
    assert history.prune() == 0
    assert asked
    assert not [said for said in asked if "_json" in said]


def test_a_folder_that_cannot_be_used_is_said(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(EditError, match="choose another"):
        History.open(tmp_path / "file")


def test_a_full_disk_is_said_and_leaves_nothing_behind(tmp_path, recipe):
    with pytest.raises(EditError, match="free space"):
        save_result(tmp_path / "absent" / "result.png", clock_like(), recipe)
