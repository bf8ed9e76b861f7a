"""The page in a real browser: Debian's Chromium through Playwright, against the real server."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pydicom
import pytest
import safetensors.numpy
from PIL import Image

from dicom_support import write_radiograph
from orthanc_support import Archive, needs_archive, running_archive
from run_copies import sealed
from support import draw_blob

sync_api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
CHROMIUM = next(
    (p for p in ("/usr/bin/chromium", "/usr/bin/chromium-browser") if Path(p).is_file()), None
)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on this machine (Debian package chromium)"
)

TOKEN = "a token of sixteen and more"
AXE = "axe-core@4.10.3"
HEAT_MAP = re.compile("^Heat map( is empty)?$")
"""Of a model that was trained for a moment a map may be empty, which the page says."""
DISCLAIMER = "Research software, not a medical device"


class Server:
    def __init__(self, run: Path, folder: Path, *more: object, **environment: str) -> None:
        self.run, self.folder, self.address = run, folder, ""
        self.more, self.environment = more, environment
        self.cookies: list = []
        self.start()

    def start(self, port: int = 0) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "twinray.cli", "serve", self.run, *self.more, "--store", self.folder / "store", "--port", str(port), "--min-free", "1",
             "--log", self.folder / "log"],
            env={**os.environ, "TWINRAY_TOKEN": TOKEN, "OMP_NUM_THREADS": "1", **self.environment}, stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        line = self.process.stdout.readline()
        found = re.search(r"http://[0-9.:]+", line)
        assert found, line
        self.address = found[0]
        for _ in range(600):  # a process that loads torch takes its time on a busy machine
            with contextlib.suppress(OSError):
                if self.get("/health")["ready"]:
                    return
            time.sleep(0.2)
        raise AssertionError((self.folder / "log").read_text())

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def get(self, path: str):
        request = urllib.request.Request(
            self.address + path, headers={"Authorization": f"Bearer {TOKEN}"}
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)


@pytest.fixture(scope="module")
def server(tmp_path_factory, detect_run) -> Iterator[Server]:
    one = Server(detect_run, tmp_path_factory.mktemp("served"))
    yield one
    one.process.send_signal(signal.SIGTERM)
    one.process.wait(40)


@pytest.fixture(scope="module")
def both(tmp_path_factory, detect_run, classify_run) -> Iterator[Server]:
    """A server of a detector and a classifier."""
    one = Server(detect_run, tmp_path_factory.mktemp("both"), classify_run)
    yield one
    one.process.send_signal(signal.SIGTERM)
    one.process.wait(40)


@pytest.fixture(scope="module")
def archived(tmp_path_factory, detect_run) -> Iterator[tuple[Archive, Server]]:
    """An archive that holds two studies of one patient, and a server of two models that may ask it."""
    folder = tmp_path_factory.mktemp("archived")
    other = folder / "other"
    shutil.copytree(detect_run, other)
    weights = safetensors.numpy.load_file(other / "model.safetensors")
    weights = {name: one * (1.02 if one.dtype.kind == "f" else 1) for name, one in weights.items()}
    safetensors.numpy.save_file(
        {name: np.ascontiguousarray(one, one.dtype) for name, one in weights.items()},
        other / "model.safetensors",
    )
    about = json.loads((other / "model.json").read_text())
    about["sha256"] = hashlib.sha256((other / "model.safetensors").read_bytes()).hexdigest()
    (other / "model.json").write_text(json.dumps(about))
    sealed(other)
    with running_archive(folder / "orthanc") as archive:
        for n, day in enumerate(("20250103", "20260704")):
            made = write_radiograph(
                folder / f"{n}.dcm", np.asarray(draw_blob(np.random.default_rng(n), 320)[0]), PatientID="PAT-1",
                StudyDate=day, StudyInstanceUID=f"1.2.840.9.{n}", SeriesInstanceUID=f"1.2.840.9.{n}.1", SOPInstanceUID=f"1.2.840.9.{n}.1.1",
            )  # fmt: skip
            header = pydicom.dcmread(made)
            header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
            header.save_as(made, enforce_file_format=True)
            subprocess.run(["storescu", "-aec", "ORTHANC", "127.0.0.1", str(archive.dicom), made], check=True)  # fmt: skip
        one = Server(
            detect_run, folder, other, "--archive", f"http://127.0.0.1:{archive.http}/dicom-web",
            "--archive-login-env", "ARCHIVE_LOGIN", ARCHIVE_LOGIN=f"{archive.user}:{archive.password}",
        )  # fmt: skip
        yield archive, one
        one.process.send_signal(signal.SIGTERM)
        one.process.wait(40)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> list[Path]:
    """Three pictures of blobs, 320 x 384, no two the same."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(3)
    out = []
    for i in range(3):
        small = Image.fromarray(draw_blob(rng)[0]).resize((320, 384), Image.Resampling.BICUBIC)
        small.save(folder / f"picture{i}.png")
        out.append(folder / f"picture{i}.png")
    return out


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        one = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield one
        one.close()


