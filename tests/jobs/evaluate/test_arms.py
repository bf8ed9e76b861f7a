"""Runs taken together by arm: what an arm is called, what is told of it, what stays with its runs."""

from __future__ import annotations

import json

import yaml

from run_copies import changed, sealed, table
from support import PRETRAIN
from twinray.jobs.evaluate.arms import _Letters


def test_without_data_it_is_told_when_nobody_knows_what_weights_saw(detect_run, tmp_path, cli):
    runs = [
        changed(detect_run, tmp_path / f"{init}{i}", seed=i, init=init)
        for init in ("random", "found")
        for i in (0, 1)
    ]
    for run in runs[2:]:
        record = json.loads((run / "seen.json").read_text())
        (run / "seen.json").write_text(json.dumps({**record, "unknown": ["found.safetensors"]}))
        sealed(run)
    status, shown, _ = cli("evaluate", *runs, "--out", tmp_path / "c", "--bootstrap", "0")
    results = json.loads((tmp_path / "c" / "metrics.json").read_text())
    assert status == 0
    assert [arm["seen"] for arm in results["arms"].values()] == ["nothing", "unknown"]
    assert results["notes"] == ["found: what its initial weights saw in training is not recorded"]
    assert "note: found: what its initial weights saw in training is not recorded" in shown


def test_arms_of_many_differing_options_have_short_names(detect_run, tmp_path, cli):
    many = {"epochs": 9, "lr": 0.5, "flip": 0.0, "clip_norm": 3.0, "contrast": 0.9}
    runs = [
        changed(detect_run, tmp_path / f"{name}{seed}", seed=seed, **options)
        for seed in (0, 1)
        for name, options in (("a", {}), ("b", many), ("c", {"init": "runs/pretrained", **many}))
    ]
    status, _, _ = cli("evaluate", *runs, "--out", tmp_path / "e", "--bootstrap", "0")
    results = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert status == 0
    assert list(results["arms"]) == [
        "random, options A",
        "random, options B",
        "pretrained, options B",
    ]
    assert many.items() <= results["arms"]["random, options B"]["options"].items()
    listed = [note for note in results["warnings"] if note.startswith("options ")]
    assert len(listed) == 2 and "clip_norm 3.0" in listed[1] and "epochs 3" in listed[0]
    few = [changed(detect_run, tmp_path / f"d{seed}", epochs=9, seed=seed) for seed in (0, 1)] + [
        runs[0],
        runs[3],
    ]
    status, _, _ = cli("evaluate", *few, "--out", tmp_path / "f", "--bootstrap", "0")
    results = json.loads((tmp_path / "f" / "metrics.json").read_text())
    assert all(name.startswith("random, epochs ") for name in results["arms"])


def test_policies_that_bring_many_options_name_their_arms():
    rest = {"optimizer": "adamw", "epochs": 10, "batch_size": 64, "flip": 0.5, "norm": "eval"}
    sets = [
        {
            "policy": policy,
            "fraction": fraction,
            **(rest if policy == "full" else dict.fromkeys(rest)),
        }
        for policy in ("probe", "full")
        for fraction in (0.01, 1.0)
    ]
    letters = _Letters(sets)
    assert [letters.words(own) for own in sets] == [
        "probe, fraction 0.01",
        "probe, fraction 1.0",
        "full, fraction 0.01",
        "full, fraction 1.0",
    ]
    other = [*sets, {**sets[-1], "epochs": 20}]  # no longer told apart by the policy
    letters = _Letters(other)
    assert [letters.words(own) for own in other] == [f"options {x}" for x in "ABCDE"]
    assert (
        letters.of(other[4]) == "E"
        and _Letters([{"epochs": 1}, {"epochs": 2}]).words(sets[0]) == ""
    )


