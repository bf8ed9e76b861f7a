"""What records say about each topic that a checklist may ask for. A topic without a record has no fact.

Every function takes the records and gives statements with the pointers that they rest on. Nothing is concluded from what is
not recorded: a missing key gives no statement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from twinray.report.checklists.sources import Pointer, Records, pointer_to


@dataclass(frozen=True, slots=True)
class Fact:
    """A statement and where it comes from."""

    text: str
    sources: tuple[Pointer, ...]


Facts = Iterator[Fact]


def _shown(value: Any) -> str:
    """A value in a few words."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_shown(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value))
    return str(value)


def _keys(records: Records, kind: str, label: str, *paths: tuple[str, ...]) -> Facts:
    """``label: name value, name value`` of the keys that are there and not empty."""
    for file, _ in records.of(kind):
        known = [
            (path, value)
            for path in paths
            if (value := records.get(file, *path)) not in (None, "", [], {})
        ]
        if known:
            text = "; ".join(
                f"{path[-1].replace('_', ' ')} {_shown(value)}" for path, value in known
            )
            yield Fact(f"{label}: {text}", tuple(pointer_to(file, *path) for path, _ in known))


def data_sources(records: Records) -> Facts:
    """Names and hashes of the data."""
    yield from _keys(
        records, "pack.json", "Data", ("names",), ("counts", "images"), ("checksums", "images.npy")
    )


def selection(records: Records) -> Facts:
    """What was set aside, by reason."""
    yield from _keys(records, "pack.json", "Set aside", ("skipped",), ("skipped_reasons",))


def preparation(records: Records) -> Facts:
    """From file to network input."""
    yield from _keys(
        records, "pack.json", "Packed", ("size",), ("channels",), ("fit",), ("extra", "filter")
    )
    yield from _keys(records, "model.json", "Network input", ("size",), ("normalisation",))


def subsets(records: Records) -> Facts:
    """Share of the labels that was used."""
    yield from _keys(records, "config.yaml", "Labels used", ("fraction",), ("seed",))


def missing(records: Records) -> Facts:
    """What became of uncertain and blank labels."""
    yield from _keys(records, "config.yaml", "Labels not certain", ("uncertain",), ("blank",))


def fusion(records: Records) -> Facts:
    """How several readers' boxes became one set."""
    for file, pack in records.of("pack.json"):
        notes = pack.get("notes") if isinstance(pack, Mapping) else None
        for i, note in enumerate(notes or ()):
            if isinstance(note, str) and "box fusion" in note:
                yield Fact(f"Readers: {note}", (pointer_to(file, "notes", str(i)),))


def partitions(records: Records) -> Facts:
    """Sizes, method and prevalence of the splits."""
    yield from _keys(
        records, "splits.json", "Partitions", ("images",), ("method",), ("seed",), ("label_counts",)
    )


def disjoint(records: Records) -> Facts:
    """That no patient is on two sides: only where every patient is known and none was found on several."""
    for file, split in records.of("splits.json"):
        pack = file.removesuffix("splits.json") + "pack.json"
        several = records.get(pack, "extra", "patients_in_several_splits", "patients")
        known = isinstance(split, Mapping) and split.get("patients_known") is True
        if known and several == 0 and not isinstance(several, bool):
            yield Fact(
                "Partitions are disjoint by patient: every image's patient is known, none is in several",
                (
                    pointer_to(file, "patients_known"),
                    pointer_to(pack, "extra", "patients_in_several_splits", "patients"),
                ),
            )


def not_disjoint(records: Records) -> str:
    """Why patient-disjoint partitions are not claimed of some pack; empty where all are shown to be."""
    for file, _ in records.of("pack.json"):
        if file.removesuffix("pack.json") + "splits.json" not in records.files:
            return f"not shown: {file} has no record of its splits beside it"
    for file, split in records.of("splits.json"):
        pack = file.removesuffix("splits.json") + "pack.json"
        several = records.get(pack, "extra", "patients_in_several_splits", "patients")
        if not isinstance(split, Mapping) or split.get("patients_known") is not True:
            return f"not shown: patients are not known for every image ({file} /patients_known)"
        if several != 0:
            return f"not shown: patients are on several sides, or were not looked for ({pack} /extra/patients_in_several_splits)"
    return ""


