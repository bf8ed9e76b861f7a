"""The page's modules without a page: windowing against the package's own pictures, geometry, marks, autosave, by Node."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from twinray.data.classes import says_no_finding
from twinray.data.decoding.viewing import load_view
from twinray.inference.label_rule import LabelRule
from twinray.serving import web

MODULES = Path(web.__file__).parent / "js"
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="needs node (Debian: apt-get install nodejs)")


def node(script: str, given: object = None) -> object:
    """What a script prints as JSON; ``given`` is in its variable of that name."""
    names = (
        "geometry",
        "windowing",
        "marks",
        "outbox",
        "points",
        "labels",
        "keys",
        "rules",
        "listing",
        "state",
    )
    imports = "".join(
        f"import * as {n} from {json.dumps((MODULES / f'{n}.js').as_uri())};" for n in names
    )
    head = (
        "import { readFileSync } from 'node:fs'; const given = JSON.parse(readFileSync(0, 'utf8'));"
    )
    done = subprocess.run(
        [str(NODE), "--input-type=module", "--eval", imports + head + script],
        input=json.dumps(given), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_no_text_becomes_markup_or_code_and_no_search_an_address():
    """A file, a class or a patient may be called <img onerror=...>: what a module writes is text."""
    modules = {path.name: path.read_text("utf-8") for path in MODULES.glob("*.js")}
    assert len(modules) > 20
    for name, text in modules.items():
        for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "srcdoc", "javascript:"):  # fmt: skip
            assert way not in text, f"{name}: {way}"
    assert "q=" not in modules["api.js"] and 'set("q"' not in modules["api.js"]


def dicom(path: Path, values: np.ndarray, **header: object) -> Path:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    d = Dataset()
    d.file_meta = meta
    d.SOPClassUID, d.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    d.StudyInstanceUID, d.SeriesInstanceUID, d.Modality, d.PatientID = (
        generate_uid(),
        generate_uid(),
        "CR",
        "P",
    )
    d.Rows, d.Columns = values.shape
    d.SamplesPerPixel, d.PhotometricInterpretation = 1, "MONOCHROME2"
    d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 16, 12, 11, 0
    for name, value in header.items():
        setattr(d, name, value)
    d.PixelData = values.astype("<i2" if d.PixelRepresentation else "<u2").tobytes()
    d.save_as(path, enforce_file_format=True)
    return path


def lut(first: int, bits: int, entries: np.ndarray) -> Dataset:
    item = Dataset()
    item.LUTDescriptor, item.LUTData = [len(entries), first, bits], entries.astype("<u2").tobytes()
    item["LUTDescriptor"].VR, item["LUTData"].VR = "US", "OW"
    return item


CASES: dict[str, dict[str, object]] = {
    "12 bit, window": {"WindowCenter": "1600", "WindowWidth": "900"},
    "MONOCHROME1": {"PhotometricInterpretation": "MONOCHROME1", "WindowCenter": "1600", "WindowWidth": "900"},
    "shape takes precedence": {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "IDENTITY"},
    "signed": {"PixelRepresentation": 1, "WindowCenter": "-400", "WindowWidth": "1500"},
    "negative slope": {"RescaleSlope": "-2", "RescaleIntercept": "4095", "WindowCenter": "900", "WindowWidth": "1500"},
    "no window": {},
    "no window, padding": {"PixelPaddingValue": 0},
    "sigmoid": {"WindowCenter": "1600", "WindowWidth": "900", "VOILUTFunction": "SIGMOID"},
    "exact": {"WindowCenter": "1600", "WindowWidth": "900", "VOILUTFunction": "LINEAR_EXACT"},
    "width 1": {"WindowCenter": "1600", "WindowWidth": "1"},
    "VOI LUT": {"VOILUTSequence": [lut(300, 12, np.sqrt(np.linspace(0, 1, 3000)) * 4095)]},
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_table_makes_the_picture_that_a_model_sees(tmp_path: Path, case: str) -> None:
    header = CASES[case]
    values = np.random.default_rng(0).integers(0, 4096, (40, 30))
    values[:4] = 0
    if header.get("PixelRepresentation"):
        values -= 2048
    view = load_view(dicom(tmp_path / "a.dcm", values, **header))
    flat = view.values.ravel()
    grey = node(
        """
        const values = Uint16Array.from(given.values), m = windowing.modalityValues(given.display);
        const choice = windowing.presets(given.display, m, windowing.countValues(values))[0];
        const table = windowing.greyTable(given.display, m, choice.voi), out = new Uint32Array(values.length);
        windowing.applyTable(values, table, out);
        const back = windowing.greyTable(given.display, m, choice.voi, true);
        console.log(JSON.stringify([[...out].map((p) => p & 255), [...values].map((v) => back[v] & 255)]));
        """,
        {"values": flat.tolist(), "display": view.display.as_json()},
    )
    # a LUT comes rounded to a thousandth of a grey level
    apart = np.abs(np.asarray(grey[0]) - view.pixels.array.ravel().astype(int))
    assert apart.max() <= (1 if case == "VOI LUT" else 0)
    assert len(np.unique(grey[0])) > 1
    # the reader's own flag turns the picture once, whatever its polarity
    assert np.abs(np.asarray(grey[0]) + np.asarray(grey[1]) - 255).max() <= 1


def test_percentiles_and_a_window_of_the_readers_own() -> None:
    shown = node("""
        const d = {slope: 1, intercept: -1024, function: "LINEAR", centre: 0, width_of_window: 100, low: 0, high: 0, padding: [0, 0]};
        const values = new Uint16Array(1000).map((_, i) => (i < 300 ? 0 : 1000 + i)), m = windowing.modalityValues(d);
        const all = windowing.presets(d, m, windowing.countValues(values));
        const own = windowing.ownWindow(all[0].voi, 20, 0.01, 4096);
        console.log(JSON.stringify([all.map((p) => p.name), all.at(-2).voi, all.at(-1).voi, own, windowing.asWindow(all[0].voi)]));
    """)
    assert shown[0] == ["As sent", "Percentiles", "All values"]
    order = np.arange(1300, 2000) - 1024
    low, high = (order[int(np.ceil(p / 100 * 700)) - 1] for p in (0.5, 99.5))
    assert shown[1] == {"kind": "range", "low": low, "high": high}
    assert shown[2] == {"kind": "range", "low": order[0], "high": order[-1]}
    assert shown[3]["width"] == 2
    assert shown[4] == {"center": 0, "width": 100}


@pytest.mark.parametrize("ratio", [1, 1.25, 1.5, 2])
def test_one_map_between_image_and_screen(ratio: float) -> None:
    found = node(
        """
        const pane = {width: 801 / given, height: 603 / given, ratio: given}, image = {width: 301, height: 517};
        let view = geometry.fitted(pane, image);
        const whole = geometry.boxOnScreen(geometry.placed(view, pane), [0, 0, image.width, image.height]);
        const point = {x: 0.55 * pane.width, y: 0.4 * pane.height}, before = geometry.toImage(geometry.placed(view, pane), point.x, point.y);
        view = geometry.zoomedAt(view, pane, image, point.x, point.y, 3);
        const after = geometry.toImage(geometry.placed(view, pane), point.x, point.y);
        const one = geometry.oneToOne(view, pane, image), place = geometry.placed(one, pane);
        const edges = [0, 1, 17, 301].map((x) => geometry.toScreen(place, x, 0).x * given);
        const there = geometry.toScreen(place, 12.25, 99.5), back = geometry.toImage(place, there.x, there.y);
        console.log(JSON.stringify({whole, pane, apart: Math.hypot(before.x - after.x, before.y - after.y) * view.scale * given, edges, back}));
        """,
        ratio,
    )
    whole, pane = found["whole"], found["pane"]
    assert whole["height"] == pytest.approx(pane["height"])
    assert whole["width"] <= pane["width"]
    # what is under the pointer stays there, to the rounding of the offset
    assert found["apart"] <= 1.5
    # at 1:1 the edges of pixels are edges of device pixels
    assert found["edges"] == pytest.approx(np.rint(found["edges"]), abs=1e-6)
    assert np.diff(found["edges"]) == pytest.approx([1, 16, 284])
    assert found["back"] == pytest.approx({"x": 12.25, "y": 99.5})


def test_boxes_stay_whole_and_inside_while_they_are_dragged() -> None:
    out = node("""
        const image = {width: 100, height: 80}, box = [10.5, 20, 30.25, 40];
        console.log(JSON.stringify([
          geometry.shifted(box, 5.5, -3.25, image), geometry.shifted(box, 1000, 1000, image), geometry.shifted(box, -1000, -1000, image),
          geometry.resized(box, "nw", {x: 99, y: 99}, image), geometry.resized(box, "e", {x: 500, y: 0}, image),
          geometry.between({x: 120, y: 70}, {x: 90, y: -5}, image), geometry.overlap([0, 0, 10, 10], [5, 0, 15, 10]),
        ]));
    """)
    assert out[:3] == [[16, 16.75, 35.75, 36.75], [80.25, 60, 100, 80], [0, 0, 19.75, 20]]
    assert out[3] == [28.25, 38, 30.25, 40]
    assert out[4] == [10.5, 20, 100, 40]
    assert out[5] == [90, 0, 100, 70]
    assert out[6] == pytest.approx(1 / 3)


MARKS = """
    const predictions = [{box: [1, 2, 30, 40], class: "nodule", score: 0.9}, {box: [5, 5, 9, 9], class: "mass", score: 0.2}];
    const reading = new marks.Reading(), boxes = (t = 0.5, more = {}) => marks.boxesOf(reading, "m", predictions, t, more);
