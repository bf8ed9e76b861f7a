"""twinray serve under load, under kills and on a full disk; and how long a reader waits. Loopback only.

    python benchmarks/serve_load.py load [--uploads 1000] [--clients 20] [--kills 20] [--database sqlite|postgresql] [--workers 1]
    python benchmarks/serve_load.py disk
    python benchmarks/serve_load.py speed

``load``: a third of the uploads is hostile or damaged (bombs, cut files, other content, empty, broken bodies, names that are huge
or lead elsewhere); every good one is also marked. With ``--kills`` the server, its processes or the database get SIGKILL at
random moments, and the server is started again by the same command. Then it is checked that no answer was an unplanned 5xx, that
every acknowledged upload and mark is there once, that every good image was analysed and every bad one answered with a reason, and
how the memory of all processes grew. ``disk`` fills a small disk (needs root, for a tmpfs). ``speed``: from upload to boxes of a
12-bit X-ray of 2,048 x 2,500, heat maps, pages of a worklist of 100,000. A small detector is trained first unless ``--run`` names one.
Exit status 1: a check failed.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import random
import secrets
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

BINARIES = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)
NOBODY = 65534
PLANNED = (503, 507)
SMALL = ("--arch", "resnet18", "--fpn-channels", 32, "--box-head-width", 64, "--rois-per-image", 32)


def twinray(*arguments: object) -> None:
    command = [sys.executable, "-m", "twinray.cli", *map(str, arguments)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def small_run(folder: Path, size: int, *options: object) -> Path:
    """A detector that learned for a moment on synthetic chest images."""
    pack = folder / "pack"
    twinray("pack", "--format", "phantom", "--phantom-images", 16, "--size", size, "--out", pack)  # fmt: skip
    twinray(
        "detect", "--data", pack, "--out", folder / "run", "--size", size, "--epochs", 1, "--batch-size", 4, "--bootstrap", 20,
        *options,
    )  # fmt: skip
    return folder / "run"


class Server:
    """``twinray serve`` as a process that may be killed and started again."""

    def __init__(self, run: Path, store: str, files: Path, log: Path, *options: object) -> None:
        self.log, self.port = log, 0
        self._command = ["serve", run, "--store", store, "--log", log, "--rate", 100_000, *options]
        if "://" in store:
            self._command += ["--files", files]
        self.starts = 0
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "twinray.cli", *map(str, self._command), "--port", str(self.port)]  # fmt: skip
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if "serves at" not in line:
            raise RuntimeError(f"the server did not start: {line}")
        self.port = (
            int(line.rsplit(":", 1)[1].split()[0].rstrip(";")) if not self.port else self.port
        )
        self.starts += 1

    def ask(
        self, method: str, path: str, body: bytes | None = None, kind: str = "", limit: float = 60.0
    ):
        """Status, headers and body of one request; status 0 where the connection broke."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=limit)
        try:
            connection.request(method, path, body, {"content-type": kind} if kind else {})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        except (OSError, http.client.HTTPException):
            return 0, {}, b""
        finally:
            connection.close()

    def get(self, path: str):
        while True:
            status, _, body = self.ask("GET", path)
            if status == 200:
                return json.loads(body)
            time.sleep(0.2)

    def until_ready(self) -> None:
        while not self.get("/health")["ready"]:
            time.sleep(0.2)

    def children(self) -> list[int]:
        """Processes below the server's."""
        parents: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                    parents.setdefault(int(fields[1]), []).append(int(entry.name))
                except OSError:
                    continue
        found, left = [], [self.process.pid]
        while left:
            below = parents.get(left.pop(), [])
            found += below
            left += below
        return found

    def memory(self) -> float:
        """Resident memory of the server and all below it, MiB; what they share counts once for each."""
        total = 0
        for pid in (self.process.pid, *self.children()):
            try:
                total += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            except OSError:
                continue
        return total * os.sysconf("SC_PAGE_SIZE") / 2**20

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(90)


