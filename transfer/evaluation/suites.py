"""The suites, written once: the tool, the report and the documentation read them here.

No torch at import: what needs it is named as "module:name", and `task.load` imports it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

from pretrain.errors import UsageError
from transfer.task import Metric, Picture


@dataclass(frozen=True, kw_only=True)
class Block:
    """One group of measurements on a backbone, a part of the report."""

    name: str
    """As the results call it."""
    title: str
    """Of its part of the report; what stands before a colon is its name in the menu."""
    metrics: tuple[Metric, ...]
    """What the report shows of the values; the first is the headline."""
    pictures: tuple[Picture, ...] = ()
    """Which it leaves in RUN/pictures."""


@dataclass(frozen=True, kw_only=True)
class Suite(Block):
    """What --suite measures on a backbone's own classifier, or on its features."""

    module: str
    """With `open_data(backbone, root, options, labels) -> SuiteData`, which reads no pixels but
    finds every mistake of a user, and `evaluate(backbone, data, options, session) -> metrics`:
    plain values by key, in the units of the field (percent for accuracies)."""
    config: str
    """The dataclass of its options, "module:name"."""
    data: str
    """What its DIR holds, for --help."""
    takes_shards: bool = False
    """DIR may be a store of shards."""
    paths: tuple[str, ...] = ()
    """Options that name files or folders: they make a setting of the report by name."""
    unused: tuple[str, ...] = ()
    """Of the tool's own options, those that mean nothing here."""

    @property
    def section(self) -> str:
        """Its options on the command line: --SECTION.FIELD."""
        return self.name.replace("-", "_")


