"""An installation without extras: whatever needs one says in one line which to install."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from support import script_module

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = {
    name: wants
    for name, wants in PROJECT["optional-dependencies"].items()
    if name not in ("dev", "docs")  # needed by no verb
}

# A bare process in which modules that only extras bring cannot be found. Each case is what a user
# would do, as near to the place that needs the extra as a few lines get.
PROBE = r"""
import importlib.metadata as installed, json, sys
from importlib.machinery import PathFinder
from pathlib import Path

extras, folder = json.loads(sys.argv[1]), Path(sys.argv[2])
known = lambda name: name.lower().replace("_", "-").replace(".", "-")
gone = {
    module
    for module, owners in installed.packages_distributions().items()
    if {known(owner) for owner in owners} & {known(one) for one in extras}
}

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in gone else PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Without

import twinray
from twinray import cli
from twinray.errors import TwinrayError

def dicom():
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import DigitalXRayImageStorageForPresentation, JPEGLSLossless
    from twinray.data.decoding.dicom.pixels import load_dicom
    one = Dataset()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = JPEGLSLossless
    one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    one.Modality, one.Rows, one.Columns, one.SamplesPerPixel = "DX", 8, 8, 1
    one.PhotometricInterpretation, one.BitsAllocated, one.BitsStored = "MONOCHROME2", 16, 12
    one.HighBit, one.PixelRepresentation = 11, 0
    one.PixelData = encapsulate([b"\xff\xd8\xff\xf7" + b"0" * 40])
    one["PixelData"].is_undefined_length = True
    one.save_as(folder / "one.dcm", enforce_file_format=True)
    load_dicom(folder / "one.dcm")

def hdf5():
    from twinray.data.readers.medimeta import _sources
    (folder / "images.hdf5").write_bytes(b"\x89HDF\r\n\x1a\n")
    _sources(folder, {0: "train"}, [])

def timm():
    from twinray.backbones.build import build_backbone
    build_backbone("timm/resnet10t")

def hub():
    twinray.load("owner/name")

def onnx():
    from twinray.exporting.to_onnx import write
    write(None, folder)

def imagenet():
    from twinray.backbones.weights import settled_arch
    settled_arch("", "efficientnet-lite0")

def slurm():
    from twinray.studies.runner.slurm import run_slurm
    run_slurm(None, None, lambda: None)

def ray():
    from twinray.studies.runner.ray_engine import run_ray
    run_ray(None, 1, 1, lambda: None)

def umap():
    from twinray.explanation.embedding import check_map
    check_map("umap")

def tracker(name):
    from twinray.training.trackers import check_trackers
    return lambda: check_trackers((name,), False)

def excel():
    from twinray.report.jafroc_file import write_jafroc
    write_jafroc(None, folder / "table.xlsx")

def serve():
    twinray.serve(twinray.ServeConfig(runs=(), store=str(folder / "store")))

cases = {f.__name__: f for f in (dicom, hdf5, timm, hub, onnx, imagenet, slurm, ray, umap, excel, serve)}
cases |= {name: tracker(name) for name in ("tensorboard", "mlflow", "wandb")}
said = {}
for name, case in cases.items():
    try:
        case()
        said[name] = "nothing"
    except TwinrayError as error:
        said[name] = str(error)
    except Exception as error:
        said[name] = repr(error)
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What a process without extras says, by the extra that it lacks."""

    def names(wants):
        return {re.match(r"[\w.-]+", one)[0] for one in wants}

    only = set().union(*map(names, EXTRAS.values())) - names(PROJECT["dependencies"])
    words = [sys.executable, "-c", PROBE, json.dumps(sorted(only)), tmp_path_factory.mktemp("bare")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("extra", EXTRAS)
def test_a_missing_extra_is_named_in_one_line(said, extra):
    assert f"pip install 'twinray[{extra}]'" in said[extra]
    assert "\n" not in said[extra]


def test_the_script_of_the_matrix_tries_every_extra():
    script = script_module(ROOT / "scripts" / "try_extras.py")
    assert set(script.CASES) == set(EXTRAS)


def test_the_page_on_installing_names_every_extra():
    page = (ROOT / "docs" / "install.md").read_text("utf-8")
    named = set(re.findall(r"`(\w+)`", "\n".join(re.findall(r"^\| (`.*?) \|", page, re.MULTILINE))))
    assert named == set(PROJECT["optional-dependencies"])


def test_the_version_stands_in_one_place():
    version = PROJECT["version"]
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"\nversion: {version}\n" in citation
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    wheels = {
        one
        for page in pages
        for one in re.findall(r"twinray-([\d.]+)-py3", page.read_text("utf-8"))
    }
    assert wheels <= {version}
