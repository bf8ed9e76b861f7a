"""Phantom: procedural frontal chest images, the data that is always there. SYNTHETIC; nothing clinical follows from it.

Data sheet
    What. Grey images that resemble frontal chest radiographs, with four kinds of lesion, their true boxes, patients
    with several images, and scanners that differ. Made for demonstrations, tests and for learning the tools. It says nothing about any disease, device or person; a model trained on it is of no use on patients.
    Generative model. A patient is drawn once: lungs, heart, ribs, clavicles, spine, vessels, body (``anatomy``), and
    lesions: a patient has each kind with the probability in ``PREVALENCE``. An image draws a pose,
    a depth of breath, a scanner, an exposure, wires. It also draws which of the patient's lesions are
    there (each with 0.9), and how large and dense they are now. Densities add up; scatter,
    exposure, the scanner's curve, blur, noise, a collimated border and a side marker make the
    picture.
    Spread. How far poses, bodies, exposures and noise differ was set by statistics of grey levels, spectra and
    components of NIH ChestX-ray14 (``benchmarks/phantom_statistics.py``, table in docs/benchmarks.md).
    Boxes. Tight round the pixels where a lesion has at least 40 % of its own full density, thin tails left out; "cardiomegaly" bounds the
    enlarged heart. Lesions smaller than 3 % of the image's side, mostly hidden ones, are neither drawn nor labelled.
    Labels. Over ``CLASSES``, 1 where the image has such a box, else 0. About half of the images have none.
    Splits. None given: cut them by patient. Images of unlabelled patients (``labelled`` < 1) have neither labels nor boxes.
    Randomness. Image i depends on the seed, i and the configuration's other fields but ``images``
    only. It can therefore be made alone, in any order, in any process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import overload

import numpy as np
import numpy.typing as npt

from twinray.data.phantom import anatomy
from twinray.data.phantom.anatomy import CARDIOMEGALY, Chest, Field, Lesion, Pose
from twinray.errors import InputError
from twinray.records import Boxes, Collection, Pixels, Sample

CLASSES: tuple[str, ...] = ("opacity", "nodule", "effusion", "cardiomegaly")
PREVALENCE: tuple[float, ...] = (0.20, 0.20, 0.16, 0.16)
_BLOCK = 16  # images whose patients are drawn together
_SMALLEST = 0.03
# Each kind of draw has its own stream, so that one more draw in one place changes nothing elsewhere.
_PATIENTS, _CHEST, _IMAGE, _LESIONS, _SCANNER, _NOISE = range(6)
_LABELLED = 7  # a number is never given to another kind, nor given twice
_DEVICES = 8


@dataclass(frozen=True, slots=True)
class PhantomConfig:
    """What to draw.

    Attributes:
        images: number of images.
        size: width and height in pixels, at least 32.
        seed: seed of everything.
        images_per_patient: mean number of images of a patient, 1 to 16.
        scanners: number of scanners, each with its own curve, blur, noise and border.
        labelled: share of patients whose images carry labels and boxes, 0 to 1.
    """

    images: int = 1000
    size: int = 256
    seed: int = 0
    images_per_patient: float = 2.0
    scanners: int = 4
    labelled: float = 1.0

    def __post_init__(self) -> None:
        limits = {
            "images": (0, 10**8),
            "size": (32, 4096),
            "seed": (0, 2**63),
            "images_per_patient": (1, _BLOCK),
        }
        for name, (low, high) in (limits | {"scanners": (1, 1000), "labelled": (0, 1)}).items():
            if not low <= getattr(self, name) <= high:
                raise InputError(
                    f"phantom: expected {name} from {low} to {high}, got {getattr(self, name)}"
                )


@dataclass(frozen=True, slots=True)
class _Scanner:
    name: str
    gamma: float
    window: tuple[float, float]
    blur: float
    noise: float
    scatter: float
    border: float
    border_value: float
    marker: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Scene:
    """Everything about one image but its pixels."""

    patient: str
    chest: Chest
    pose: Pose
    lesions: tuple[Lesion, ...]
    scanner: _Scanner


@dataclass(frozen=True, slots=True, eq=False)
class _Drawn:
    """A lesion as this image shows it: what it adds in a window, and its box."""

    lesion: Lesion
    rows: slice
    columns: slice
    shape: Field
    box: tuple[float, float, float, float]


def phantom_collection(config: PhantomConfig) -> Collection:
    """The phantom as a collection; a sample is described when it is asked for, its pixels are drawn by ``load``."""
    return Collection(
        name="phantom",
        label_classes=CLASSES,
        box_classes=CLASSES,
        task="multilabel",
        samples=PhantomSamples(config),
        load=partial(load, config),
        notes=("synthetic images: for demonstrations and tests, of no clinical meaning",),
    )


@dataclass(frozen=True, slots=True)
class PhantomSamples(Sequence[Sample]):
    """The samples of a configuration, described on demand."""

    config: PhantomConfig

    def __len__(self) -> int:
        return self.config.images

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | Sequence[Sample]:
        """Describe one image, or several."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return describe(self.config, index % len(self))


