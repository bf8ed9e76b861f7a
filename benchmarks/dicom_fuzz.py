"""Damage DICOM files in many ways and decode each: every one must give pixels or one typed line.

    python benchmarks/dicom_fuzz.py [--mutations 1000] [--seed 0] [--workers 2] [--folder MORE_DICOM_FILES]

Sources are the files that pydicom ships (and those of ``--folder``), each once as it is, then ``--mutations``
seeded mutations: bytes changed in the header or anywhere, lengths set to huge values, pieces cut out, doubled
or cut off. Decoding runs in the same worker processes as ``twinray pack``, with 10 s and 1 GiB for a file.
Prints counts, the slowest file and the largest memory; exit status 1 if a file was neither decoded nor refused
by a typed line, or met a limit.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom.data

from twinray.data.decoding.dicom.pixels import load_dicom
from twinray.data.decoding.sandbox import map_in_workers
from twinray.errors import InputError

TIME_LIMIT_S = 10.0
MEMORY_LIMIT_BYTES = 1 << 30


def measured(path: Path) -> tuple[str, float, int]:
    """Decode one file: the way or the refusal, seconds, and this process's largest resident memory so far in KiB."""
    start = time.perf_counter()
    try:
        result = load_dicom(path, any_class=True).how
    except InputError as error:
        result = f"refused: {error}"
    return result, time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """One damaged copy of a file."""
    array = np.frombuffer(data, dtype=np.uint8).copy()
    kind = rng.integers(6)
    header = min(len(array), 4000)
    if kind == 0:
        array[rng.integers(0, header, size=rng.integers(1, 12))] = rng.integers(0, 256)
    elif kind == 1:
        spots = rng.integers(0, len(array), size=rng.integers(1, 40))
        array[spots] = rng.integers(0, 256, size=len(spots))
    elif kind == 2:
        at = int(rng.integers(132, max(133, header - 4)))
        array[at : at + 4] = np.frombuffer(
            rng.choice(
                [b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x10", b"\0\0\0\0"]
            ).ljust(4, b"\0"),
            np.uint8,
        )[: len(array) - at]
    elif kind == 3:
        array = array[: int(rng.integers(100, max(101, len(array))))]
    else:
        start = int(rng.integers(0, len(array)))
        stop = min(len(array), start + int(rng.integers(1, 600)))
        middle = [array[start:stop]] * (2 if kind == 4 else 0)
        array = np.concatenate([array[:start], *middle, *middle[:1], array[stop:]])
    return array.tobytes()


def write_cases(folder: Path, more: Path | None, mutations: int, seed: int) -> list[Path]:
    """The sources and the mutations written to ``folder``; the list of all paths."""
    own = Path(pydicom.data.__file__).parent
    roots = [own] if more is None else [own, more]
    sources = [
        p
        for root in roots
        for p in sorted(root.rglob("*"))
        if p.is_file() and p.suffix not in (".py", ".pyc")
    ]
    dicoms = [p for p in sources if p.read_bytes()[128:132] == b"DICM"]
    rng = np.random.default_rng(seed)
    cases = list(sources)
    for number in range(mutations):
        source = dicoms[int(rng.integers(len(dicoms)))]
        case = folder / f"{number:05d}-{source.stem}.dcm"
        case.write_bytes(mutated(source.read_bytes(), rng))
        cases.append(case)
    return cases


def main() -> int:
    parser = argparse.ArgumentParser(description="Decode damaged DICOM files.")
    parser.add_argument("--mutations", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=None, help="more DICOM files to start from")
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    faults: list[str] = []
    slowest, largest = (0.0, ""), (0, "")
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        cases = write_cases(Path(folder), options.folder, options.mutations, options.seed)
        outcomes = map_in_workers(
            measured,
            cases,
            workers=options.workers,
            timeout_s=TIME_LIMIT_S,
            memory_bytes=MEMORY_LIMIT_BYTES,
        )
        for case, outcome in zip(cases, outcomes, strict=True):
            if outcome.error is not None:
                counts["fault"] += 1
                faults.append(f"{case.name}: {outcome.error}")
                continue
            result, seconds, memory = outcome.result()
            counts["refused" if result.startswith("refused: ") else "decoded"] += 1
            if "\n" in result:
                faults.append(f"{case.name}: a refusal of several lines")
            slowest = max(slowest, (seconds, case.name))
            largest = max(largest, (memory, case.name))
    seconds = time.perf_counter() - start
    print(
        f"{sum(counts.values())} files in {seconds:.1f} s: "
        + ", ".join(f"{n} {k}" for k, n in sorted(counts.items()))
    )
    print(f"slowest {slowest[0]:.2f} s ({slowest[1]}), limit {TIME_LIMIT_S:g} s")
    print(
        f"largest worker {largest[0] / 1024:.0f} MiB resident (first at {largest[1]}), limit {MEMORY_LIMIT_BYTES >> 20}"
    )
    for fault in faults:
        print(f"FAULT {fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    # Imported by its own name, so that the workers can import the function that they run.
    from dicom_fuzz import main as run

    sys.exit(run())
