"""Options of ``twinray export``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from twinray.checks import DATA, GIVEN, MODEL, PLACE, RECORD, at_least, goes_with, settle

Target = Literal["torchvision", "timm", "mmdet", "onnx", "hub"]


@dataclass(frozen=True)
class ExportConfig:
    """A finished run's weights for another tool, checked on real images through that tool's own loader.

    Nothing is written unless the other tool gives what the run gives; README.md in the folder says how far they agree.
    """

    run: Annotated[Path, DATA]
    """Folder of a finished pretrain, classify or detect run."""
    to: Annotated[Target, MODEL]
    """Tool that is to load the weights."""
    out: Annotated[Path, PLACE]
    """New folder for the weights, what loads them, and README.md, the model card."""
    images: Annotated[tuple[Path, ...], DATA] = ()
    """Image files and folders for the check; default images of the run's own packs, test images first."""
    parity_images: Annotated[int, MODEL, at_least(1, "images")] = 32
    """Images that the check looks at, at most."""
    foreign_python: Annotated[Path | None, PLACE, goes_with(to="mmdet")] = None
    """Python of an environment that has MMDetection 3 (onedl-mmdetection), for the check of --to mmdet; default this one."""
    membership: Annotated[Literal["auto", "on", "off"], MODEL] = "auto"
    """Try whether images that the run learned from can be told from those of left-out patients of its pack, and say so on the card;
    auto: with --to hub, where the pack is there."""
    membership_images: Annotated[int, MODEL, at_least(8, "images")] = 200
    """Images of each side, at most, for --membership."""
    commercial: Annotated[bool, MODEL] = False
    """Refuse weights that were made from some whose licence forbids commercial use, or is unknown; terms of images are told, not decided."""
    license: Annotated[str, MODEL] = ""
    """Licence that you give the weights, as the hub writes it (apache-2.0, cc-by-nc-4.0); without it the card says that none is stated."""
    key: Annotated[Path | None, DATA] = None
    """File of the secret under which seen.json of --to hub hides ids and patients; default that of TWINRAY_KEY, else your own, as pack
    has it. Its holder can ask whose images the weights saw, nobody else."""
    push: Annotated[str, PLACE, goes_with(to="hub")] = ""
    """Repository of Hugging Face's hub, owner/name, to upload the folder to (extra hub; log in with its own client)."""
    private: Annotated[bool, PLACE, goes_with(push=GIVEN)] = False
    """A repository that --push makes is seen by its owner alone."""
    overwrite: Annotated[bool, RECORD] = False
    """Begin again in a folder that export wrote, and remove what is in it; a folder that holds anything else is left as it is."""
    allow_edited: Annotated[bool, RECORD] = False
    """Go on where a file of the run is not the one that it wrote; the card says so."""

    def __post_init__(self) -> None:
        settle(self)
