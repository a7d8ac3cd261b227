"""Names of networks beyond ResNets: torchvision's, transformers' and efficientnet_pytorch's.

Rows as in `transfer.key_maps`, and the timm architectures of equal function: these names alone say
which program a file is from, so they also settle what shapes do not show (padding, eps).
"""

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

from transfer.key_maps import RESNET_MAPS, KeyMap, Row


def _nest(depths: Sequence[int]) -> Iterable[tuple[int, str]]:
    """The number of a block in one list of all, and its stage and number there."""
    starts = [0, *accumulate(depths)]
    for stage, depth in enumerate(depths):
        yield from ((starts[stage] + n, f"{stage}.{n}") for n in range(depth))


def _modules(ours: str, theirs: str, pairs: str) -> list[Row]:
    """Rows of modules in a block, from "ours=theirs" with spaces between."""
    split = (pair.split("=") for pair in pairs.split())
    return [(f"{ours}.{one}.<p>", f"{theirs}.{other}.<p>") for one, other in split]


# blocks of mobile networks: without an expansion, with one; with squeeze-excitation or without
_DEPTHWISE = "conv_dw=0.0 bn1=0.1 se.conv_reduce=1.fc1 se.conv_expand=1.fc2"
_DS = f"{_DEPTHWISE} conv_pw=2.0 bn2=2.1"
_DS_PLAIN = "conv_dw=0.0 bn1=0.1 conv_pw=1.0 bn2=1.1"
_IR = (
    "conv_pw=0.0 bn1=0.1 conv_dw=1.0 bn2=1.1 se.conv_reduce=2.fc1 se.conv_expand=2.fc2 "
    "conv_pwl=3.0 bn3=3.1"
)
_IR_PLAIN = "conv_pw=0.0 bn1=0.1 conv_dw=1.0 bn2=1.1 conv_pwl=2.0 bn3=2.1"
_FUSED = "conv_exp=0.0 bn1=0.1 conv_pwl=1.0 bn2=1.1"
_STEM = [("conv_stem.<p>", "features.0.0.<p>"), ("bn1.<p>", "features.0.1.<p>")]


def _head(number: int) -> list[Row]:
    return [("conv_head.<p>", f"features.{number}.0.<p>"), ("bn2.<p>", f"features.{number}.1.<p>"),
            ("classifier.<p>", "classifier.1.<p>")]  # fmt: skip


def _efficientnet(blocks: Sequence[str]) -> list[Row]:
    rows = list(_STEM)
    for stage, pairs in enumerate(blocks):
        rows += _modules(f"blocks.{stage}.<b>", f"features.{stage + 1}.<b>.block", pairs)
    return rows + _head(len(blocks) + 1)


def _mobilenet_v2(first: str, others: str) -> list[Row]:
    """The modules of the first block, which does not expand, and of the others."""
    rows = list(_STEM)
    for number, ours in _nest((1, 2, 3, 4, 3, 3, 1)):
        theirs = f"features.{number + 1}.conv"
        rows += _modules(f"blocks.{ours}", theirs, others if number else first)
    return rows + _head(18)


def _mobilenet_v3(depths: Sequence[int], squeezed: Sequence[int]) -> list[Row]:
    """`squeezed`: numbers of the blocks with squeeze-excitation, of 1 and up."""
    rows, last = list(_STEM), len(depths)
    for index, ours in _nest(depths):
        number = index + 1
        kinds = (_DS_PLAIN, _DS) if number == 1 else (_IR_PLAIN, _IR)
        rows += _modules(f"blocks.{ours}", f"features.{number}.block", kinds[number in squeezed])
    rows += _modules(f"blocks.{last}.0", f"features.{sum(depths) + 1}", "conv=0 bn1=1")
    return [*rows, ("conv_head.<p>", "classifier.0.<p>"), ("classifier.<p>", "classifier.3.<p>")]


