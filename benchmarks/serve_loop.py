"""The loop, closed: phantom readers correct images through the real API, a detector is trained further, old and new are compared.

A detector is trained on few phantom images. `twinray serve` starts with it, other phantom images are uploaded, and two readers who
know the truth correct the boxes that are shown: right ones are accepted, near ones moved, others rejected, missed ones added.
They slip now and then (--slips). `twinray retrain` then packs, trains and compares on the test patients. Loopback only.

    python benchmarks/serve_loop.py --out /tmp/loop
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from twinray.data.phantom.images import PhantomConfig, phantom_collection
from twinray.geometry import corner_iou

READERS = ("ann", "bob")
THRESHOLD = 0.3
Call = Callable[[str, str, Any], Any]
"""Method, path and JSON body (or a list of (name, bytes) to upload) -> the answer's JSON."""


def phantoms(
    n: int, size: int, seed: int
) -> dict[str, tuple[bytes, list[tuple[list[float], str]]]]:
    """Name -> PNG and true boxes with their classes; every image is of another patient."""
    collection = phantom_collection(PhantomConfig(n, size=size, seed=seed, images_per_patient=1.0))
    found = {}
    for sample in collection.samples:
        sink = io.BytesIO()
        Image.fromarray(collection.load(sample).array).save(sink, "PNG")
        boxes = [
            (box, collection.box_classes[label])
            for box, label in zip(
                sample.boxes.xyxy.tolist(), sample.boxes.labels.tolist(), strict=True
            )
        ]
        found[f"{sample.id}.png".replace("/", "_")] = (sink.getvalue(), boxes)
    return found


def reading(
    answer: Mapping[str, Any],
    truth: list[tuple[list[float], str]],
    reader: str,
    rng: np.random.Generator,
    slips: float,
) -> dict[str, Any]:
    """What a reader who knows the truth says of the boxes that are shown, slips included."""
    open_truth = [one for one in truth if rng.random() >= slips]
    marks = []
    for place, box in enumerate(answer["predictions"]):
        if box["score"] < THRESHOLD:
            continue
        overlaps = [
            corner_iou(np.array(own), np.array(box["box"])) if name == box["class"] else 0.0
            for own, name in open_truth
        ]
        best = int(np.argmax(overlaps)) if overlaps else -1
        mark = {"box": box["box"], "class": box["class"], "prediction": place, "model": answer["model"]}  # fmt: skip
        if best >= 0 and overlaps[best] >= 0.7:
            marks.append({**mark, "verdict": "accepted"})
            del open_truth[best]
        elif best >= 0 and overlaps[best] >= 0.2:
            marks.append({**mark, "box": open_truth[best][0], "verdict": "moved"})
            del open_truth[best]
        else:
            marks.append({**mark, "verdict": "rejected"})
    width, height = answer["width"], answer["height"]
    for own, name in open_truth:
        near = np.clip(np.array(own) + rng.normal(0, 1, 4), 0, [width, height, width, height])
        if near[2] > near[0] and near[3] > near[1]:
            marks.append({"box": near.tolist(), "class": name, "verdict": "added"})
    findings = [mark for mark in marks if mark["verdict"] != "rejected"]
    return {
        "reader": reader,
        "marks": marks,
        "normal": not findings,
        "model": answer["model"],
        "shown": {"threshold": THRESHOLD},
        "seconds": float(rng.uniform(5, 60)),
    }


def correct(
    call: Call,
    images: Mapping[str, tuple[bytes, list[tuple[list[float], str]]]],
    seed: int = 0,
    slips: float = 0.05,
    patience_s: float = 1200,
) -> int:
    """Upload, wait for the boxes, and have every image read: by one reader, every fourth by both. Number of readings."""
    rng = np.random.default_rng(seed)
    ids = {}
    names = list(images)
    for start in range(0, len(names), 20):
        sent = call("POST", "/api/images", [(name, images[name][0]) for name in names[start : start + 20]])  # fmt: skip
        assert not sent["refused"], sent["refused"]
        ids |= {one["name"]: one["id"] for one in sent["images"]}
    n, until = 0, time.monotonic() + patience_s
    for number, (name, (_, truth)) in enumerate(images.items()):
        while (answer := call("GET", f"/api/images/{ids[name]}", None))["state"] != "done":
            if answer["state"] == "failed" or time.monotonic() > until:
                raise SystemExit(f"{name} was not analysed: {answer['state']}, {answer['reason']}")
            time.sleep(0.2)
        for reader in READERS if number % 4 == 0 else (READERS[number % 2],):
            call("POST", f"/api/images/{ids[name]}/marks", reading(answer, truth, reader, rng, slips))  # fmt: skip
            n += 1
    return n


