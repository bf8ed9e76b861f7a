"""The gradient policies against plain loops, the convex probe, and each other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
import torchvision
import yaml
from sklearn.utils.class_weight import compute_sample_weight

from support import ranks
from twinray.backbones.build import build_backbone
from twinray.backbones.pixels import MEAN, STD, network_input
from twinray.classification.config import ClassifyConfig
from twinray.classification.data import LabelledImages, hold_out, label_weights, labels_to_learn
from twinray.classification.features.on_pack import extract_features
from twinray.classification.loss import label_loss
from twinray.classification.model import Classifier, draw_head
from twinray.classification.options import resolve
from twinray.classification.policies import Learner, make_plan, named_parts, norm_parameters
from twinray.classification.probe import fit_linear
from twinray.classification.protocols import PROTOCOLS, rate_factor, recipe
from twinray.classification.run import run as classify
from twinray.classification.transforms import Transforms
from twinray.classification.tuning import PENALTY, relative_gradient_norms, tuned_rates
from twinray.data.pack import open_pack
from twinray.errors import InputError
from twinray.runs.results import read_label_predictions
from twinray.training.crops import crop_resize, draw_crops
from twinray.training.device import Machine
from twinray.training.ranks import Ranks

STUDIES = Path(__file__).parents[2] / "studies" / "verbs"
STILL = {"crop_min": 1.0, "flip": 0.0, "brightness": 0.0, "contrast": 0.0}
CONSTANT = {"warmup_steps": 0, "final_lr": 1.0, "clip_norm": 0.0}
CPU = Machine(torch.device("cpu"), bf16=False)


def config(pack: Path, out: Path, **options) -> ClassifyConfig:
    small = {"arch": "resnet18", "size": 64, "bootstrap": 0, "precision": "float32"}
    return ClassifyConfig(data=pack, out=out, **{**small, **options})


def as_flags(options: dict[str, object]) -> list[object]:
    flags: list[object] = []
    for name, value in options.items():
        flags += [f"--{name.replace('_', '-')}", *(value if isinstance(value, tuple) else (value,))]
    return flags


HEAD, BACKBONE = (
    1e-3,
    5e-5,
)  # small: after five steps of larger ones rounding has grown to the size of the steps


def plain_loop(pack_path: Path, steps: int, batch: int) -> dict[str, torch.Tensor]:
    """What anybody would write: torchvision's network, cross-entropy, SGD with two rates; the images in the run's order."""
    pack = open_pack(pack_path)
    rows = pack.where("train")
    net = torchvision.models.resnet18(weights=None, num_classes=2)
    net.load_state_dict(build_backbone("resnet18", seed=0).state_dict(), strict=False)
    net = net.to(
        memory_format=torch.channels_last
    )  # other kernels round otherwise, and five steps make that large
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        net.fc.weight.copy_(torch.empty(2, 512).normal_(0, 0.01, generator=generator))
        net.fc.bias.zero_()
    rest = [(name, p) for name, p in net.named_parameters() if not name.startswith("fc.")]
    optimizer = torch.optim.SGD(
        [
            {"params": [net.fc.weight], "lr": HEAD, "weight_decay": 0.01},
            {"params": [net.fc.bias], "lr": HEAD},
            {"params": [p for _, p in rest if p.ndim > 1], "lr": BACKBONE, "weight_decay": 0.01},
            {"params": [p for _, p in rest if p.ndim == 1], "lr": BACKBONE},
        ],
        momentum=0.9,
    )
    per_epoch = len(rows) // batch
    net.train()
    for step in range(steps):
        epoch, place = divmod(step, per_epoch)
        order = rows[np.random.default_rng([0, epoch]).permutation(len(rows))]
        at = order[place * batch : (place + 1) * batch]
        grey = torch.from_numpy(pack.images[at]).float() / 255
        x = torch.stack([(grey - m) / s for m, s in zip(MEAN, STD, strict=True)], dim=1)
        loss = F.cross_entropy(net(x), torch.from_numpy(pack.labels[at]).argmax(dim=1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.state_dict()


@pytest.mark.parametrize("n_ranks", [1, 2])
def test_full_fine_tuning_is_a_plain_loop(class_pack, tmp_path, n_ranks):
    options = {
        "policy": "full", "optimizer": "sgd", "lr_head": HEAD, "lr_backbone": BACKBONE, "weight_decay": 0.01, "batch_size": 8,
        "epochs": 2, "least_steps": 1, "choose_on": "last", "checkpoint_every": 5, **CONSTANT, **STILL,
    }  # fmt: skip
    out = tmp_path / "run"
    if n_ranks == 1:
        classify(config(class_pack, out, **options))
    else:
        more = ["--arch", "resnet18", "--size", 64, "--bootstrap", 0, "--precision", "float32"]
        ranks(
            n_ranks,
            [
                "-m",
                "twinray.cli",
                "classify",
                "--data",
                class_pack,
                "--out",
                out,
                *more,
                *as_flags(options),
            ],
        )
    kept = torch.load(out / "checkpoints" / "step-000000005.pt", weights_only=True)["model"]
    ours = {k.removeprefix("classifier."): v for k, v in kept.items()}
    expected = plain_loop(class_pack, 5, 8)
    assert len(ours) == len(expected)
    start = build_backbone("resnet18", seed=0).state_dict()
    assert (start["conv1.weight"] - expected["conv1.weight"]).abs().max() > 1e-4
    for name, value in expected.items():
        own = ours[
            f"head{name.removeprefix('fc')}" if name.startswith("fc.") else f"backbone.{name}"
        ]
        statistics = (
            1e-3 if "running" in name else 0.0
        )  # of the size of activations, not of weights
        assert torch.allclose(own.double(), value.double(), rtol=statistics, atol=1e-6), name


def head_options(**more) -> dict[str, object]:
    return {
        "policy": "head",
        "epochs": 60,
        "least_steps": 1,
        "batch_size": 64,
        "choose_on": "last",
        **STILL,
        **more,
    }


def probe_loss(
    pack, rows, penalty: float, weight: np.ndarray, bias: np.ndarray, features: np.ndarray
) -> float:
    """The probe's own objective: cross-entropy + penalty / 2 |W|^2 on standardised features."""
    x = features.astype(np.float64)
    std = x.std(axis=0)
    logits = torch.from_numpy(x @ weight.T + bias)
    loss = F.cross_entropy(logits, torch.from_numpy(pack.labels[rows].argmax(axis=1)))
    return float(loss) + penalty / 2 * float(np.square(weight * std).sum())


