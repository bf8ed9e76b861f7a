"""Every row of the ledger: a file of its published layout, with random values, loads completely or is refused for its reason.

Names and shapes come from the publishers' code as each row cites it. A tensor of a file is one random number, spread over
its shape without memory, so that whole ViT-B files are small and every tensor can be told from every other.
"""

from __future__ import annotations

import re
import sys
from datetime import date
from pathlib import Path

import pytest
import torch
import torchvision

from twinray.backbones.build import build_backbone
from twinray.backbones.layouts import best_match, is_counter
from twinray.backbones.ledger import LEDGER, SOURCES, named
from twinray.backbones.pixels import IMAGENET
from twinray.backbones.timm_backbone import published_pixels
from twinray.backbones.weight_file import read_tensors
from twinray.backbones.weights import initialise, seen_by, settled_arch, settled_size
from twinray.errors import InputError

LOADED = [name for name, row in LEDGER.items() if not row.refused]
REFUSED = [name for name, row in LEDGER.items() if row.refused]
GENERIC = {"imagenet-v1": "resnet18", "imagenet-v2": "resnet50", "solo-learn": "resnet18", "lightly": "resnet18",
           "lightly-train": "resnet18", "ddp": "resnet18"}  # fmt: skip


@pytest.fixture(scope="module")
def networks():
    """Networks without memory, each built once."""
    made = {}

    def get(arch):
        if arch not in made:
            with torch.device("meta"):
                made[arch] = build_backbone(arch, 0)
        return made[arch]

    return get