SUITES: tuple[Suite, ...] = (
    Suite(
        name="robustness",
        title="Robustness: attacks, occlusion, samples in between, corruptions",
        module="transfer.evaluation.robustness",
        config="transfer.evaluation.config:RobustnessConfig",
        data="labelled images, as --data without --suite",
        takes_shards=True,
        metrics=(
            Metric("clean_top1", "clean %"),
            Metric("fgsm_pixels_top1", "FGSM, pixels %"),
            Metric("fgsm_normalised_top1", "FGSM, normalised %"),
            Metric("pgd_top1", "PGD %"),
            Metric("occlusion_centre", "centre occlusion, mean %", main=False),
            Metric("occlusion_boundary", "boundary occlusion, mean %", main=False),
            Metric("between_mixup", "between, Mixup: neither %", less=True, main=False),
            Metric("between_cutmix", "between, CutMix: neither %", less=True, main=False),
            Metric("corruptions_top1", "corruptions, mean %"),
            Metric("corruptions_without_frost_top1", "corruptions but frost, mean %"),
            Metric("corruptions_mce", "corruptions, mCE %", less=True, main=False, highest=inf),
        ),
        paths=("frost",),
        pictures=(
            Picture(
                "robustness.png",
                section="robustness",
                title="Occlusion, samples in between, corruptions",
                lead="Top-1 by the side of a hole of zeros and of what such a hole leaves, how "
                "often the answer to two mixed images is the label of neither, and top-1 by the "
                "severity of the corruptions.",
                alt="Curves of top-1 over the side of a hole, of answers that are neither label "
                "over the share of the second image, of top-1 over severity: {recipe}, {method}, "
                "seed {seed}",
                width=760,
            ),
            Picture(
                "attacks.png",
                section="attacks",
                title="Images under attack",
                lead="Images at equal distances in the data; what FGSM and PGD add to them, ten "
                "times, and the images that come of it, with the classifier's answers.",
                alt="Images, what attacks add, attacked images, with the answers: {recipe}, "
                "{method}, seed {seed}",
                width=640,
            ),
        ),
    ),
    Suite(
        name="ood",
        title="Out-of-distribution detection",
        module="transfer.evaluation.ood",
        config="transfer.evaluation.config:OodConfig",
        data="labelled images that the classifier knows; foreign sets by --ood.foreign",
        takes_shards=True,
        paths=("foreign",),
        metrics=(
            Metric("tnr", "TNR at TPR 95"),
            Metric("auroc", "AUROC"),
            Metric("detection_accuracy", "detection accuracy"),
            Metric("tnr_without_noise", "TNR, no noise sets"),
            Metric("auroc_without_noise", "AUROC, no noise sets"),
            Metric("detection_accuracy_without_noise", "detection accuracy, no noise sets"),
            Metric("max_logit_auroc_without_noise", "AUROC of max logit, no noise", main=False),
            Metric("energy_auroc_without_noise", "AUROC of energy, no noise", main=False),
        ),
        pictures=(
            Picture(
                "ood.png",
                section="ood",
                title="Known and foreign images",
                lead="How sure the classifier is of known images and of foreign ones, and what "
                "share of each a threshold takes for known.",
                alt="Histograms of the largest softmax, and ROC curves, of each foreign set: "
                "{recipe}, {method}, seed {seed}",
                width=760,
            ),
        ),
    ),
    Suite(
        name="localisation",
        title="Weakly supervised localisation",
        module="transfer.evaluation.localisation",
        config="transfer.evaluation.config:LocalisationConfig",
        data="images with a box: CUB-200-2011, ImageNet with its annotations, a Pascal VOC tree",
        unused=("val_labels",),
        metrics=(
            Metric("cam_top1_loc", "CAM, top-1 loc %"),
            Metric("cam_gt_known_loc", "CAM, GT-known loc %"),
            Metric("cam_max_box_acc", "CAM, MaxBoxAcc %"),
            Metric("cam_max_box_acc_v2", "CAM, MaxBoxAccV2 %", main=False),
            Metric("grad_cam_top1_loc", "Grad-CAM, top-1 loc %", main=False),
            Metric("grad_cam_gt_known_loc", "Grad-CAM, GT-known loc %", main=False),
            Metric("grad_cam_max_box_acc", "Grad-CAM, MaxBoxAcc %", main=False),
            Metric("grad_cam_max_box_acc_v2", "Grad-CAM, MaxBoxAccV2 %", main=False),
            Metric("top1", "top-1 %", main=False),
        ),
        pictures=(
            Picture(
                "localisation.png",
                section="localisation",
                title="Where the class is seen",
                lead="Images drawn by a seed, whatever their score: true boxes in white, the box "
                "of the map of the true class in green where the overlap (IoU) is at least 0.5, "
                "otherwise in red.",
                alt="Images with activation maps and boxes: {recipe}, {method}, seed {seed}",
                width=900,
            ),
        ),
    ),
    Suite(
        name="imagenet-variants",
        title="Variants of ImageNet",
        module="transfer.evaluation.imagenet_variants",
        config="transfer.evaluation.config:VariantsConfig",
        data="a folder each: imagenet-a, -o, -r, imagenetv2-*, sketch, val; or any of synsets",
        unused=("split", "class_order"),
        metrics=(
            Metric("imagenet_a_top1", "ImageNet-A %"),
            Metric("imagenet_o_aupr", "ImageNet-O, AUPR %"),
            Metric("imagenet_r_top1", "ImageNet-R %"),
            Metric("imagenet_v2_matched_frequency_top1", "ImageNet-V2 %"),
            Metric("imagenet_v2_threshold07_top1", "V2, threshold 0.7 %", main=False),
            Metric("imagenet_v2_top_images_top1", "V2, top images %", main=False),
            Metric("imagenet_v2_top1", "V2, one of three %", main=False),
            Metric("sketch_top1", "ImageNet-Sketch %"),
            Metric("val_top1", "ImageNet val %"),
            Metric("real_top1", "ReaL %"),
            Metric("others_top1", "other folders, mean %"),
        ),
    ),
    Suite(
        name="calibration",
        title="Calibration",
        module="transfer.evaluation.calibration",
        config="transfer.evaluation.config:CalibrationConfig",
        data="labelled images, as --data without --suite",
        takes_shards=True,
        metrics=(
            Metric("ece", "ECE %", decimals=2, less=True),
            Metric("ece_scaled", "ECE %, with temperature", decimals=2, less=True),
            Metric("temperature", "temperature", decimals=2, main=False, highest=inf),
            Metric("adaptive_ece", "adaptive ECE %", decimals=2, less=True, main=False),
            Metric("mce", "MCE %", decimals=2, less=True, main=False),
            Metric("classwise_ece", "classwise ECE %", decimals=2, less=True, main=False),
            Metric("nll", "NLL, nats", decimals=3, less=True, main=False, highest=inf),
            Metric(
                "nll_scaled",
                "NLL, with temperature",
                decimals=3,
                less=True,
                main=False,
                highest=inf,
            ),
            Metric("brier", "Brier score", decimals=3, less=True, main=False, highest=2),
        ),
        pictures=(
            Picture(
                "reliability.png",
                section="reliability",
                title="Reliability",
                lead="How often the classifier is right where it is so sure, before and after its "
                "temperature; below, how many images that is.",
                alt="Accuracy over confidence, with gaps and counts: {method}",
                width=700,
            ),
        ),
    ),
    Suite(
        name="omnibenchmark",
        title="OmniBenchmark: linear probes over realms",
        module="transfer.evaluation.omnibenchmark",
        config="transfer.evaluation.config:OmniConfig",
        data="a folder of realms, each with train, val and test of class folders",
        unused=("split", "val_labels", "class_order", "preprocess", "precision"),
        metrics=(
            Metric("mean_top1", "mean of realms %"),
            Metric("mean_per_class", "mean of realms and classes %", main=False),
        ),
    ),
)

ACCURACY = Block(
    name="evaluate",
    title="Accuracy: the backbone's own classifier",
    metrics=(
        Metric("top1", "top-1 %", decimals=2),
        Metric("top5", "top-5 %", decimals=2),
        Metric("val_loss", "loss", decimals=3, less=True, highest=inf),
    ),
)
"""What tools/evaluate.py measures without --suite."""


def blocks() -> dict[str, Block]:
    """Of the report, by name, in its order."""
    return {one.name: one for one in (ACCURACY, *SUITES)}


def names() -> list[str]:
    """Of the suites, in the order of the report."""
    return [suite.name for suite in SUITES]


def by_name(name: str, where: str = "") -> Suite:
    """A suite.

    Raises:
        UsageError: there is no such suite; the message begins with `where`.
    """
    for suite in SUITES:
        if suite.name == name:
            return suite
    raise UsageError(f"{where}there is no suite {name!r}; there are {', '.join(names())}.")


def headline(name: str, metrics: Mapping[str, Any]) -> str:
    """The first metrics of a suite that were measured, as a line says them."""
    shown = [metric for metric in by_name(name).metrics if metric.key in metrics]
    return ", ".join(f"{one.title} {one.factor * metrics[one.key]:.2f}" for one in shown[:4])