def test_the_head_without_augmentation_approaches_the_probe(class_pack, tmp_path):
    penalty = 0.1
    run = classify(
        config(
            class_pack,
            tmp_path / "h",
            **head_options(epochs=400, weight_decay=penalty, lr_head=0.01),
        )
    )
    pack = open_pack(class_pack)
    rows = pack.where("train")
    backbone = build_backbone("resnet18", 0, 64)
    features = extract_features(backbone, pack.images, rows, size=64, batch_size=64, machine=CPU)
    best = fit_linear(features, pack.labels[rows], "multiclass", penalty)
    kept = safetensors.torch.load_file(run.path / "model.safetensors")
    ours = probe_loss(
        pack,
        rows,
        penalty,
        kept["head.weight"].double().numpy(),
        kept["head.bias"].double().numpy(),
        features,
    )
    least = probe_loss(pack, rows, penalty, best.weight.numpy(), best.bias.numpy(), features)
    start = float(np.log(2))
    assert least < start - 0.05
    assert least - 1e-6 <= ours < least + 1e-3


def test_cached_and_uncached_features_give_the_same_scores(class_pack, tmp_path):
    found = []
    for cache in (True, False):
        run = classify(
            config(
                class_pack,
                tmp_path / str(cache),
                cache=cache,
                **head_options(batch_size=8, epochs=5),
            )
        )
        kept = read_label_predictions(run.path, "test")
        found.append(kept.scores[0])
    assert np.abs(found[0] - found[1]).max() < 1e-6
    assert np.ptp(found[0]) > 0.01


