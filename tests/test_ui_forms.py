"""Between the page's fields and the engine, and what the page shows as strings of HTML and SVG."""

import re
from dataclasses import asdict

import gradio as gr
import pytest
from gradio.components.image_editor import EditorData
from gradio.data_classes import FileData, ImageData
from PIL import Image

from editor import images, ui_plots, ui_views
from editor.engine import EFFORTS
from editor.history import LISTED
from editor.types import Check, EditError, Plan, SearchSettings
from editor.ui import build_page
from editor.ui_forms import CONTROLS, PROTECT, changed, read_mask, read_plan, read_settings, show_plan, show_settings
from editor.ui_layout import lay_out
from tests.fakes import clock_like
from tests.page import form


def test_gradio_opens_no_upload_itself_not_even_once_it_has_made_the_components_anew(desk, tmp_path):
    disguised = str(tmp_path / "disguised.png")
    (tmp_path / "disguised.png").write_bytes(b"8BPS no picture")
    kinds = (gr.Image, gr.ImageEditor)
    takers = [part for part in build_page(desk).blocks.values() if isinstance(part, kinds) and part.interactive is None]
    assert [part.elem_id for part in takers] == ["picture", "paint", "mask"]
    for part in takers:
        anew = type(part)(**part.constructor_args)  # as at every update of the page
        if isinstance(part, gr.ImageEditor):
            assert anew.preprocess(EditorData(layers=[FileData(path=disguised)])) == {"layers": [disguised]}
        else:
            assert anew.preprocess(ImageData(path=disguised)) == disguised
        assert part.get_block_name() == kinds[isinstance(part, gr.ImageEditor)].__name__.lower()


def test_the_effort_sets_the_controls_and_the_seed_is_new_unless_locked(desk, picture):
    adopted = desk.adopt("fast")
    assert adopted["particles"] == 3
    assert "strength" not in adopted
    assert {effort.strength for effort in EFFORTS.values()} == {EFFORTS["fast"].strength}
    seeds = {read_settings(form(picture, lock=False)).seed for _ in range(4)}
    assert len(seeds) == 4
    assert read_settings(form(picture)).seed == 7


def test_times_of_a_recipe_are_dropped_when_the_steps_change(picture):
    base = asdict(SearchSettings(particles=3, steps=4, times=(0.3, 0.6)))
    assert read_settings(form(picture, base=base)).times == (0.3, 0.6)
    assert read_settings(form(picture, base=base, steps=9)).times is None


@pytest.mark.parametrize(
    "sent",
    [None, "", [], 7, {"particles": "many"}, {"particles": 10**6}, {"rm": "-rf"}, {"strength": 0}, {"keep": None}],
)
def test_settings_that_the_page_sends_are_untrusted(picture, sent):
    with pytest.raises(EditError, match="choose an effort, or reload"):
        read_settings(form(picture, base=sent))


def test_what_the_page_remembers_stands_in_the_browser_and_is_read_whatever_comes(desk):
    page = build_page(desk)
    assert not [part for part in page.blocks.values() if isinstance(part, gr.State)]
    with gr.Blocks():
        parts = lay_out(desk)
    for name in ("job", "shown", "source_caption", "planned", "plan_shown"):
        assert not parts[name].visible
    for name in ("job", "shown", "source_caption", "planned", "plan_shown", "instruction", "caption", "keep"):
        assert [parts[name].preprocess(sent) for sent in ("x", "", None, 7, ["x"])] == ["x", "", "", "", ""]
    assert [parts["listed"].preprocess(sent) for sent in (["a", 1, "b"], None, "ab", {})] == [["a", "b"], [], [], []]
    assert [parts["reach"].preprocess(sent) for sent in (120, 1, -5, True, None, "90")] == [120, *[LISTED] * 5]
    fast = desk.adopt("fast")["base"]
    kept = parts["base"].postprocess(fast).model_dump()
    assert read_settings(form(None, base=parts["base"].preprocess(kept), lock=True)).keep == fast["keep"] == 1


def test_every_setting_with_a_control_is_explained_and_reaches_every_effort_and_the_run(desk, picture):
    with gr.Blocks():
        parts = lay_out(desk)
    assert {"preserve", "focus", "jitters", "corrections", "draws"} <= set(CONTROLS)
    for name in (*CONTROLS, "effort", "seed", "lock", "feather", "caption", "keep"):
        assert parts[name].info, name
    for effort in EFFORTS.values():
        for name in CONTROLS:
            if isinstance(parts[name], gr.Slider):
                assert parts[name].minimum <= getattr(effort, name) <= parts[name].maximum, name
        assert read_settings(form(picture, **show_settings(effort), seed=0)) == effort
    assert read_settings(form(picture, preserve=3.0, jitters=1)).preserve == 3.0