def _regnet() -> list[Row]:
    pairs = (
        "downsample.conv=proj.0 downsample.bn=proj.1 conv1.conv=f.a.0 conv1.bn=f.a.1 "
        "conv2.conv=f.b.0 conv2.bn=f.b.1 se.fc1=f.se.fc1 se.fc2=f.se.fc2 conv3.conv=f.c.0 "
        "conv3.bn=f.c.1"
    )
    rows = [("stem.conv.<p>", "stem.0.<p>"), ("stem.bn.<p>", "stem.1.<p>"),
            ("head.fc.<p>", "fc.<p>")]  # fmt: skip
    for stage in (1, 2, 3, 4):
        for number in range(24):
            theirs = f"trunk_output.block{stage}.block{stage}-{number}"
            rows += _modules(f"s{stage}.b{number + 1}", theirs, pairs)
    return rows


def _convnext(theirs: str, downsample: str, scale: str, pairs: str, numbers: Sequence[str]) -> Any:
    """`theirs` and `downsample` hold {}, the number of a stage as it stands in `numbers`."""
    rows: list[Row] = []
    for stage, number in enumerate(numbers):
        block = theirs.format(number)
        rows.append((f"stages.{stage}.blocks.<b>.gamma", f"{block}.{scale}"))
        rows += _modules(f"stages.{stage}.blocks.<b>", block, pairs)
        if stage:
            before = downsample.format(int(number) - (number != str(stage)))
            rows += _modules(f"stages.{stage}.downsample", before, "0=0 1=1")
    return rows


def _vit() -> list[Row]:
    ours, theirs = "blocks.<b>", "encoder.layers.encoder_layer_<b>"
    return [
        ("cls_token", "class_token"),
        ("pos_embed", "encoder.pos_embedding"),
        ("patch_embed.proj.<p>", "conv_proj.<p>"),
        *(
            (f"{ours}.attn.qkv.{kind}", f"{theirs}.self_attention.in_proj_{kind}")
            for kind in ("weight", "bias")
        ),
        *_modules(ours, theirs, "norm1=ln_1 attn.proj=self_attention.out_proj norm2=ln_2 "
                  "mlp.fc1=mlp.0 mlp.fc2=mlp.3"),
        *_modules(ours, theirs, "mlp.fc1=mlp.linear_1 mlp.fc2=mlp.linear_2"),  # before 0.13
        ("norm.<p>", "encoder.ln.<p>"),
        ("head.<p>", "heads.head.<p>"),
    ]  # fmt: skip


def _swin() -> list[Row]:
    rows = [
        ("patch_embed.proj.<p>", "features.0.0.<p>"),
        ("patch_embed.norm.<p>", "features.0.2.<p>"),
        ("norm.<p>", "norm.<p>"),
        ("head.fc.<p>", "head.<p>"),
    ]
    for stage in range(4):
        ours, theirs = f"layers.{stage}.blocks.<b>", f"features.{2 * stage + 1}.<b>"
        table = "attn.relative_position_bias_table"
        rows.append((f"{ours}.{table}", f"{theirs}.{table}"))
        rows += _modules(ours, theirs, "norm1=norm1 attn.qkv=attn.qkv attn.proj=attn.proj "
                         "norm2=norm2 mlp.fc1=mlp.0 mlp.fc2=mlp.3")  # fmt: skip
        pairs = "norm=norm reduction=reduction"
        rows += _modules(f"layers.{stage}.downsample", f"features.{2 * stage}", pairs)
    return rows


def _efficientnet_pytorch(depths: Sequence[int]) -> list[Row]:
    rows = [("conv_stem.<p>", "_conv_stem.<p>"), ("bn1.<p>", "_bn0.<p>"),
            ("conv_head.<p>", "_conv_head.<p>"), ("bn2.<p>", "_bn1.<p>"),
            ("classifier.<p>", "_fc.<p>")]  # fmt: skip
    squeeze = "se.conv_reduce=_se_reduce se.conv_expand=_se_expand"
    for number, ours in _nest(depths):
        if number < depths[0]:  # the first stage does not expand
            pairs = "conv_dw=_depthwise_conv bn1=_bn1 conv_pw=_project_conv bn2=_bn2"
        else:
            pairs = (
                "conv_pw=_expand_conv bn1=_bn0 conv_dw=_depthwise_conv bn2=_bn1 "
                "conv_pwl=_project_conv bn3=_bn2"
            )
        rows += _modules(f"blocks.{ours}", f"_blocks.{number}", f"{pairs} {squeeze}")
    return rows


