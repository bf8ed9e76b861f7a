"""Options of ``twinray explain`` and ``twinray faithfulness``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from twinray.checks import (
    DATA,
    DEVICE,
    GIVEN,
    HIDDEN,
    MODEL,
    PLACE,
    RECORD,
    RISING,
    SEED,
    SPEED,
    above,
    at_least,
    between,
    goes_with,
    no_repeat,
    not_with,
    one_of,
    settle,
    zero_or,
)
from twinray.inference.methods import Method
from twinray.records import SPLITS

_FORMER = (HIDDEN, goes_with(faithfulness=GIVEN))


@dataclass(frozen=True)
class ExplainConfig:
    """Draw, for each predicted box, the image, the box, the true boxes where known, and a heat map of its evidence."""

    run: Annotated[Path, DATA]
    """Folder of a finished detect or classify run."""
    images: Annotated[tuple[str, ...], DATA] = ()
    """Image files and folders of them; with --data, ids of the pack's images (none: the first --count images with boxes of --split)."""
    out: Annotated[Path, PLACE] = Path("explanations")
    """New folder for the pictures."""
    data: Annotated[Path | None, DATA] = None
    """A pack to take images and true boxes from."""
    truth: Annotated[Path | None, DATA, not_with("data", ": a pack has its own true boxes")] = None
    """A COCO file with the true boxes of the image files, found by file name."""
    split: Annotated[str, MODEL, one_of(*SPLITS)] = "test"
    """Split of --data to choose images from."""
    count: Annotated[int | None, MODEL, at_least(1)] = None
    """Number of images of --data to choose; 4 unless given."""
    boxes: Annotated[int, MODEL, at_least(1)] = 3
    """Most boxes an image, best first; of a classifier, most classes."""
    classes: Annotated[tuple[str, ...], MODEL] = ()
    """Of a classifier, the classes to explain; none: those that score best."""
    least_score: Annotated[float, MODEL, between(0, 1)] = 0.05
    """Boxes and classes that score less are not explained, 0..1."""
    method: Annotated[Method | None, MODEL] = None
    """Heat map; unless given, occlusion of a detector's boxes, which was seldom empty and pointed best
    where that was measured (docs/benchmarks.md), and ablation of a classifier's classes. Parts of
    the box itself, of a classifier parts of the image, exact: occlusion. Channels of the pyramid
    level the box pools from, exact: ablation. Channels of the backbone's last stage, exact:
    ablation-last-stage. Gradients: grad-cam, grad-cam++, odam. The map of odam without the
    lattice that pooling leaves: odam-smoothed. Activations alone, centred: eigen-cam. Activations
    alone, not centred: eigen-cam-uncentred. Ablation as the grad-cam package does it, minutes an
    image: ablation-rerun."""
    versus: Annotated[tuple[Path, ...], DATA] = ()
    """Further runs of the same kind: one sheet with a row an image and a column a run, in place of one picture a box."""
    faithfulness: Annotated[bool, MODEL, HIDDEN] = False
    """The verb faithfulness in place of drawing, as before it was one; this flag and the six options after it go with the next version."""
    methods: Annotated[tuple[Method, ...], MODEL, no_repeat("methods", "odam"), *_FORMER] = ()
    """See the verb faithfulness."""
    iou: Annotated[float, MODEL, above(0, up_to=1), *_FORMER] = 0.5
    """See the verb faithfulness."""
    curve_points: Annotated[int, MODEL, zero_or(at_least(2)), *_FORMER] = 12
    """See the verb faithfulness."""
    bootstrap: Annotated[int, RECORD, at_least(0), *_FORMER] = 1000
    """See the verb faithfulness."""
    seed: Annotated[int, SEED, at_least(0), *_FORMER] = 0
    """See the verb faithfulness."""
    batch_size: Annotated[int, SPEED, at_least(1), *_FORMER] = 16
    """See the verb faithfulness."""
    depth: Annotated[int | None, MODEL, between(8, 16, unit="bits")] = None
    """Bits of the detector, of files of more than 8 bits (default: as in the model's pack; files are refused where that had none)."""
    value_range: Annotated[tuple[float, float] | None, MODEL, RISING, not_with("depth")] = None
    """Stored values that become black and white, in place of --depth."""
    workers: Annotated[int, SPEED, at_least(0)] = 1
    """Processes that decode image files."""
    timeout: Annotated[float, SPEED, above(0, "seconds")] = 60.0
    """Longest that decoding one file may take, seconds."""
    memory: Annotated[int, SPEED, at_least(1, "MiB")] = 2048
    """Most memory that decoding one file may take, MiB."""
    device: Annotated[str, PLACE, DEVICE] = "auto"
    """auto, cpu, cuda or cuda:N."""
    pseudonymise: Annotated[
        Path | None, DATA, not_with("data", ": a pack is pseudonymised when it is packed")
    ] = None
    """File that holds a secret key. Files are named by their keyed hashes, as pack and predict do it."""
    pseudonyms: Annotated[Path | None, PLACE, goes_with(pseudonymise=GIVEN)] = None
    """New CSV file that leads from pseudonyms back to names, for the key's holder alone: outside --out."""
    resume: Annotated[bool, RECORD] = False
    """Go on with pictures that were cut off, by the same options and of the same images; contact sheets of --versus begin again."""
    overwrite: Annotated[bool, RECORD, not_with("resume")] = False
    """Begin again in a folder that explain wrote, and remove what is in it; a folder that holds anything else is left as it is."""
    allow_edited: Annotated[bool, RECORD] = False
    """Go on where a file of the run or of the pack is not the one that was written; a note says so."""

    def __post_init__(self) -> None:
        settle(self)


