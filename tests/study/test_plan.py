"""A study's file: what is refused, what is one piece, and what makes another run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from twinray.errors import InputError
from twinray.report.published import ASPECTS, TABLES
from twinray.studies.plan.build import build
from twinray.studies.plan.file import Between, Search, read_study
from twinray.studies.plan.nodes import Plan, check_acyclic, config_of, read_plan
from twinray.studies.plan.search import trials

STUDIES = Path(__file__).resolve().parents[2] / "studies"


def study(**changes: object) -> dict:
    return {
        "study": "Toy",
        "packs": {
            "unlabelled": {"format": "phantom", "val": 0, "test": 0, "seed": 1},
            "labelled": {"format": "phantom", "folds": 2},
        },
        "pretrainings": {
            "barlow": {"pack": "unlabelled", "seeds": [0, 1], "options": {"epochs": 1}}
        },
        "arms": ["random", {"name": "Barlow", "pretraining": "barlow"}],
        "tasks": {
            "lesions": {
                "verb": "detect",
                "pack": "labelled",
                "fractions": [0.5, 1],
                "seeds": [0, 1],
            },
            "labels": {"verb": "classify", "pack": "labelled", "policies": ["probe", "full"]},
        },
        **changes,
    }


def planned(folder: Path, content: dict | str) -> Plan:
    path = folder / "study.yaml"
    path.write_text(
        content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False)
    )
    return build(*read_study(path))


def of(plan: Plan, kind: str) -> list:
    return [one for one in plan if one.kind == kind]


def test_arms_folds_and_seeds_share_packs_and_pretrainings(tmp_path):
    plan = planned(tmp_path, study())
    assert len(of(plan, "pack")) == 3  # one unlabelled, one a fold
    assert len(of(plan, "pretrain")) == 2  # one a seed, whatever the number of tasks
    # 2 fractions x 2 folds x 2 seeds of each of: random, Barlow of two pre-training seeds
    assert len(of(plan, "detect")) == 2 * 2 * 2 * 3
    assert len(of(plan, "classify")) == 2 * 2 * 3
    check_acyclic(plan.nodes)
    pretrainings = {one.id for one in of(plan, "pretrain")}
    for one in of(plan, "detect"):
        barlow = one.cells[0].arm == "Barlow"
        assert len(pretrainings & set(one.needs)) == barlow
    path = tmp_path / "plan.json"
    plan.write(path)
    assert read_plan(path).key() == plan.key()


def test_all_probes_of_one_weight_share_one_feature_pass(tmp_path):
    labels = {"verb": "classify", "pack": "labelled", "fractions": [0.1, 0.5, 1], "seeds": [0, 1]}
    findings = {**labels, "policies": ["probe", "full"]}
    again = {**labels, "policies": ["probe"], "options": {"folds": 3}}  # fitted otherwise
    plan = planned(tmp_path, study(tasks={"findings": findings, "again": again}))
    passes = {one.id: one for one in of(plan, "features")}
    # a fold: random weights of two seeds, and Barlow of two pre-training seeds, for every fraction, seed and task
    assert len(passes) == 2 * (2 + 2)
    for one in of(plan, "classify"):
        own = [read.node for read in one.reads if read.option == "kept_features"]
        assert len(own) == (one.cells[0].policy == "probe")
        for made in (passes[i] for i in own):
            weights = [r for r in one.reads if r.option in ("data", "init")]
            assert list(made.reads) == weights
            assert made.options.get("seed", 0) == (
                one.cells[0].seed if one.cells[0].arm == "random" else 0
            )
            assert config_of(one, tmp_path).kept_features == tmp_path / "runs" / made.id
    check_acyclic(plan.nodes)


def test_runs_of_one_seed_differ_in_their_weights_alone(tmp_path):
    runs = of(planned(tmp_path, study()), "detect")
    one = [
        r for r in runs if (r.cells[0].fraction, r.cells[0].fold, r.cells[0].seed) == (0.5, 1, 1)
    ]
    assert len(one) == 3
    assert len({repr(r.options) for r in one}) == 1
    assert one[0].options["seal"] is True and one[0].options["fraction_seed"] == 1
    made = config_of(one[0], tmp_path)
    assert (made.seed, made.fraction, made.init) == (1, 0.5, "random")


@pytest.mark.parametrize(
    ("options", "same"),
    [({"device": "cpu"}, True), ({"checkpoint_minutes": 3.0}, True), ({"lr": 0.01}, False), ({"bootstrap": 7}, False)],
)  # fmt: skip
def test_place_and_speed_make_no_other_run(tmp_path, options, same):
    before = {one.id for one in of(planned(tmp_path, study()), "detect")}
    changed = study()
    changed["tasks"]["lesions"]["options"] = options
    assert ({one.id for one in of(planned(tmp_path, changed), "detect")} == before) == same


def test_another_pack_or_pretraining_makes_all_that_need_it_new(tmp_path):
    before = planned(tmp_path, study())
    changed = study()
    changed["packs"]["unlabelled"]["seed"] = 2
    after = planned(tmp_path, changed)
    moved = {one.name for one in after if one.id not in before.by_id()}
    assert {name for name in moved if "random" in name} == set()
    assert sum("Barlow" in name for name in moved) == 8 * 2 + 4 * 2 + 2 * 2  # and feature passes
    assert sum(name.startswith("pre-training") for name in moved) == 2


def test_bytes_of_a_weight_file_count_and_not_its_name(tmp_path):
    (tmp_path / "a.pth").write_bytes(b"one")
    (tmp_path / "b.pth").write_bytes(b"one")
    ids = {}
    for name in "ab":
        plan = planned(tmp_path, study(arms=[{"name": "file", "init": f"{name}.pth"}]))
        ids[name] = [one.id for one in of(plan, "detect")]
    assert ids["a"] == ids["b"]
    (tmp_path / "b.pth").write_bytes(b"two")
    plan = planned(tmp_path, study(arms=[{"name": "file", "init": "b.pth"}]))
    assert set(ids["a"]).isdisjoint(one.id for one in of(plan, "detect"))


TASK = {"verb": "detect", "pack": "labelled"}
PACKS = {"unlabelled": {"format": "phantom", "val": 0, "test": 0, "seed": 1}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": {}}, "task: unknown; did you mean tasks?"),
        ({"tasks": {"a": {**TASK, "fraction": [1]}}}, "tasks.a.fraction: unknown; did you mean fractions?"),
        ({"tasks": {"a": {**TASK, "pack": "labeled"}}}, "tasks.a.pack: unknown; did you mean labelled?"),
        ({"tasks": {"a": {**TASK, "options": {"epoch": 3}}}}, "tasks.a.options.epoch: unknown; did you mean epochs?"),
        ({"tasks": {"a": {**TASK, "options": {"lr": -1}}}}, "tasks.a.options: expected --lr to be more than 0, got -1"),
        ({"tasks": {"a": {**TASK, "options": {"seed": 1}}}}, "tasks.a.options.seed: the plan fills this option itself"),
        ({"tasks": {"a": {**TASK, "fractions": [1, 1]}}}, "tasks.a.fractions: expected different values"),
        ({"tasks": {"a": {**TASK, "fractions": [2]}}}, "tasks.a.options: expected --fraction to be above 0 and up to 1, got 2"),
        ({"tasks": {"a": {**TASK, "folds": [5]}}}, "the pack labelled has no fold 5"),
        ({"tasks": {"a": {**TASK, "arms": ["rando"]}}}, "tasks.a.arms: unknown; did you mean random?"),
        ({"tasks": {"a": {**TASK, "policies": ["full"]}}}, "only classify has policies"),
        ({"tasks": {"a": {**TASK, "verb": "segment"}}}, "tasks.a.verb: invalid enum value"),
        ({"tasks": {"a": {**TASK, "seeds": "0"}}}, "tasks.a.seeds: expected"),
        ({"tasks": {"a": {"verb": "detect"}}}, "tasks.a.pack: expected it, found nothing"),
        ({"tasks": {}}, "expected one or more tasks"),
        ({"arms": []}, "expected one or more arms"),
        ({"arms": ["random", "random"]}, "arms[1]: the arm random stands twice"),
        ({"arms": ["imagenet-v3"]}, "expected random, a name that twinray weights lists, or a path"),
        ({"arms": [{"name": "x"}]}, "arms[0]: expected init or pretraining"),
        ({"arms": [{"pretraining": "barlo"}]}, "did you mean barlow?"),
        ({"arms": [{"pretraining": "barlow", "seeds": [7]}]}, "has the seeds 0, 1, not 7"),
        ({"arms": ["random", {"pretraining": "barlow", "seeds": []}]}, "arms[1].seeds: expected different values, one or more, got nothing"),
        ({"pretrainings": {"barlow": {"pack": "unlabelled", "seeds": [1, 1]}}}, "pretrainings.barlow.seeds: expected different values"),
        ({"tasks": {"a": {**TASK, "arms": ["random"], "by_arm": {"Barlow": {"arch": "resnet18"}}}}}, "tasks.a.by_arm.Barlow: unknown; expected one of random"),
        ({"tasks": {"a": {**TASK, "heat_maps": -1}}}, "tasks.a.heat_maps: expected 0 or more, got -1"),
        ({"packs": {**PACKS, "labelled": {"format": "phantom", "folds": -1}}}, "packs.labelled: expected --folds to be 0, or 2 or more, got -1"),
        ({"packs": {**PACKS, "labelled": {"format": "phantom", "folds": True}}}, "packs.labelled: expected --folds"),
        ({"packs": {**PACKS, "labelled": {"format": "phantom", "folds": 10**12}}}, "packs.labelled.folds: expected at most 1000 folds"),
        ({"options": {"detct": {}}}, "options.detct: unknown; did you mean detect?"),
        ({"options": {"all": {"bootstap": 1}}}, "options.all.bootstap: unknown; did you mean bootstrap?"),
        ({"packs": {"labelled": {"format": "phantom", "siz": 3}}}, "packs.labelled.siz: unknown; did you mean size?"),
        ({"unfair": [{"option": "lr", "reason": " "}]}, "unfair[0].reason: expected a reason"),
        ({"tasks": {"a": {**TASK, "search": {"space": {"lr": {"low": 1, "high": 0.1}}, "budget": 2}}}}, "is not below high"),
        ({"tasks": {"a": {**TASK, "search": {"space": {"lr": {"low": 0.1, "high": 1}}}}}}, "a range needs a budget"),
    ],
)  # fmt: skip
def test_a_slip_is_one_line_with_file_place_and_remedy(tmp_path, changes, message):
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        planned(tmp_path, study(**changes))
    assert str(caught.value).startswith(str(tmp_path / "study.yaml"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("study: [", "line 1"),
        ("study: a\nstudy: b\n", "found the key 'study' twice"),
        ("- a\n", "expected keys such as study"),
        ("", "expected keys such as study"),
    ],
)
def test_what_is_no_study_is_refused(tmp_path, text, message):
    with pytest.raises(InputError, match=re.escape(message)):
        planned(tmp_path, text)


def test_an_option_that_makes_arms_unfair_needs_a_reason(tmp_path):
    arms = ["random", {"name": "Barlow", "pretraining": "barlow", "options": {"weight_decay": 0.1}}]
    with pytest.raises(InputError, match="weight_decay would differ between arms"):
        planned(tmp_path, study(arms=arms))
    unfair = [{"option": "weight_decay", "arm": "Barlow", "reason": "its authors' value"}]
    plan = planned(tmp_path, study(arms=arms, unfair=unfair))
    assert {(one.task, one.option, one.reason) for one in plan.unfair} == {
        (task, "weight_decay", "its authors' value") for task in ("lesions", "labels")
    }
    by_task = study()
    by_task["tasks"]["lesions"]["by_arm"] = {"random": {"size": 96}}
    with pytest.raises(InputError, match="size would differ between arms"):
        planned(tmp_path, by_task)
    allowed = study(
        arms=[
            "random",
            {"name": "Barlow", "pretraining": "barlow", "options": {"arch": "resnet18"}},
        ]
    )
    assert planned(tmp_path, allowed).unfair == ()


def test_the_order_of_the_file_is_kept_whatever_is_done_first(tmp_path):
    """The first arm is the one that others are compared with, the first task answers; both may need more than what follows them."""
    content = study(arms=[{"name": "Barlow", "pretraining": "barlow"}, "random"])
    content["tasks"] = {
        "labels": {
            "verb": "classify", "pack": "labelled", "policies": ["probe", "full"], "sizes": [64, 32],
            "search": {"space": {"folds": [3, 5]}},
        },
        "lesions": {"verb": "detect", "pack": "labelled"},
    }  # fmt: skip
    plan = planned(tmp_path, content)
    places = [(c.task, c.policy, c.size) for one in plan.measured() for c in one.cells]
    assert places[0][0] == "lesions"  # which needs no trial, so it is done first
    wanted = [("labels", p, s) for p in ("probe", "full") for s in (64, 32)]
    assert plan.in_order(places) == [*wanted, ("lesions", "", 0)]
    assert plan.arms_in_order("lesions", ["random", "Barlow"]) == ["Barlow", "random"]
    plan.write(tmp_path / "plan.json")
    assert read_plan(tmp_path / "plan.json").in_order(places) == plan.in_order(places)


@pytest.mark.parametrize(
    ("task", "more", "message"),
    [
        ({"options": {"policy": "full"}}, {}, "tasks.a.options.policy: give policies of tasks.a in its place"),
        ({}, {"options": {"classify": {"policy": "full"}}}, "options.classify.policy: give policies of tasks.a"),
        ({"sizes": [64], "options": {"size": 32}}, {}, "tasks.a.options.size: give sizes of tasks.a alone"),
        ({"search": {"space": {"size": [32, 64]}}}, {}, "tasks.a.search.space.size: give sizes of tasks.a alone"),
        ({"search": {"space": {"policy": ["head", "full"]}}}, {}, "tasks.a.search.space.policy: give policies"),
        ({"search": {"space": {"folds": [3]}}, "by_arm": {"random": {"folds": 4}}},
         {"unfair": [{"option": "folds", "reason": "why not"}]}, "space.folds: the arm random sets it too"),
        ({"readers": "labelled"}, {}, "tasks.a.readers: readers' boxes belong beside those of detect"),
    ],
)  # fmt: skip
def test_what_stands_in_two_places_is_refused(tmp_path, task, more, message):
    tasks = {"a": {"verb": "classify", "pack": "labelled", **task}}
    with pytest.raises(InputError, match=re.escape(message)):
        planned(tmp_path, study(tasks=tasks, **more))


def test_readers_boxes_are_packed_once_and_their_pack_is_known(tmp_path):
    content = study(tasks={"lesions": {**TASK, "readers": "raw"}})
    content["packs"]["raw"] = {"format": "phantom", "size": 64, "seed": 9}
    plan = planned(tmp_path, content)
    assert [one.name for one in of(plan, "pack")].count("pack raw") == 1
    assert plan.by_id()[plan.readers["lesions"].node].name == "pack raw"
    content["tasks"]["lesions"]["readers"] = "rwa"
    with pytest.raises(InputError, match="readers: unknown; did you mean raw"):
        planned(tmp_path, content)


def test_variables_come_from_the_environment_then_from_the_file(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    packs = {"labelled": {"format": "folder", "source": "${PLACE}"}}
    content = study(packs=packs, arms=["random"], pretrainings={})
    assert planned(tmp_path, content).missing == ("${PLACE}: nothing sets it",)
    assert planned(tmp_path, {**content, "variables": {"PLACE": "here"}}).missing == ()
    monkeypatch.setenv("PLACE", "nowhere")
    (missing,) = planned(tmp_path, {**content, "variables": {"PLACE": "here"}}).missing
    assert missing.endswith("nowhere is not there")


def test_numbers_are_read_as_people_write_them(tmp_path):
    text = yaml.safe_dump(study(), sort_keys=False).replace("epochs: 1", "lr: 1e-3")
    (one, _) = of(planned(tmp_path, text), "pretrain")
    assert one.options["lr"] == 0.001


def test_every_arm_gets_the_same_trials(tmp_path):
    content = study()
    content["tasks"] = {
        "lesions": {**TASK, "search": {"space": {"lr": [0.1, 0.2], "flip": [0, 0.5]}, "budget": 3}}
    }
    plan = planned(tmp_path, content)
    found: dict[tuple, list] = {}
    for one in of(plan, "detect"):
        cell = one.cells[0]
        if cell.trial is not None:
            key = (cell.arm, cell.pretraining_seed, cell.fold)
            found.setdefault(key, []).append(
                (one.options["lr"], one.options["flip"]) if "flip" in one.options else None
            )
    assert len(found) == 3 * 2 and all(len(values) == 3 for values in found.values())
    assert len({repr(values) for values in found.values()}) == 1
    assert len(of(plan, "choose")) == 6 and len(plan.measured()) == 6
    chosen = {one.id for one in of(plan, "choose")}
    assert all(chosen & set(one.needs) for one in plan.measured())


def test_draws_of_a_range_are_inside_it_and_the_same_for_one_seed():
    space = Search({"lr": Between(1e-4, 1e-1, log=True), "flip": [0.0, 0.5]}, budget=50, seed=3)
    drawn = trials(space)
    assert drawn == trials(space) and len(drawn) == 50
    assert all(1e-4 <= one["lr"] <= 1e-1 and one["flip"] in (0.0, 0.5) for one in drawn)
    # half of the draws of a logarithm lie below its middle
    assert 15 <= sum(one["lr"] < 10**-2.5 for one in drawn) <= 35


def test_a_published_table_stands_beside_a_task_that_exists(tmp_path):
    beside = {"table": "barlow-cxr-boxes", "task": "lesions", "arms": {"none": "random"}}
    plan = planned(tmp_path, study(published=[beside], limits=["One scanner."]))
    assert plan.published[0]["table"] == "barlow-cxr-boxes" and plan.limits == ("One scanner.",)
    assert plan.key() == planned(tmp_path, study()).key()  # words change no result
    plan.write(tmp_path / "plan.json")
    assert read_plan(tmp_path / "plan.json").published == plan.published
    for change, told in (
        ({"table": "barlow-cxr-boxe"}, "did you mean barlow-cxr-boxes"),
        ({"task": "lesion"}, "did you mean lesions"),
        ({"task": "labels"}, "the table is of detect, the task labels of classify"),
        ({"arms": {"nothing": "random"}}, "unknown"),
        ({"arms": {"none": "randon"}}, "did you mean random"),
        ({"size": 640}, "has no size 640"),
        ({"tabel": "x"}, "did you mean table"),
    ):
        with pytest.raises(InputError, match=told):
            planned(tmp_path, study(published=[{**beside, **change}]))


def test_every_published_table_is_whole():
    for name, table in TABLES.items():
        assert table.values and set(table.facts) <= set(ASPECTS), name
        places = [(value.arm, value.share, value.size) for value in table.values]
        assert len(set(places)) == len(places), name
        for value in table.values:  # a number, and an interval round it where one is printed
            middle, *ends = map(float, re.findall(r"[0-9.]+", value.printed))
            assert not ends or ends[0] <= middle <= ends[1], (name, value)


@pytest.mark.parametrize(
    ("name", "runs"),
    [("barlow_cxr", None), ("medical_barlow", None), ("which_weights", None), ("small_cxr", None)],
)
def test_the_published_studies_are_planned(name, runs, monkeypatch):
    plan = build(*read_study(STUDIES / f"{name}.yaml"))
    check_acyclic(plan.nodes)
    assert len(plan.measured()) > 10
    assert len({cell for one in plan.measured() for cell in one.cells}) >= len(plan.measured())