def test_pretrainings_that_differ_in_their_seed_are_one_arm(detect_run, tmp_path, cli):
    """What a seed of the pre-training is worth belongs to the interval over seeds; another recipe is another arm."""
    recipes = {
        "bt-seed0": {"seed": 0},
        "bt-seed1": {"seed": 1, "device": "cuda", "log_every": 3},
        "long": {"seed": 0, "epochs": 300},
    }
    for name, options in recipes.items():
        (tmp_path / name).mkdir()
        config = {"job": "pretrain", "data": ["packs/x"], "epochs": 8, "out": name, **options}
        (tmp_path / name / "config.yaml").write_text(yaml.safe_dump(config))
    runs = [
        changed(detect_run, tmp_path / f"run-{name}-{seed}", init=str(tmp_path / name), seed=seed)
        for seed in (0, 1)
        for name in ("long", f"bt-seed{seed}")
    ]
    status, _, told = cli("evaluate", *runs, "--out", tmp_path / "e", "--bootstrap", "0")
    assert (status, told) == (0, "")
    results = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert (list(results["arms"]), results["seeds"]) == (["long", "bt"], [0, 1])


def test_real_pretrainings_of_other_seed_and_log_are_one_arm(detect_run, class_pack, tmp_path, cli):
    """Made by the command line: seed, log, place and checkpoints tell no arms apart; a longer training does."""
    pretrain = ("pretrain", "--data", class_pack, *PRETRAIN)
    more = {
        "bt-0": ("--epochs", 1),
        "bt-1": (
            "--epochs",
            1,
            "--seed",
            1,
            "--log-every",
            3,
            "--checkpoint-every",
            2,
            "--knn-every",
            0,
        ),
        "long": ("--epochs", 2),
        "again-0": ("--epochs", 1, "--init", tmp_path / "bt-0"),
        "again-1": ("--epochs", 1, "--init", tmp_path / "bt-1", "--seed", 1),
    }
    for name, options in more.items():
        status, _, err = cli(*pretrain, "--out", tmp_path / name, *options)
        assert status == 0, err
    starts = {(name, int(name[-1:] == "1")) for name in more} | {("long", 1)}
    runs = [
        changed(detect_run, tmp_path / f"run-{name}-{seed}", init=str(tmp_path / name), seed=seed)
        for name, seed in sorted(starts)
    ]
    status, _, err = cli("evaluate", *runs, "--out", tmp_path / "e", "--bootstrap", "0")
    assert (status, err) == (0, "")
    results = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert {name: len(arm["runs"]) for name, arm in results["arms"].items()} == {
        "again": 2,
        "bt": 2,
        "long": 2,
    }


def test_an_arm_of_one_pretraining_says_so(detect_run, tmp_path, cli):
    runs = []
    for init, digest in (("random", ""), ("imagenet-v2", "5a"), ("one", "1b"), ("several", "2c")):
        for seed in (0, 1):
            run = changed(detect_run, tmp_path / f"{init}{seed}", init=init, seed=seed)
            described = json.loads((run / "model.json").read_text())
            described["init"]["sha256"] = digest + (str(seed) if init == "several" else "")
            (run / "model.json").write_text(json.dumps(described))
            runs.append(sealed(run))
    status, _, _ = cli("evaluate", *runs, "--out", tmp_path / "e", "--bootstrap", "0")
    told = "all runs of one start from one pre-training, so its interval over seeds holds no luck of the pre-training"
    assert (status, json.loads((tmp_path / "e" / "metrics.json").read_text())["notes"]) == (
        0,
        [told],
    )
    status, shown, _ = cli("evaluate", *runs[::2], "--bootstrap", "0")
    assert (status, "one pre-training" in shown) == (0, False)


def test_pretrainings_seeds_and_draws_are_told_apart(detect_run, tmp_path, cli):
    """Two pre-trainings, each with three seeds: six runs, but the luck of the pre-training was drawn twice only."""
    runs = []
    for recipe in ("first", "second"):
        for pre in range(2):
            folder = tmp_path / f"{recipe}-seed{pre}"
            folder.mkdir()
            config = {
                "job": "pretrain",
                "data": [recipe],
                "epochs": 8,
                "out": folder.name,
                "seed": pre,
            }
            (folder / "config.yaml").write_text(yaml.safe_dump(config))
            runs += [
                changed(detect_run, tmp_path / f"{recipe}{pre}{s}", init=str(folder), seed=s)
                for s in range(3)
            ]
    status, shown, told = cli("evaluate", *runs, "--out", tmp_path / "e", "--bootstrap", "0")
    assert status == 0, told
    assert "3 training seeds, 2 pre-trainings" in shown
    arms = json.loads((tmp_path / "e" / "metrics.json").read_text())["arms"]
    assert [len(arm["runs"]) for arm in arms.values()] == [6, 6]
    for figures in (arms["first"]["test"], arms["second"]["difference"]):
        over = figures["map50"]["over_seeds"]
        assert (over["over"], over["n"]) == ("pre-trainings", 2)
        assert over["by"]["training seeds"]["n"] == 3
    twice = [*runs, changed(runs[0], tmp_path / "again")]
    status, _, told = cli("evaluate", *twice, "--bootstrap", "0")
    assert (status, "several runs of fold 0, seed 0" in told, "--apart" in told) == (2, True, True)