def describe(config: PhantomConfig, i: int) -> Sample:
    """Image i's patient, scanner, labels and true boxes, without drawing it."""
    scene = _scene(config, i)
    labelled = _rng(config, _LABELLED, int(scene.patient[1:])).random() < config.labelled
    boxes = true_boxes(config, i) if labelled else None
    labels = (
        None if boxes is None else np.isin(np.arange(len(CLASSES)), boxes.labels).astype(np.float32)
    )
    return Sample(
        id=f"phantom-{config.seed}-{i:06d}",
        source=f"phantom#{i}",
        patient=f"{config.seed}-{scene.patient}",  # patients of two seeds are different people
        labels=labels,
        boxes=boxes,
        size=(config.size, config.size),
        attributes={"scanner": scene.scanner.name},
    )


def load(config: PhantomConfig, sample: Sample) -> Pixels:
    """Draw the image that a sample describes.

    Raises:
        InputError: the sample is none of this configuration's.
    """
    number = sample.source.removeprefix("phantom#")
    if number == sample.source or not number.isdecimal() or int(number) >= config.images:
        raise InputError(
            f"{sample.source}: expected a sample of a phantom of {config.images} images; load it from its own collection"
        )
    return Pixels(render(config, int(number)), "phantom 8-bit grey")


def true_boxes(config: PhantomConfig, i: int) -> Boxes:
    """The boxes of what image i shows, sorted by class."""
    drawn = _drawn(config, _scene(config, i))
    if not drawn:
        return Boxes.empty()
    return Boxes(
        np.array([d.box for d in drawn]), np.array([d.lesion.label for d in drawn], dtype=np.int64)
    )


def render(config: PhantomConfig, i: int, lesions: bool = True) -> npt.NDArray[np.uint8]:
    """Draw image i: (size, size) uint8; ``lesions=False`` draws the same image of the patient in health."""
    size = config.size
    scene = _scene(config, i)
    seen = anatomy.view(scene.chest, scene.pose, size)
    density = anatomy.healthy(seen)
    factor = 1.0
    for d in _drawn(config, scene) if lesions else ():
        if d.lesion.label == CARDIOMEGALY:
            factor = d.lesion.radii[0]
        else:
            density[d.rows, d.columns] += np.float32(d.lesion.density) * d.shape
    density += anatomy.heart(seen, factor)[0]
    density += anatomy.wires(size, _rng(config, _DEVICES, i))
    return _expose(density, scene.scanner, _rng(config, _NOISE, i))


def _rng(config: PhantomConfig, stream: int, *numbers: int) -> np.random.Generator:
    return np.random.default_rng([config.seed, stream, *numbers])


def _first_of_patient(config: PhantomConfig, i: int) -> int:
    """The number of the first image of image i's patient; patients are runs of images within a block."""
    start = i - i % _BLOCK
    change = (_BLOCK / config.images_per_patient - 1) / (_BLOCK - 1)
    new = _rng(config, _PATIENTS, start).random(_BLOCK) < change
    new[0] = True
    return start + int(np.flatnonzero(new[: i - start + 1])[-1])


@lru_cache(maxsize=256)
def _patient(seed: int, first: int) -> tuple[Chest, tuple[Lesion, ...]]:
    rng = np.random.default_rng([seed, _CHEST, first])
    chest = anatomy.draw_chest(rng)
    return chest, anatomy.draw_lesions(chest, rng, PREVALENCE)


def _scene(config: PhantomConfig, i: int) -> _Scene:
    first = _first_of_patient(config, i)
    chest, stable = _patient(config.seed, first)
    rng = _rng(config, _IMAGE, i)
    pose = Pose(
        shift=(rng.normal(0, 0.05), rng.normal(0.02, 0.06)),
        scale=float(np.clip(rng.normal(1.0, 0.075), 0.82, 1.2)),
        angle=rng.normal(0, 0.04),
        breath=rng.normal(0, 0.04),
        stretch=float(np.exp(np.clip(rng.normal(0, 0.05), -0.12, 0.12))),
    )
    scanner = _scanner(config.seed, int(rng.integers(config.scanners)))
    low, high = scanner.window
    exposure, contrast = rng.normal(0, 0.05), float(np.exp(rng.normal(0, 0.1)))
    centre, half = (low + high) / 2 + exposure, (high - low) / 2 * contrast
    scanner = replace(
        scanner,
        window=(centre - half, centre + half),
        gamma=scanner.gamma * float(np.exp(rng.normal(0, 0.15))),
        noise=scanner.noise * rng.uniform(0.7, 1.4),
        border=scanner.border * float(rng.random() < 0.3),
        marker=scanner.marker and bool(rng.random() < 0.7),
    )
    change = _rng(config, _LESIONS, i)
    lesions = []
    for lesion in stable:
        there, growth, denser = (
            change.random() < 0.9,
            change.uniform(0.87, 1.15),
            change.uniform(0.85, 1.15),
        )
        if not there:
            continue
        if lesion.label in (anatomy.OPACITY, anatomy.NODULE):
            lesion = replace(lesion, radii=(lesion.radii[0] * growth, lesion.radii[1] * growth))
        lesions.append(replace(lesion, density=lesion.density * denser))
    return _Scene(f"P{first:06d}", chest, pose, tuple(lesions), scanner)


