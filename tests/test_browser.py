"""The page in headless Chromium over a fake engine; screenshots of its states go to tests/output."""

import json
import re
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from editor import images
from editor.recipe import read_recipe
from editor.registration import Offset
from editor.ui import build_page, launch_options
from editor.ui_desk import Desk
from editor.ui_files import kept_in
from tests.fakes import FakeEditor, clock_like

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
OUTPUT = Path(__file__).parent / "output"
PATIENCE = 150_000
"""Milliseconds to wait for what must come: the machine may be busy."""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="needs chromium at /usr/bin/chromium"),
]


@pytest.fixture(scope="module")
def blocks(tmp_path_factory):
    """A page over the fake engine: the page itself, its address, its desk, and a picture to upload."""
    folder, patch = tmp_path_factory.mktemp("page"), pytest.MonkeyPatch()
    patch.setenv("GRADIO_TEMP_DIR", str(folder / "cache"))
    examples = folder / "examples"
    examples.mkdir()
    for name in ("one", "two"):
        clock_like((120, 120)).save(examples / f"{name}.png")
    listed = [
        {"image": "one.png", "instruction": "Set it to 4:45"},
        {"image": "two.png", "instruction": "One hour later"},
    ]
    (examples / "examples.json").write_text(json.dumps(listed))
    clock_like((480, 360)).save(folder / "upload.png")
    desk = Desk.open(FakeEditor(), folder / "history", examples)
    page = build_page(desk)
    _, address, _ = page.launch(**launch_options(prevent_thread_lock=True, quiet=True))
    yield page, address, desk, folder / "upload.png"
    page.close()
    desk.close()
    patch.undo()


@pytest.fixture(scope="module")
def served(blocks):
    return blocks[1:]


@pytest.fixture(scope="module")
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, served):
    """Open the page in a new browser profile; at the end nothing may have been asked of another machine."""
    contexts, strangers, errors = [], [], []

    def watch(request):
        if not request.url.startswith((served[0], "data:", "blob:")):
            strangers.append(request.url)

    def come(path="", **options):
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}} | options)
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.on("request", watch)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(served[0] + path)
        expect(page.locator("#run")).to_be_enabled(timeout=PATIENCE)
        return page

    served[1].editor.gate.set()
    yield come
    served[1].editor.gate.set()
    for context in contexts:
        context.close()
    assert strangers == []
    assert errors == []


def says(page, words):
    expect(page.locator(".status")).to_contain_text(re.compile(words), timeout=PATIENCE)


def upload(page, path):
    page.set_input_files("#picture input[type=file]", str(path))
    says(page, "is loaded")


def shoot(page, name):
    OUTPUT.mkdir(exist_ok=True)
    page.screenshot(path=OUTPUT / f"{name}.png", full_page=True)


def ask(page, instruction):
    expect(page.locator("#run")).to_be_enabled(timeout=PATIENCE)
    page.fill("#instruction input", instruction)
    page.press("#instruction input", "Enter")


def test_an_edit_from_the_upload_to_the_download(visit, served, tmp_path):
    _, desk, picture = served
    page = visit()
    shoot(page, "start")
    upload(page, picture)
    page.fill("#instruction input", "make it dark")
    page.click("#make-plan")
    says(page, "This is the plan")
    expect(page.locator("#checks-table")).to_contain_text("Is it so: make it dark?", timeout=PATIENCE)
    page.fill("#caption textarea", "a clock at night")
    shoot(page, "plan")
    wide = page.locator("#desk").bounding_box()["width"]
    desk.editor.gate.clear()
    page.click("#run")
    says(page, "Searching: step 2 of 5")
    expect(page.locator("#candidates .card").first).to_be_visible()
    assert page.locator("#desk").bounding_box()["width"] == wide
    expect(page.locator("#share")).to_be_hidden()
    shoot(page, "running")
    desk.editor.gate.set()
    says(page, "Done in .* 2 of 2 checks hold")
    expect(page.locator(".checks")).to_contain_text("No 2 % → Yes 97 %")
    slider = page.locator("#slider")
    expect(slider.locator("img").first).to_be_visible(timeout=PATIENCE)
    slider.scroll_into_view_if_needed()
    still, box = slider.inner_html(), slider.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2, steps=4)
    page.mouse.up()
    page.wait_for_function("(still) => document.querySelector('#slider').innerHTML !== still", arg=still)
    shoot(page, "result")
    page.locator("#candidates .card").nth(2).click()
    says(page, "Candidate 3 is the result now")
    with page.expect_download() as download:
        page.click("#download")
    download.value.save_as(tmp_path / "result.png")
    recipe = read_recipe(tmp_path / "result.png")
    assert (recipe.candidate, recipe.plan.caption) == (2, "a clock at night")
    assert images.load(tmp_path / "result.png").image.size == (480, 360)