# torchvision's models, and timm's of equal function
_CONVNEXT = {f"convnext_{size}": size for size in ("tiny", "small", "base", "large")}
_EPS = {"bn_eps": 1e-3}
_VIT = {"b_16": "base_patch16", "b_32": "base_patch32", "l_16": "large_patch16",
        "l_32": "large_patch32", "h_14": "huge_patch14"}  # fmt: skip
_SWIN = {"swin_t": "tiny", "swin_s": "small", "swin_b": "base"}
_REGNET = {"400mf": "004", "800mf": "008", "1_6gf": "016", "3_2gf": "032", "8gf": "080",
           "16gf": "160", "32gf": "320"}  # fmt: skip
_TV = {"x_400mf": "regnetx_004_tv", "y_800mf": "regnety_008_tv", "y_8gf": "regnety_080_tv",
       "y_128gf": "regnety_1280"}  # fmt: skip
_VGG = [f"vgg{depth}{bn}" for depth in (11, 13, 16, 19) for bn in ("", "_bn")]
TORCHVISION: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in _CONVNEXT},
    **{f"efficientnet_b{n}": (f"efficientnet_b{n}", _EPS if n > 4 else {}) for n in range(8)},
    **{f"efficientnet_v2_{s}": (f"efficientnetv2_{s}", _EPS) for s in "sml"},
    "mobilenet_v2": ("mobilenetv2_100", {}),
    "mobilenet_v3_large": ("mobilenetv3_large_100", _EPS),
    "mobilenet_v3_small": ("mobilenetv3_small_100", _EPS),
    **{f"regnet_{k}_{gf}": (f"regnet{k}_{n}", {}) for k in "xy" for gf, n in _REGNET.items()},
    **{f"regnet_{name}": (ours, {}) for name, ours in _TV.items()},
    **{f"vit_{name}": (f"vit_{ours}_224", {}) for name, ours in _VIT.items()},
    **{name: (f"swin_{size}_patch4_window7_224", {}) for name, size in _SWIN.items()},
    **{name: (name, {}) for name in _VGG},
    **{f"densenet{depth}": (f"densenet{depth}", {}) for depth in (121, 161, 169, 201)},
}


def _of(*beginnings: str) -> list[tuple[str, dict[str, Any]]]:
    return [row for name, row in TORCHVISION.items() if name.startswith(beginnings)]


_LARGER_VIT = [("vit_base_patch16_224", 384), ("vit_large_patch16_224", 512),
               ("vit_huge_patch14_224", 518)]  # fmt: skip
