"""A user's first minute with the studio: the real models, the real page, headless Chromium."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from tests.test_browser import ARGUMENTS, CHROMIUM, PATIENCE, says, shoot

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "assets" / "examples" / "kitchen-clock.png"

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture
def address(tmp_path):
    """The page as `python app.py` serves it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "app.py", "--port", str(port), "--history", str(tmp_path / "history")]
    environment = os.environ | {"GRADIO_TEMP_DIR": str(tmp_path / "cache")}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL) as server:
        deadline = time.monotonic() + PATIENCE / 1000
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert server.poll() is None, "the app ended before it served a page"
                assert time.monotonic() < deadline, "the app serves no page"
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
        server.terminate()


def test_an_edit_of_an_example_with_the_studio(address):
    """README shows what this leaves in tests/output: plan, run, result, and its link on a phone in the dark."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(PATIENCE)
        page.goto(address)
        expect(page.locator("#run")).to_be_enabled(timeout=PATIENCE)
        page.set_input_files("#picture input[type=file]", str(EXAMPLE))
        says(page, "is loaded")
        page.fill("#instruction input", "set it to 4:45")
        page.click("#run")
        says(page, "Searching: step [2-4]")
        shoot(page, "studio-running")
        page.click("#stop")
        says(page, "Stopped after")
        page.fill("#instruction input", "make the background yellow")
        page.click("#make-plan")
        says(page, "This is the plan")
        shoot(page, "studio-plan")
        page.click("#run")
        says(page, "Done in .* Drafts that captions alone made told the colours")
        expect(page.locator(".checks")).to_contain_text("background")
        slider = page.locator("#slider")
        expect(slider.locator("img").first).to_be_visible(timeout=PATIENCE)
        slider.scroll_into_view_if_needed()
        box = slider.bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] / 3, box["y"] + box["height"] / 2, steps=4)
        page.mouse.up()
        shoot(page, "studio")
        page.click("#share > button")
        link = page.input_value("#link input, #link textarea")
        phone = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark", device_scale_factor=2)
        phone.set_default_timeout(PATIENCE)
        phone.goto(f"{address}?{link.split('?')[1]}")
        says(phone, "a result that was shared")
        expect(phone.locator("#slider img").first).to_be_visible(timeout=PATIENCE)
        shoot(phone, "studio-phone")
        browser.close()