class Tab:
    """A page that is signed in, and all that it said and asked for."""

    def __init__(self, browser, server: Server, *, reader: str = "R1", **context: object) -> None:
        self.context = browser.new_context(
            **{"viewport": {"width": 1400, "height": 900}, "color_scheme": "dark", **context}
        )
        self.page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda m: self.said.append(f"{m.type}: {m.text}"))
        self.page.on("pageerror", lambda e: self.said.append(f"error: {e}"))
        self.page.on("request", lambda r: self.asked.append(r.url))
        # as on a page that came by plain HTTP from another machine, which is no secure context
        self.context.add_init_script("delete Crypto.prototype.randomUUID")
        self.server = server
        if server.cookies:  # attempts to sign in have a rate, so that one session serves many tabs
            self.context.add_cookies(server.cookies)
            self.context.add_init_script(
                f"localStorage.setItem('twinray.reader', {json.dumps(reader)})"
            )
        self.page.goto(server.address)
        if not server.cookies:
            self.page.fill("#who", reader)
            self.page.fill("#secret", TOKEN)
            self.page.keyboard.press("Enter")
        self.page.wait_for_selector("[data-ready]")
        server.cookies = server.cookies or self.context.cookies()

    def shown(self, selector: str, words: str) -> None:
        sync_api.expect(self.page.locator(selector).first).to_contain_text(words, timeout=20_000)

    def upload(self, path: Path) -> None:
        self.page.set_input_files("#files", path)
        self.shown("#toast", "added")
        self.lowest()

    def lowest(self) -> None:
        """Let every box of the model be seen, however low its score."""
        self.page.wait_for_selector("#threshold #score:visible")
        self.page.locator("#score").focus()
        self.page.keyboard.press("Home")
        self.page.wait_for_selector(".boxes g.predicted")
        self.page.locator("#pane-0").focus()

    def saved(self) -> None:
        sync_api.expect(self.page.locator("#save")).to_have_attribute(
            "data-state", "saved", timeout=20_000
        )

    def canvas(self) -> np.ndarray:
        got = self.page.evaluate("""() => { const c = document.querySelector('#pane-0 canvas'), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
            const out = new Uint8Array(c.width * c.height); for (let i = 0; i < out.length; i++) out[i] = d[4 * i];
            let s = ''; for (let i = 0; i < out.length; i += 8192) s += String.fromCharCode(...out.subarray(i, i + 8192)); return [c.width, c.height, btoa(s)]; }""")
        return np.frombuffer(base64.b64decode(got[2]), np.uint8).reshape(got[1], got[0])

    def close(self, *, noise: tuple[str, ...] = ()) -> None:
        """End, having said nothing and asked nobody else."""
        said = [
            one
            for one in self.said
            if not any(word in one for word in ("401", "willReadFrequently", *noise))
        ]
        foreign = {
            url
            for url in self.asked
            if not url.startswith(("blob:", "data:"))
            and urlsplit(url).netloc != urlsplit(self.server.address).netloc
        }
        title = self.page.title()
        self.context.close()
        assert said == []
        assert foreign == set()
        assert title == "twinray viewer"