def test_enter_runs_a_reload_finds_the_run_and_escape_stops_it(visit, served):
    _, desk, picture = served
    page = visit()
    upload(page, picture)
    desk.editor.gate.clear()
    ask(page, "darker")
    says(page, "Searching: step 2")
    page.reload()
    says(page, "Searching: step 2")
    expect(page.locator("#instruction input")).to_have_value("darker")
    expect(page.locator("#run")).to_be_disabled()
    page.press("#instruction input", "Enter")
    page.wait_for_timeout(500)
    asked = [job for job in desk.jobs._jobs.values() if job.request.instruction == "darker"]
    assert len(asked) == 1, "Enter starts no second run beside one"
    page.click("#settings > button")
    page.click("#advanced > button")
    page.locator("#advanced input[role=combobox]").first.click()
    expect(page.locator("[role=listbox]")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("[role=listbox]")).to_have_count(0)
    composing = "{key: 'Escape', bubbles: true, isComposing: %s}"
    composing = f"document.body.dispatchEvent(new KeyboardEvent('keydown', {composing}))"
    page.evaluate(composing % "true")
    page.wait_for_timeout(500)
    assert not asked[0].stop.is_set()
    page.evaluate(composing % "false")
    says(page, "Stopped after step")
    expect(page.locator("#run")).to_be_enabled()
    desk.editor.gate.clear()
    ask(page, "darker still")
    says(page, "Searching: step 2")
    expect(page.locator("#stop")).to_be_enabled()
    page.click("#stop")
    says(page, "Stopped after step")
    expect(page.locator("#past-cards .card")).to_have_count(2)


def test_going_back_branching_and_dropping_a_recipe(visit, served, tmp_path):
    _, desk, _ = served
    page = visit()
    page.locator("#examples .card").first.click()
    says(page, "An example is loaded")
    page.click("#run")
    says(page, "Done")
    page.click("#further")
    says(page, "The result is the picture now")
    expect(page.locator("#instruction input")).to_have_value("")
    expect(page.locator("#instruction input")).to_be_focused()
    ask(page, "One hour later")
    says(page, "Done")
    expect(page.locator("#past-cards .card")).to_have_count(2)
    page.locator("#past-cards .card").nth(1).click()
    says(page, "Set it to 4:45")
    page.click("#restore")
    says(page, "Everything is as it was")
    page.click("#share > button")
    link = page.input_value("#link input, #link textarea")
    edit = desk.history.get(link.split("edit=")[1])
    guest = visit("?" + link.split("?")[1])
    says(guest, "a result that was shared")
    expect(guest.locator("#slider")).to_be_visible()
    guest.click("#recipe-box > button")
    guest.set_input_files("#recipe-box input[type=file]", str(desk.history.result_path(edit)))
    says(guest, "The recipe is loaded")
    expect(guest.locator("#instruction input")).to_have_value("Set it to 4:45")
    shoot(guest, "recipe")
    for answer, left in (("dismiss", 2), ("accept", 1)):
        page.once("dialog", lambda dialog, answer=answer: getattr(dialog, answer)())
        page.click("#forget")
        page.wait_for_timeout(500)
        expect(page.locator("#past-cards .card")).to_have_count(left)
    says(page, "The edit is deleted")
    page.once("dialog", lambda dialog: dialog.accept())
    page.click("#forget-all")
    says(page, "All 1 edits")


