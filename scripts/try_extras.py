"""Each extra's verb or option by the real command line: with the extra it works, without it one line says what to install.

    PYTHON scripts/try_extras.py WORK [EXTRA ...]      (without extras: every one)

PYTHON is that of an environment which holds the wheel. Whether an extra is there is read from what is installed, and
decides what must come out. WORK takes a toy pack and toy runs, which a later call finds there. Nothing leaves the machine.
"""

from __future__ import annotations

import base64
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
TWINRAY = Path(sys.executable).with_name("twinray")
TIMEOUT_S = 1200
NOT_FOR_USERS = ("dev", "docs")

# a rectangle on a flat ground, 64 x 64, 12 bits: what no decoder of the plain package reads
JPEG_LS = base64.b64decode(
    "/9j/9wALDABAAEABAREA/9oACAEBAAAAAAAAAH+BBBCEIREREREkkkkkkklVVVVVVVVVVQP/f/9/xQDPv/98AAAAAHT6UgE4KkCcNSEOGpCHGpEONSIcakQ4"
    "1IhzUkOakhzUkOakhzUkOakhzUkOakh2pQ7UodqUO1KHalDtSh2pQ7UodqUO1KHalDtSh2pQ7UodqUO//3z/2Q=="
)


class Failed(Exception):
    """What came out is not what an environment like this must give."""


class Place:
    """A folder with a toy pack and toy runs; every case writes into a new folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.pack, self.detector = self.folder / "pack", self.folder / "detector"
        self.backbone = self.folder / "backbone"

    def prepare(self) -> None:
        """Pack, pre-train and detect at toy size, each unless it is there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        made = [
            (self.pack / "pack.json", ["pack", "--format", "phantom", "--phantom-images", 40, "--test", 0.3, "--size", 64,
                                       "--out", self.pack]),
            (self.backbone / "metrics.json", [*self.pretrain(self.backbone), "--arch", "resnet18"]),
            (self.detector / "metrics.json", ["detect", "--data", self.pack, "--arch", "resnet18", "--size", 64, "--epochs", 1,
                                              "--fpn-channels", 16, "--box-head-width", 16, "--bootstrap", 20, "--device", "cpu",
                                              "--out", self.detector]),
        ]  # fmt: skip
        for proof, words in made:
            if not proof.is_file():
                shutil.rmtree(words[words.index("--out") + 1], ignore_errors=True)
                works(words)

    def pretrain(self, out: Path) -> list[object]:
        """Words of the smallest pre-training; the architecture is to follow."""
        return ["pretrain", "--data", self.pack, "--size", 32, "--batch-size", 8, "--projector", 16, 16, "--epochs", 1,
                "--device", "cpu", "--out", out]  # fmt: skip

    def study(self, folder: Path) -> Path:
        """A study of one classification, as a file."""
        options = {"arch": "resnet18", "size": 32, "precision": "float32", "bootstrap": 20, "device": "cpu"}  # fmt: skip
        study = {
            "study": "Toy",
            "packs": {"pack": {"format": "phantom", "size": 64, "val": 0.2, "test": 0.4, "phantom_images": 24}},
            "arms": ["random"],
            "tasks": {"labels": {"verb": "classify", "pack": "pack", "options": options}},
        }  # fmt: skip
        path = folder / "study.yaml"
        path.write_text(yaml.safe_dump(study, sort_keys=False))
        return path


def said(words: Sequence[object], **variables: str) -> subprocess.CompletedProcess[str]:
    """What a command prints and its exit status, in a process of its own."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "HF_", "MLFLOW", "WANDB")) or k == "PYTHONPYCACHEPREFIX"}  # fmt: skip
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return subprocess.run(
        [str(word) for word in words],
        capture_output=True, text=True, check=False, timeout=TIMEOUT_S, stdin=subprocess.DEVNULL,
        env={**plain, **threads, "COLUMNS": "200", **variables},
    )  # fmt: skip


def works(words: Sequence[object], *made: Path, **variables: str) -> str:
    """Run ``twinray`` with these words; it must end well and have made these files. Returns what it printed."""
    return _ended_well([TWINRAY, *words], made, variables)


def python_works(code: str, *arguments: object, made: Sequence[Path] = (), **variables: str) -> str:
    """Run lines of Python with the environment's own interpreter, likewise."""
    return _ended_well([sys.executable, "-c", code, *arguments], made, variables)


def _ended_well(words: Sequence[object], made: Sequence[Path], variables: dict[str, str]) -> str:
    done = said(words, **variables)
    told = done.stdout + done.stderr
    shown = " ".join(" ".join(map(str, words[1:4])).split())[:100]
    if done.returncode or "Traceback" in told:
        raise Failed(f"{shown} ...: exit status {done.returncode}\n{told[-3000:]}")
    if missing := [path for path in made if not path.exists()]:
        raise Failed(f"{shown} ...: {missing[0]} was not made\n{told[-3000:]}")
    return told