def test_upload_look_correct_reload_still_there(browser, server, images) -> None:
    tab = Tab(browser, server)
    page = tab.page
    tab.upload(images[0])
    # look: window and polarity change the picture, and nothing that arrives changes them back
    before = tab.canvas()
    page.keyboard.press("i")
    page.wait_for_selector('#invert-button[aria-pressed="true"]')
    page.wait_for_timeout(100)
    assert (tab.canvas() != before).mean() > 0.3
    page.keyboard.press("w")
    tab.shown(".pane-head .window", "inverted")
    window = page.locator(".pane-head .window").first.inner_text()
    # threshold: what it means is told with the number of images behind it
    tab.shown("#threshold", "validation")
    # heat map of a box, by a click on it
    box = page.locator(".boxes g.predicted .edge").first.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tab.shown(".told", "Heat map")
    sync_api.expect(page.locator(".told").first).to_have_text(HEAT_MAP, timeout=20_000)
    assert page.locator(".pane-head .window").first.inner_text() == window
    page.keyboard.press("Escape")
    # correct: move one by keys, reject the next, add one by a drag, write a note
    page.keyboard.press("Escape")
    page.keyboard.press("1")
    page.keyboard.press("Shift+ArrowRight")
    page.wait_for_selector(".boxes g.moved")
    if page.locator(".finding").count() > 1:
        page.keyboard.press("2")
        page.keyboard.press("n")
        page.wait_for_selector(".boxes g.rejected")
    pane = page.locator("#pane-0").bounding_box()
    x, y = pane["x"] + pane["width"] / 2, pane["y"] + pane["height"] / 2
    page.keyboard.press("Escape")
    page.keyboard.down("Shift")
    page.mouse.move(x - 60, y - 40)
    page.mouse.down()
    page.mouse.move(x + 10, y + 30, steps=4)
    page.mouse.up()
    page.keyboard.up("Shift")
    page.wait_for_selector(".boxes g.added")
    page.keyboard.press("m")
    page.keyboard.type("faint, 0 n z")  # keys that would act elsewhere write here
    tab.saved()
    tab.shown("#save", "Saved")
    page.reload()
    page.wait_for_selector("[data-ready]")
    page.wait_for_selector(".boxes g.added")
    page.wait_for_selector(".boxes g.moved")
    assert page.input_value("#note") == "faint, 0 n z"
    image = server.get("/api/images")["images"][0]["id"]
    (kept,) = [one for one in server.get(f"/api/images/{image}/readings") if one["reader"] == "R1"]
    whole = server.get(f"/api/images/{image}")
    verdicts = {mark["verdict"]: mark for mark in kept["marks"]}
    assert verdicts["moved"]["box"][0] - whole["predictions"][0]["box"][0] == pytest.approx(10)
    assert kept["text"] == "faint, 0 n z"
    assert kept["finished"] is False
    assert kept["model"] == whole["model"]
    tab.close()


def test_the_whole_act_by_keys_alone_and_undone(browser, server, images) -> None:
    tab = Tab(browser, server, reader="R2")
    page = tab.page
    tab.upload(images[1])
    press = page.keyboard.press
    press("1")
    press("y")
    page.wait_for_selector(".boxes g.accepted")
    press("Escape")
    press("a")
    press("Enter")
    page.wait_for_selector(".boxes g.added")
    press("g")
    press("ArrowLeft")
    press("0")
    tab.shown("#normal-note", "Not set")
    for _ in range(3):
        press("z")
    sync_api.expect(page.locator(".boxes g.added, .boxes g.accepted")).to_have_count(0)
    press("0")
    page.wait_for_selector('#normal[aria-pressed="true"]')
    unread = server.get("/api/images?state=unread")["total"]
    press("Enter")
    tab.saved()
    assert server.get("/api/images?state=unread")["total"] == unread - 1
    tab.close()


def test_read_first_hides_boxes_scores_and_orders_by_score(browser, server, images) -> None:
    tab = Tab(browser, server, reader="R3")
    page = tab.page
    tab.upload(images[2])
    page.check("#read-first")
    sync_api.expect(page.locator(".boxes g.predicted")).to_have_count(0)
    assert not re.search(r"score \d", page.inner_text("#rows"))
    page.click('#order [data-order="suspicious"]', force=True)
    assert page.get_attribute('#order [data-order="newest"]', "aria-checked") == "true"
    page.locator("#pane-0").focus()
    page.keyboard.press("Enter")  # the first Enter shows, it does not finish
    page.wait_for_selector(".boxes g.predicted")
    tab.shown("#first-note", "Boxes shown after")
    page.uncheck("#read-first")
    tab.close()