class Numbers:
    """One random number a tensor."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)

    def like(self, shapes):
        return {
            name: torch.tensor(3) if is_counter(name) else self.one(*shape)
            for name, shape in shapes.items()
        }

    def one(self, *shape):
        return torch.rand(1, generator=self.generator).expand(*shape)


def shapes(net):
    return {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}


def behind(prefix, state):
    return {prefix + key: value for key, value in state.items()}


def renamed(state, *rules):
    found = {}
    for key, value in state.items():
        for pattern, new in rules:
            key = re.sub(pattern, new, key)
        found[key] = value
    return found


def thirds(
    state, names=("query", "key", "value"), old=r"attn\.qkv\.", new="attention.attention.{}."
):
    """The joined projections of attention, apart."""
    found = {}
    for key, value in state.items():
        if re.search(old, key):
            size = value.shape[0] // 3
            found |= {
                re.sub(old, new.format(n), key): value[i * size : (i + 1) * size]
                for i, n in enumerate(names)
            }
        else:
            found[key] = value
    return found  # fmt: skip


def transformers_dinov2(state, numbers):
    """transformers 4's names (convert_dinov2_to_hf.py)."""
    state = dict(state)
    wide = state["pos_embed"].shape[2]
    if "reg_token" in state:  # timm took the class token's position into the token
        state["register_tokens"] = state.pop("reg_token")
        places = state["pos_embed"].shape[1]
        own = state["pos_embed"][0, 0, 0].item()
        state["pos_embed"] = torch.full((1,), own).expand(1, places + 1, wide)
        state["cls_token"] = (state["cls_token"][0, 0, 0] - own).reshape(1, 1, 1).expand(1, 1, wide)
    state["mask_token"] = numbers.one(1, wide)
    return renamed(
        thirds(state),
        (r"^(cls_token|mask_token|register_tokens)$", r"embeddings.\1"),
        (r"^pos_embed$", "embeddings.position_embeddings"),
        (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
        (r"^norm\.", "layernorm."),
        (r"^blocks\.", "encoder.layer."),
        (r"\.ls([12])\.gamma$", r".layer_scale\1.lambda1"),
        (r"attn\.proj\.", "attention.output.dense."),
    )


def eva_x(state, numbers):
    """EVA's names (eva_x.py, checkpoint_filter_fn, read backwards)."""
    state = renamed(state, (r"^fc_norm\.", "norm."), (r"mlp\.fc1_g", "mlp.w1"), (r"mlp\.fc1_x", "mlp.w2"),
                    (r"mlp\.fc2", "mlp.w3"), (r"mlp\.norm", "mlp.ffn_ln"), (r"attn\.(q|v)_proj\.bias", r"attn.\1_bias"))  # fmt: skip
    wide = state["cls_token"].shape[-1]
    extra = {
        "mask_token": numbers.one(1, 1, wide),
        "lm_head.weight": numbers.one(8, wide),
        "rope.freqs_cos": numbers.one(4, 4),
    }
    return {"module": state | extra}  # fmt: skip


def clip(state, numbers):
    """CLIP's names (timm's _convert_openai_clip, read backwards), beside the text network."""
    state = dict(state)
    state["cls_token"], state["pos_embed"] = state["cls_token"][0, 0], state["pos_embed"][0]
    state = renamed(state, (r"^cls_token$", "class_embedding"), (r"^pos_embed$", "positional_embedding"),
                    (r"^patch_embed\.proj\.", "conv1."), (r"^norm_pre\.", "ln_pre."), (r"^norm\.", "ln_post."),
                    (r"^blocks\.", "transformer.resblocks."), (r"attn\.qkv\.", "attn.in_proj_"), (r"attn\.proj\.", "attn.out_proj."),
                    (r"\.norm([12])\.", r".ln_\1."), (r"mlp\.fc1\.", "mlp.c_fc."), (r"mlp\.fc2\.", "mlp.c_proj."))  # fmt: skip
    return behind("visual.", state) | {"visual.proj": numbers.one(768, 512), "token_embedding.weight": numbers.one(9, 512),
                                       "transformer.resblocks.0.ln_1.weight": numbers.one(512)}  # fmt: skip


def old_swin(state, numbers):
    """timm 0.5.4's Swin: a stage ends with its downsampling, and buffers are kept."""
    old = renamed(
        state, (r"^layers\.(\d+)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample")
    )
    old |= {
        "layers.0.blocks.1.attn_mask": numbers.one(64, 49, 49),
        "layers.0.blocks.0.attn.relative_position_index": torch.zeros(49, 49),
    }
    other = {k: numbers.one(*v.shape) for k, v in old.items()}
    extra = {
        "projector.layers.0.weight": numbers.one(5, 5),
        "omni_heads.0.weight": numbers.one(5, 5),
    }
    return {"epoch": 200, "state_dict": behind("module.", other | extra), "teacher": behind("module.", old | extra)}  # fmt: skip


def numbered(state):
    """What ``nn.Sequential(*resnet.children())`` calls them: conv1, bn1, relu, maxpool, layer1 ..."""
    order = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool")
    return renamed(state, *((rf"^{name}\.", f"{i}.") for i, name in enumerate(order)))


def efficientnet(state, numbers, blocks):
    """efficientnet_pytorch's names by order alone: the published file has them in timm's order."""
    names = []
    for block in range(blocks):
        parts = ["_depthwise_conv", "_bn1", "_project_conv", "_bn2"]
        parts = parts if block == 0 else ["_expand_conv", "_bn0", *parts]
        names += [f"_blocks.{block}.{part}" for part in parts]
    modules = iter(["_conv_stem", "_bn0", *names, "_conv_head", "_bn1"])
    found, last, module = {}, None, ""
    for key, value in state.items():
        owner, _, leaf = key.rpartition(".")
        module = module if owner == last else next(modules)
        found[f"{module}.{leaf}"], last = value, owner
    assert next(modules, None) is None
    return found | {"_fc.weight": numbers.one(1000, 1280), "_fc.bias": numbers.one(1000)}


def blocks_of(state):
    return len({key.split(".")[1:3].__str__() for key in state if key.startswith("blocks.")})


def with_fc(state, numbers, name="fc"):
    return state | {f"{name}.weight": numbers.one(10, 7), f"{name}.bias": numbers.one(10)}


def moco(state, numbers):
    key = {k: numbers.one(*v.shape) if v.ndim else v for k, v in state.items()}
    return {"epoch": 1, "arch": "x", "state_dict": behind("module.encoder_q.", with_fc(state, numbers, "fc.0"))
            | behind("module.encoder_k.", key) | {"module.queue": numbers.one(8, 9), "module.queue_ptr": torch.zeros(1)},
            "optimizer": {}}  # fmt: skip


def moco3(head):
    def write(state, numbers):
        other = {k: numbers.one(*v.shape) if v.ndim else v for k, v in state.items()}
        return {"state_dict": behind("module.base_encoder.", with_fc(state, numbers, f"{head}.0"))
                | behind("module.momentum_encoder.", other) | {"module.predictor.0.weight": numbers.one(3, 3)}}  # fmt: skip

    return write


def wrapped(place, prefix, *extra):
    def write(state, numbers):
        whole = behind(prefix, with_fc(state, numbers)) | {
            name: numbers.one(4, 4) for name in extra
        }
        return {place: whole, "epoch": 9} if place else whole

    return write


def torchvision_detector(builder):
    def write(state, numbers):
        with torch.device("meta"):
            net = getattr(torchvision.models.detection, builder)(
                weights=None, weights_backbone=None
            )
        frozen = not builder.endswith("_v2")  # FrozenBatchNorm2d keeps no counters
        names = {k: v for k, v in shapes(net).items() if not (frozen and is_counter(k))}
        whole = numbers.like(names)
        return whole | {
            f"backbone.body.{k}": v for k, v in state.items() if not (frozen and is_counter(k))
        }

    return write  # fmt: skip


def one_channel(state, numbers):
    grey = state["conv1.weight"][:, :1]
    return with_fc(state | {"conv1.weight": grey}, numbers)


WRITERS = {
    "imagenet-v1": with_fc, "imagenet-v2": with_fc, "lightly-train": with_fc,
    "coco": torchvision_detector("fasterrcnn_resnet50_fpn"), "coco-v2": torchvision_detector("fasterrcnn_resnet50_fpn_v2"),
    "coco-retinanet": torchvision_detector("retinanet_resnet50_fpn"),
    "coco-retinanet-v2": torchvision_detector("retinanet_resnet50_fpn_v2"), "coco-fcos": torchvision_detector("fcos_resnet50_fpn"),
    "barlow-twins": wrapped("model", "module.backbone.", "module.projector.0.weight", "module.bn.running_mean"),
    "vicreg": wrapped("model", "module.backbone.", "module.projector.0.weight"), "vicregl": lambda s, n: s,
    "swav": wrapped("", "module.", "module.projection_head.0.weight", "module.prototypes.weight"),
    "dino": lambda s, n: {"teacher": behind("backbone.", s), "student": behind("module.backbone.", n.like({k: v.shape for k, v in s.items()}))},
    "moco-v1": moco, "moco-v2": moco, "moco-v3": moco3("fc"), "moco-v3-vit-small": moco3("head"), "moco-v3-vit-base": moco3("head"),
    "moco-cxr-resnet18": moco, "moco-cxr-resnet50": moco, "moco-cxr-densenet121": moco,
    "openmmlab-barlow-twins": lambda s, n: {"meta": {"epoch": 1}, **wrapped("state_dict", "backbone.", "neck.0.weight")(s, n)},
    "solo-learn": wrapped("state_dict", "backbone.", "projector.0.weight"),
    "lightly": lambda s, n: {"state_dict": behind("backbone.", numbered(s)) | {"projection_head.0.weight": n.one(2, 2)}},
    "ddp": wrapped("", "module._orig_mod."),
    "rad-dino": transformers_dinov2, "rad-dino-maira-2": transformers_dinov2, "cxformer-small": transformers_dinov2,
    "cxformer-base": transformers_dinov2, "eva-x-tiny": eva_x, "eva-x-small": eva_x, "eva-x-base": eva_x,
    "xrv-resnet50": one_channel, "ark-6": old_swin, "ark-5": old_swin, "biovil": wrapped("", "encoder.encoder.", "projector.0.weight"),
    "biovil-t": wrapped("", "encoder.encoder.", "projector.0.weight"), "chexzero": clip,
    "gloria-resnet50": wrapped("state_dict", "gloria.img_encoder.model."),
    "gloria-resnet18": wrapped("state_dict", "gloria.img_encoder.model."), "medclip": wrapped("", "vision_model.model."),
    "mgca": wrapped("", "img_encoder_q.model."), "lvm-med": with_fc, "radimagenet": lambda s, n: behind("backbone.", numbered(s)),
    "biomedclip": lambda s, n: behind("visual.trunk.", s) | {"visual.head.proj.weight": n.one(512, 768)},
    **{f"efficientnet-lite{i}": lambda s, n: efficientnet(s, n, blocks_of(s)) for i in range(3)},
    **{name: lambda s, n: s for name, row in LEDGER.items() if row.place.value.how == "timm"},
}  # fmt: skip


def test_every_row_that_can_be_loaded_has_its_layout_here():
    assert set(LOADED) == set(WRITERS)


@pytest.mark.parametrize("name", LOADED)
def test_a_file_of_the_published_layout_loads_completely(name, networks, tmp_path):
    row = LEDGER[name]
    backbone = networks(row.arch.value or GENERIC[name])
    numbers = Numbers(LOADED.index(name))
    state = numbers.like(shapes(backbone))
    torch.save(WRITERS[name](state, numbers), tmp_path / "w.pth")
    match = best_match(backbone, read_tensors(tmp_path / "w.pth"), "w.pth", row.layouts)
    assert match.complete, (match.missing[:4], match.misshaped[:4], match.unexpected[:4])
    for key, value in state.items():
        if not is_counter(key):
            want = value / 3 if name == "xrv-resnet50" and key == "conv1.weight" else value
            torch.testing.assert_close(
                match.state[key], want.expand(match.state[key].shape), rtol=1e-6, atol=1e-6
            )
    assert settled_arch("", name, default="resnet18") == (row.arch.value or "resnet18")


@pytest.mark.parametrize("name", REFUSED)
def test_rows_that_cannot_be_loaded_say_why(name, tmp_path):
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "w.pth")
    for init in (name, f"{name}={tmp_path / 'w.pth'}"):
        with pytest.raises(InputError, match=re.escape(LEDGER[name].refused[:40])):
            settled_arch("resnet50", init)
        with pytest.raises(InputError, match=f"{name} cannot be loaded"):
            initialise(build_backbone("resnet18", 0), init)