"""


def test_every_change_of_a_reading_can_be_undone_and_done_again() -> None:
    out = node(
        MARKS
        + """
        const seen = [reading.body()], acts = [
          (r) => r.judge(boxes()[0], "accepted"), (r) => r.place(boxes()[0], [2, 3, 31, 41]), (r) => r.rename(boxes()[0], "mass"),
          (r) => { r.add([0, 0, 4, 4], "nodule"); }, (r) => { r.text = "faint"; }, (r) => r.setLabel("mass", true),
          (r) => r.remove("own:1"), (r) => { r.done = true; }];
        for (const act of acts) { if (!reading.commit("x", act)) throw new Error("nothing changed: " + act); seen.push(reading.body()); }
        const back = [], on = [];
        while (reading.undo()) back.push(reading.body());
        while (reading.redo()) on.push(reading.body());
        const again = marks.Reading.of(reading.body());
        console.log(JSON.stringify({seen, back, on, again: again.body(), nothing: reading.commit("x", () => {})}));
        """
    )
    assert out["back"] == out["seen"][-2::-1]
    assert out["on"] == out["seen"][1:]
    assert out["again"] == out["seen"][-1]
    assert out["nothing"] is False
    moved = out["seen"][2]["marks"][0]
    assert (moved["verdict"], moved["prediction"], moved["model"]) == ("moved", 0, "m")
    assert out["seen"][0]["normal"] is None
    assert out["seen"][1]["normal"] is False


def test_readings_of_two_tabs_are_joined_and_no_mark_is_left_out() -> None:
    out = node("""
        const {Reading} = marks;
        const box = (x) => [x, 0, x + 10, 10], own = (x, verdict = "added") => ({box: box(x), class: "a", verdict, prediction: null, model: null});
        const of = (n, verdict, x = n) => ({box: box(x), class: "a", verdict, prediction: n, model: "m"});
        const base = Reading.of({marks: [of(0, "accepted"), of(1, "accepted"), own(50)], text: "t", labels: {q: true}});
        // here: 1 rejected, the own box removed, one more drawn; there: 0 taken back, 2 accepted, one more drawn, a note
        const mine = Reading.of({marks: [of(0, "accepted"), of(1, "rejected"), own(60)], text: "t", labels: {}, finished: true});
        const theirs = Reading.of({marks: [of(1, "accepted"), of(2, "accepted"), own(50), own(70)], text: "t more", labels: {q: true, r: false}});
        const joined = mine.joined(theirs, base).body();
        const both = Reading.of({marks: [], text: "one"}).joined(Reading.of({marks: [own(50)], text: "two", normal: false}), Reading.of({marks: []})).body();
        const normal = Reading.of({marks: [], normal: true}).joined(Reading.of({marks: [own(50)]})).body();
        console.log(JSON.stringify({joined, both, normal}));
    """)
    told = sorted(
        (one.get("prediction", one["box"][0]), one["verdict"]) for one in out["joined"]["marks"]
    )
    assert told == [(1, "rejected"), (2, "accepted"), (60, "added"), (70, "added")]
    assert (out["joined"]["text"], out["joined"]["finished"]) == ("t more", True)
    assert out["joined"]["labels"] == {"r": False}
    assert out["both"]["text"] == "two\none"
    assert (out["normal"]["normal"], len(out["normal"]["marks"])) == (False, 1)


def test_marks_on_boxes_of_a_model_that_is_not_shown_stay_in_sight() -> None:
    """After retraining another model stands first: what a reader said before must not be drawn a second time."""
    out = node("""
        const {Reading} = marks, {state: s} = state;
        const mark = (n, verdict, model) => ({box: [n, 0, n + 9, 9], class: "a", verdict, prediction: n, model});
        const reading = Reading.of({marks: [mark(0, "accepted", "old"), mark(1, "rejected", "old"), mark(2, "moved", "old"), mark(0, "accepted", "new"),
          {box: [5, 5, 9, 9], class: "a", verdict: "accepted", prediction: null, model: null}]});
        Object.assign(s, {first: "new", models: [{model: "new", kind: "detector"}], threshold: 0.5});
        s.case = {reading, predictions: new Map([["new", [{box: [0, 0, 9, 9], class: "a", score: 0.9}]]]), answers: [], labels: new Map(), revealed: false, state: "done"};
        const seen = () => listing.listed().map((b) => [b.key, b.kind, Boolean(b.kept), b.verdict]);
        const all = seen();
        s.chosen = "old:0"; const explained = listing.explained();
        s.readFirst = true; const hidden = seen();
        console.log(JSON.stringify({all, hidden, explained}));
    """)
    assert [tuple(one) for one in out["all"]] == [
        ("new:0", "predicted", False, "accepted"), ("old:0", "predicted", True, "accepted"), ("old:2", "predicted", True, "moved"),
        ("own:1", "own", True, "accepted"),
    ]  # fmt: skip
    assert out["hidden"] == []
    assert out["explained"] is None  # its heat map cannot be asked for here


def test_a_save_has_a_name_of_its_own_on_a_page_that_came_by_plain_http() -> None:
    """`crypto.randomUUID` is for secure contexts alone; without a name no save leaves the page."""
    out = node("""
        const unknown = Object.getOwnPropertyDescriptor(Crypto.prototype, "randomUUID");
        delete Crypto.prototype.randomUUID;
        console.log(JSON.stringify({gone: Boolean(unknown) && !("randomUUID" in crypto), keys: [outbox.newKey(), outbox.newKey()]}));
    """)
    assert out["gone"]
    assert len(set(out["keys"])) == 2 and all(len(one) == 32 for one in out["keys"])


def test_normal_rejects_what_is_not_judged_and_nothing_else_is_a_verdict() -> None:
    out = node(
        MARKS
        + """
        const unjudged = reading.body().marks.length, shown = boxes().length, all = boxes(0.1).length, hidden = boxes(0.1, {hidden: true}).length;
        reading.setNormal(boxes());
        const normal = reading.body(), below = boxes(0.95).length;
        reading.judge(boxes()[0], "accepted");
        const accepted = reading.body(), refused = reading.setNormal(boxes());
        console.log(JSON.stringify({unjudged, shown, all, hidden, normal, below, accepted, refused}));
        """
    )
    assert (out["unjudged"], out["shown"], out["all"], out["hidden"]) == (0, 1, 2, 0)
    assert out["normal"]["normal"] is True
    assert [mark["verdict"] for mark in out["normal"]["marks"]] == ["rejected"]
    assert out["below"] == 1, "a judged box stays on the page below the threshold"
    assert out["accepted"]["normal"] is False
    assert out["refused"] is False


def test_labels_are_present_absent_or_not_judged() -> None:
    out = node(
        MARKS
        + """
        const said = [], say = (act) => { act(reading); said.push([reading.body().labels, reading.body().normal]); };
        say((r) => r.setLabel("PNEUMONIA", true, ["NORMAL"]));
        say((r) => r.setLabel("NORMAL", true, ["PNEUMONIA"]));
        say((r) => r.setLabel("PNEUMONIA", null));
        say((r) => r.setNormal([], ["NORMAL", "nodule"]));
        say((r) => r.add([0, 0, 4, 4], "nodule"));
        const refused = reading.setNormal([]), again = marks.Reading.of(reading.body()).body();
        say((r) => { r.remove("own:1"); r.setLabel("nodule", false); });
        console.log(JSON.stringify({said, refused, again}));
        """
    )
    assert out["said"] == [
        [{"PNEUMONIA": True}, False],
        [{"NORMAL": True, "PNEUMONIA": False}, None],  # exclusive classes: one alone is there
        [{"NORMAL": True}, None],  # nothing is said of boxes
        [{"NORMAL": True, "nodule": False}, True],  # "normal" accepts the label that says so
        [{"NORMAL": True}, False],  # a box of a class takes back that it is absent
        [{"NORMAL": True, "nodule": False}, None],
    ]
    assert out["refused"] is False
    assert out["again"]["labels"] == {"NORMAL": True}


def test_what_is_called_on_the_page_is_what_the_server_calls() -> None:
    rng, cases = np.random.default_rng(0), []
    for classes, exclusive, highest in ((2, True, False), (3, False, False), (3, True, True)):
        for _ in range(20):
            scores, least = rng.random(classes).round(2), rng.random(classes).round(2)
            names = tuple(f"c{i}" for i in range(classes))
            rule = LabelRule(names, least, highest, exclusive, "", {})
            by_class = {n: {"threshold": None if highest else float(t)} for n, t in zip(names, least, strict=True)}  # fmt: skip
            cases.append(
                {
                    "model": {"exclusive": exclusive, "rules": {"r": {"by_class": by_class}}},
                    "labels": [{"class": n, "score": float(s)} for n, s in zip(names, scores, strict=True)],
                    "called": rule.calls(scores[None])[0].tolist(),
                }
            )  # fmt: skip
    told = node(
        "console.log(JSON.stringify(given.map((one) => rules.called(one.model, 'r', one.labels))))",
        cases,
    )
    assert told == [one["called"] for one in cases]


def test_a_label_is_told_in_figures_of_validation_images_or_not_at_all() -> None:
    own = {"threshold": 0.414, "sensitivity": 0.9, "n_called": 18, "n_with": 20, "specificity": 0.9, "n_false": 3, "n_without": 30}  # fmt: skip
    model = {
        "classes": ["a", "b"], "exclusive": False, "rules": {"youden": {"by_class": {"a": own, "b": {**own, "threshold": 0.9999, "sensitivity": None}}}},
        "validation": {"by_class": {"a": {"by_score": [{"low": 0.7, "high": 0.8, "share_with": 0.7, "n": 10}, {"low": 0.8, "high": 0.9, "share_with": 0.7, "n": 9}]}}},
    }  # fmt: skip
    out = node(
        """
        const r = rules.ruleName(given, "f1"), words = (name) => [rules.thresholdWords(given, r, name), rules.meaningWords(given, r, name)];
        console.log(JSON.stringify({r, a: words("a"), b: words("b"), band: rules.bandOfLabel(given, 0.75, "a"), few: rules.bandOfLabel(given, 0.85, "a"), none: rules.bandOfLabel({}, 0.85, "a")}));
        """,
        model,
    )
    assert out["r"] == "youden"
    assert out["a"] == [
        "Called from a score of 0.41 on.",
        "On validation it called 18 of 20 images with it (sensitivity 0.90) and 3 of 30 without it (specificity 0.90).",
    ]
    assert out["b"] == ["Called from a score of 0.9999 on.", None]
    assert out["band"] == "Of 10 validation images with this score, about 7 had it (n = 10)."
    assert (out["few"], out["none"]) == (None, None)


def test_names_that_say_nothing_is_there_are_the_packages_own() -> None:
    names = ["No Finding", "NORMAL", "no_finding", "Nodule", "normal variant", "healthy", "Keine", "négative"]  # fmt: skip
    told = node("console.log(JSON.stringify(given.map(rules.saysNothing)))", names)
    assert told == [says_no_finding(name) for name in names]


def test_nothing_leaves_the_outbox_before_the_server_has_it() -> None:
    out = node("""
        let mode = "ok", reader = "R1", n = 0;
        const sent = [], log = [], timers = {setTimeout: () => 0, clearTimeout: () => {}};
        let held = null;
        const box = new outbox.Outbox({
          reader: () => reader, clock: () => "10:00", newKey: () => "k" + ++n, timers,
          send: async (image, body) => {
            if (mode === "hold") await new Promise((go) => { held = go; });
            if (mode === "off") { sent.push(["lost", image, body.key]); throw new outbox.Offline("no"); }
            if (mode === "busy") throw new outbox.Busy("the disk is full");
            if (mode === "out") throw new outbox.SignedOut();
            if (mode === "bad") throw new outbox.Refused("expected a box");
            sent.push(["kept", image, body.key, body.v]);
          },
        });
        const note = (name) => log.push([name, box.status().text, box.count]);
        box.put("a", {reader: "R1", v: 1}); box.put("a", {reader: "R1", v: 2}); note("before");
        await box.flush(); note("saved");
        mode = "off"; box.put("a", {reader: "R1", v: 3}); box.put("b", {reader: "R1", v: 4}); await box.flush(); note("off"); const away = box.trouble.reason, silent = [box.silent];
        mode = "busy"; await box.flush(); const full = box.trouble.reason; box.report("offline"); const still = box.trouble.reason; silent.push(box.silent);
        mode = "ok"; await box.resume(); note("back");
        mode = "out"; box.put("a", {reader: "R1", v: 5}); await box.flush(); note("out");
        mode = "ok"; reader = "R2"; await box.resume(); note("other"); const others = box.ofOthers();
        reader = "R1"; await box.resume(); note("same");
        mode = "bad"; box.put("a", {reader: "R1", v: 6}); await box.flush(); note("bad"); const trouble = box.trouble.reason;
        mode = "hold"; box.put("a", {reader: "R1", v: 7}); const going = box.flush(); box.put("a", {reader: "R1", v: 8}); mode = "ok"; held(); await going;
        await box.flush(); note("end");
        console.log(JSON.stringify({sent, log, others, trouble, away, full, still, silent}));
    """)
    log = {name: (text, count) for name, text, count in out["log"]}
    assert log["before"] == ("Saving", 2)
    assert log["saved"] == ("Saved 10:00", 0)
    assert log["off"] == ("Kept here, 2 to send", 2)
    assert log["back"][1] == log["same"][1] == log["end"][1] == 0
    assert log["out"] == ("Kept here, 1 to send", 1)
    assert out["others"] == {"R1": 1}, "a reader's marks are sent in no other name"
    assert log["other"][1] == 1
    assert log["bad"] == ("Kept here, 1 to send", 1)
    assert out["trouble"] == "expected a box"
    # a server that says why it cannot save is not away, and the reader is told
    assert (out["away"], out["full"], out["still"]) == ("", "the disk is full", "the disk is full")
    assert out["silent"] == [True, False], (
        "an answer of another kind does not say that saves go again"
    )
    kept = [one for one in out["sent"] if one[0] == "kept"]
    assert [one[3] for one in kept] == [2, 3, 4, 5, 7, 8]
    lost = [one[2] for one in out["sent"] if one[0] == "lost"]
    assert set(lost) <= {one[2] for one in kept}, "a save that is repeated keeps its key"


POINTS = {
    "validation": {
        "n_images": 40, "n_boxes": 50,
        "by_threshold": [
            {"score": s, "fp_per_image": f, "share_found": r}
            for s, f, r in ((0.9, 0.0, 0.3), (0.7, 0.25, 0.6), (0.5, 0.5, 0.8), (0.2, 2.0, 0.95))
        ],
        "by_score": [{"low": 0.7, "high": 0.8, "share_met": 0.68, "n": 25}, {"low": 0.2, "high": 0.3, "share_met": 0.2, "n": 4}],
    }
}  # fmt: skip


def test_a_threshold_is_told_in_figures_of_validation_images_or_not_at_all() -> None:
    out = node(
        """
        const other = structuredClone(given);
        for (const step of other.validation.by_threshold) step.score /= 2;
        const same = points.thresholdFor(other, points.at(given, 0.6).fp_per_image);
        console.log(JSON.stringify([
          points.at(given, 0.6), points.at(given, 0.95), points.thresholdFor(given, 0.5), same, points.thresholdFor({}, 1), points.at({validation: {why_none: "x"}}, 0.5),
          points.bandWords(given, 0.75, "a"), points.bandWords(given, 0.25, "a"), points.bandWords({}, 0.5, "a"), points.tenths(1), points.tenths(0),
          points.rateWords(0.05), points.rateWords(1.5), points.axis(given, 0, 1).map((m) => m.word)]));
        """,
        POINTS,
    )
    assert (out[0]["fp_per_image"], out[0]["share_found"]) == (0.25, 0.6), (
        "boxes of at least 0.6 are those of 0.7 and more"
    )
    assert out[1]["fp_per_image"] == 0
    assert out[2] == 0.5
    assert out[3] == 0.35, "two models meet at the same false positives, not at the same score"
    assert out[4] is out[5] is None
    assert out[6] == "Of 10 validation boxes with this score, about 7 met a reader's box (n = 25)."
    assert out[7] is out[8] is None, "four boxes say nothing"
    assert out[9:11] == ["9 of 10", "1 of 10"]
    assert out[11:13] == [
        "about 1 false positive in 20 images",
        "about 1.5 false positives an image",
    ]
    assert out[13] == ["2", "½", "¼"], "a rate that no step comes near has no mark"


def test_labels_leave_small_boxes_free_and_stay_on_the_pane() -> None:
    out = node("""
        const pane = {width: 400, height: 300}, size = {width: 90, height: 19}, small = {x: 100, y: 20, width: 60, height: 18};
        const at = labels.labelPlace({x: 100, y: 42, width: 80, height: 60}, size, pane, [], [small]);
        const edge = labels.labelPlace({x: 380, y: 2, width: 30, height: 290}, size, pane, [], []);
        console.log(JSON.stringify([at, edge, small]));
    """)
    at, edge, small = out
    assert at["y"] >= small["y"] + small["height"] or at["x"] >= small["x"] + small["width"]
    assert edge["x"] >= 0
    assert edge["x"] + edge["width"] <= 400


def test_one_table_of_keys() -> None:
    out = node("""
        const press = (key, more = {}) => ({key, ctrlKey: false, metaKey: false, altKey: false, shiftKey: false, ...more});
        const rows = keys.KEYS.flatMap(([, r]) => r), all = rows.flatMap(([names]) => names), acts = rows.map((r) => r[2]);
        console.log(JSON.stringify({
          twice: all.filter((k, i) => all.indexOf(k) !== i), acts,
          caps: keys.lookUp(press("J"), true)?.act, undo: keys.lookUp(press("z", {ctrlKey: true}), false)?.act, redo: keys.lookUp(press("Z", {ctrlKey: true, shiftKey: true}), true)?.act,
          off: keys.lookUp(press("j"), false), help: keys.lookUp(press("?", {shiftKey: true}), false)?.act, arrow: keys.lookUp(press("ArrowLeft"), false)?.act,
          higher: keys.lookUp(press("T", {shiftKey: true}), true)?.act, graph: keys.lookUp(press("@", {altKey: true, ctrlKey: true}), true), alt: keys.lookUp(press("j", {altKey: true}), true)}));
    """)
    assert out["twice"] == []
    assert (out["caps"], out["undo"], out["redo"], out["higher"]) == (
        "next",
        "undo",
        "redo",
        "higher",
    )
    assert out["off"] is None
    assert (out["help"], out["arrow"]) == ("help", "arrow")
    assert out["graph"] is out["alt"] is None
    source = (MODULES / "app.js").read_text(encoding="utf-8")
    table = source[source.index("const actions = {") :]
    looks = (MODULES / "look.js").read_text(encoding="utf-8")
    table += looks[looks.index("actions() {") :].replace("\n      ", "\n  ")
    assert [
        act
        for act in out["acts"]
        if act != "escape" and f"\n  {act}:" not in table and f"\n  {act}," not in table
    ] == []


def test_no_file_of_the_page_holds_script_or_style_inside_markup_or_an_address() -> None:
    page = (MODULES.parent / "index.html").read_text(encoding="utf-8")
    assert "style=" not in page
    assert "<style" not in page
    assert "onclick" not in page
    assert page.count("<script") == 1
    for path in MODULES.parent.rglob("*"):
        if path.suffix in (".js", ".css", ".html"):
            text = path.read_text(encoding="utf-8")
            assert "//" not in text.replace("http://www.w3.org/2000/svg", "").replace("// ", ""), (
                path
            )
            assert "innerHTML" not in text, path
            assert "eval(" not in text, path