def test_labels_of_a_classifier_beside_the_boxes_of_a_detector(browser, both, images, axe) -> None:
    tab = Tab(browser, both, reader="L1")
    page, found = tab.page, {}
    look = Look(tab, axe, found, "labels")
    tab.upload(images[0])
    rows = page.locator("#label-list .finding")
    sync_api.expect(rows).to_have_count(2, timeout=20_000)
    detector, classifier = both.get("/api/models")["models"]
    image = both.get("/api/images")["images"][0]["id"]
    labels = both.get(f"/api/images/{image}?model={classifier['model']}")["labels"]
    (called,) = [one["class"] for one in labels if one["called"]]
    tab.shown("#label-list .finding.called", called)
    # picked by the number that follows those of the boxes: words, figures with their numbers, heat map
    boxes = page.locator("#box-list .finding").count()
    if boxes < 8:
        page.keyboard.press(str(boxes + 1))
    else:
        page.locator("#label-list .pick").first.focus()
        page.keyboard.press("Enter")
    tab.shown("#label-list .chosen", "On validation it called")
    tab.shown("#label-list .chosen", "(sensitivity ")
    page.keyboard.press("h")
    sync_api.expect(page.locator(".told").first).to_have_text(HEAT_MAP, timeout=20_000)
    page.keyboard.press("y")
    tab.shown("#label-list .called", "accepted")
    page.locator("#label-list .finding:not(.called) .pick").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("n")
    tab.shown("#label-list .finding:not(.called)", "absent")
    tab.saved()
    look.everywhere("judged")
    page.keyboard.press("z")
    sync_api.expect(rows.filter(has_text="absent")).to_have_count(0)
    page.keyboard.press("n")
    tab.saved()
    (kept,) = both.get(f"/api/images/{image}/readings")
    other = next(one["class"] for one in labels if not one["called"])
    assert kept["labels"] == {called: True, other: False}
    assert (kept["normal"], kept["model"]) == (False, detector["model"])
    page.reload()
    page.wait_for_selector("[data-ready]")
    tab.shown("#label-list .called", "accepted")
    # the second model is the classifier: its own pane, without a box, and with its map
    page.click('[data-view="models"]')
    tab.shown(".column:nth-child(2) .what", "B  classifier")
    assert page.locator("#pane-1 .boxes .lines > *").count() == 0
    tab.shown("#label-list", "B  Labels by classifier")
    look.everywhere("two")
    page.click('[data-view="one"]')
    # read first hides scores and calls, and leaves the classes to be named
    page.check("#read-first")
    sync_api.expect(rows).to_have_count(0)
    sync_api.expect(page.locator("#labels button")).to_have_count(3)
    page.uncheck("#read-first")
    sync_api.expect(rows).to_have_count(2)
    assert {name: one for name, one in found.items() if one} == {}
    tab.close()


def test_tags_names_and_notes_that_hold_script_are_shown_as_text(browser, server, tmp_path) -> None:  # fmt: skip
    """Whoever sends a file chooses its name and its tags: what a page shows of them must not run."""
    bad = "<img src=x onerror=alert(1)>"
    made = write_radiograph(
        tmp_path / "bad.dcm", np.asarray(draw_blob(np.random.default_rng(11), 320)[0]), PatientName="<script>alert(1)</script>",
        PatientID=bad, ViewPosition="<svg/onload=a()>", StudyDescription=bad, SOPInstanceUID="1.2.3.11",
    )  # fmt: skip
    sent = tmp_path / f"{bad.replace('/', '')}.dcm"
    sent.write_bytes(Path(made).read_bytes())
    tab = Tab(browser, server, reader="R7")
    page, asked = tab.page, []
    page.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
    page.evaluate("() => { window.a = () => { window.ran = true; }; }")
    page.set_input_files("#files", sent)
    tab.shown("#toast", "added")
    tab.shown(".pane-head .what", "<svg/onload=a()>")
    page.locator("#pane-0").focus()
    page.keyboard.press("m")
    page.keyboard.type(bad)
    tab.saved()
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    page.set_input_files("#files", {"name": f"{bad}.txt", "mimeType": "text/plain", "buffer": b"x"})
    tab.shown("#toast", f"refused: {bad}.txt")  # told with its name
    tab.context.close()
    # another reader sees the note
    other = Tab(browser, server, reader="R8")
    other.page.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
    other.page.evaluate("() => { window.a = () => { window.ran = true; }; }")
    other.page.fill("#search", bad)
    other.page.locator(".item").first.click()
    other.shown(".pane-head .what", "<svg/onload=a()>")
    other.page.click('[data-keep="others"]')
    other.shown("#others", f"R7: {bad}")
    assert other.page.evaluate("window.ran ?? null") is None
    found = other.page.evaluate(
        "[...document.querySelectorAll('img, script:not([src]), [onload], [onerror], iframe, object')].map((e) => e.outerHTML)"
    )
    assert (found, asked) == ([], [])
    other.close()


def test_no_mark_is_lost_without_network_or_session(browser, server, images) -> None:
    tab = Tab(browser, server, reader="R4")
    page = tab.page
    page.click("#chips [data-keep=all]")
    tab.upload(images[0])
    page.keyboard.press("1")
    tab.context.set_offline(True)
    page.keyboard.press("y")
    tab.shown("#save", "Kept here, 1 to send")
    tab.shown("#banner", "No connection since")
    tab.context.set_offline(False)
    page.click("#banner button")
    tab.saved()
    sync_api.expect(page.locator("#banner")).to_be_hidden()
    tab.context.clear_cookies()
    page.locator("#pane-0").focus()
    page.keyboard.press("z")
    tab.shown("#banner", "Signed out at")
    page.keyboard.press("0")
    page.wait_for_selector('#normal[aria-pressed="true"]')  # work goes on
    page.click("#banner button")
    page.fill("#secret", TOKEN)
    page.keyboard.press("Enter")
    tab.saved()
    image = server.get("/api/images?q=picture0")["images"][0]["id"]
    (kept,) = [one for one in server.get(f"/api/images/{image}/readings") if one["reader"] == "R4"]
    assert kept["normal"] is True
    tab.close(noise=("ERR_INTERNET_DISCONNECTED", "Failed to load resource"))