def test_facts_have_sources_and_days():
    for row in LEDGER.values():
        assert set(row.sources) <= set(SOURCES), row.name
        assert row.about and "=" not in row.name and row.licence.value.text
        assert (row.pixels.value is None) <= (row.scale == "unknown")
    used = {source for row in LEDGER.values() for source in row.sources}
    assert used == set(SOURCES)
    for source in SOURCES.values():
        date.fromisoformat(source.read)


@pytest.mark.parametrize("name", [n for n, r in LEDGER.items() if r.place.value.how == "timm"])
def test_timms_own_records_agree(name, networks):
    """Statistics, size, patch and licence as timm's own registry has them for the tag."""
    timm = pytest.importorskip("timm")
    row = LEDGER[name]
    published = timm.get_pretrained_cfg(row.place.value.where)
    assert (published.mean, published.std) == (row.pixels.value.mean, row.pixels.value.std)
    assert published.input_size[-1] == row.size.value
    assert published.has_weights
    patch = getattr(networks(row.arch.value).net, "patch_embed", None)
    assert row.patch.value == (patch.patch_size[0] if patch is not None else 0)
    terms = (published.license or "").lower().replace(" ", "-")
    assert row.licence.value.text.lower().replace(" ", "-") in (
        terms,
        "dinov3-license" if "dinov3" in terms else terms,
    )