def test_labels_that_are_not_known_count_for_nothing():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 3, generator=generator, requires_grad=True)
    labels = np.array(
        [[1, 0, np.nan], [0, -1, 1], [np.nan] * 3, [1, 1, 0], [0, 0, np.nan], [1, np.nan, 0]]
    )
    known = (labels == 0) | (labels == 1)
    weights = torch.from_numpy(
        (label_weights(labels, "multilabel", False) / known.sum()).astype(np.float32)
    )
    label_loss(
        logits, torch.from_numpy((labels == 1).astype(np.float32)), weights, "multilabel"
    ).backward()
    ours = logits.grad.clone()
    logits.grad = None
    masked = F.binary_cross_entropy_with_logits(
        logits[torch.from_numpy(known)], torch.from_numpy(labels[known]).float()
    )
    masked.backward()
    assert torch.allclose(ours, logits.grad, atol=1e-7)
    assert (ours[~torch.from_numpy(known)] == 0).all()


def test_a_batch_that_ranks_share_has_the_loss_of_the_whole():
    rng = np.random.default_rng(0)
    labels = rng.choice([0.0, 1.0, np.nan, -1.0], (10, 4))
    images = LabelledImages.of(
        lambda at: torch.from_numpy(at), labels, "multilabel", balanced=False
    )
    whole = list(images.batches(4, 5, seed=3, epoch=2, first=1))
    halves = [
        list(images.batches(4, 5, seed=3, epoch=2, first=1, ranks=Ranks(r, 2))) for r in range(2)
    ]
    assert len(whole) == 5  # three passes of two batches, without the first
    for batch, *shares in zip(whole, *halves, strict=True):
        assert torch.equal(batch.inputs, torch.cat([s.inputs for s in shares]))
        assert torch.equal(batch.weights, torch.cat([s.weights for s in shares]))
        assert batch.weights.sum() == pytest.approx(1)


def test_balanced_weights_are_scikit_learns():
    which = np.array([0] * 7 + [1] * 2 + [2] * 3)
    labels = np.eye(4)[which]
    expected = compute_sample_weight("balanced", which)
    np.testing.assert_allclose(
        label_weights(labels, "multiclass", True)[np.arange(12), which], expected
    )
    many = np.array([[1, 0], [0, 0], [0, np.nan], [0, 1], [0, -1]])
    ours = label_weights(many, "multilabel", True)
    np.testing.assert_allclose(ours[:, 0], compute_sample_weight("balanced", many[:, 0]))
    np.testing.assert_allclose(
        ours[[0, 1, 3], 1], compute_sample_weight("balanced", many[[0, 1, 3], 1])
    )
    assert (ours[[2, 4], 1] == 0).all()


@pytest.mark.parametrize(("uncertain", "value"), [("ignore", -1), ("zero", 0), ("one", 1)])
def test_uncertain_and_blank_labels_teach_what_is_asked(uncertain, value):
    class Stub:
        class info:
            task = "multilabel"

        labels = np.array([[1, -1, np.nan], [np.nan] * 3], dtype=np.float32)

    np.testing.assert_array_equal(
        labels_to_learn(Stub, uncertain, "unknown"), [[1, value, np.nan], [np.nan] * 3]
    )
    np.testing.assert_array_equal(
        labels_to_learn(Stub, uncertain, "zero"), [[1, value, 0], [np.nan] * 3]
    )
    assert Stub.labels[0, 1] == -1


def learner_of(
    policy: str, arch: str = "resnet18", tune: tuple[str, ...] = (), **options
) -> tuple[Learner, object]:
    made = resolve(
        ClassifyConfig(
            Path("p"), Path("o"), arch=arch, size=64, policy=policy, tune=tune, **options
        )
    )
    backbone = build_backbone(arch, 0, 64)
    chosen = recipe(made)
    tuned = named_parts(backbone, tune) if tune else {}
    return Learner(
        Classifier(backbone, 3, "multilabel"), make_plan(backbone, made, chosen, tuned)
    ), chosen