def test_nothing_of_one_image_is_seen_or_done_under_another_ones_name(browser, server, images) -> None:  # fmt: skip
    tab = Tab(browser, server, reader="R7")
    page, held = tab.page, []
    page.click("#chips [data-keep=all]")
    tab.upload(images[0])
    tab.upload(images[1])
    ids = {name: server.get(f"/api/images?q=picture{name}")["images"][0]["id"] for name in (0, 1)}
    page.route(f"**/api/images/{ids[1]}/pixels", lambda route: held.append(route))
    page.reload()
    page.wait_for_selector("[data-ready]")
    page.click("#chips [data-keep=all]")
    page.click(f'.item[data-keep="{ids[0]}"]')
    tab.lowest()
    assert (tab.canvas() > 20).mean() > 0.1
    # a box is being drawn when the next image is asked for: it ends with its image
    pane = page.locator("#pane-0").bounding_box()
    x, y = pane["x"] + pane["width"] / 2, pane["y"] + pane["height"] / 2
    page.keyboard.down("Shift")
    page.mouse.move(x - 60, y - 40)
    page.mouse.down()
    page.mouse.move(x + 10, y + 30, steps=4)
    page.keyboard.up("Shift")
    page.evaluate("(id) => document.querySelector(`.item[data-keep='${id}']`).click()", ids[1])
    page.wait_for_selector(f'.item[data-keep="{ids[1]}"][aria-selected="true"]')
    tab.shown(".told", "The image is coming")
    tab.shown("#box-list", "blob")  # what the model said came before the pixels
    page.mouse.up()
    page.wait_for_timeout(100)
    assert (tab.canvas() > 20).mean() == 0, "the image before is not seen under this one's name"
    assert page.locator(".boxes g[data-key]").count() == 0
    page.keyboard.press("Enter")  # what was not seen is not done
    tab.shown("#say", "not on the screen")
    sync_api.expect(page.locator(f'.item[data-keep="{ids[1]}"]')).to_have_attribute("aria-selected", "true")  # fmt: skip
    held.pop().continue_()
    page.wait_for_selector(".boxes g.predicted")
    assert (tab.canvas() > 20).mean() > 0.1
    for image in ids.values():
        assert not [one for one in server.get(f"/api/images/{image}/readings") if one["reader"] == "R7"]  # fmt: skip
    tab.close()


def test_two_tabs_of_one_reader_lose_no_mark(browser, server, images) -> None:
    tab = Tab(browser, server, reader="R8")
    page = tab.page
    page.click("#chips [data-keep=all]")
    tab.upload(images[2])
    other = Tab(browser, server, reader="R8")
    other.page.click("#chips [data-keep=all]")
    other.upload(images[2])
    page.keyboard.press("1")
    page.keyboard.press("y")
    page.wait_for_selector(".boxes g.accepted")
    tab.saved()
    other.page.keyboard.press("a")
    other.page.keyboard.press("Enter")
    other.page.wait_for_selector(".boxes g.added")
    other.shown("#toast", "marked elsewhere under your name")
    other.page.wait_for_selector(".boxes g.accepted")
    other.saved()
    image = server.get("/api/images?q=picture2")["images"][0]["id"]

    def verdicts():
        (kept,) = [one for one in server.get(f"/api/images/{image}/readings") if one["reader"] == "R8"]  # fmt: skip
        return sorted(mark["verdict"] for mark in kept["marks"])

    assert verdicts() == ["accepted", "added"]
    page.click(f'.item[data-keep="{image}"]')  # opened again, it is what was said last
    page.wait_for_selector(".boxes g.added")
    page.keyboard.press("0")
    tab.shown("#say", "Not set")
    tab.close()
    other.close(noise=("409",))


