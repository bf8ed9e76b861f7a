"""Options of ``twinray embed``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from twinray.checks import (
    DATA,
    DEVICE,
    GIVEN,
    MODEL,
    PLACE,
    RECORD,
    SEED,
    SPEED,
    START,
    at_least,
    goes_with,
    no_repeat,
    one_of,
    settle,
    zero_or,
)
from twinray.explanation.embedding import MapName
from twinray.records import SPLITS


@dataclass(frozen=True)
class EmbedConfig:
    """Features of a pack's images: a file of them, maps in two dimensions and nearest neighbours.

    The figures show what the features tell of labels and of scanner, view, source or sex.
    """

    data: Annotated[Path, DATA]
    """A pack."""
    out: Annotated[Path, PLACE]
    """New folder for features.parquet, maps, page and figures."""
    init: Annotated[str, START] = "random"
    """Weights under test: random, a name that twinray weights lists (imagenet-v2, rad-dino), NAME=FILE
    for a local copy of its file, a run's folder or a weight file."""
    arch: Annotated[str, MODEL] = ""
    """Architecture, as in classify; default that of the weights named by --init."""
    size: Annotated[int, MODEL, zero_or(at_least(32, "pixels"))] = 0
    """Side of the network's input, pixels; default that of the weights named by --init."""
    split: Annotated[str, MODEL, one_of("all", *SPLITS)] = "all"
    """Images to embed: all, train, val or test."""
    most: Annotated[int, MODEL, zero_or(at_least(10))] = 0
    """Most images to embed; of more a choice of patients by --seed, and the number is recorded. 0: all."""
    maps: Annotated[tuple[MapName, ...], MODEL, no_repeat("maps", "pca")] = ("pca", "tsne")
    """Maps to draw: pca, tsne, umap (with the extra umap)."""
    perplexity: Annotated[float, MODEL, at_least(1)] = 30.0
    """Perplexity of t-SNE: about how many neighbours count."""
    by: Annotated[tuple[str, ...], MODEL] = ()
    """Attributes of the pack to colour by and to check: sex, or age:0,40,60 with the lower ends of
    numeric groups. The default, none given, is split, source and all attributes with 2 to 20
    values."""
    query: Annotated[tuple[str, ...], DATA] = ()
    """Image files, or ids of the pack's images, whose nearest neighbours are drawn."""
    neighbours: Annotated[int, MODEL, at_least(1)] = 8
    """Number of neighbours of a --query that are drawn."""
    page_images: Annotated[int, RECORD, at_least(0)] = 3000
    """Most dots of the page, each with its image; of more a seeded choice. 0: no page."""
    folds: Annotated[int, MODEL, at_least(3)] = 5
    """Folds of patients in which a linear layer is fitted on the features."""
    bootstrap: Annotated[int, RECORD, at_least(0)] = 400
    """Resamples of patients for the intervals; 0 for none."""
    seed: Annotated[int, SEED, at_least(0)] = 0
    """Seed of random initial weights, choices, folds and resamples."""
    batch_size: Annotated[int, SPEED, at_least(1)] = 128
    """Images at once; no effect on results."""
    device: Annotated[str, PLACE, DEVICE] = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Annotated[Literal["auto", "float32", "bf16"], SPEED] = "float32"
    """Of the forward pass."""
    workers: Annotated[int, SPEED, at_least(0)] = 0
    """Threads of t-SNE; 0: one a core, of a small pack one."""
    overwrite: Annotated[bool, RECORD] = False
    """Begin again in a folder that embed wrote, and remove what is in it; a folder that holds anything else is left as it is."""
    pseudonymise: Annotated[Path | None, DATA, goes_with(query=GIVEN)] = None
    """File that holds a secret key. Files of --query are named by their keyed hashes, as pack and predict do it."""
    allow_edited: Annotated[bool, RECORD] = False
    """Go on where a file of the pack is not the one that was packed; the figures are marked."""

    def __post_init__(self) -> None:
        settle(self)
