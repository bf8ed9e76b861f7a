"""A study on disk: where its files lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from twinray.errors import InputError
from twinray.files import make_folder
from twinray.studies.plan.nodes import Plan, read_plan
from twinray.studies.runner.claims import Claims
from twinray.studies.runner.journal import Journal

PLAN, STUDY, FILE = "plan.json", "study.json", "study.yaml"


@dataclass(frozen=True)
class Place:
    """A study's folder.

    ``study.json`` (what was dated before the first run), ``study.yaml`` (the file as it was read last), ``plan.json``, ``plans/``
    (every plan by its hash), ``journal.jsonl``, ``claims/``, ``packs/``, ``runs/``, ``logs/``, ``results/``.
    """

    path: Path

    @property
    def claims(self) -> Claims:
        """Who does what."""
        return Claims(self.path / "claims")

    @property
    def journal(self) -> Journal:
        """What happened."""
        return Journal(self.path)

    @property
    def logs(self) -> Path:
        """Folder of what the runs and workers print."""
        return self.path / "logs"

    def plan(self) -> Plan:
        """The plan that is followed now.

        Raises:
            InputError: the folder is no study, or its plan is damaged.
        """
        if not (self.path / PLAN).is_file():
            raise InputError(
                f"expected a study's folder, {self.path} has no {PLAN}; run twinray study FILE.yaml --out {self.path}"
            )
        return read_plan(self.path / PLAN)

    def plan_of(self, key: str) -> Plan:
        """An earlier plan, by its hash."""
        return read_plan(self.path / "plans" / f"{key[:16]}.json")

    def write_plan(self, plan: Plan) -> None:
        """Keep a plan under its hash, and make it the one that is followed."""
        make_folder(self.path / "plans")
        plan.write(self.path / "plans" / f"{plan.key()[:16]}.json")
        plan.write(self.path / PLAN)