@pytest.mark.parametrize(
    "ratio", [1, *(pytest.param(r, marks=pytest.mark.long) for r in (1.25, 1.5, 2))]
)
def test_one_to_one_is_the_values_and_boxes_meet_pixel_edges(
    browser, server, images, ratio
) -> None:
    # a screen of that ratio: one that is only emulated lays out in CSS pixels and draws the result enlarged, so a canvas
    # that ends on a screen's pixel is resampled there, by some grey levels, and on no real screen
    own = browser.browser_type.launch(
        executable_path=CHROMIUM,
        args=[
            "--no-sandbox",
            "--disable-gpu",
            f"--force-device-scale-factor={ratio}",
            "--window-size=1400,1000",
        ],
    )
    tab = Tab(own, server, viewport=None, no_viewport=True)
    page = tab.page
    assert page.evaluate("devicePixelRatio") == ratio
    page.click("#chips [data-keep=all]")
    tab.upload(images[0])
    page.keyboard.press("o")
    tab.shown("#zoom", "100 %")
    page.wait_for_timeout(150)
    picture, seen = np.asarray(Image.open(images[0])), tab.canvas()
    height, width = picture.shape
    left, top = (round((seen.shape[i] - picture.shape[i]) / 2 + 1e-9) for i in (1, 0))
    found = next(
        (
            (t, s)
            for t in range(top - 1, top + 2)
            for s in range(left - 1, left + 2)
            if np.array_equal(seen[t : t + height, s : s + width], picture)
        ),
        None,
    )
    assert found, "one image pixel is one of the screen's, with its own value"
    image = server.get("/api/images?q=picture0")["images"][0]["id"]
    first = server.get(f"/api/images/{image}")["predictions"][0]["box"]
    edges = page.evaluate(
        """() => [...document.querySelectorAll('.boxes g.predicted .edge, .boxes g.moved .ghost')].map((r) => ['x', 'y', 'width', 'height'].map((n) => Number(r.getAttribute(n))))"""
    )
    wanted = [found[1] + first[0], found[0] + first[1], first[2] - first[0], first[3] - first[1]]
    assert any(np.allclose(np.array(edge) * ratio, wanted, atol=1e-3) for edge in edges)
    # and what the screen shows of it
    page.keyboard.press("b")
    page.wait_for_timeout(100)
    shot = np.asarray(Image.open(BytesIO(page.locator("#pane-0").screenshot())).convert("L"))
    y, x = shot.shape[0] // 2, shot.shape[1] // 2
    patch = picture[y - found[0] - 20 : y - found[0] + 20, x - found[1] - 20 : x - found[1] + 20]
    near = [
        np.abs(shot[y - 20 + j : y + 20 + j, x - 20 + i : x + 20 + i].astype(int) - patch).max()
        for j in (-1, 0, 1)
        for i in (-1, 0, 1)
    ]
    assert min(near) == 0
    tab.close()
    own.close()