def test_torchvisions_own_records_agree():
    for row in LEDGER.values():
        if row.detector:
            weights = torchvision.models.get_weight(row.place.value.where)
            assert (
                weights.url.endswith(row.place.value.file) and len(weights.meta["categories"]) == 91
            )


def test_authors_own_files_of_timms_networks(networks, tmp_path):
    """DINOv2's, DINOv3's and ConvNeXt's first spelling."""
    numbers = Numbers(3)

    def check(name, write):
        backbone = networks(LEDGER[name].arch.value)
        state = numbers.like(shapes(backbone))
        torch.save(write(dict(state)), tmp_path / "w.pth")
        match = best_match(backbone, read_tensors(tmp_path / "w.pth"), "w.pth")
        assert match.complete, (name, match.missing[:4], match.misshaped[:4])
        return state, match

    def dinov2(state):
        return state | {"mask_token": numbers.one(1, 384)}

    def dinov3(state):
        state["storage_tokens"] = state.pop("reg_token")
        state |= {"mask_token": numbers.one(1, 384), "rope_embed.periods": numbers.one(16)}
        return renamed(state, (r"gamma_([12])$", r"ls\1.gamma"))

    def convnext(state):
        return renamed(state, (r"^stem\.", "downsample_layers.0."), (r"^stages\.(\d)\.downsample", r"downsample_layers.\1"),
                       (r"\.blocks\.", "."), (r"conv_dw", "dwconv"), (r"mlp\.fc", "pwconv"), (r"^head\.norm\.", "norm."))  # fmt: skip

    for name, write in (
        ("dinov2-vit-small", dinov2),
        ("dinov3-vit-small", dinov3),
        ("convnext-tiny", convnext),
    ):
        state, match = check(name, write)
        assert all(torch.equal(match.state[k], v) for k, v in state.items() if k in match.state)