def flow(records: Records) -> Facts:
    """Numbers in and out."""
    yield from _keys(records, "pack.json", "Images and patients", ("counts",), ("skipped",))


def architecture(records: Records) -> Facts:
    """The network."""
    yield from _keys(records, "model.json", "Model", ("kind",), ("arch",), ("size",), ("classes",))


def software(records: Records) -> Facts:
    """Software, versions and machine."""
    yield from _keys(
        records,
        "environment.json",
        "Made with",
        *((name,) for name in ("twinray", "python", "torch", "torchvision", "platform", "gpu")),
    )


def initial(records: Records) -> Facts:
    """Initial weights."""
    for file, _ in records.of("model.json"):
        asked = records.get(file, "init", "init")
        if isinstance(asked, str) and asked:
            # a file's place on this machine is nobody's business; its name and hash tell which it was
            name = (
                asked.rstrip("/\\").replace("\\", "/").rpartition("/")[2]
                if "/" in asked or "\\" in asked
                else asked
            )
            keys = [("init", "init")]
            text = f"Initial weights: {name}"
            if found := records.get(file, "init", "sha256"):
                keys.append(("init", "sha256"))
                text += f"; sha256 {found}"
            yield Fact(text, tuple(pointer_to(file, *key) for key in keys))


def training(records: Records) -> Facts:
    """Hyper-parameters."""
    names = ("optimizer", "epochs", "batch_size", "lr", "lr_head", "lr_backbone", "weight_decay", "schedule", "precision", "seed")  # fmt: skip
    yield from _keys(records, "config.yaml", "Trained with", *((name,) for name in names))


def model_choice(records: Records) -> Facts:
    """How the final model was picked."""
    yield from _keys(records, "metrics.json", "Kept epoch", ("selected_on",), ("best_epoch",))


def thresholds(records: Records) -> Facts:
    """Where decision thresholds come from."""
    yield from _keys(records, "model.json", "Thresholds", ("thresholds", "chosen_on"))


def imbalance(records: Records) -> Facts:
    """Weights of classes in training."""
    yield from _keys(records, "config.yaml", "Imbalance", ("class_weights",))


def _tested(records: Records) -> Iterator[tuple[str, tuple[str, ...], Mapping[str, Any]]]:
    """File, path and figures of everything that was measured on test images."""
    for file, content in records.of("metrics.json"):
        if not isinstance(content, Mapping):
            continue
        if isinstance(content.get("test"), Mapping):
            yield file, ("test",), content["test"]
        arms = content.get("arms")
        for name, arm in arms.items() if isinstance(arms, Mapping) else ():
            if isinstance(arm, Mapping) and isinstance(arm.get("test"), Mapping):
                yield file, ("arms", str(name), "test"), arm["test"]