@pytest.fixture(scope="session")
def axe() -> str:
    """axe-core's script, from npm; never a part of this repository."""
    if shutil.which("npm") is None:
        pytest.skip("needs npm to fetch axe-core")
    folder = Path(tempfile.gettempdir()) / f"twinray-{AXE.replace('@', '-')}"
    script = folder / "package" / "axe.min.js"
    if not script.is_file():
        folder.mkdir(exist_ok=True)
        got = subprocess.run(
            ["npm", "pack", AXE, "--silent"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=120,
        )
        packed = next(folder.glob("*.tgz"), None)
        if got.returncode or packed is None:
            pytest.skip(f"npm could not fetch {AXE}: {got.stderr.strip()[-200:]}")
        shutil.unpack_archive(packed, folder)
    return script.read_text(encoding="utf-8")


def faults(page, axe: str) -> list[str]:
    page.evaluate(axe)
    found = page.evaluate(
        "async () => (await axe.run(document, {resultTypes: ['violations']})).violations"
    )
    return [
        f"{one['impact']} {one['id']}: {one['nodes'][0]['html'][:120]} {one['nodes'][0]['any'][:1]}"
        for one in found
    ]


class Look:
    """axe's faults of each state, dark and light, wide and as a phone; its picture where TWINRAY_SHOTS names a folder."""

    def __init__(self, tab: Tab, axe: str, found: dict[str, list[str]], kind: str) -> None:
        self.tab, self.axe, self.found, self.kind = tab, axe, found, kind
        self.shots = os.environ.get("TWINRAY_SHOTS")

    def everywhere(self, name: str) -> None:
        """Dark and light, wide and narrow, and back to what it was."""
        page = self.tab.page
        for width, scheme in ((390, "light"), (390, "dark"), (1400, "light"), (1400, "dark")):
            page.set_viewport_size({"width": width, "height": 844 if width < 760 else 900})
            page.emulate_media(color_scheme=scheme)
            self(f"{name} {scheme} {width}")

    def __call__(self, name: str) -> None:
        page = self.tab.page
        page.wait_for_timeout(150)
        self.found[name] = faults(page, self.axe)
        said = [one for one in page.get_by_text(DISCLAIMER).all() if one.is_visible()]
        assert said, f"{name}: the words that it is no medical device are always there"
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (
            f"{name}: scrolls sideways"
        )
        if self.shots:
            page.screenshot(path=f"{self.shots}/{self.kind}-{name.replace(' ', '-')}.png")


@pytest.mark.parametrize(
    ("scheme", "width"),
    [
        # both colours and both widths; the other pairs of them in the long set
        ("dark", 1400),
        pytest.param("light", 1400, marks=pytest.mark.long),
        pytest.param("dark", 390, marks=pytest.mark.long),
        ("light", 390),
    ],
)
def test_axe_finds_nothing_in_any_state(browser, server, images, axe, scheme, width) -> None:
    touch = {"has_touch": True, "is_mobile": True} if width < 760 else {}
    tab = Tab(
        browser,
        server,
        color_scheme=scheme,
        viewport={"width": width, "height": 844 if touch else 900},
        **touch,
    )
    page, found = tab.page, {}
    look = Look(tab, axe, found, f"{scheme}-{width}")
    tab.upload(images[1])
    page.keyboard.press("Escape")
    look("boxes")
    page.keyboard.press("1")
    page.keyboard.press("h")
    sync_api.expect(page.locator(".told").first).to_have_text(HEAT_MAP, timeout=20_000)
    page.keyboard.press("a")
    page.keyboard.press("Enter")
    page.wait_for_selector(".boxes g.added")
    look("added")
    page.keyboard.press("z")
    page.keyboard.press("?")
    look("keys")
    page.keyboard.press("Escape")
    page.click("#list-button")
    if not touch:
        page.click("#list-button")
    page.fill("#search", "nothing like this")
    page.wait_for_selector("#nothing:visible")
    look("nothing")
    page.fill("#search", "")
    page.keyboard.press("Escape")
    page.check("#read-first", force=True)
    look("read-first")
    page.uncheck("#read-first", force=True)
    tab.context.set_offline(True)
    page.locator("#pane-0").focus()
    page.keyboard.press("m")
    page.keyboard.type("x")
    tab.shown("#banner", "No connection")
    look("offline")
    tab.context.set_offline(False)
    page.click("#banner button")
    tab.saved()
    tab.context.clear_cookies()
    page.keyboard.type("y")
    tab.shown("#banner", "Signed out")
    page.click("#banner button")
    look("signed-out")
    page.fill("#secret", TOKEN)
    page.keyboard.press("Enter")
    tab.saved()
    if touch:
        page.set_viewport_size({"width": 320, "height": 640})
        look("narrow")
    assert {name: one for name, one in found.items() if one} == {}
    tab.close(noise=("ERR_INTERNET_DISCONNECTED", "Failed to load resource"))


def test_the_whole_act_by_thumb(browser, server, images) -> None:
    tab = Tab(
        browser,
        server,
        reader="R5",
        viewport={"width": 390, "height": 844},
        has_touch=True,
        is_mobile=True,
    )
    page = tab.page
    tab.upload(images[2])
    pane = page.locator("#pane-0").bounding_box()
    box = page.locator(".boxes g.predicted .edge").first.bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector(".boxes g.chosen")
    page.tap("#thumb-yes")
    page.wait_for_selector(".boxes g.accepted")
    page.tap("#thumb-undo")
    sync_api.expect(page.locator(".boxes g.accepted")).to_have_count(0)
    page.tap("#thumb-normal")
    page.wait_for_selector('#thumb-normal[aria-pressed="true"]')
    for button in page.locator(".thumb button, .tools button").all():
        size = button.bounding_box()
        assert size is None or min(size["width"], size["height"]) >= 43.5
    assert pane["height"] > 250, "the image is first on a phone, too"
    page.tap("#thumb-done")
    tab.saved()
    tab.close()


def test_no_mark_is_lost_while_the_server_is_away(browser, detect_run, images, tmp_path) -> None:
    server = Server(detect_run, tmp_path)
    tab = Tab(browser, server, reader="R6")
    page = tab.page
    tab.upload(images[0])
    tab.upload(images[1])
    until_done(server, 2)
    page.wait_for_timeout(1500)  # the page asks again once a second
    page.wait_for_selector(".boxes g.predicted")
    page.locator("#pane-0").focus()
    server.kill()
    page.keyboard.press("1")
    page.keyboard.press("y")
    tab.shown("#save", "Kept here, 1 to send")
    tab.shown("#banner", "No connection since")
    tab.shown("#banner", "kept in this tab")
    page.keyboard.press("Enter")  # done, and on to the other image, which is on the page already
    page.wait_for_selector('.item[aria-selected="true"]')
    page.keyboard.press("0")
    server.start(int(server.address.rsplit(":", 1)[1]))
    tab.saved()  # by itself: nobody pressed anything
    sync_api.expect(page.locator("#banner")).to_be_hidden()
    marks = server.get("/api/marks")
    assert [one["verdict"] for one in marks["annotations"]] == ["accepted"]
    assert sorted(bool(one["normal"]) for one in marks["readings"]) == [False, True]
    tab.close(noise=("ERR_CONNECTION_REFUSED", "Failed to load resource"))
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(40)


@needs_archive
def test_out_of_the_archive_beside_a_prior_and_back_into_it(browser, archived, axe) -> None:
    archive, server = archived
    pytest.importorskip("highdicom", reason="highdicom builds the objects (extra dicom)")
    before = archive.objects()
    tab = Tab(browser, server)
    page, found = tab.page, {}
    look = Look(tab, axe, found, "archive")
    page.click("#archive-button")
    page.fill("#find-accession", "none such")
    page.keyboard.press("Enter")
    tab.shown("#archive-answer", "no such study")
    page.fill("#find-accession", "")
    page.fill("#find-patient_id", "PAT-1")
    page.keyboard.press("Enter")
    tab.shown("#archive-answer", "2026-07-04, ")
    look("found")
    for n in (1, 0):
        page.locator("#archive-answer button").first.focus()
        page.keyboard.press("Enter")
        sync_api.expect(page.locator("#archive-answer button")).to_have_count(n, timeout=20_000)
    tab.shown("#archive-answer", "1 image fetched")
    page.keyboard.press("Escape")
    sync_api.expect(page.locator("#from-archive")).to_be_hidden()
    assert page.locator("#find-patient_id").count() == 0, "what was typed is gone"
    sync_api.expect(page.locator(".item")).to_have_count(2)
    until_done(server, 2)
    # the newer study, by its date; the older one beside it
    newest = max(server.get("/api/images")["images"], key=lambda one: one["acquired"])["id"]
    page.click(f'[data-keep="{newest}"]')
    page.wait_for_selector('[data-view="prior"]:not([disabled])')
    page.locator("#pane-0").focus()
    page.keyboard.press("v")
    page.keyboard.press("v")
    tab.shown(".column:nth-child(2) .what", "Prior, 18 months earlier")
    page.wait_for_function("() => { const c = document.querySelector('#pane-1 canvas'), d = c.getContext('2d').getImageData(c.width >> 1, c.height >> 1, 1, 1).data; return d[0] !== 6; }")  # fmt: skip
    assert page.locator("#pane-1 .boxes .lines > *").count() == 0, "boxes are of the new image"
    look.everywhere("prior")
    page.click('[data-view="models"]')
    tab.shown("#threshold", "B 0.")
    look.everywhere("models")
    page.click('[data-view="one"]')
    # back: asked once more, since an archive gives nothing back
    page.keyboard.press("0")
    page.click('[data-keep="send-reading"]')
    tab.shown("#send-back", "cannot be taken back")
    look.everywhere("asked")
    assert archive.objects().keys() == before.keys()
    page.click('[data-keep="send-yes"]')
    tab.shown("#send-back", "Reading: sent")
    look.everywhere("sent")
    new = {uid: one for uid, one in archive.objects().items() if uid not in before}
    assert sorted(one.Modality for one in new.values()) == ["OT", "SR"]
    assert {(one.PatientID, one.StudyInstanceUID) for one in new.values()} == {("PAT-1", "1.2.840.9.1")}  # fmt: skip
    # an image that cannot be decoded says so, and what to do
    broken = server.folder / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    page.set_input_files("#files", broken)
    tab.shown("#toast", "added")  # which shows the list that the new image is in
    sync_api.expect(page.locator("#chips [data-keep=failed] b")).to_have_text("1", timeout=20_000)
    page.click("#chips [data-keep=failed]")
    page.click('.item:has-text("broken.png")')
    tab.shown("#pane-0 .card", "was not taken")
    look.everywhere("failed")
    sync_api.expect(page.locator("#chips [data-keep=failed] b")).to_have_text("1")
    sync_api.expect(page.locator("#chips [data-keep=all] b")).to_have_text("3")
    tab.context.clear_cookies()
    page.reload()
    page.wait_for_selector("#secret")
    look.everywhere("sign-in")
    assert {name: one for name, one in found.items() if one} == {}
    tab.context.close()


def until_done(server: Server, n: int) -> None:
    for _ in range(600):
        if server.get("/api/images?state=done")["total"] == n:
            return
        time.sleep(0.2)
    raise AssertionError((server.folder / "log").read_text()[-2000:])