def _drawn(config: PhantomConfig, scene: _Scene) -> list[_Drawn]:
    """The lesions that the image shows, each with its tight box; too small or hidden ones are dropped."""
    drawn = []
    for lesion in scene.lesions:
        rows, columns = anatomy.lesion_window(scene.chest, scene.pose, config.size, lesion)
        if rows.start >= rows.stop or columns.start >= columns.stop:
            continue
        seen = anatomy.view(scene.chest, scene.pose, config.size, rows, columns)
        if lesion.label == CARDIOMEGALY:
            shape = anatomy.heart(seen, lesion.radii[0])[1]
        else:
            shape = anatomy.lesion_shape(seen, lesion)
        box = anatomy.bounds(shape, rows, columns)
        if box and min(box[2] - box[0], box[3] - box[1]) >= _SMALLEST * config.size:
            drawn.append(_Drawn(lesion, rows, columns, shape, box))
    return drawn


@lru_cache(maxsize=1000)
def _scanner(seed: int, number: int) -> _Scanner:
    rng = np.random.default_rng([seed, _SCANNER, number])
    low = rng.uniform(0.0, 0.22)
    border = rng.choice([0.0, rng.uniform(0.02, 0.08)])
    return _Scanner(
        name=f"S{number + 1}",
        gamma=rng.uniform(0.6, 1.0),
        window=(low, low + rng.uniform(1.15, 1.5)),
        blur=rng.uniform(0.0015, 0.004),
        noise=rng.uniform(0.0007, 0.003),
        scatter=rng.uniform(0.05, 0.25),
        border=float(border),
        border_value=float(rng.choice([0.0, 0.0, 0.9])),
        marker=bool(rng.random() < 0.6),
    )


@lru_cache(maxsize=64)
def _blur(size: int, sigma: float) -> Field:
    """(size, size) matrix that blurs a column by ``sigma`` pixels, edges repeated."""
    away = np.arange(size)[:, None] - np.arange(-size, 2 * size)
    kernel = np.exp(-0.5 * (away / sigma) ** 2)
    kernel[:, size] += kernel[:, :size].sum(axis=1)
    kernel[:, 2 * size - 1] += kernel[:, 2 * size :].sum(axis=1)
    kernel = kernel[:, size : 2 * size]
    matrix: Field = (kernel / kernel.sum(axis=1, keepdims=True)).astype(np.float32)
    return matrix


def _expose(density: Field, scanner: _Scanner, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Density -> what the scanner shows, (size, size) uint8."""
    size = len(density)
    wide = _blur(size, 0.12 * size)
    haze = wide @ density @ wide.T
    density = density + np.float32(scanner.scatter) * (haze - density)
    low, high = scanner.window
    # Little radiation gets through dense parts, where noise is therefore strongest.
    noise = rng.standard_normal(density.shape, dtype=np.float32) * np.float32(scanner.noise)
    density = density + noise * (0.5 + np.clip(density, 0, 1.5))
    sharp = _blur(size, max(scanner.blur * size, 0.3))
    shown = np.clip((sharp @ density @ sharp.T - np.float32(low)) / np.float32(high - low), 0, 1)
    shown = shown ** np.float32(scanner.gamma)
    shown += rng.standard_normal(density.shape, dtype=np.float32) * np.float32(0.3 * scanner.noise)
    if scanner.marker:
        side, top = max(size // 40, 2), int(size * rng.uniform(0.03, 0.15))
        left = int(size * rng.choice([rng.uniform(0.02, 0.12), rng.uniform(0.84, 0.94)]))
        shown[top : top + 2 * side, left : left + max(side // 2, 1)] = 0.95
        shown[top : top + max(side // 2, 1), left : left + side] = 0.95
    edges = (scanner.border * size * rng.uniform(0, 2, 4)).astype(int)
    for number, edge in enumerate(edges.tolist()):
        if edge:
            np.rot90(shown, number)[:edge] = scanner.border_value
    return (np.clip(shown, 0, 1) * 255 + 0.5).astype(np.uint8)