@dataclass(frozen=True)
class FaithfulnessConfig:
    """Measure whether heat maps point at the finding: of all correctly found boxes, or of all classes with true boxes."""

    run: Annotated[Path, DATA]
    """Folder of a finished detect or classify run."""
    data: Annotated[Path, DATA]
    """A pack with true boxes."""
    images: Annotated[tuple[str, ...], DATA] = ()
    """Ids of the pack's images; none: all images with boxes of --split."""
    out: Annotated[Path, PLACE] = Path("faithfulness")
    """New folder for figures, tables and a chart."""
    split: Annotated[str, MODEL, one_of(*SPLITS)] = "test"
    """Split to measure on."""
    count: Annotated[int | None, MODEL, at_least(1)] = None
    """Most images to measure on; all unless given."""
    least_score: Annotated[float, MODEL, between(0, 1)] = 0.05
    """Boxes of a detector that score less are left out, 0..1."""
    methods: Annotated[tuple[Method, ...], MODEL, no_repeat("methods", "odam")] = ()
    """Heat maps to compare, as explain --method names them; none given: all of the kind of run but ablation-rerun and eigen-cam-uncentred."""
    iou: Annotated[float, MODEL, above(0, up_to=1)] = 0.5
    """A box of a detector is found correctly if it hits a true box of its class at this IoU, 0..1."""
    curve_points: Annotated[int, MODEL, zero_or(at_least(2))] = 12
    """Points of the deletion and insertion curves; each costs two passes of the network a map of a box. 0: no curves."""
    bootstrap: Annotated[int, RECORD, at_least(0)] = 1000
    """Resamples of patients for the intervals; 0 for none."""
    seed: Annotated[int, SEED, at_least(0)] = 0
    """Seed of the resamples and of the order of equal pixels."""
    batch_size: Annotated[int, SPEED, at_least(1)] = 16
    """Versions of an image at once."""
    device: Annotated[str, PLACE, DEVICE] = "auto"
    """auto, cpu, cuda or cuda:N."""
    resume: Annotated[bool, RECORD] = False
    """Go on with measurements that were cut off, by the same options and of the same images."""
    overwrite: Annotated[bool, RECORD, not_with("resume")] = False
    """Begin again in a folder that faithfulness wrote, and remove what is in it; a folder that holds anything else is left as it is."""
    allow_edited: Annotated[bool, RECORD] = False
    """Go on where a file of the run or of the pack is not the one that was written; a note says so."""

    def __post_init__(self) -> None:
        settle(self)