def test_a_reload_brings_back_a_picture_that_was_not_edited_yet(visit, served):
    page = visit()
    upload(page, served[2])
    page.fill("#instruction input", "Something else")
    page.click("#mask-box > button")  # the sentence is noted as soon as one leaves it
    page.wait_for_timeout(1000)
    page.reload()
    says(page, "as you left them")
    expect(page.locator("#picture img")).to_be_visible(timeout=PATIENCE)
    expect(page.locator("#instruction input")).to_have_value("Something else")
    page.click("#run")
    says(page, "Done")


@contextmanager
def started(folder, port=None):
    """A server of its own with what is kept in a folder; its port."""
    desk = Desk.open(FakeEditor(), folder)
    with kept_in(desk.history.shown):
        page = build_page(desk)
        page.launch(**launch_options(prevent_thread_lock=True, quiet=True, server_port=port))
        try:
            yield page.server_port
        finally:
            page.close()
            desk.close()


def test_an_open_page_goes_on_after_the_server_was_started_anew(chromium, tmp_path):
    clock_like((480, 360)).save(tmp_path / "upload.png")
    page = chromium.new_page()
    with started(tmp_path / "history") as port:
        page.goto(f"http://127.0.0.1:{port}")
        expect(page.locator("#run")).to_be_enabled(timeout=PATIENCE)
        upload(page, tmp_path / "upload.png")
        ask(page, "darker")
        says(page, "Done")
    with started(tmp_path / "history", port):
        ask(page, "after the restart")
        expect(page.locator("#checks-table")).to_contain_text("Is it so: after the restart?", timeout=PATIENCE)
        expect(page.locator("#past-cards .card")).to_have_count(2, timeout=PATIENCE)
    with started(tmp_path / "history", port):
        page.reload()
        says(page, "as you left them")
        expect(page.locator("#picture img")).to_be_visible(timeout=PATIENCE)
        expect(page.locator("#instruction input")).to_have_value("after the restart")
        page.close()


def test_what_the_page_remembers_outlives_its_session_on_the_server(visit, blocks):
    page = visit()
    upload(page, blocks[3])
    ask(page, "darker")
    says(page, "Done")
    blocks[0].state_holder.session_data.clear()  # as at a restart, and in part an hour after the line broke
    ask(page, "one hour later")
    expect(page.locator("#checks-table")).to_contain_text("Is it so: one hour later?", timeout=PATIENCE)
    expect(page.locator("#past-cards .card")).to_have_count(2, timeout=PATIENCE)
    blocks[0].state_holder.session_data.clear()
    page.locator("#past-cards .card").nth(1).click()
    says(page, "“darker”")
    page.click("#restore")
    says(page, "Everything is as it was")


def test_a_plan_that_was_changed_by_hand_is_kept_until_another_is_asked_for(visit, served):
    page = visit()
    upload(page, served[2])
    page.fill("#instruction input", "darker")
    page.click("#make-plan")
    says(page, "This is the plan")
    table = page.locator("#checks-table")
    table.locator("[role=gridcell]").first.dblclick()
    page.keyboard.press("Control+a")
    page.keyboard.type("Is it night?")
    page.keyboard.press("Enter")
    expect(table).to_contain_text("Is it night?")
    upload(page, served[2])
    ask(page, "darker!")
    says(page, "You changed this plan for another picture or sentence")
    shoot(page, "asked")
    page.press("#instruction input", "Enter")
    says(page, "Done")
    expect(table).to_contain_text("Is it night?")
    page.click("#make-plan")
    says(page, "This is the plan")
    expect(table).to_contain_text("Is it so: darker!?", timeout=PATIENCE)
    page.fill("#caption textarea", "a clock at night")
    ask(page, "now")
    says(page, "You changed this plan for another picture or sentence")
    page.click("#make-plan")
    says(page, "This is the plan")
    ask(page, "later")
    expect(table).to_contain_text("Is it so: later?", timeout=PATIENCE)
    says(page, "Done")