def test_layer_decay_multiplies_part_by_part():
    learner, chosen = learner_of("full", layer_decay=0.5)
    names = {id(p): n for n, p in learner.classifier.named_parameters()}
    rate = {names[id(p)]: group["lr"] for group in learner.groups(chosen) for p in group["params"]}
    assert set(rate) == set(names.values())
    assert rate["head.weight"] == chosen.lr_head
    for exponent, name in enumerate(
        ["layer4.1.conv2", "layer3.0.conv1", "layer2.0.conv1", "layer1.0.conv1", "conv1"], start=1
    ):
        assert rate[f"backbone.{name}.weight"] == pytest.approx(chosen.lr_backbone * 0.5**exponent)
    decay = {
        names[id(p)]: group["weight_decay"]
        for group in learner.groups(chosen)
        for p in group["params"]
    }
    assert decay["backbone.layer4.1.conv2.weight"] == chosen.weight_decay > 0
    assert decay["backbone.layer4.1.bn2.weight"] == decay["head.bias"] == 0


def test_layer_decay_of_a_vit_is_timms():
    timm = pytest.importorskip("timm", reason="timm is not installed; pip install 'twinray[timm]'")
    from timm.optim import param_groups_layer_decay

    arch = "vit_tiny_patch16_224"
    learner, chosen = learner_of("full", arch=f"timm/{arch}")
    own = {n.removeprefix("backbone.net."): p for n, p in learner.classifier.named_parameters()}
    names = {id(p): n for n, p in own.items()}
    ours = {
        names[id(p)]: g["lr"] / chosen.lr_backbone
        for g in learner.groups(chosen)
        for p in g["params"]
    }
    no_decay = {
        names[id(p)] for g in learner.groups(chosen) for p in g["params"] if g["weight_decay"] == 0
    }
    theirs_net = timm.create_model(arch, num_classes=3)
    theirs_names = {id(p): n for n, p in theirs_net.named_parameters()}
    groups = param_groups_layer_decay(
        theirs_net,
        weight_decay=0.05,
        layer_decay=0.75,
        no_weight_decay_list=theirs_net.no_weight_decay(),
    )
    theirs = {theirs_names[id(p)]: g["lr_scale"] for g in groups for p in g["params"]}
    still = {theirs_names[id(p)] for g in groups for p in g["params"] if g["weight_decay"] == 0}
    body = [n for n in theirs if not n.startswith("head.")]
    assert len(body) == len(ours) - 2
    for name in body:
        assert ours[name] == pytest.approx(theirs[name], rel=1e-6), name
    assert {n for n in no_decay if not n.startswith("head.")} == {
        n for n in still if not n.startswith("head.")
    }


@pytest.mark.parametrize("norm", ["trainable", "eval", "frozen"])
def test_named_parts_and_norms_learn_and_nothing_else(norm):
    learner, chosen = learner_of("surgical", tune=("layer4", "norms"), norm=norm)
    learner.train()
    optimizer = torch.optim.SGD(learner.groups(chosen), lr=0.1)
    before = {k: v.clone() for k, v in learner.classifier.state_dict().items()}
    x = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    learner(x).square().sum().backward()
    for group in optimizer.param_groups:
        group["lr"] = 0.01
    optimizer.step()
    changed = {
        k.removeprefix("backbone.")
        for k, v in learner.classifier.state_dict().items()
        if not torch.equal(v, before[k])
    }
    learns = norm != "frozen"
    assert "layer4.1.conv2.weight" in changed and "head.weight" in changed
    assert not {
        n for n in changed if n.startswith(("conv1", "layer1", "layer2", "layer3")) and "conv" in n
    }
    assert ("layer2.0.bn1.weight" in changed) == learns
    assert ("layer2.0.bn1.running_mean" in changed) == (norm == "trainable")
    assert ("layer4.0.bn1.running_mean" in changed) == (norm == "trainable")
    only, _ = learner_of("surgical", tune=("layer4",))
    only.train()
    assert (
        not only.classifier.backbone.layer2[0].bn1.training
        and only.classifier.backbone.layer4[0].bn1.training
    )