def test_a_patch_of_another_size_is_no_weight_of_the_network(networks, tmp_path):
    """timm would resample the patches without a word."""
    backbone = networks("timm/vit_small_patch14_dinov2")
    numbers = Numbers(0)
    state = numbers.like(shapes(backbone)) | {"mask_token": numbers.one(1, 384)}
    state["patch_embed.proj.weight"] = numbers.one(384, 3, 16, 16)
    torch.save(state, tmp_path / "w.pth")
    match = best_match(backbone, read_tensors(tmp_path / "w.pth"), "w.pth")
    assert match.misshaped == ("patch_embed.proj.weight",)


def test_a_local_copy_goes_through_the_rows_own_mapping(tmp_path):
    """A file of another layout is refused, though its tensors would fit."""
    backbone = build_backbone("timm/tf_efficientnet_lite0", 0)
    state = {k: v.clone() for k, v in backbone.state_dict().items()}
    torch.save(state, tmp_path / "timm.pth")
    torch.save(
        efficientnet(
            {k: v for k, v in state.items() if not is_counter(k)}, Numbers(0), blocks_of(state)
        ),
        tmp_path / "w.pth",
    )
    other = build_backbone("timm/tf_efficientnet_lite0", 5)
    found = initialise(other, f"efficientnet-lite0={tmp_path / 'w.pth'}")
    assert all(torch.equal(v, state[k]) for k, v in other.state_dict().items())
    assert other.normalisation == LEDGER["efficientnet-lite0"].pixels.value != IMAGENET
    assert found.layout == "efficientnet_pytorch" and found.unexpected == ("_fc.bias", "_fc.weight")
    assert (
        found.ancestors[0].name == "efficientnet-lite0"
        and found.ancestors[0].licence == "Apache-2.0"
    )
    assert any("Apache-2.0" in note and "imagenet-1k" in note for note in found.notes)
    with pytest.raises(InputError, match="do not fit"):
        initialise(other, f"efficientnet-lite0={tmp_path / 'timm.pth'}")


