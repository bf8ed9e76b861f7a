import hashlib
import json
import urllib.error

import pytest
import safetensors.torch
import torch
import torchvision

from twinray.backbones.build import ARCHITECTURES, build_backbone
from twinray.backbones.weights import initialise, settled_arch
from twinray.errors import InputError


def same(a, b) -> bool:
    other = b.state_dict()
    return all(torch.equal(v, other[k]) for k, v in a.state_dict().items())


def test_random_weights_come_from_the_seed_alone():
    torch.manual_seed(1)
    first = build_backbone("resnet18", 3)
    torch.manual_seed(2)
    assert same(first, build_backbone("resnet18", 3))
    assert not same(first, build_backbone("resnet18", 4))
    assert initialise(first, "random").is_random


def test_stages_and_features_are_torchvisions():
    backbone = build_backbone("resnet18", 0).eval()
    theirs = torchvision.models.resnet18(weights=None).eval()
    theirs.load_state_dict({**theirs.state_dict(), **backbone.state_dict()})
    theirs.fc = torch.nn.Identity()
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(backbone(x), theirs(x), rtol=1e-5, atol=1e-5)
    shapes = {name: tuple(t.shape[1:]) for name, t in backbone.stages(x).items()}
    assert shapes == {"c2": (64, 16, 16), "c3": (128, 8, 8), "c4": (256, 4, 4), "c5": (512, 2, 2)}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_stage_channels_are_what_the_stages_have(arch):
    with torch.device("meta"):  # shapes alone
        backbone = build_backbone(arch, 0)
        stages = backbone.stages(torch.zeros(1, 3, 64, 64))
        assert backbone(torch.zeros(2, 3, 64, 64)).shape == (2, backbone.features)
    assert tuple(feature.shape[1] for feature in stages.values()) == backbone.stage_channels
    assert [feature.shape[-1] for feature in stages.values()] == [16, 8, 4, 2]


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "backbone.body.", "encoder."])
@pytest.mark.parametrize("wrap", [None, "state_dict", "model"])
def test_foreign_files_load_whatever_wraps_them(tmp_path, prefix, wrap):
    donor = build_backbone("resnet18", 9)
    state = {prefix + k: v for k, v in donor.state_dict().items()} | {
        prefix + "fc.weight": torch.zeros(2, 512)
    }
    torch.save({wrap: state, "epoch": 3} if wrap else state, tmp_path / "w.pth")
    backbone = build_backbone("resnet18", 0)
    provenance = initialise(backbone, str(tmp_path / "w.pth"))
    assert same(backbone, donor)
    assert provenance.unexpected == ("fc.weight",)
    assert provenance.loaded == len(donor.state_dict())
    assert len(provenance.sha256) == 64


def test_a_run_folder_and_its_description(tmp_path):
    donor = build_backbone("resnet18", 9)
    weights = tmp_path / "backbone.safetensors"
    safetensors.torch.save_file(donor.state_dict(), weights)
    described = {
        "arch": "resnet18",
        "kind": "backbone",
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
    }
    (tmp_path / "backbone.json").write_text(json.dumps(described))
    backbone = build_backbone("resnet18", 0)
    provenance = initialise(backbone, str(tmp_path))
    assert same(backbone, donor)
    assert provenance.description == described
    assert settled_arch("", str(tmp_path)) == "resnet18"


def test_a_description_of_other_weights_is_refused_and_a_strangers_json_ignored(tmp_path):
    weights = tmp_path / "backbone.safetensors"
    safetensors.torch.save_file(build_backbone("resnet18", 9).state_dict(), weights)
    beside = tmp_path / "backbone.json"
    beside.write_text(json.dumps({"arch": "resnet18", "kind": "backbone", "sha256": "0" * 64}))
    with pytest.raises(InputError, match="describes other weights"):
        initialise(build_backbone("resnet18", 0), str(tmp_path))
    beside.write_text(json.dumps({"size": "large"}))
    assert initialise(build_backbone("resnet18", 0), str(tmp_path)).description is None
    with pytest.raises(InputError, match="expected --arch"):
        settled_arch("", str(tmp_path))


def test_weights_of_another_architecture_are_refused_and_named(tmp_path):
    torch.save(build_backbone("resnet18", 0).state_dict(), tmp_path / "w.pth")
    for arch, message in (("resnet34", "missing: layer1.2"), ("resnet50", "of another shape")):
        with pytest.raises(InputError, match=message) as caught:
            initialise(build_backbone(arch, 0), str(tmp_path / "w.pth"))
        assert "\n" not in str(caught.value)
        assert arch in str(caught.value)


def test_one_missing_tensor_is_too_many(tmp_path):
    state = build_backbone("resnet18", 0).state_dict()
    del state["layer3.0.conv1.weight"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"missing: layer3\.0\.conv1\.weight"):
        initialise(build_backbone("resnet18", 0), str(tmp_path / "w.pth"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("w.pth", b"not a checkpoint"),
        ("w.safetensors", b"\x00" * 20),
        ("w.pth", b""),
        ("w.safetensors", b""),
    ],
)
def test_files_that_are_no_weights(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match="could not read weights") as caught:
        initialise(build_backbone("resnet18", 0), str(tmp_path / name))
    assert "\n" not in str(caught.value)


class Payload:
    def __reduce__(self):
        return (print, ("code ran while loading",))


def test_a_pickle_that_would_run_code_is_refused(tmp_path, capsys):
    torch.save({"conv1.weight": Payload()}, tmp_path / "w.pth")
    with pytest.raises(InputError, match="could not read weights"):
        initialise(build_backbone("resnet18", 0), str(tmp_path / "w.pth"))
    assert "code ran" not in capsys.readouterr().out


def test_unknown_weights_and_empty_runs(tmp_path):
    backbone = build_backbone("resnet18", 0)
    with pytest.raises(InputError, match="none of these"):
        initialise(backbone, "imagenet-v3")
    with pytest.raises(InputError, match="found neither"):
        initialise(backbone, str(tmp_path))
    with pytest.raises(InputError, match="no imagenet-v2 weights for resnet18"):
        initialise(backbone, "imagenet-v2")
    with pytest.raises(InputError, match="one of resnet18"):
        build_backbone("resnet99")


def test_imagenet_without_a_network_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def refuse(*_args, **_kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    with pytest.raises(
        InputError, match=r"without a network, download resnet50-11ad3fa6\.pth"
    ) as caught:
        initialise(build_backbone("resnet50", 0), "imagenet-v2")
    assert str(tmp_path) in str(caught.value)


def test_imagenet_weights_are_read_from_torchvisions_own_cache(tmp_path, monkeypatch):
    """The real loading path, on a file put where torchvision looks; its hash check would need the real file."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    donor = torchvision.models.resnet18(weights=None)
    weights = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    place = tmp_path / "hub" / "checkpoints" / weights.url.rsplit("/", 1)[1]
    place.parent.mkdir(parents=True)
    torch.save(donor.state_dict(), place)
    backbone = build_backbone("resnet18", 0)
    provenance = initialise(backbone, "imagenet-v1")
    assert torch.equal(backbone.conv1.weight, donor.conv1.weight)
    assert provenance.source == "ResNet18_Weights.IMAGENET1K_V1"
    assert provenance.unexpected == ("fc.bias", "fc.weight")