def _figures(split: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, figure in split.items():
        if isinstance(figure, Mapping) and isinstance(figure.get("value"), int | float):
            yield str(name), figure


def measures(records: Records) -> Facts:
    """Which measures were taken of test images."""
    for file, path, split in _tested(records):
        names = [name for name, _ in _figures(split)]
        if names:
            yield Fact(f"Measures: {', '.join(names)}", (pointer_to(file, *path),))


def performance(records: Records) -> Facts:
    """The first measure of each model or arm, with its interval."""
    for file, path, split in _tested(records):
        for name, figure in _figures(split):
            ends = figure.get("ci95")
            if isinstance(ends, list) and len(ends) == 2:
                arm = f" of {path[1]}" if path[0] == "arms" else ""
                text = (
                    f"Performance{arm}: {name} {figure['value']:.3f}, 95 % interval {ends[0]:.3f} to {ends[1]:.3f}"
                    + (f" over {figure.get('n')} {figure['over']}" if figure.get("over") else "")
                )
                yield Fact(text, (pointer_to(file, *path, name),))
                break


def uncertainty(records: Records) -> Facts:
    """What intervals rest on."""
    for file, path, split in _tested(records):
        for name, figure in _figures(split):
            if figure.get("ci95") and figure.get("over"):
                where = (
                    pointer_to(file, *path, name, "ci95"),
                    pointer_to(file, *path, name, "over"),
                )
                yield Fact(f"95 % intervals over {figure.get('n')} {figure['over']}", where)
                break


def comparison(records: Records) -> Facts:
    """Paired differences between arms."""
    for file, name, arm in _arms(records):
        for measure, figure in _figures(arm.get("difference") or {}):
            ends = figure.get("ci95")
            if isinstance(ends, list) and len(ends) == 2:
                text = (
                    f"{name} minus {arm.get('minus')}: {measure} {figure['value']:+.3f}, 95 % interval "
                    f"{ends[0]:+.3f} to {ends[1]:+.3f}, paired"
                )
                yield Fact(text, (pointer_to(file, "arms", name, "difference", measure),))
                break


def size_basis(records: Records) -> Facts:
    """The smallest difference that the test set would have shown."""
    for file, name, arm in _arms(records):
        for measure, figure in _figures(arm.get("difference") or {}):
            least = (figure.get("tests") or {}).get("detectable")
            if isinstance(least, int | float):
                where = pointer_to(file, "arms", name, "difference", measure, "tests", "detectable")
                yield Fact(
                    f"Smallest detectable difference in {measure}: {least:.3f} (80 % power)",
                    (where,),
                )
                break


def _arms(records: Records) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for file, content in records.of("metrics.json"):
        arms = content.get("arms") if isinstance(content, Mapping) else None
        for name, arm in arms.items() if isinstance(arms, Mapping) else ():
            if isinstance(arm, Mapping) and isinstance(arm.get("difference") or {}, Mapping):
                yield file, str(name), arm


def robustness(records: Records) -> Facts:
    """Repetition over seeds."""
    for file, content in records.of("metrics.json"):
        seeds = content.get("seeds") if isinstance(content, Mapping) else None
        if isinstance(seeds, list) and len(seeds) > 1:
            yield Fact(f"Repeated with {len(seeds)} seeds", (pointer_to(file, "seeds"),))


def subgroups(records: Records) -> Facts:
    """Figures by group of patients."""
    for file, path, split in _tested(records):
        groups = split.get("subgroups")
        if isinstance(groups, Mapping) and groups:
            yield Fact(
                f"Figures by {', '.join(map(str, groups))}", (pointer_to(file, *path, "subgroups"),)
            )


def failures(records: Records) -> Facts:
    """Confusion matrices."""
    for file, path, split in _tested(records):
        if split.get("confusion"):
            yield Fact("Confusion matrix", (pointer_to(file, *path, "confusion"),))


def internal(records: Records) -> Facts:
    """The same model on validation and test images."""
    for file, content in records.of("metrics.json"):
        if isinstance(content, Mapping) and content.get("val") and content.get("test"):
            where = (pointer_to(file, "val"), pointer_to(file, "test"))
            yield Fact("Figures on validation and on test images stand side by side", where)


def explanation(records: Records) -> Facts:
    """Checks of heat maps."""
    for kind, what in (
        ("faithfulness.json", "Heat maps were checked for faithfulness"),
        ("localisation.json", "Heat maps were compared with true boxes"),
    ):
        for file, _ in records.of(kind):
            yield Fact(what, (pointer_to(file),))


def protocol(records: Records) -> Facts:
    """The plan that was dated before the first run."""
    yield from _keys(records, "study.json", "Plan", ("begun",), ("file",), ("plan",))


def availability(records: Records) -> Facts:
    """Hashes of the model."""
    yield from _keys(records, "model.json", "Weights", ("sha256",))


TOPICS: dict[str, Callable[[Records], Facts]] = {
    one.__name__: one
    for one in (
        data_sources, selection, preparation, subsets, missing, fusion, partitions, disjoint, flow, architecture, software,
        initial, training, model_choice, thresholds, imbalance, measures, performance, uncertainty, comparison, size_basis,
        robustness, subgroups, failures, internal, explanation, protocol, availability,
    )
}  # fmt: skip
