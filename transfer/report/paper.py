"""The paper's own table, as data: Yun et al., ICCV 2019 (arXiv 1905.04899v2), table 10.

ResNet-50 on ImageNet for 300 epochs; SSD and Faster R-CNN trained on VOC07+12 trainval and tested
on VOC07 test; NIC on MS-COCO. Full scale: these values never stand in a column with small runs;
what may be compared with ours is a difference.
"""

from dataclasses import dataclass

SOURCE = "Yun et al., CutMix, ICCV 2019, table 10"
SCALE = (
    "Full scale: ResNet-50, 300 epochs of ImageNet, then SSD and Faster R-CNN on VOC07+12 and NIC "
    "on MS-COCO. Compare differences with ours, not levels."
)
NOTE = (
    "The paper prints the top-1 error, of the best epoch; 100 minus it stands here. Its baseline "
    "ROUGE of 44.7 does not fit its BLEU and CIDEr and is probably a misprint for a value near 47: "
    "the differences of ROUGE-L rest on it. The paper gives no deviations and no number of runs."
)


@dataclass(frozen=True)
class Column:
    """One number of the paper, and the one of ours that means the same."""

    title: str
    task: str
    key: str
    network: str = ""
    """Of ours; see `task.Task.network`."""
    main: bool = True
    """Also in the short tables: Markdown and LaTeX."""


COLUMNS = (
    Column("top-1 %, best", "pretrain", "top1_best"),
    Column("AP50 (SSD)", "detection", "AP50", "SSD"),
    Column("AP50 (Faster R-CNN)", "detection", "AP50", "Faster R-CNN"),
    Column("BLEU-1", "captioning", "Bleu_1", main=False),
    Column("BLEU-2", "captioning", "Bleu_2", main=False),
    Column("BLEU-3", "captioning", "Bleu_3", main=False),
    Column("BLEU-4", "captioning", "Bleu_4"),
    Column("METEOR", "captioning", "METEOR"),
    Column("ROUGE-L", "captioning", "ROUGE_L", main=False),
    Column("CIDEr", "captioning", "CIDEr"),
)

# method -> as printed: top-1 error, SSD mAP, Faster R-CNN mAP, BLEU-1 to 4, METEOR, ROUGE, CIDEr
PRINTED: dict[str, tuple[float, ...]] = {
    "none": (23.68, 76.7, 75.6, 61.4, 43.8, 31.4, 22.9, 22.8, 44.7, 71.2),
    "mixup": (22.58, 76.6, 73.9, 61.6, 44.1, 31.6, 23.2, 22.9, 47.9, 72.2),
    "cutout": (22.93, 76.8, 75.0, 63.0, 45.3, 32.6, 24.0, 22.6, 48.2, 74.1),
    "cutmix": (21.40, 77.6, 76.7, 64.2, 46.3, 33.6, 24.9, 23.1, 49.0, 77.6),
}
DOUBTFUL = ("none", "ROUGE_L")
# PyramidNet-200, top-1 error of the best epoch; Mixup of alpha 1
_CIFAR = {
    "cifar100": ("table 5", {"none": 16.45, "mixup": 15.63, "cutout": 16.53, "cutmix": 14.47}),
    "cifar10": ("table 7", {"none": 3.85, "mixup": 3.09, "cutout": 3.10, "cutmix": 2.88}),
}


def value(method: str, column: Column) -> float:
    """In our unit: accuracy for the error, the rest as printed."""
    printed = PRINTED[method][COLUMNS.index(column)]
    return round(100 - printed, 2) if column.key == "top1_best" else printed


def values(column: Column, data: str) -> tuple[str, dict[str, float]]:
    """(table, {method: value}) for a data set: top-1 of CIFAR has tables of its own."""
    name = data.lower().replace("-", "")
    for known, (table, errors) in _CIFAR.items():
        if column.key == "top1_best" and name.startswith(known):
            return table, {method: round(100 - error, 2) for method, error in errors.items()}
    return "table 10", {method: value(method, column) for method in PRINTED}


def text(method: str, column: Column) -> str:
    """With the paper's decimals."""
    return f"{value(method, column):.{2 if column.key == 'top1_best' else 1}f}"


def gain(method: str, column: Column) -> float:
    """Against the paper's baseline."""
    return round(value(method, column) - value("none", column), 2)


def short_table() -> tuple[list[str], list[list[str]], list[list[str]]]:
    """Titles, [method, value, ...] and [comparison, gain, ...] of the short tables."""
    columns = [column for column in COLUMNS if column.main]
    values = [[method, *(text(method, column) for column in columns)] for method in PRINTED]
    gains = [
        [f"{method} - none", *(f"{gain(method, column):+.1f}" for column in columns)]
        for method in list(PRINTED)[1:]
    ]
    return [column.title for column in columns], values, gains