def refused(extra: str, words: Sequence[object]) -> str:
    """Run ``twinray``; it must end with status 2 and one line that names the extra, and leave nothing. Returns the line."""
    out = words[words.index("--out") + 1] if "--out" in words else None
    before = isinstance(out, Path) and out.exists()
    done = said([TWINRAY, *words])
    lines = [line for line in done.stderr.splitlines() if line.startswith("twinray: ")]
    named = f"pip install 'twinray[{extra}]'"
    if done.returncode != 2 or "Traceback" in done.stderr or len(lines) != 1 or named not in lines[0]:  # fmt: skip
        raise Failed(
            f"expected status 2 and one line with {named}, got {done.returncode}\n{done.stderr[-3000:]}"
        )
    # what pack has decoded it keeps, for --resume
    if isinstance(out, Path) and not before and out.exists() and words[0] != "pack":
        raise Failed(f"{lines[0]}\nleft {out.name}: {sorted(p.name for p in out.rglob('*'))[:9]}")
    return lines[0]


# One case an extra: (place, folder of the case, whether the extra is there) -> what to print of it


def _dicom(place: Place, folder: Path, there: bool) -> str:
    files = folder / "files"
    for number in range(6):  # patients for every split
        _write_dicom(files / f"{number}.dcm", str(number))
    words = ["pack", files, "--format", "dicom", "--size", 64, "--val", 0, "--test", 0,
             "--out", folder / "pack", "--strict"]  # fmt: skip
    if not there:
        return refused("dicom", words)
    works(words, folder / "pack" / "pack.json")
    out = folder / "predictions"
    works(["predict", place.detector, files, "--out", out, "--device", "cpu"])
    objects = list(out.rglob("*.dcm"))
    if len(objects) < 6:
        raise Failed(f"expected DICOM objects of six images, got {len(objects)}")
    return f"JPEG-LS packed, {len(objects)} DICOM objects written"


def _hdf5(place: Place, folder: Path, there: bool) -> str:
    from_files = folder / "organs"
    for name in ("splits", "task_labels"):
        (from_files / name).mkdir(parents=True)
    task = {"task_name": "organ", "task_target": "MULTICLASS_CLASSIFICATION", "labels": {0: "heart", 1: "liver"}}  # fmt: skip
    info = {"id": "organs", "name": "organs", "tasks": [task], "input_size": [1, 64, 64]}
    (from_files / "info.yaml").write_text(yaml.safe_dump(info))
    splits = {"train": [0, 1, 2, 3], "val": [4, 5], "test": [6, 7]}
    for name, members in splits.items():
        (from_files / "splits" / f"{name}.txt").write_text("\n".join(f"images/{i:06d}.tiff" for i in members))  # fmt: skip
    rows = [f"images/{i:06d}.tiff,{i % 2},v{i}.nii,train" for i in range(8)]
    (from_files / "annotations.csv").write_text(
        "\n".join(["filepath,tasks/organ,original_filepath,original_split", *rows]) + "\n"
    )
    code = """
import sys, numpy as np
from pathlib import Path
root = Path(sys.argv[1])
np.save(root / "task_labels" / "organ.npy", np.arange(8) % 2)
pixels = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 1), dtype=np.uint8)
if sys.argv[2] == "True":
    import h5py
    with h5py.File(root / "images.hdf5", "w") as file:
        file.create_dataset("images", data=pixels)
else:
    (root / "images.hdf5").write_bytes(b"\\x89HDF\\r\\n\\x1a\\n" + bytes(512))
"""
    python_works(code, from_files, there)
    words = ["pack", from_files, "--format", "medimeta", "--size", 64, "--out", folder / "pack"]
    if not there:
        return refused("hdf5", words)
    works(words, folder / "pack" / "pack.json")
    return "a MedIMeta set of 8 images packed"


def _timm(place: Place, folder: Path, there: bool) -> str:
    words = [*place.pretrain(folder / "run"), "--arch", "timm/resnet10t"]
    export = ["export", place.backbone, "--to", "timm", "--out", folder / "exported"]
    if not there:
        return "; ".join([refused("timm", words), refused("timm", export)])
    works(words, folder / "run" / "metrics.json")
    works(export, folder / "exported" / "README.md")
    return "timm/resnet10t pre-trained, --to timm exported"


