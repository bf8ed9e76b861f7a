"""How far a study's heat maps can be trusted: ``twinray faithfulness`` of the detector whose maps the report shows."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from pathlib import Path

from twinray.errors import InputError
from twinray.files import folders_freed, make_folder, read_json
from twinray.inference.methods import DEFAULT_MAP, Method
from twinray.jobs.explain.config import FaithfulnessConfig
from twinray.jobs.explain.measure import run as measure
from twinray.report.charts.faithfulness import faithfulness_chart, faithfulness_table
from twinray.report.charts.sheet import as_svg
from twinray.report.numbers import count
from twinray.report.page.document import Block, Picture
from twinray.studies.report.gather import Gathered

IMAGES_EACH = 20
"""Images that are measured for each one that is shown."""
_MEASURES = ("pointing", "energy", "empty")
_BESIDE: Method = "grad-cam"


def faithfulness(study: Gathered, folder: Path) -> tuple[Block, ...]:
    """Of the last arm's first detector: do the maps of boxes that were found correctly show the finding, and more than the floors do?

    Args:
        study: opened, or nothing is measured.
        folder: place of the figures and of every measured box, a folder a task.
    """
    blocks: list[Block] = []
    for key in study.measured:
        task, pack = study.task(key), study.shown[key]
        n = study.state.plan.heat_maps.get(key.task, 0)
        run = study.first_runs(key).get(task.arms[-1])
        if task.kind != "detector" or pack is None or not n or run is None:
            continue
        place = folder / task.name
        make_folder(place.parent)
        asked = FaithfulnessConfig(
            run=run,
            data=pack.path,
            out=place,
            count=min(IMAGES_EACH * n, max(1, len(pack.where("test")))),
            methods=(DEFAULT_MAP, _BESIDE),
            curve_points=0,
            bootstrap=400,
            allow_edited=True,
        )
        try:
            with redirect_stdout(io.StringIO()), folders_freed():
                measure(asked)
        except InputError as error:  # no true box was found, or a detector without fixed boxes
            blocks.append(f"{task.title}: faithfulness was not measured: {error}.")
            continue
        record = read_json(place / "faithfulness.json", "faithfulness figures")
        told = (
            f"{task.title}, {task.arms[-1]}: {record['n_true_positives']:,} of {count(record['n_true_boxes'], 'true box', 'true boxes')} "
            f"found, on {count(record['n_images'], 'test image')}"
        )
        sheet = faithfulness_chart(record["maps"], _MEASURES, told)
        blocks.append(faithfulness_table(record["maps"], _MEASURES))
        blocks.append(Picture(as_svg(sheet), "svg", f"Faithfulness of heat maps. {told}.", told))
    return tuple(blocks)