def test_relative_gradient_norms_are_those_of_a_plain_computation():
    backbone = build_backbone("resnet18", 0, 64)
    classifier = Classifier(backbone, 2, "multiclass")
    draw_head(classifier.head, 0)
    kept = {k: v.clone() for k, v in classifier.state_dict().items()}
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(12, 3, 64, 64, generator=generator)
    y = np.eye(2)[[0, 1, 1, 0, 1, 0, 0, 1, 1, 0, 1, 0]]
    batches = [(x[:6], y[:6]), (x[6:], y[6:])]
    found = relative_gradient_norms(classifier, "trainable", batches)
    assert all(torch.equal(v, kept[k]) for k, v in classifier.state_dict().items())

    net = torchvision.models.resnet18(weights=None, num_classes=2)
    net.load_state_dict(build_backbone("resnet18", 0, 64).state_dict(), strict=False)
    net.train()
    feature = torch.nn.Sequential(*list(net.children())[:-1], torch.nn.Flatten())
    with torch.no_grad():
        features = torch.cat([feature(b) for b, _ in batches]).numpy()
    fit = fit_linear(features, y, "multiclass", PENALTY)
    with torch.no_grad():
        net.fc.weight.copy_(fit.weight)
        net.fc.bias.copy_(fit.bias)
    expected = dict.fromkeys(("stem", "layer1", "layer2", "layer3", "layer4"), 0.0)
    for b, labels in batches:
        net.zero_grad()
        F.cross_entropy(net(b), torch.from_numpy(labels.argmax(axis=1))).backward()
        for part in expected:
            own = [
                p for n, p in net.named_parameters()
                if n.startswith(part if part != "stem" else "conv1") and "bn" not in n and "downsample.1" not in n
            ]  # fmt: skip
            g = torch.cat([p.grad.flatten() for p in own]).norm()
            w = torch.cat([p.detach().flatten() for p in own]).norm()
            expected[part] += float(g / w) / len(batches)
    assert list(found) == list(expected)
    for part, value in expected.items():
        assert found[part] == pytest.approx(value, rel=2e-3), part  # float32 near a minimum
    rates = tuned_rates(found)
    assert max(rates.values()) == 1 and min(rates.values()) > 0


def test_parts_cover_every_parameter_once():
    pytest.importorskip("timm", reason="timm is not installed; pip install 'twinray[timm]'")
    for arch, first, last in (
        ("resnet18", "stem", "layer4"),
        ("timm/vit_tiny_patch16_224", "stem", "blocks.11"),
        ("timm/convnext_atto", "stem", "head.norm"),
        ("timm/mobilenetv3_small_050", "stem", "conv_head"),
    ):
        backbone = build_backbone(arch, 0, 64)
        parts = backbone.parts()
        names = [name for own in parts.values() for name in own]
        assert sorted(names) == sorted(name for name, _ in backbone.named_parameters()), arch
        assert (next(iter(parts)), list(parts)[-1]) == (first, last)
        norms = norm_parameters(backbone)
        assert norms and norms < set(names)


