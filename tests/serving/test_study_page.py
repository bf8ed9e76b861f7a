"""A small reader study in a real browser, by keys alone: signed in, marked, rated, submitted, reloaded, signed out."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

from serving_support import LocalCrew
from study_support import PASSWORD, SHOWN, Served, with_practice

sync_api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
CHROMIUM = next(
    (p for p in ("/usr/bin/chromium", "/usr/bin/chromium-browser") if Path(p).is_file()), None
)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on this machine (Debian package chromium)"
)
CASES = 2


class OneAtATime(LocalCrew):
    """The processes of work in this one; a browser asks for two things at once."""

    lock = threading.Lock()

    def ask(self, asked):
        with self.lock:
            return super().ask(asked)


@pytest.fixture
def study(detect_run, tmp_path) -> Iterator[Served]:
    """A study of two cases without a wash-out, at an address that a browser can reach."""
    served = Served(
        detect_run, tmp_path / "cases", str(tmp_path / "store"),
        readers=["ann"], wash_out_days=0, seed=5, cases_in_all=CASES, **with_practice(tmp_path / "cases", 1),
    )  # fmt: skip
    served.answer_all([SHOWN])
    served.service.desk.clock = time.time
    served.service.crew = OneAtATime(served.service, [detect_run])
    server = uvicorn.Server(
        uvicorn.Config(served.app, port=0, log_config=None, lifespan="off", ws="none")
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    served.address = f"http://127.0.0.1:{port}"
    yield served
    server.should_exit = True
    thread.join(30)
    served.service.crew.stop()
    served.service.store.close()


def test_a_study_is_read_by_keys_alone(study) -> None:
    address = study.address
    shots = os.environ.get("TWINRAY_SHOTS")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        context = browser.new_context(viewport={"width": 1400, "height": 900}, color_scheme="dark")
        page = context.new_page()
        page.set_default_timeout(30_000)
        said: list[str] = []
        asked: list[str] = []
        page.on("console", lambda m: said.append(f"{m.type}: {m.text}"))
        page.on("pageerror", lambda e: said.append(f"error: {e}"))
        page.on("request", lambda r: asked.append(r.url))
        press = page.keyboard.press

        def shown(selector: str, words: str) -> None:
            sync_api.expect(page.locator(selector).first).to_contain_text(words, timeout=30_000)

        def look(name: str) -> None:
            if not shots:
                return
            for scheme in ("dark", "light"):
                for width, height in ((1400, 900), (390, 844)):
                    page.emulate_media(color_scheme=scheme)
                    page.set_viewport_size({"width": width, "height": height})
                    page.wait_for_timeout(250)
                    page.screenshot(path=f"{shots}/study-{name}-{scheme}-{width}.png")
            page.emulate_media(color_scheme="dark")
            page.set_viewport_size({"width": 1400, "height": 900})
            page.wait_for_timeout(250)

        page.goto(address)
        page.wait_for_selector("#who")
        page.keyboard.type("ann")
        press("Tab")
        page.keyboard.type(PASSWORD)
        press("Enter")
        shown(".card", "They count nowhere")
        look("begin")
        press("Enter")  # the button has the focus
        shown("#case-title", "Practice 1 of 1, not counted")
        sync_api.expect(page.locator("#submit")).to_be_enabled(timeout=30_000)
        sync_api.expect(page.locator("#pane-0")).to_be_focused(timeout=30_000)
        look("practice")
        press("Enter")
        shown("#toast", "nothing found here?")
        press("Enter")
        arms = []
        for session in (1, 2):
            shown(".card", f"Session {session} of 2")
            press("Enter")  # the button has the focus
            for position in range(1, CASES + 1):
                shown("#case-title", f"Case {position} of {CASES}")
                sync_api.expect(page.locator("#pane-0")).to_be_focused(timeout=30_000)
                sync_api.expect(page.locator("#submit")).to_be_enabled(timeout=30_000)
                arm = page.get_attribute("#arm", "data-arm")
                arms.append(arm)
                boxes = page.locator(".boxes .lines g.predicted")
                # what is drawn comes a frame after the focus
                sync_api.expect(boxes).to_have_count(1 if arm == "with" else 0)
                assert page.locator("#model").is_visible() == (arm == "with")
                if arm == "without":
                    press("Enter")
                    shown("#toast", "nothing found here?")
                    press("Escape")
                    press("a")
                    press("Enter")  # a mark in the middle
                    shown("#mark-list", "not rated")
                    press("Enter")
                    shown("#toast", "say how sure")
                    press("7")
                    shown("#mark-list", "70 of 100")
                    press(".")
                    shown("#mark-list", "71 of 100")
                    press("z")
                    press("Shift+z")
                    press("ArrowLeft")
                    sync_api.expect(page.locator("#save")).to_have_attribute("data-state", "saved")
                    sync_api.expect(page.locator(".boxes .lines g.added")).to_have_count(1)
                    assert boxes.count() == 0
                    look(f"without-{session}-{position}")
                    if position == 1:  # the page is left in the middle of a case
                        page.reload()
                        shown(".card", "Session")
                        press("Enter")
                        shown("#mark-list", "71 of 100")
                        sync_api.expect(page.locator("#pane-0")).to_be_focused(timeout=30_000)
                else:
                    page.wait_for_timeout(
                        300
                    )  # a script reads faster than the clock's tenths of a second
                    press("j")
                    press("y")
                    shown("#mark-list", "not rated")
                    press("0")
                    shown("#mark-list", "100 of 100")
                    look(f"with-{session}-{position}")
                press("Enter")
        shown(".card", "All cases are read")
        assert sorted(arms) == ["with", "with", "without", "without"]
        errors = [line for line in said if line.startswith("error") and "401" not in line]
        assert not errors, errors
        assert all(url.startswith((address, "blob:", "data:")) for url in asked)
        assert "Canary" not in page.content() and not any("Canary" in url for url in asked)
        browser.close()
    practice, *final = sorted(
        study.service.store.studies.submitted("small"), key=lambda one: one[0].session
    )
    assert (practice[0].session, practice[1].marks) == (0, [])
    assert len(final) == 2 * CASES
    for slot, whole in final:
        (one,) = whole.marks
        wanted = ("accepted", 100.0) if slot.arm == "with" else ("added", 71.0)
        assert (one.verdict, one.rating) == wanted
        assert whole.reading.seconds >= 0.2