def test_a_painted_mask_reaches_the_engine(visit, served):
    _, desk, picture = served
    page = visit()
    upload(page, picture)
    page.click("#mask-box > button")
    expect(page.locator("#paint")).to_be_hidden()
    page.click("#start-painting")
    canvas = page.locator("#paint canvas").first
    canvas.scroll_into_view_if_needed()
    page.wait_for_timeout(4000)  # the brush says nothing when it is ready
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + box["height"] * 0.4)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.55, box["y"] + box["height"] * 0.45, steps=5)
    page.mouse.up()
    page.wait_for_timeout(1500)
    shoot(page, "mask")
    ask(page, "darker here")
    says(page, "Done")
    mask = next(job.request.mask for job in desk.jobs._jobs.values() if job.request.instruction == "darker here")
    assert mask.size == (480, 360)
    assert 0 < mask.histogram()[255] < 480 * 360 / 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_phone(visit, served, scheme):
    _, desk, picture = served
    page = visit(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    upload(page, picture)
    ask(page, "a dog")
    says(page, "The studio knows clocks only")
    expect(page.locator(".status")).to_be_in_viewport(ratio=1)
    expect(page.locator("#instruction input")).to_be_in_viewport()
    desk.editor.gate.clear()
    ask(page, "darker")
    says(page, "Searching: step 2")
    expect(page.locator("#candidates .card").first).to_be_in_viewport(timeout=PATIENCE)
    shoot(page, f"phone-running-{scheme}")
    expect(page.locator("#stop")).to_be_in_viewport(ratio=1)
    page.keyboard.press("Escape")
    says(page, "Stopped after step")
    expect(page.locator("#slider")).to_be_in_viewport(timeout=PATIENCE)
    expect(page.locator("#stop")).to_be_hidden()
    desk.editor.gate.set()
    page.evaluate("window.scrollTo(0, 0)")
    ask(page, "darker still")
    says(page, "Done in")
    expect(page.locator("#slider")).to_be_in_viewport(timeout=PATIENCE)
    page.wait_for_timeout(2500)
    page.locator("#past-cards .card").last.click()
    says(page, "“darker”")
    expect(page.locator("#slider")).to_be_in_viewport(timeout=PATIENCE)
    for box in ("#settings", "#how", "#share"):
        page.click(f"{box} > button")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    shoot(page, f"phone-{scheme}")


def test_in_the_dark_and_with_errors_in_sentences(visit, served, tmp_path):
    _, desk, picture = served
    page = visit(color_scheme="dark")
    page.click("#run")
    says(page, "There is no picture yet")
    (tmp_path / "disguised.png").write_bytes(b"8BPS no picture")
    page.set_input_files("#picture input[type=file]", str(tmp_path / "disguised.png"))
    says(page, "This file is not a picture")
    upload(page, picture)
    ask(page, "a dog")
    says(page, "The studio knows clocks only")
    ask(page, "a bug")
    says(page, r"Something went wrong inside \(error [0-9a-f]{8}\)")
    expect(page.locator("#run")).to_be_enabled()
    desk.editor.offset = Offset(0.8, -0.5)
    ask(page, "<b>darker</b>")
    says(page, "Done")
    desk.editor.offset = Offset(0.0, 0.0)
    expect(page.locator(".warning")).to_contain_text("lies 0.9 pixels off your picture")
    page.click("#settings > button")
    expect(page.locator("#settings")).to_contain_text(re.compile(r"Fast · about \d+ s"))
    expect(page.locator(".checks li").first).to_contain_text("<b>darker</b>")
    shoot(page, "dark")


def test_everything_has_a_name(visit):
    page = visit()
    nameless = """() => [...document.querySelectorAll("button, input, textarea, img")].filter((part) => {
          if (part.offsetParent === null || part.type === "file") return false;
          const named = part.getAttribute("aria-label") || part.title || part.alt || part.textContent.trim()
            || part.placeholder || part.querySelector("img[alt]:not([alt=''])") || (part.labels && part.labels.length);
          return !named;
        }).map((part) => part.outerHTML.slice(0, 160))"""
    assert page.evaluate(nameless) == []
    page.locator("#examples .card").first.focus()
    page.keyboard.press("Enter")
    says(page, "An example is loaded")
    page.click("#run")
    says(page, "Done")
    for box in ("#settings", "#mask-box", "#how", "#share"):
        page.click(f"{box} > button")
    assert page.evaluate(nameless) == []
