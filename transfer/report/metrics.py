"""The numbers that a table shows, task by task, in the order of its columns."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """One number of a result."""

    key: str
    """In `Result.metrics`."""
    title: str
    factor: float = 1
    """From the unit of the result to the one shown."""
    main: bool = True
    """Also in the short tables: Markdown and LaTeX."""
    always: bool = False
    """Has a column, and is 'not measured', even where no run of the setting holds it."""


METRICS: dict[str, tuple[Metric, ...]] = {
    "pretrain": (
        Metric("top1", "top-1 %, last", always=True),
        Metric("top1_best", "top-1 %, best"),
    ),
    "classification": (
        Metric("linear_top1", "linear %"),
        Metric("knn_top1", "k-NN %"),
        Metric("full_top1", "fine-tuned %"),
        Metric("full_top1_best", "fine-tuned %, best"),
    ),
    "detection": (
        Metric("AP50", "AP50", always=True),
        Metric("AP50_best", "AP50, best", main=False),
        Metric("AP", "AP"),
    ),
    "captioning": (
        Metric("Bleu_1", "BLEU-1", 100, main=False),
        Metric("Bleu_2", "BLEU-2", 100, main=False),
        Metric("Bleu_3", "BLEU-3", 100, main=False),
        Metric("Bleu_4", "BLEU-4", 100),
        Metric("METEOR", "METEOR", 100),
        Metric("ROUGE_L", "ROUGE-L", 100, main=False),
        Metric("CIDEr", "CIDEr", 100, always=True),
        Metric("val_CIDEr_last", "CIDEr on val, last", 100, main=False),
        Metric("val_CIDEr_best", "CIDEr on val, best", 100, main=False),
    ),
}
"""By task; a column stands where at least one run of the setting holds the number."""

SCRATCH = "from scratch"
"""The method that a task gives a network with random weights."""