def test_without_data_curves_are_kept_by_run(detect_run, blob_pack, tmp_path, cli):
    runs = [changed(detect_run, tmp_path / f"r{i}", seed=i) for i in range(2)]
    out, same = tmp_path / "c", tmp_path / "e"
    assert cli("evaluate", *runs, "--out", out, "--bootstrap", "0")[0] == 0
    assert cli("evaluate", *runs, "--data", blob_pack, "--out", same, "--bootstrap", "0")[0] == 0
    results = json.loads((out / "metrics.json").read_text())
    assert {row["run"] for row in table(out / "curves.csv")} == {"r0", "r1"}
    assert (out / "curves.csv").read_text().count("\n") == (same / "curves.csv").read_text().count(
        "\n"
    )
    assert (
        results["runs"]["r1"]["arm"],
        results["runs"]["r1"]["fold"],
        results["runs"]["r1"]["seed"],
    ) == (
        "random",
        0,
        1,
    )
    theirs = json.loads((same / "metrics.json").read_text())["runs"]["r1"]["diagnostics"][
        "confusion"
    ]
    assert results["runs"]["r1"]["diagnostics"]["confusion"] == theirs
    assert "the model's" in theirs["score_thresholds_from"]


def test_epochs_that_go_with_the_share_of_labels_leave_each_share_its_own_comparison(
    detect_run, tmp_path, cli
):
    """With few labels arms train for more epochs, all alike: what has all labels is not compared with what has a tenth."""
    schedule = {0.1: 9, 1.0: 2}
    runs = {
        (init, share): changed(
            detect_run, tmp_path / f"{init}-{share}", init=init, fraction=share, epochs=epochs
        )
        for init in ("random", "found")
        for share, epochs in schedule.items()
    }
    status, _, _ = cli(
        "evaluate", *runs.values(), "--out", tmp_path / "c", "--bootstrap", "0", "--allow-edited"
    )
    assert status == 0
    arms = json.loads((tmp_path / "c" / "metrics.json").read_text())["arms"]
    assert {name: arm.get("minus") for name, arm in arms.items()} == {
        "random-0.1": "",
        "random-1.0": "",
        "found-0.1": "random-0.1",
        "found-1.0": "random-1.0",
    }


def test_precisions_that_machines_chose_are_compared(detect_run, tmp_path, cli):
    """No option tells that one arm was trained in bf16 on a GPU and the other in float32 without one."""
    runs = [
        changed(detect_run, tmp_path / f"{name}{seed}", seed=seed, precision="auto", **options)
        for seed in (0, 1)
        for name, options in (("a", {}), ("b", {"init": "runs/pretrained"}))
    ]
    told = "runs were trained in different precisions, each in that of its machine"
    for precisions, differ in ((("bf16", "bf16"), False), (("float32", "bf16"), True)):
        for i, run in enumerate(runs):
            kept = json.loads((run / "inputs.json").read_text())
            (run / "inputs.json").write_text(json.dumps(kept | {"precision": precisions[i % 2]}))
        status, _, _ = cli("evaluate", *runs, "--out", tmp_path / f"{differ}", "--bootstrap", "0")
        found = json.loads((tmp_path / f"{differ}" / "metrics.json").read_text()).get("warnings", [])  # fmt: skip
        own = [warning for warning in found if warning.startswith(told)]
        assert status == 0 and len(own) == differ
        assert not own or "(float32: random; bf16: pretrained); give --precision" in own[0]