# torchvision's depths of EfficientNets, by which efficientnet_pytorch numbers its blocks
_DEPTHS = {
    "b0": (1, 2, 2, 3, 3, 4, 1), "b1 b2": (2, 3, 3, 4, 4, 5, 2), "b3": (2, 3, 3, 5, 5, 6, 2),
    "b4": (2, 4, 4, 6, 6, 8, 2), "b5": (3, 5, 5, 7, 7, 9, 3), "b6": (3, 6, 6, 8, 8, 11, 3),
    "b7": (4, 7, 7, 10, 10, 13, 4), "lite0": (1, 2, 2, 3, 3, 4, 1),
    "lite1 lite2": (1, 3, 3, 4, 4, 5, 1), "lite3": (1, 3, 3, 5, 5, 6, 1),
    "lite4": (1, 4, 4, 6, 6, 8, 1),
}  # fmt: skip
KEY_MAPS: dict[str, KeyMap] = {
    **RESNET_MAPS,
    "torchvision's ConvNeXt": KeyMap([
            *_modules("stem", "features.0", "0=0 1=1"),
            *_convnext("features.{}.<b>", "features.{}", "layer_scale", "conv_dw=block.0 "
                       "norm=block.2 mlp.fc1=block.3 mlp.fc2=block.5", "1357"),
            ("head.norm.<p>", "classifier.0.<p>"),
            ("head.fc.<p>", "classifier.2.<p>"),
        ],
        _of("convnext"),
    ),
    "torchvision's EfficientNet": KeyMap(_efficientnet([_DS, *[_IR] * 6]), _of("efficientnet_b")),
    "torchvision's EfficientNetV2-S": KeyMap(
        _efficientnet(["conv=0.0 bn1=0.1", _FUSED, _FUSED, *[_IR] * 3]),
               _of("efficientnet_v2_s")),
    "torchvision's EfficientNetV2": KeyMap(
        _efficientnet(["conv=0.0 bn1=0.1", _FUSED, _FUSED, *[_IR] * 4]),
               _of("efficientnet_v2_m", "efficientnet_v2_l")),
    "torchvision's MobileNetV2": KeyMap(
        _mobilenet_v2("conv_dw=0.0 bn1=0.1 conv_pw=1 bn2=2", "conv_pw=0.0 bn1=0.1 "
                             "conv_dw=1.0 bn2=1.1 conv_pwl=2 bn3=3"), _of("mobilenet_v2")),
    # github.com/tonylins
    "pytorch-mobilenet-v2": KeyMap(
        _mobilenet_v2("conv_dw=0 bn1=1 conv_pw=3 bn2=4", "conv_pw=0 bn1=1 "
                             "conv_dw=3 bn2=4 conv_pwl=6 bn3=7"), _of("mobilenet_v2")),
    "torchvision's MobileNetV3-Large": KeyMap(
        _mobilenet_v3((1, 2, 3, 4, 2, 3), (4, 5, 6, 11, 12, 13, 14, 15)),
               _of("mobilenet_v3_l")),
    "torchvision's MobileNetV3-Small": KeyMap(
        _mobilenet_v3((1, 2, 3, 2, 3), (1, 4, 5, 6, 7, 8, 9, 10, 11)),
               _of("mobilenet_v3_s")),
    "torchvision's RegNet": KeyMap(_regnet(), _of("regnet")),
    "torchvision's ViT": KeyMap(_vit(),
               [*_of("vit"), *((name, {"img_size": size}) for name, size in _LARGER_VIT)]),
    "torchvision's Swin": KeyMap(_swin(), _of("swin"), [r".*relative_position_index"]),
    "torchvision's VGG": KeyMap([
        ("features.<rest>", "features.<rest>"), ("pre_logits.fc1.<p>", "classifier.0.<p>"),
        ("pre_logits.fc2.<p>", "classifier.3.<p>"), ("head.fc.<p>", "classifier.6.<p>"),
    ], _of("vgg")),
    "torchvision's DenseNet": KeyMap([("features.<rest>", "features.<rest>"),
                                          ("classifier.<p>", "classifier.<p>")], _of("densenet")),
    "transformers' ConvNeXt": KeyMap([
            ("stem.0.<p>", "convnext.embeddings.patch_embeddings.<p>"),
            ("stem.1.<p>", "convnext.embeddings.layernorm.<p>"),
            *_convnext("convnext.encoder.stages.{}.layers.<b>",
                       "convnext.encoder.stages.{}.downsampling_layer", "layer_scale_parameter",
                       "conv_dw=dwconv norm=layernorm mlp.fc1=pwconv1 mlp.fc2=pwconv2", "0123"),
            ("head.norm.<p>", "convnext.layernorm.<p>"),
            ("head.fc.<p>", "classifier.<p>"),
        ],
        [*_of("convnext"), ("convnext_xlarge", {})],
    ),
    **{
        f"efficientnet_pytorch, {names}": KeyMap(
            _efficientnet_pytorch(depths),
            [(f"tf_efficientnet_{name}", {}) for name in names.split()],
        )
        for names, depths in _DEPTHS.items()
    },
}  # fmt: skip
