"""Published tables beside a study's own figures: which of its figures stand where, and what differs, read from the runs' records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twinray.data.pack import Pack
from twinray.report.published import ASPECTS, TABLES, PrintedTable
from twinray.report.study_result import Differs, Published, PublishedValue
from twinray.runs.folder import read_config, read_metrics
from twinray.studies.plan.nodes import Cell, Plan
from twinray.studies.results.state import Piece, StudyState

_TRAINING = ("protocol", "optimizer", "lr", "lr_head", "lr_backbone", "batch_size", "epochs")
_NETWORK = ("detector", "arch", "policy", "trainable_stages", "norm")


def published(
    state: StudyState,
    pieces: Mapping[Any, Sequence[tuple[Cell, Piece]]],
    packs: Mapping[Any, Pack | None],
    names: Mapping[Any, str],
) -> tuple[Published, ...]:
    """The tables that the study's file asks for, one for each task that stands beside one.

    Args:
        state: the study.
        pieces, packs, names: task's key -> its runs, its pack, and its name in the report.
    """
    found = []
    for asked in state.plan.published:
        table = TABLES.get(str(asked["table"]))
        if table is None:  # of an older plan
            continue
        for key, own in pieces.items():
            cell = own[0][0]
            if cell.task != asked["task"] or not _fits(asked, cell):
                continue
            arms: Mapping[str, str] = asked["arms"]
            size = int(asked["size"]) or cell.size
            rows = tuple(
                PublishedValue(
                    value.arm,
                    " ".join(
                        part
                        for part in (
                            f"{100 * value.share:g} % of labels" if value.share != 1 else "all labels",
                            f"{value.size} px" if value.size else "",
                        )
                        if part
                    ),
                    value.printed,
                    names[key],
                    arms.get(value.arm, ""),
                    value.share,
                    table.measure,
                    factor=table.factor,
                )
                for value in table.values
                if not value.size or not size or value.size == size
            )  # fmt: skip
            found.append(
                Published(
                    f"{table.title}. Published: {table.source}",
                    table.unit,
                    rows,
                    _differs(table, own, packs[key], state.plan),
                    tuple(asked["differs"]),
                )
            )
    return tuple(found)


def _fits(asked: Mapping[str, Any], cell: Cell) -> bool:
    return asked["policy"] in ("", cell.policy) and (not asked["size"] or asked["size"] == cell.size)  # fmt: skip


def _differs(
    table: PrintedTable, own: Sequence[tuple[Cell, Piece]], pack: Pack | None, plan: Plan
) -> tuple[Differs, ...]:
    ours = _ours(own, pack, plan)
    return tuple(
        Differs(aspect, table.facts.get(aspect, "not stated"), ours.get(aspect, "not recorded"))
        for aspect in ASPECTS
        if aspect in table.facts or aspect in ours
    )


def _ours(own: Sequence[tuple[Cell, Piece]], pack: Pack | None, plan: Plan) -> dict[str, str]:
    """What this study did, by aspect, as its runs and its pack recorded it."""
    found: dict[str, str] = {}
    if pack is not None:
        n = pack.info.counts
        found["test images"] = f"{', '.join(pack.info.names)}: {n.get('test', 0):,} images"
        if pack.info.box_classes and own[0][1].node.kind == "detect":
            boxed = sum(len(b) > 0 for row in pack.where("test") if (b := pack.boxes(int(row))) is not None)  # fmt: skip
            found["test images"] += f", {boxed:,} of them with boxes"
        sides = ", ".join(f"{n.get(s, 0):,} {s}" for s in ("train", "val", "test"))
        found["split"] = f"{pack.info.split_method}; {sides}"
    done = [piece for _, piece in own if piece.state == "done"]
    if done:
        config, metrics = read_config(done[0].folder), read_metrics(done[0].folder)
        found["network"] = _listed(config, _NETWORK)
        found["training"] = _listed(config, _TRAINING)
        selected = metrics.get("selected_on")
        if isinstance(selected, str):
            found["epoch that is tested"] = f"best {selected}"
        counts = [read_metrics(piece.folder).get("training_images") for piece in done]
        flat = [n for one in counts for n in (one if isinstance(one, list) else [one]) if isinstance(n, int)]  # fmt: skip
        if flat:
            few, most = min(flat), max(flat)
            found["training images"] = f"{most:,}" if few == most else f"{few:,} to {most:,}"
    pretrainings = _pretrainings(own, plan)
    if pretrainings:
        found["pre-training"] = pretrainings
    seeds, folds = {cell.seed for cell, _ in own}, {cell.fold for cell, _ in own} - {None}
    found["seeds"] = f"{len(seeds)}" + (f", over {len(folds)} folds" if len(folds) > 1 else "")
    over = "over patients, and over seeds" if len(seeds) > 1 else "over patients"
    found["interval"] = f"95 %, {over}"
    return found


def _pretrainings(own: Sequence[tuple[Cell, Piece]], plan: Plan) -> str:
    nodes = plan.by_id()
    told: dict[str, None] = {}
    for _, piece in own:
        for read in piece.node.reads:
            made = nodes.get(read.node) if read.option == "init" else None
            if made is not None and made.kind == "pretrain":
                name = made.name.removeprefix("pre-training ").partition(", seed ")[0]
                packs = [nodes[r.node].name.removeprefix("pack ") if r.node else r.path for r in made.reads if r.option == "data"]  # fmt: skip
                start = next((r.path or "a pre-training" for r in made.reads if r.option == "init"), "random")  # fmt: skip
                epochs = made.options.get("epochs")
                length = "" if epochs is None else f", {epochs} epochs"
                told[f"{name}: on {', '.join(packs)}, from {start}{length}"] = None
    return "; ".join(told)


def _listed(config: Mapping[str, Any], names: Sequence[str]) -> str:
    parts = [f"{name} {value}" for name in names if (value := config.get(name)) not in (None, "", [])]  # fmt: skip
    return ", ".join(parts)
