"""Networks of timm behind the backbone's contract; timm itself is the oracle."""

import copy
import json
import re
import sys

import pytest
import safetensors.torch
import torch

from support import DETECT, PRETRAIN
from twinray.backbones import timm_backbone
from twinray.backbones.build import build_backbone
from twinray.backbones.weights import initialise, settled_arch
from twinray.errors import InputError

timm = pytest.importorskip("timm", reason="timm is not installed; pip install 'twinray[timm]'")

PYRAMIDS = ("resnet10t", "mobilenetv4_conv_small", "convnext_atto")
VIT = "vit_tiny_patch16_224"


def images(side: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(seed))


def refusal(call, *arguments) -> str:
    with pytest.raises(InputError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", [*PYRAMIDS, VIT])
def test_weights_names_and_features_are_timms(name):
    torch.manual_seed(1)
    ours = build_backbone(f"timm/{name}", 7, 64).eval()
    before = torch.random.get_rng_state()
    torch.manual_seed(7)
    theirs = timm.create_model(
        name, num_classes=0, **({"dynamic_img_size": True} if name == VIT else {})
    ).eval()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all(torch.equal(v, theirs.state_dict()[k]) for k, v in ours.state_dict().items())
    x = images(64)
    with torch.no_grad():
        expected = theirs(x)
        assert torch.equal(ours(x), expected)
    assert expected.shape == (2, ours.features)
    torch.random.set_rng_state(before)  # nothing was drawn from the global generator by building
    build_backbone(f"timm/{name}", 8, 64)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("name", PYRAMIDS)
def test_stages_are_timms_features(name):
    ours = build_backbone(f"timm/{name}", 0, 64).eval()
    theirs = timm.create_model(name, features_only=True).eval()
    wanted = {
        key.replace(".", "_"): value for key, value in ours.state_dict().items()
    }  # timm flattens some names there
    theirs.load_state_dict({key: wanted[key.replace(".", "_")] for key in theirs.state_dict()})
    x = images(64)
    with torch.no_grad():
        stages, features = ours.stages(x), theirs(x)[-4:]
    assert list(stages) == ["c2", "c3", "c4", "c5"]
    for mine, timms, channels, stride in zip(
        stages.values(),
        features,
        ours.stage_channels,
        theirs.feature_info.reduction()[-4:],
        strict=True,
    ):
        assert mine.shape == (2, channels, 64 // stride, 64 // stride)
        torch.testing.assert_close(mine, timms)


@pytest.mark.parametrize("name", PYRAMIDS)
def test_each_parameter_has_the_stage_that_needs_it(name):
    backbone = build_backbone(f"timm/{name}", 0, 64).train()
    modes = [m.training for m in backbone.modules()]
    owner = {key: backbone.stage_of(key) for key, _ in backbone.named_parameters()}
    assert [m.training for m in backbone.modules()] == modes
    reached = dict.fromkeys(owner)
    for stage, feature in enumerate(backbone.stages(images(64)).values(), start=1):
        backbone.zero_grad()
        feature.sum().backward(retain_graph=True)
        for key, parameter in backbone.named_parameters():
            if parameter.grad is not None and reached[key] is None:
                reached[key] = stage
    assert {
        key: stage or 1 if stage is not None else None for key, stage in owner.items()
    } == reached
    assert set(owner.values()) >= {0, 1, 2, 3, 4}
    parents = {key.rpartition(".")[0]: stage for key, stage in owner.items()}
    assert all(backbone.stage_of(module) == stage for module, stage in parents.items())


def test_stages_of_a_resnet_are_its_layers():
    for arch in ("timm/resnet18", "resnet18"):
        backbone = build_backbone(arch, 0, 64)
        for key, _ in backbone.named_parameters():
            layer = re.search(r"layer([1-4])", key)
            assert backbone.stage_of(key) == (int(layer.group(1)) if layer else 0)


@pytest.mark.parametrize("name", ["mobilenetv4_conv_small", VIT])
def test_saved_weights_load_into_timm_and_back(name, tmp_path):
    donor = build_backbone(f"timm/{name}", 3, 64)
    path = tmp_path / "backbone.safetensors"
    safetensors.torch.save_file(donor.state_dict(), path)
    theirs = timm.create_model(name, num_classes=0)
    theirs.load_state_dict(safetensors.torch.load_file(path))  # strict
    again = build_backbone(f"timm/{name}", 4, 96)  # another size: the same tensors
    provenance = initialise(again, str(path))
    assert provenance.loaded == len(donor.state_dict())
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in donor.state_dict().items())
    wrapped = torch.nn.ModuleDict({"body": again})
    assert set(wrapped.state_dict()) == {f"body.{key}" for key in theirs.state_dict()}
    wrapped.load_state_dict(wrapped.state_dict())
    twin = copy.deepcopy(again)
    twin.load_state_dict(build_backbone(f"timm/{name}", 5, 64).state_dict())
    assert not torch.equal(next(twin.parameters()), next(again.parameters()))


def test_every_tensor_must_be_filled(tmp_path):
    state = build_backbone("timm/resnet10t", 0, 64).state_dict()
    torch.save({"model": {**state, "fc.weight": torch.zeros(2, 512)}}, tmp_path / "w.pth")
    backbone = build_backbone("timm/resnet10t", 1, 64)
    assert initialise(backbone, str(tmp_path / "w.pth")).unexpected == ("fc.weight",)
    del state["layer3.0.conv1.weight"]
    torch.save(state, tmp_path / "w.pth")
    said = refusal(initialise, backbone, str(tmp_path / "w.pth"))
    assert "do not fit timm/resnet10t" in said and "missing: layer3.0.conv1.weight" in said


@pytest.mark.parametrize(
    ("arch", "size", "said"),
    [
        ("timm/convnext_tin", None, "did you mean timm/convnext_tiny"),
        ("timm/resnet10t.no_such_tag", None, "it has the tags c3_in1k"),
        ("timm/hf-hub:somebody/something", None, "has no network"),
        ("timm/", None, "has no network"),
        ("convnext_atto", None, "did you mean timm/convnext_atto?"),
        ("resnet55", None, "did you mean resnet50"),
        (f"timm/{VIT}", 100, "cannot take images of 100 pixels"),
    ],
)
def test_names_and_sizes_that_cannot_be(arch, size, said):
    assert said in refusal(build_backbone, arch, 0, size)


def test_a_plain_transformer_has_one_map_without_its_other_tokens():
    backbone = build_backbone(f"timm/{VIT}", 0, 32).eval()
    assert backbone(images(32)).shape == (2, backbone.features)
    assert (backbone.patch, backbone.stage_channels) == (16, (192,))
    with torch.no_grad():
        (name, last), *others = backbone.stages(images(32)).items()
        tokens = backbone.net.forward_features(images(32))
    assert name == "last" and not others
    torch.testing.assert_close(last.flatten(2).transpose(1, 2), tokens[:, 1:])


def test_the_mean_of_the_last_map_is_what_a_network_pools_that_pools_by_it():
    """So that channels of its classifiers can be taken away in closed form."""
    backbone = build_backbone("timm/vit_tiny_patch16_dinov3_qkvb", 0, 64).eval()
    x = images(64)
    with torch.no_grad():
        torch.testing.assert_close(backbone.stages(x)["last"].mean(dim=(2, 3)), backbone(x))


def test_coarse_patches_have_no_pyramid():
    backbone = build_backbone("timm/vit_tiny_patch16_224?patch_size=32", 0, 64)
    for ask in (
        lambda: backbone.stage_channels,
        lambda: backbone.stages(images(64)),
        lambda: backbone.stage_of("x"),
        lambda: backbone.patch,
    ):
        assert "has maps at strides 32: pretrain and classify take it" in refusal(ask)


def test_without_timm_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    assert "pip install 'twinray[timm]'" in refusal(build_backbone, "timm/resnet10t")
    assert "twinray[timm]" in refusal(build_backbone, "convnext_atto")


def test_published_weights_come_through_timms_loader(monkeypatch):
    donor = timm.create_model("resnet10t")
    state = donor.state_dict()
    monkeypatch.setattr(
        "timm.models._builder.load_state_dict_from_hf", lambda *_, **__: dict(state)
    )
    monkeypatch.setattr(timm_backbone, "_digest", lambda _: "0" * 64)
    backbone = build_backbone("timm/resnet10t", 0, 64)
    provenance = initialise(backbone, "imagenet-v1")
    assert all(torch.equal(v, state[k]) for k, v in backbone.state_dict().items())
    assert provenance.source == "timm/resnet10t.c3_in1k"
    assert provenance.unexpected == ("fc.bias", "fc.weight")
    assert not provenance.is_random
    del state["layer4.0.bn2.weight"]
    assert "layer4.0.bn2.weight" in refusal(initialise, backbone, "imagenet-v1")
    assert "choose --init imagenet-v1" in refusal(initialise, backbone, "imagenet-v2")


def test_weights_that_timm_loads_leniently_must_fill_all_the_same(monkeypatch):
    backbone = build_backbone("timm/convnextv2_atto.fcmae", 0, 64)
    state = {
        k: v
        for k, v in timm.create_model("convnextv2_atto", num_classes=0).state_dict().items()
        if "head" not in k
    }
    monkeypatch.setattr(
        "timm.models._builder.load_state_dict_from_hf", lambda *_, **__: dict(state)
    )
    said = refusal(initialise, backbone, "imagenet-v1")
    assert "unfilled" in said and "head.norm.weight" in said


def test_published_weights_without_a_network_say_what_to_do(monkeypatch, tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    said = refusal(initialise, build_backbone("timm/resnet10t", 0, 64), "imagenet-v1")
    assert "could not fetch timm/resnet10t.c3_in1k" in said and "--init FILE" in said
    assert "no pre-trained weights of swinv2_cr_base_224" in refusal(
        timm_backbone.pretrained_state,
        timm_backbone.TimmBackbone("timm/swinv2_cr_base_224", torch.nn.Identity(), 1, 1, {}),
    )


def test_from_pixels_to_boxes(class_pack, blob_pack, blobs, tmp_path, cli):
    """pretrain, classify, detect, explain and predict with one architecture, each from the files of the one before."""
    arch = ("--arch", "timm/mobilenetv4_conv_small")
    first = tmp_path / "first"
    status, _, err = cli(
        "pretrain", "--data", class_pack, "--out", first, "--epochs", 1, *PRETRAIN, *arch
    )
    assert status == 0, err
    assert settled_arch("", str(first)) == arch[1]
    timm.create_model("mobilenetv4_conv_small", num_classes=0).load_state_dict(
        safetensors.torch.load_file(first / "backbone.safetensors")
    )
    # the second pack is another data set: nothing of it was seen
    status, _, err = cli(
        "classify",
        "--data",
        class_pack,
        "--out",
        tmp_path / "c",
        "--init",
        first,
        "--bootstrap",
        0,
        "--size",
        64,
    )
    assert status == 0, err
    run = tmp_path / "d"
    status, _, err = cli(
        "detect", "--data", blob_pack, "--out", run, "--init", first, "--epochs", 1, *DETECT, *arch
    )
    assert status == 0, err
    described = json.loads((run / "model.json").read_text())
    assert described["arch"] == arch[1]
    assert any(
        "conv_head" in layer for layer in described["layers"]["frozen"]
    )  # only pooled features need it
    assert len(described["layers"]["frozen"]) == 2
    explain = ("explain", run, "--data", blob_pack, "--count", 1, "--boxes", 1, "--least-score", 0)
    for method in ("ablation", "ablation-last-stage"):
        status, _, err = cli(*explain, "--out", tmp_path / method, "--method", method)
        assert status == 0, err
    images = sorted((blobs.parent / "images").iterdir())[:3]
    for trained in (run, tmp_path / "c"):
        status, _, err = cli("predict", trained, *images, "--out", tmp_path / f"p-{trained.name}")
        assert status == 0, err


def test_a_plain_transformer_pretrains_and_classifies(class_pack, tmp_path, cli):
    run, arch = tmp_path / "r", ("--arch", f"timm/{VIT}")
    status, _, err = cli(
        "pretrain", "--data", class_pack, "--out", run, "--epochs", 1, *PRETRAIN, *arch
    )
    assert status == 0, err
    timm.create_model(VIT, num_classes=0).load_state_dict(
        safetensors.torch.load_file(run / "backbone.safetensors")
    )
    status, _, err = cli(
        "classify",
        "--data",
        class_pack,
        "--out",
        tmp_path / "c",
        "--init",
        run,
        "--bootstrap",
        0,
        "--size",
        64,
    )
    assert status == 0, err
    assert json.loads((tmp_path / "c" / "model.json").read_text())["arch"] == arch[1]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--arch", f"timm/{VIT}?patch_size=32"), "feature maps at strides 4, 8, 16 and 32"),
        (("--arch", "timm/resnet10"), "did you mean timm/resnet10"),
        (("--arch", "resnet18", "--size", "100"), "multiple of 32 and at least 64 pixels, got 100"),
        (("--arch", f"timm/{VIT}", "--size", "100"), "choose another --size (96 or 112)"),
        (("--arch", "resnet18", "--drop-path", "0.1"), "--drop-path is for networks of timm"),
        (("--arch", "timm/convnext_atto", "--norm", "group"), "this backbone has none"),
        (("--arch", "timm/resnet10t", "--trainable-stages", "3"), "no fair floor"),
    ],
)
def test_detect_refuses_in_one_line_and_leaves_no_folder(blob_pack, tmp_path, cli, more, said):
    rest = [word for word in DETECT if word not in ("--arch", "resnet18")]
    status, _, err = cli(
        "detect", "--data", blob_pack, "--out", tmp_path / "d", "--epochs", 1, *rest, *more
    )
    assert status == 2
    assert said in err and len(err.strip().splitlines()) == 1
    assert not (tmp_path / "d").exists()