class Postgres:
    """A database server in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, random.randrange(20_000, 30_000)
        folder.mkdir()
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
        self._run("initdb", "-D", folder / "data", "-U", "twinray", "-A", "trust")
        self.start()
        self._run("createdb", "-h", "127.0.0.1", "-p", self.port, "-U", "twinray", "store")

    def _as(self) -> dict:
        own = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        return {
            "cwd": self.folder,
            "stdout": subprocess.DEVNULL,
            "stderr": subprocess.DEVNULL,
            **own,
        }

    def _run(self, program: str, *arguments: object) -> None:
        subprocess.run([str(BINARIES / program), *map(str, arguments)], check=True, **self._as())

    def start(self) -> None:
        command = [BINARIES / "postgres", "-D", self.folder / "data", "-p", self.port, "-h", "127.0.0.1", "-k", self.folder]  # fmt: skip
        ready = [str(BINARIES / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        self.process = None
        while True:
            # what a killed one left may hold the folder for a moment: its processes end when they notice
            if self.process is None or self.process.poll() is not None:
                self.process = subprocess.Popen(
                    [*map(str, command)], start_new_session=True, **self._as()
                )
            time.sleep(0.2)
            if subprocess.run(ready).returncode == 0:
                return

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def url(self) -> str:
        return f"postgresql://twinray@127.0.0.1:{self.port}/store"


def picture(seed: int, side: int = 96) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side)).astype(np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG")
    return sink.getvalue()


def bomb() -> bytes:
    sink = io.BytesIO()
    Image.new("L", (20_000, 20_000)).save(sink, "PNG")
    return sink.getvalue()


HOSTILE = ("bomb", "cut", "words", "empty", "noise", "zip", "broken", "huge name", "path", "header")


def hostile(kind: str, seed: int, the_bomb: bytes) -> tuple[str, bytes]:
    """Name and content of a file that is no good image."""
    own = b"%d" % seed
    return {
        "bomb": ("bomb.png", the_bomb + own),
        "cut": ("cut.png", picture(seed)[:-300]),
        "words": ("words.dcm", b"no image " + own),
        "empty": ("empty.png", b""),
        "noise": ("noise.bin", np.random.default_rng(seed).bytes(5000)),
        "zip": ("all.zip", b"PK\x03\x04" + own * 50),
        "broken": ("broken.png", b""),
        "huge name": ("n" * 20_000 + ".png", b"\x89PNG\r\n\x1a\n" + own),
        "path": ("../../../etc/passwd\0<script>alert(1)</script>", b"\xff\xd8\xff" + own),
        "header": ("head.dcm", bytes(128) + b"DICM" + own * 30),
    }[kind]


def body_of(name: str, data: bytes, whole: bool = True) -> bytes:
    head = f'--b\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode()
    return head + data + (b"\r\n--b--\r\n" if whole else b"\r\n--b")


class Load:
    """What clients did and were told."""

    def __init__(self, server: Server, uploads: int, seed: int) -> None:
        self.server, self.bomb = server, bomb()
        rng = random.Random(seed)
        self.tasks = [
            (i, "good" if i % 3 else HOSTILE[(i // 3) % len(HOSTILE)]) for i in range(uploads)
        ]
        rng.shuffle(self.tasks)
        self.taken: dict[int, str] = {}
        self.marked: dict[str, str] = {}
        self.refused: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.unanswered: list[str] = []
        self.lock = threading.Lock()

    def client(self) -> None:
        while True:
            with self.lock:
                if not self.tasks:
                    return
                number, kind = self.tasks.pop()
            self._upload(number, kind)

    def _upload(self, number: int, kind: str) -> None:
        name, data = (f"{number}.png", picture(number)) if kind == "good" else hostile(kind, number, self.bomb)  # fmt: skip
        sent = body_of(name, data, whole=kind != "broken")
        status, answer = self._until_answered(
            "/api/images", sent, "multipart/form-data; boundary=b"
        )
        if status == 201 and answer["images"]:
            image = answer["images"][0]["id"]
            with self.lock:
                self.taken[number] = image
            if kind == "good":
                key = secrets.token_hex(8)
                mark = {"reader": "client", "key": key, "marks": [], "normal": True}
                status, _ = self._until_answered(
                    f"/api/images/{image}/marks", json.dumps(mark).encode(), "application/json"
                )
                with self.lock:
                    if status == 201:
                        self.marked[image] = key
        elif (status == 201 and answer["refused"][0]["reason"]) or (
            status in (400, 413, 415, 422) and answer.get("detail")
        ):
            with self.lock:
                self.refused[kind] += 1
        else:
            self.unanswered.append(f"{kind}: {status} {str(answer)[:80]}")

    def _until_answered(self, path: str, body: bytes, kind: str):
        """As a careful client does: the same request again where the server was away or said so."""
        for _ in range(600):
            status, _, answer = self.server.ask("POST", path, body, kind)
            with self.lock:
                self.statuses[status] += 1
            if status not in (0, 429, *PLANNED):
                return status, json.loads(answer) if answer else {}
            time.sleep(0.2)
        return status, {}


def killer(server: Server, database: Postgres | None, kills: int, load: Load, seed: int) -> Counter:
    """Kill something at random moments, and start again what does not start itself."""
    rng, done = random.Random(seed), Counter()
    who = ["server", "worker", *(["database"] if database else [])]
    for _ in range(kills):
        time.sleep(rng.uniform(0.5, 6.0))
        one = rng.choice(who)
        if one == "server":
            server.process.kill()
            server.process.wait()
            server.start()
        elif one == "database":
            database.kill()
            time.sleep(rng.uniform(0, 2))
            database.start()
        else:
            below = server.children()
            if not below:
                continue
            try:
                os.kill(rng.choice(below), signal.SIGKILL)
            except ProcessLookupError:
                continue
        done[one] += 1
    return done


def load(options: argparse.Namespace, folder: Path) -> bool:
    run = options.run or small_run(folder, 64, *SMALL, "--anchor-scale", 4)
    database = Postgres(folder / "postgres") if options.database == "postgresql" else None
    place = database.url() if database else str(folder / "store")
    server = Server(run, place, folder / "store", folder / "log", "--min-free", 1, "--workers", options.workers)  # fmt: skip
    server.until_ready()
    work = Load(server, options.uploads, options.seed)
    good = [number for number, kind in work.tasks if kind == "good"]
    began, memory = time.monotonic(), [server.memory()]
    clients = [threading.Thread(target=work.client) for _ in range(options.clients)]
    killed: list[Counter] = []
    hunting = threading.Thread(
        target=lambda: killed.append(killer(server, database, options.kills, work, options.seed))
    )
    [one.start() for one in (*clients, hunting)]
    while any(one.is_alive() for one in (*clients, hunting)):
        time.sleep(1)
        memory.append(server.memory())
    sent = time.monotonic() - began
    while True:
        counts = Counter(json.loads(json.dumps(_states(server))))
        if not counts["queued"] and not counts["running"]:
            break
        time.sleep(1)
        memory.append(server.memory())
    took = time.monotonic() - began
    rows = {row["id"]: row for row in _all(server)}
    distinct = len(set(work.taken.values()))
    failures = [
        f"{what}"
        for what, holds in {
            "an unplanned 5xx": not [s for s in work.statuses if s >= 500 and s not in PLANNED],
            f"uploads without an answer: {work.unanswered[:3]}": not work.unanswered,
            "an acknowledged upload is lost": set(work.taken.values()) <= rows.keys(),
            "an image is doubled": distinct == len(work.taken) and len(rows) == distinct,
            "a good image was not analysed": all(
                rows[work.taken[n]]["state"] == "done" for n in good if n in work.taken
            )
            and all(n in work.taken for n in good),
            "a bad image has no reason": all(
                row["state"] == "done" or row["reason"] for row in rows.values()
            ),
        }.items()
        if not holds
    ]
    for image, key in work.marked.items():
        kept = server.get(f"/api/images/{image}/readings?every=true")
        if [one["key"] for one in kept] != [key]:
            failures.append(f"a mark is lost or doubled: {len(kept)} of {image}")
    if len(work.marked) != len(good):
        failures.append(f"{len(work.marked)} of {len(good)} marks were acknowledged")
    settled = memory[len(memory) // 4 :]
    print(f"uploads {options.uploads}, clients {options.clients}, {options.database}: sent in {sent:.0f} s, all settled after {took:.0f} s")  # fmt: skip
    print(f"good {len(good)} done; bad refused at once {sum(work.refused.values())}, failed with a reason {sum(r['state'] == 'failed' for r in rows.values())}")  # fmt: skip
    print(f"answers {dict(sorted(work.statuses.items()))} (0: the connection broke)")
    print(f"kills {dict(killed[0]) if killed else {}}, starts of the server {server.starts}")
    print(f"memory of all processes, MiB: median of the second quarter {statistics.median(settled[: max(1, len(settled) // 3)]):.0f}, of the last {statistics.median(settled[-max(1, len(settled) // 3) :]):.0f}, most {max(memory):.0f}")  # fmt: skip
    server.stop()
    if database:
        database.kill()
    for failure in failures[:10]:
        print(f"FAILED: {failure}")
    return not failures


def _states(server: Server) -> dict[str, int]:
    found = {}
    for state in ("queued", "running", "done", "failed"):
        found[state] = server.get(f"/api/images?state={state}&size=1")["total"]
    return found


def _all(server: Server) -> list[dict]:
    first = server.get("/api/images?size=200")
    rows = first["images"]
    for page in range(2, first["pages"] + 1):
        rows += server.get(f"/api/images?size=200&page={page}")["images"]
    return rows


def disk(options: argparse.Namespace, folder: Path) -> bool:
    small = folder / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(small)]).returncode:
        print("not done: a small disk needs root, for a tmpfs")
        return True
    try:
        run = options.run or small_run(folder, 64, *SMALL, "--anchor-scale", 4)
        server = Server(run, str(small / "store"), small, folder / "log", "--min-free", 0)
        server.until_ready()
        kept, statuses = [], Counter()
        for number in range(200):
            body = body_of(f"{number}.png", picture(number, 512))
            status, _, answer = server.ask(
                "POST", "/api/images", body, "multipart/form-data; boundary=b"
            )
            statuses[status] += 1
            if status == 201:
                kept += [one["id"] for one in json.loads(answer)["images"]]
            elif statuses[507] > 5:
                break
        rows = {row["id"] for row in _all(server)}
        ok = set(kept) == rows and set(statuses) == {201, 507}
        print(f"full disk: answers {dict(statuses)}; {len(kept)} acknowledged, {len(rows)} there")
        server.stop()
        return ok
    finally:
        subprocess.run(["umount", "-l", str(small)], check=False)


def speed(options: argparse.Namespace, folder: Path) -> bool:
    run = options.run or small_run(folder, 512, "--arch", "resnet18", "--rois-per-image", 64)
    server = Server(run, str(folder / "store"), folder, folder / "log", "--min-free", 1)
    server.until_ready()
    waits, heats, again = [], [], []
    for number in range(options.repeats):
        body = body_of("x.dcm", radiograph(folder, number))
        began = time.perf_counter()
        _, _, answer = server.ask("POST", "/api/images", body, "multipart/form-data; boundary=b")
        image = json.loads(answer)["images"][0]["id"]
        while server.get(f"/api/images/{image}")["state"] != "done":
            time.sleep(0.02)
        waits.append(time.perf_counter() - began)
        whole = server.get(f"/api/images/{image}")
        what = "label" if whole["labels"] else "box"
        for number_of in range(min(2, len(whole["labels"] or whole["predictions"]))):
            began = time.perf_counter()
            status, _, _ = server.ask("GET", f"/api/images/{image}/heat-map?{what}={number_of}")
            (heats, again)[number_of].append(time.perf_counter() - began)
            assert status == 200
    _told("upload to answer (2,048 x 2,500, 12 bits)", waits)
    _told(f"heat map of an image's first {what}", heats)
    _told(f"heat map of its second {what}", again)
    fill(folder / "store", 100_000)
    for name, query in {
        "first page, newest": "order=newest", "first page, suspicious": "order=suspicious", "page 2,000 of 2,000": "page=2000",
        "search by name": "q=name_777", "of one state": "state=done", "by what it would teach": "order=active",
    }.items():  # fmt: skip
        times = []
        for _ in range(10):
            began = time.perf_counter()
            server.get(f"/api/images?{query}")
            times.append(time.perf_counter() - began)
        _told(f"worklist of 100,000, {name}", times)
    server.stop()
    return True


def _told(what: str, times: list[float]) -> None:
    if times:
        print(f"{what}: median {statistics.median(times):.3f} s, first {times[0]:.3f} s, most {max(times):.3f} s, n {len(times)}")  # fmt: skip


def radiograph(folder: Path, seed: int) -> bytes:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.normal(2000, 400, (80, 64)).astype(np.float32))
    pixels = np.asarray(coarse.resize((2048, 2500), Image.Resampling.BICUBIC))
    pixels = (pixels + rng.normal(0, 30, pixels.shape)).clip(0, 4095).astype(np.uint16)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID = generate_uid(), ExplicitVRLittleEndian
    header = FileDataset("x", {}, file_meta=meta, preamble=bytes(128))
    header.SOPClassUID, header.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID  # fmt: skip
    header.StudyInstanceUID, header.SeriesInstanceUID = generate_uid(), generate_uid()
    header.PatientID, header.Modality, header.PresentationIntentType = "p", "DX", "FOR PRESENTATION"
    header.Rows, header.Columns, header.SamplesPerPixel = 2500, 2048, 1
    header.PhotometricInterpretation, header.PixelRepresentation = "MONOCHROME2", 0
    header.BitsAllocated, header.BitsStored, header.HighBit = 16, 12, 11
    header.WindowCenter, header.WindowWidth = 2000, 2500
    header.PixelData = pixels.tobytes()
    header["PixelData"].VR = "OW"
    sink = io.BytesIO()
    header.save_as(sink, enforce_file_format=True)
    return sink.getvalue()


def fill(store: Path, n: int) -> None:
    """Rows of images, without files."""
    from sqlalchemy import insert

    from twinray.serving.store.models import Image as Row
    from twinray.serving.store.store import open_store

    opened = open_store(store)
    rng = np.random.default_rng(0)
    rows = [
        {
            "id": secrets.token_hex(8), "created": time.time(), "name": f"name_{i}.dcm", "sha256": f"{i:064x}", "size": 1,
            "kind": "dicom", "origin": "upload", "state": "done", "reason": "", "score": float(rng.random()),
            "teach": float(rng.random()), "pending": False, "attempts": 0, "width": 2048, "height": 2500,
        }
        for i in range(n)
    ]  # fmt: skip
    opened.database.write(lambda session: session.execute(insert(Row), rows))
    opened.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("load", "disk", "speed"))
    parser.add_argument(
        "--run", type=Path, help="folder of a detect run; of speed also a classify run"
    )
    parser.add_argument("--uploads", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="twinray-load-", dir="/tmp"))
    folder.chmod(0o755)  # the database runs as another user
    try:
        ok = {"load": load, "disk": disk, "speed": speed}[options.what](options, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main()