def _hub(place: Place, folder: Path, there: bool) -> str:
    words = ["export", place.detector, "--to", "hub", "--membership", "off", "--out", folder / "exported",
             "--push", "someone/toy"]  # fmt: skip
    if not there:
        works(
            words[:-2], folder / "exported" / "model.safetensors"
        )  # the folder itself needs no extra
        return refused("hub", [*words, "--overwrite"])
    hub_module = _module(HERE.parent / "tests" / "exporting" / "hub_support.py")
    fake = hub_module.Hub()
    variables = {
        "HF_ENDPOINT": fake.url, "HF_TOKEN": "hf_made_up", "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(folder / "cache"), "HF_HUB_DISABLE_TELEMETRY": "1",
    }  # fmt: skip
    try:
        works(words, folder / "exported" / "model.safetensors", **variables)
        told = python_works('import twinray; print(twinray.load("someone/toy").kind)', **variables)
    finally:
        fake.server.shutdown()
    if "detector" not in told.split():  # the hub prints a progress bar beside it
        raise Failed(f"expected a detector from the hub, got {told}")
    return "pushed to a hub on this machine and loaded from it"


def _onnx(place: Place, folder: Path, there: bool) -> str:
    words = ["export", place.detector, "--to", "onnx", "--out", folder / "exported"]
    if not there:
        return refused("onnx", words)
    works(words, folder / "exported" / "README.md")
    return "a detector exported and checked by onnxruntime"


def _imagenet(place: Place, folder: Path, there: bool) -> str:
    words = ["embed", "--data", place.pack, "--init", "efficientnet-lite0", "--size", 64, "--maps", "pca", "--bootstrap", 20,
             "--device", "cpu", "--out", folder / "embedded"]  # fmt: skip
    if not there:
        return refused("imagenet", words)
    works(words, folder / "embedded" / "features.parquet")
    return "features of efficientnet-lite0, without a network"


def _umap(place: Place, folder: Path, there: bool) -> str:
    words = ["embed", "--data", place.pack, "--init", place.backbone, "--maps", "umap", "--bootstrap", 20, "--device", "cpu",
             "--out", folder / "embedded"]  # fmt: skip
    if not there:
        return refused("umap", words)
    works(words, folder / "embedded" / "features.parquet")
    return "a UMAP map drawn"


def _slurm(place: Place, folder: Path, there: bool) -> str:
    file = place.study(folder)
    words = ["study", file, "--out", folder / "study", "--on", "slurm"]
    told = works([*words, "--sbatch"])  # needs no extra
    if not list((folder / "study").glob("*sbatch*")):
        raise Failed(f"--sbatch wrote no script\n{told}")
    if not there:
        return refused("slurm", words)
    # submitit's own executor without SLURM: the same pickled worker in a process of its own
    code = """
import sys
from pathlib import Path
from twinray.studies.runner.place import Place
from twinray.studies.runner.slurm import Job, run_slurm
from twinray.studies.sealed.opening import open_study
if __name__ == "__main__":
    place = Place(Path(sys.argv[1]))
    run_slurm(place, Job(1, 1, minutes=20), lambda: None, executor="local")
    open_study(place, place.plan())  # refused where a run is not done
"""
    python_works(code, folder / "study")
    works(words[:-2], folder / "study" / "results" / "figures.csv")
    return "a study by submitit without SLURM"


def _ray(place: Place, folder: Path, there: bool) -> str:
    file = place.study(folder)
    words = ["study", file, "--out", folder / "study", "--on", "ray", "--threads", 1]
    if not there:
        return refused("ray", words)
    works(words, folder / "study" / "results" / "figures.csv", RAY_TMPDIR="/tmp")
    return "a study by Ray"


def _excel(place: Place, folder: Path, there: bool) -> str:
    code = """
import sys
from pathlib import Path
from twinray.errors import InputError
from twinray.evaluation.readers.jafroc import Mark, ReaderStudy
from twinray.report.jafroc_file import write_jafroc
marks = {("plain", "ann"): [Mark("b", 3, 1)], ("boxes", "ann"): [Mark("a", 2)]}
try:
    write_jafroc(ReaderStudy({"b": [1.0], "a": []}, marks), Path(sys.argv[1]))
except InputError as error:
    print(error)
"""
    path = folder / "study.xlsx"
    told = python_works(code, path, made=[path] if there else [])
    if there:
        return "RJafroc's workbook written"
    if "pip install 'twinray[excel]'" not in told:
        raise Failed(f"expected the extra's name, got {told}")
    return told.strip()


def _serve(place: Place, folder: Path, there: bool) -> str:
    store = folder / "store"
    words = ["serve", place.detector, "--store", store, "--port", 0]
    if not there:
        manage = ["store", "users", "--store", store]
        return "; ".join([refused("serve", words), refused("serve", manage)])
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with (folder / "log").open("w") as log:
        server = subprocess.Popen([str(TWINRAY), *map(str, words)], stdout=log, stderr=log, env=variables)  # fmt: skip
    try:
        health = _health(server, folder / "log")
    finally:
        server.send_signal(signal.SIGTERM)
        status = server.wait(120)
    if status:
        raise Failed(f"the server ended with status {status}\n{(folder / 'log').read_text()}")
    return f"/health says {health}"