def test_a_weight_knows_its_architecture():
    assert settled_arch("", "rad-dino") == "timm/vit_base_patch14_dinov2"
    assert (
        settled_arch("timm/vit_base_patch14_dinov2.lvd142m", "rad-dino")
        == "timm/vit_base_patch14_dinov2.lvd142m"
    )
    with pytest.raises(
        InputError,
        match="rad-dino are of the architecture timm/vit_base_patch14_dinov2, not resnet50",
    ):
        settled_arch("resnet50", "rad-dino")
    assert settled_arch("resnet34", "imagenet-v1") == "resnet34"
    with pytest.raises(InputError, match="expected --arch"):
        settled_arch("", "imagenet-v1")
    assert (
        settled_size(0, "rad-dino") == 518
        and settled_size(64, "rad-dino") == 64
        and settled_size(0, "coco") == 0
    )
    with pytest.raises(InputError, match="found none at"):
        named("rad-dino=/nowhere/x.safetensors")
    with pytest.raises(InputError, match="did you mean rad-dino"):
        initialise(build_backbone("resnet18", 0), "rad-din")


@pytest.mark.parametrize("name", ["rad-dino", "barlow-twins", "coco", "moco-v3", "ark-6"])
def test_without_a_network_the_line_says_what_to_do(name, monkeypatch, tmp_path):
    def refuse(*_args, **_kwargs):
        raise OSError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub, "hf_hub_download", refuse)
    row = LEDGER[name]
    from twinray.backbones.published import published_file

    with pytest.raises(InputError, match=f"--init {name}=FILE") as caught:
        published_file(row)
    assert "\n" not in str(caught.value)


def test_files_of_one_name_by_two_authors_do_not_meet_in_the_cache(monkeypatch, tmp_path):
    """Barlow Twins' and VICReg's are both resnet50.pth."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    asked = []

    def fetch(address, path, hash_prefix=None, progress=True):
        asked.append((address, hash_prefix))
        Path(path).write_text(address)

    monkeypatch.setattr("torch.hub.download_url_to_file", fetch)
    from twinray.backbones.published import published_file

    found = {name: published_file(LEDGER[name]) for name in ("barlow-twins", "vicreg", "coco")}
    assert len(set(found.values())) == 3
    assert all(
        path.read_text() == address
        for path, (address, _) in zip(found.values(), asked, strict=True)
    )
    assert [wanted for _, wanted in asked] == [None, None, "258fb6c6"]
    assert published_file(LEDGER["vicreg"]) == found["vicreg"] and len(asked) == 3


def test_a_package_that_is_not_there_names_the_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    from twinray.backbones.published import published_file

    with pytest.raises(InputError, match=r"twinray\[imagenet\]"):
        published_file(LEDGER["efficientnet-lite0"])


@pytest.mark.parametrize(
    ("init", "extra"), [("efficientnet-lite0", "imagenet"), ("rad-dino", "timm")]
)
def test_one_extra_brings_the_network_and_its_weights(monkeypatch, init, extra):
    monkeypatch.setitem(sys.modules, "timm", None)
    for arch in ("", LEDGER[init].arch.value):
        with pytest.raises(InputError) as refused:
            settled_arch(arch, init)
        assert f"--init {init} " in str(refused.value)
        assert str(refused.value).endswith(f"pip install 'twinray[{extra}]'")


def test_statistics_are_those_of_the_tag():
    pytest.importorskip("timm")
    backbone = build_backbone("timm/vit_tiny_patch16_224", 0, 32)
    assert published_pixels(backbone).mean == (0.5, 0.5, 0.5)


def test_photographs_hold_no_patient_and_the_rest_is_not_known_to_be_clean():
    assert seen_by("efficientnet-lite0").status == "nothing" and seen_by("coco").status == "nothing"
    assert seen_by("dinov3-vit-small").status == "unknown"


def test_a_bad_option_of_an_architecture_is_one_line():
    for arch in (
        "timm/vit_tiny_patch16_224?heads",
        "timm/vit_tiny_patch16_224?num_heads=x",
        "timm/vit_tiny_patch16_224?nonsense=3",
    ):
        with pytest.raises(InputError) as caught:
            build_backbone(arch, 0, 32)
        assert "\n" not in str(caught.value)
    assert (
        build_backbone("timm/vit_tiny_patch16_224?num_heads=6", 0, 32).net.blocks[0].attn.num_heads
        == 6
    )