class Server:
    """`twinray serve` as a process of its own, on a free port of this machine."""

    def __init__(self, run: Path, store: Path) -> None:
        command = [sys.executable, "-m", "twinray", "serve", str(run), "--store", str(store), "--port", "0", "--rate", "500", "--min-free", "1"]  # fmt: skip
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        found = re.search(r"http://\S+?:(\d+)", line)
        if found is None:
            raise SystemExit(f"the server did not start: {line}")
        self.base = f"http://127.0.0.1:{found[1]}"
        for _ in range(600):
            try:
                self.call("GET", "/health", None)
                return
            except OSError:
                time.sleep(0.1)
        raise SystemExit("the server did not answer")

    def call(self, method: str, path: str, body: Any) -> Any:
        headers, data = {}, None
        if isinstance(body, list):
            edge = b"0123456789abcdef"
            parts = [
                b"--" + edge + b'\r\nContent-Disposition: form-data; name="file"; filename="'
                + name.encode() + b'"\r\nContent-Type: image/png\r\n\r\n' + content + b"\r\n"
                for name, content in body
            ]  # fmt: skip
            data = b"".join(parts) + b"--" + edge + b"--\r\n"
            headers["content-type"] = f"multipart/form-data; boundary={edge.decode()}"
        elif body is not None:
            data = json.dumps(body).encode()
            headers["content-type"] = "application/json"
        request = urllib.request.Request(self.base + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.loads(answer.read())

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)


def twinray(*arguments: object) -> None:
    done = subprocess.run([sys.executable, "-m", "twinray", *map(str, arguments)], check=False)
    if done.returncode:
        raise SystemExit(f"twinray {arguments[0]} ended with {done.returncode}")


def beside(server: Server, page: Path) -> str:
    """What the viewer shows of the new model: both names, the old one first, and the page that compares them."""
    models = server.call("GET", "/api/models", None)["models"]
    (new,) = [one for one in models if one["compared_with"]]
    assert [one["first"] for one in models] == [True, False], (
        "the new model never takes the old one's place"
    )
    assert new["compared_with"] == models[0]["model"]
    address = f"{server.base}/api/models/{new['model']}/comparison"
    with urllib.request.urlopen(address, timeout=120) as answer:
        assert answer.read() == page.read_bytes(), (
            "the viewer shows the page that the comparison wrote"
        )
    return f"{models[0]['name']} is shown first, {new['name']} beside it; compared in {page}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--first", type=int, default=60, help="images of the first detector")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--slips", type=float, default=0.05)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    pack, old = args.out / "first-pack", args.out / "old"
    twinray("pack", "--format", "phantom", "--out", pack, "--phantom-images", args.first, "--size", args.size,
            "--seed", args.seed, "--val", 0.2, "--test", 0.1, "--resume")  # fmt: skip
    twinray("detect", "--data", pack, "--out", old, "--arch", "resnet18", "--size", args.size, "--epochs", args.epochs,
            "--batch-size", 8, "--fpn-channels", 64, "--box-head-width", 256, "--bootstrap", 100, "--lr", 0.0005, "--resume")  # fmt: skip
    images = phantoms(args.images, max(256, args.size), args.seed + 1000)
    server = Server(old, args.out / "store")
    try:
        n = correct(server.call, images, args.seed, args.slips)
    finally:
        server.stop()
    print(f"{n} readings of {len(images)} images", flush=True)
    twinray("retrain", args.out / "store", "--init", old, "--out", args.out / "retrained", "--epochs", args.epochs,
            "--lr", 0.0003, "--val", 0.15, "--test", 0.3)  # fmt: skip
    server = Server(old, args.out / "store")
    try:
        told = beside(server, args.out / "retrained" / "comparison" / "report.html")
    finally:
        server.stop()
    print(told)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
