"""What others have published of what the suites measure, as data, always at full scale.

As in `paper`: these values never stand in a column with small runs. A question mark behind a value:
it was not found in its source.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from transfer.report.table import Table

_PAPER = "Yun et al., CutMix, ICCV 2019"


@dataclass(frozen=True, kw_only=True)
class Published:
    """One table."""

    suite: str
    source: str
    note: str
    """Of what, by which protocol, and what the source leaves open."""
    columns: tuple[str, ...]
    keys: tuple[tuple[str, ...], ...] = ()
    """The metrics of ours that each column means; empty where none does without further facts."""
    rows: Mapping[str, tuple[float | None, ...]]
    """By method, as printed; None where the source gives no number."""
    decimals: int = 1
    is_doubtful: bool = False

    @property
    def caption(self) -> str:
        """Above the table."""
        return f"Published, at full scale ({self.source}). {self.note}"

    def text(self, method: str, number: int) -> str:
        """With the source's decimals."""
        value = self.rows[method][number]
        mark = "?" if self.is_doubtful else ""
        return "not given" if value is None else f"{value:.{self.decimals}f}{mark}"

    def gain(self, method: str, number: int) -> str:
        """Against the baseline, where both are given."""
        value, plain = (self.rows[name][number] for name in (method, "none"))
        if value is None or plain is None:
            return "not given"
        return f"{value - plain:+.{self.decimals}f}"

    @property
    def compared(self) -> list[str]:
        """The methods that have a baseline."""
        return [method for method in self.rows if method != "none" and "none" in self.rows]

    def short_table(self) -> tuple[list[str], list[list[str]], list[list[str]]]:
        """Titles, [method, value, ...] and [comparison, gain, ...]."""
        numbers = range(len(self.columns))
        values = [[one, *(self.text(one, n) for n in numbers)] for one in self.rows]
        gains = [[f"{one} - none", *(self.gain(one, n) for n in numbers)] for one in self.compared]
        return list(self.columns), values, gains


# TNR at TPR 95, AUROC, detection accuracy of each foreign set: appendix E
OOD_SETS: dict[str, dict[str, tuple[float, float, float]]] = {
    "none": {
        "TinyImageNet, crop": (43.0, 88.9, 81.3),
        "TinyImageNet, resize": (29.8, 84.2, 77.0),
        "LSUN, crop": (34.6, 86.5, 79.5),
        "LSUN, resize": (34.3, 86.4, 79.0),
        "iSUN": (32.0, 85.1, 77.8),
        "Uniform": (0.0, 89.2, 89.2),
        "Gaussian": (10.4, 90.7, 89.9),
    },
    "cutmix": {
        "TinyImageNet, crop": (57.1, 92.4, 85.0),
        "TinyImageNet, resize": (55.4, 91.9, 84.5),
        "LSUN, crop": (47.6, 90.3, 82.8),
        "LSUN, resize": (62.8, 93.7, 86.7),
        "iSUN": (60.1, 93.0, 85.7),
        "Uniform": (100.0, 99.8, 99.7),
        "Gaussian": (100.0, 99.7, 99.0),
    },
}
NOISE = ("Uniform", "Gaussian")


def without_noise(method: str) -> tuple[float, ...]:
    """The means over the foreign sets that are images."""
    sets = OOD_SETS[method]
    return tuple(map(fmean, zip(*(sets[one] for one in sets if one not in NOISE), strict=True)))


_UNKNOWN = (None, None, None)

PUBLISHED = (
    Published(
        suite="robustness",
        source=f"{_PAPER}, section 4.4",
        note="FGSM with eps 8/255 on ImageNet. Whether eps acts on pixels in 0 to 1 or on "
        "normalised values, a factor of about 4.4, and whether the result is clamped, the paper "
        "does not say. Occlusion and samples in between it gives as curves only.",
        columns=("FGSM, top-1 %",),
        keys=(("fgsm_pixels_top1", "fgsm_normalised_top1"),),
        rows={"none": (8.2,), "mixup": (24.4,), "cutout": (11.5,), "cutmix": (31.0,)},
    ),
    Published(
        suite="ood",
        source=f"{_PAPER}, appendix E",
        note="PyramidNet-200 on CIFAR-100, by the largest softmax; mean of seven foreign sets, of "
        "which two are noise. Without noise: the mean of the other five, computed here from the "
        "paper's rows of each set. About half of its gain in TNR is noise.",
        columns=(
            "TNR at TPR 95",
            "AUROC",
            "detection accuracy",
            "TNR, no noise sets",
            "AUROC, no noise sets",
            "detection accuracy, no noise sets",
        ),
        keys=(
            ("tnr",),
            ("auroc",),
            ("detection_accuracy",),
            ("tnr_without_noise",),
            ("auroc_without_noise",),
            ("detection_accuracy_without_noise",),
        ),
        rows={
            "none": (26.3, 87.3, 82.0, *without_noise("none")),
            "mixup": (11.8, 49.3, 60.9, *_UNKNOWN),
            "cutout": (18.8, 68.7, 71.3, *_UNKNOWN),
            "cutmix": (69.0, 94.4, 89.1, *without_noise("cutmix")),
        },
    ),
    Published(
        suite="localisation",
        source=f"{_PAPER}, table 9",
        note="Top-1 localisation by CAM, threshold 0.15 of the maximum, one crop of 224. The "
        "authors' README prints 46.25 for ResNet-50 with CutMix on ImageNet; the paper's 47.25 "
        "stands here.",
        columns=(
            "ResNet-50, CUB %",
            "ResNet-50, ImageNet %",
            "VGG-GAP, CUB %",
            "VGG-GAP, ImageNet %",
        ),
        rows={
            "none": (49.41, 46.30, 37.12, 42.73),
            "mixup": (49.30, 45.84, 41.73, 42.54),
            "cutout": (52.78, 46.69, 44.83, 43.13),
            "cutmix": (54.81, 47.25, 52.53, 43.45),
        },
        decimals=2,
    ),
    Published(
        suite="imagenet-variants",
        source="the MoEx paper, or a figure of the paper on natural adversarial examples",
        note="ResNet-50, its outputs restricted to the 200 classes of ImageNet-A. Unverified: "
        "these values were checked in neither source.",
        columns=("ImageNet-A, top-1 %",),
        rows={"mixup": (6.6,), "cutmix": (7.3,), "moex": (5.5,), "cutmix + moex": (8.4,)},
        is_doubtful=True,
    ),
    Published(
        suite="omnibenchmark",
        source="leaderboard of OmniBenchmark",
        note="Linear probe on the authors' ResNet-50 with CutMix (21.40 % top-1 error), mean over "
        "21 realms. Unverified: value and averaging come from the leaderboard alone. Versions 1 "
        "and 2 of the annotations differ.",
        columns=("mean of realms, top-1 %",),
        rows={"cutmix": (31.1,)},
        is_doubtful=True,
    ),
)


def beside(table: Table) -> list[Published]:
    """What belongs to the suite of a table."""
    names = {setting.task for setting in table.settings}
    return [one for one in PUBLISHED if one.suite in names]