def _health(server: subprocess.Popen[bytes], log: Path) -> str:
    end = time.monotonic() + 300
    while time.monotonic() < end and server.poll() is None:
        if found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text()):
            try:
                with urllib.request.urlopen(f"{found[0]}/health", timeout=30) as answer:
                    return str(json.load(answer))
            except OSError:
                pass
        time.sleep(1)
    raise Failed(f"no answer from the server\n{log.read_text()}")


def _tracker(name: str) -> Callable[[Place, Path, bool], str]:
    """The case of a tracker: a pre-training with its copy."""

    def case(place: Place, folder: Path, there: bool) -> str:
        words = [*place.pretrain(folder / "run"), "--arch", "resnet18", "--track", name]
        if not there:
            return refused(name, words)
        told = works(words, folder / "run" / "metrics.json", WANDB_MODE="offline")
        if "takes no more of this run" in told:
            raise Failed(told)
        before = {path.name for path in place.backbone.iterdir()}
        new = sorted({path.name for path in (folder / "run").iterdir()} - before)
        if not new:
            raise Failed(f"the run has nothing that {name} reads\n{told}")
        return f"the run has {', '.join(new)}"

    return case


CASES: dict[str, Callable[[Place, Path, bool], str]] = {
    "dicom": _dicom, "hdf5": _hdf5, "timm": _timm, "hub": _hub, "onnx": _onnx, "imagenet": _imagenet, "slurm": _slurm, "ray": _ray,
    "umap": _umap, "tensorboard": _tracker("tensorboard"), "mlflow": _tracker("mlflow"), "wandb": _tracker("wandb"),
    "excel": _excel, "serve": _serve,
}  # fmt: skip


def wanted() -> dict[str, list[str]]:
    """Names of the packages of each extra that users may ask for, from the wheel that is installed."""
    told = importlib.metadata.metadata("twinray").get_all("Provides-Extra") or []
    needs: dict[str, list[str]] = {name: [] for name in told if name not in NOT_FOR_USERS}
    for line in importlib.metadata.requires("twinray") or []:
        found = re.match(r"""([\w.-]+)[^;]*;.*\bextra\s*==\s*["']([\w-]+)["']""", line)
        if found and found[2] in needs:
            needs[found[2]].append(found[1])
    return needs


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _write_dicom(path: Path, patient: str) -> None:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import DigitalXRayImageStorageForPresentation, JPEGLSLossless, generate_uid

    path.parent.mkdir(parents=True, exist_ok=True)
    one = Dataset()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = JPEGLSLossless
    one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation  # fmt: skip
    one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    one.StudyInstanceUID, one.SeriesInstanceUID = generate_uid(), generate_uid()
    one.PatientID, one.PatientName, one.PatientBirthDate, one.PatientSex = patient, "Made^Up", "", ""  # fmt: skip
    one.StudyDate, one.StudyTime, one.AccessionNumber, one.StudyID = "20200101", "000000", "", "1"
    one.ReferringPhysicianName, one.Manufacturer, one.SeriesNumber, one.InstanceNumber = "", "", 1, 1  # fmt: skip
    one.Modality, one.Rows, one.Columns, one.SamplesPerPixel = "DX", 64, 64, 1
    one.PhotometricInterpretation, one.BitsAllocated, one.BitsStored = "MONOCHROME2", 16, 12
    one.HighBit, one.PixelRepresentation = 11, 0
    one.PixelData = encapsulate([JPEG_LS])
    one["PixelData"].is_undefined_length = True
    one.save_as(path, enforce_file_format=True)


def _module(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(words: Sequence[str]) -> int:
    """Print a line for each extra; exit status 1 where one is not as it must be."""
    if not words:
        print(__doc__, file=sys.stderr)
        return 2
    needs = wanted()
    asked = [*words[1:]] or list(needs)
    if unknown := sorted((set(needs) | set(asked)) - (set(CASES) & set(needs))):
        print(f"no case, or no extra, of these names: {', '.join(unknown)}", file=sys.stderr)
        return 2
    place = Place(Path(words[0]))
    place.prepare()
    bad = 0
    for extra in asked:
        there = all(map(_installed, needs[extra]))
        folder = place.folder / "cases" / extra
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            told = CASES[extra](place, folder, there)
        except (Failed, subprocess.TimeoutExpired) as error:
            bad += 1
            told = f"FAILED: {error}"
        print(f"{extra}, {'there' if there else 'missing'}: {told}", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