def test_no_transform_is_the_networks_own_input_and_ranks_share_one_draw():
    pixels = torch.randint(
        0, 256, (4, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    still = Transforms(32)
    assert still.none and torch.equal(
        still(pixels, torch.Generator()), network_input(pixels, 32, torch.device("cpu"))
    )
    moved = Transforms(32, 0.3, 0.5, 0.1, 0.2)
    assert not moved.none
    whole = moved(pixels, torch.Generator().manual_seed(5))
    halves = [
        moved(pixels[2 * r : 2 * r + 2], torch.Generator().manual_seed(5), Ranks(r, 2))
        for r in range(2)
    ]
    assert torch.allclose(whole, torch.cat(halves), atol=1e-6)
    crops = draw_crops(4, 40, 40, (0.3, 1.0), (3 / 4, 4 / 3), torch.Generator().manual_seed(5))
    plain = Transforms(32, 0.3)(pixels, torch.Generator().manual_seed(5))
    expected = crop_resize(
        pixels.unsqueeze(1).float() / 255, crops, torch.zeros(4, dtype=torch.bool), 32
    ).clamp(0, 1)
    expected = (expected - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
    assert torch.allclose(plain, expected, atol=1e-6)


def test_what_is_held_out_shares_no_patient_with_what_is_learnt(class_pack):
    pack = open_pack(class_pack)
    rows = pack.where("train")
    learnt, held = hold_out(pack, rows, pack.labels, seed=0)
    assert sorted([*learnt, *held]) == sorted(rows)
    assert not set(pack.patients[learnt]) & set(pack.patients[held])
    assert 0.1 <= len(held) / len(rows) <= 0.3
    assert len(set(pack.labels[held].argmax(axis=1))) == 2
    one = rows[pack.patients[rows] == pack.patients[rows[0]]]
    assert len(hold_out(pack, one, pack.labels, seed=0)[1]) == 0


@pytest.mark.parametrize(
    "path",
    sorted(STUDIES.glob("*-head.yaml")) + sorted(STUDIES.glob("*-full.yaml")),
    ids=lambda p: p.stem,
)
def test_the_papers_recipes_are_taken(path):
    values = yaml.safe_load(path.read_text())
    values["seeds"] = tuple(values["seeds"])
    made = resolve(ClassifyConfig(Path("p"), Path("o"), **values))
    assert (made.protocol, made.policy) == (values["protocol"], path.stem.split("-")[1])
    assert recipe(made) == PROTOCOLS[made.protocol][made.policy]


@pytest.mark.parametrize("policy", ["head", "full"])
def test_the_papers_schedule_is_torchs(policy):
    chosen = PROTOCOLS["as-published"][policy]
    parameter = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([parameter], lr=1.0, momentum=0.9)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, chosen.epochs)
    for epoch in range(chosen.epochs):
        for step in range(3):
            assert rate_factor(chosen, epoch * 3 + step, 3) == pytest.approx(
                optimizer.param_groups[0]["lr"], abs=1e-12
            )
        optimizer.step()
        theirs.step()


def test_rates_follow_batch_and_optimiser():
    def made(**options):
        return resolve(
            ClassifyConfig(Path("p"), Path("o"), arch="resnet18", size=64, policy="full", **options)
        )

    assert made().lr_backbone == 3e-4
    assert made(batch_size=16).lr_backbone == pytest.approx(1.5e-4)
    assert made(batch_size=16, lr_head=0.5).lr_head == 0.5
    assert made(optimizer="sgd", batch_size=128).lr_backbone == pytest.approx(0.02)
    assert made(protocol="as-published", batch_size=128).lr_head == pytest.approx(1.0)
    assert made(layer_decay=0.5).layer_decay == 0.5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"policy": "full", "lr_backbone": 0.0}, "--policy head"),
        ({"policy": "probe", "epochs": 3}, "--epochs has no use under --policy probe"),
        ({"policy": "head", "norm": "eval"}, "--norm has no use under --policy head"),
        ({"policy": "head", "tune": ("layer4",)}, "--tune goes with --policy surgical"),
        ({"policy": "surgical", "tune": ("auto", "layer4")}, "auto alone"),
        ({"policy": "surgical", "protocol": "as-published"}, "no such arm"),
        ({"policy": "probe", "protocol": "as-published"}, "expected --policy head or full"),
        ({"policy": "full", "layer_decay": 0.0}, "--layer-decay"),
        ({"policy": "probe", "choose_on": "val"}, "--choose-on"),
    ],
)
def test_options_that_would_do_nothing_or_harm_are_refused(options, words):
    with pytest.raises(InputError) as caught:
        resolve(ClassifyConfig(Path("p"), Path("o"), arch="resnet18", size=64, **options))
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_random_weights_with_stored_statistics_are_refused(class_pack, tmp_path):
    with pytest.raises(InputError, match="never estimated"):
        classify(config(class_pack, tmp_path / "r", policy="full", norm="eval"))
    with pytest.raises(InputError, match="parts of resnet18"):
        classify(config(class_pack, tmp_path / "s", policy="surgical", tune=("layer9",)))


def test_a_rate_of_zero_is_the_papers_own_and_said(class_pack, tmp_path):
    options = {
        "policy": "full",
        "protocol": "as-published",
        "lr_backbone": 0.0,
        "epochs": 1,
        "batch_size": 8,
    }
    run = classify(config(class_pack, tmp_path / "r", **options))
    metrics = json.loads((run.path / "metrics.json").read_text())
    assert any("no weight of the backbone learns" in note for note in metrics["notes"])
    kept = safetensors.torch.load_file(run.path / "model.safetensors")
    start = build_backbone("resnet18", 0, 64).state_dict()
    assert torch.equal(kept["backbone.layer1.0.conv1.weight"], start["layer1.0.conv1.weight"])
    assert not torch.equal(
        kept["backbone.layer1.0.bn1.running_mean"], start["layer1.0.bn1.running_mean"]
    )