def test_an_empty_table_is_no_plan(picture):
    assert read_plan(form(picture)) is None
    assert read_plan(form(picture, table=[[None, None, None]])) is None


def test_columns_that_were_added_or_deleted_do_no_harm_and_a_weight_is_a_number(picture):
    for row in (["Is it night?", "yes", "2", "mine"], ["Is it night?"]):
        (check,) = read_plan(form(picture, table=[row])).checks
        assert (check.question, check.expected) == ("Is it night?", "yes")
    with pytest.raises(EditError, match="a weight must be a number, not 'heavy'"):
        read_plan(form(picture, table=[["Is it night?", "yes", "heavy"]]))


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


def test_a_caption_without_a_check_is_not_dropped(picture):
    for written in ({"caption": "a red clock"}, {"keep": "the rim"}):
        wanted = form(picture, table=[["", "yes", "1"]], **written)
        assert changed(wanted)
        with pytest.raises(EditError, match="no check"):
            read_plan(wanted)
    empty = form(picture, table=[["", "yes", "1"]], caption=" ", keep="\n")
    assert (changed(empty), read_plan(empty)) == (False, None)


# ------------------------------------------------------------------------------------------------------------- views


def test_what_people_write_is_escaped():
    evil = '<img src=x onerror="alert(1)">'
    row = {"question": evil, "expected": evil, "weight": 1.0, "before": 0.1, "after": 0.2}
    card = ui_views.Card(b"", evil, evil, ((evil, True),))
    stays = {"thing": evil, "before": 0.9, "after": 0.1}
    shown = ui_views.checks([row], evil, [stays]) + ui_views.status(evil) + ui_views.cards([card], evil, 0, True)
    shown += ui_views.header(evil, evil, evil, [evil])
    assert "<img src=x" not in shown
    assert shown.count("&lt;img") >= 11


def test_what_must_stay_has_a_sign_where_it_was_seen_before():
    seen = [(0.9, 0.8), (0.9, 0.1), (0.2, 0.1)]
    kept = [{"thing": f"thing {i}", "before": before, "after": after} for i, (before, after) in enumerate(seen)]
    shown = ui_views.checks([{"question": "?", "expected": "yes", "before": 0.1, "after": 0.9}], kept=kept)
    assert re.findall(r'<span class="(\w+)"[^>]*>([^<]*)<', shown) == [
        ("yes", "✓ thing 0"), ("no", "✕ thing 1"), ("unseen", "thing 2")
    ]  # fmt: skip
    assert "Must stay" not in ui_views.checks([{"question": "?", "expected": "yes", "before": 0.1, "after": 0.9}])


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
    assert "nan" not in ui_plots.curve([(1.0,), (1.0,)], 1.0, 0)
    assert ui_plots.curve([(1.0, 2.0)], 0.0, 0) == "", "a run of one step, as a draft that was enough"
    numbers = re.findall(r'text-anchor="end">([^<]*)<', ui_plots.curve([(0.0, 0.05), (0.1, 0.02)], None, 1))
    assert len(set(numbers)) == 5


def test_the_ancestry_marks_the_line_of_the_one_that_was_chosen():
    history, parents = [(0.0, 1.0), (2.0, 1.0), (2.0, 5.0)], [(0, 1), (1, 0), (0, 0)]
    drawn = ui_plots.ancestry(history, parents, (2, 1))
    assert drawn.count('polyline class="best"') == 2
    assert "candidate 2 of 2 at step 0" in drawn
    earlier = ui_plots.ancestry(history, parents, (1, 1))
    assert earlier.count('polyline class="best"') == 1, "a landing that was best before the end has a shorter line"
    assert "candidate 1 of 2 at step 0" in earlier
    apart = ui_plots.ancestry(history, [(0, 1), (), (0, 0)], (2, 1))
    assert apart.count("polyline") == 2, "where a search begins nothing leads to what was before"
    assert "candidate 1 of 2 at step 1" in apart
    assert ui_plots.ancestry([(0.0,)], [(0,)], (0, 0)) == ""


def test_a_plan_comes_back_from_the_page_as_it_was_shown(picture):
    plan = Plan((Check("Is it dark?", "yes", 2.0),), "a dark room", ("a lamp",), "a bright room with a lamp")
    shown = {name: value for name, value in show_plan(plan).items() if name != "plan_box"}
    assert read_plan(form(picture, **shown)) == plan
    assert not changed(form(picture, **shown))
    assert not changed(form(picture, **shown | {"table": [["Is it dark? ", "yes", "2"], ["", None, None]]}))
    for change in ({"table": [["Is it dark?", "yes", 20]]}, {"caption": ""}, {"keep": "a lamp\na table"}):
        assert changed(form(picture, **shown | change))
