"""OmniBenchmark: a linear probe on frozen features in every realm, and the mean over the realms.

Zhang et al., ECCV 2022, github.com/ZhangYuanhan-AI/OmniBenchmark, linear_probe/main.py: images are
resized to the input size by their short side (bicubic) and cut to it, features are the pooled ones,
and a linear classifier minimises

    sum over ten parts of the training images of their mean cross entropy   +   lam ||W||

with lam from a list of seven, the norm not being squared. Divided by ten that is what
`transfer.classification.probe` solves with the penalty lam / 10, if the parts are of one size;
theirs differ by up to nine images. Other differences: here the optimum is found, there 1,000 calls
of L-BFGS are made without line search; here lam is chosen on val and test is scored once, as the
README wants it for version 2, while their code keeps the best of all lam and evaluations on test;
here an image is normalised by the backbone's own mean and std, there by what a file says for it.

A realm is a folder REALM/{train,val,test}/CLASS/*.jpg, or images with the lists that the authors
publish, REALM/{train,val,test}.txt or REALM/annotations/v2/*.txt with lines `PATH NUMBER`. Listing,
features, choice and solution are those of `transfer.classification`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pretrain.backbone import Backbone
from pretrain.config import LoaderConfig
from pretrain.data_digest import DataFiles
from pretrain.errors import UsageError
from pretrain.held_out import hold_out
from pretrain.images import class_folders
from pretrain.reading import read_text
from transfer.classification.config import ClassificationConfig, DatasetConfig, LinearConfig
from transfer.classification.folders import ClassificationData, Indices, open_image_folders
from transfer.classification.frozen import encode, linear_probe
from transfer.classification.setup import ClassificationSetup, build
from transfer.evaluation.config import OmniConfig
from transfer.evaluation.images import Labels
from transfer.evaluation.session import Session

_PARTS = 10  # of the training images, whose losses are added


@dataclass(frozen=True, eq=False)
class Realms:
    """What is probed."""

    name: str
    setups: dict[str, ClassificationSetup]
    """By the name of the realm's folder."""
    files: DataFiles
    notes: tuple[str, ...]

    @property
    def summary(self) -> dict[str, Any]:
        """What the result says of the data."""
        sizes = {
            realm: {
                "classes": len(setup.data.classes),
                "train": len(setup.data.train),
                setup.data.scored_name: len(setup.data.scored),
            }
            for realm, setup in self.setups.items()
        }
        images = sum(len(setup.data.paths) for setup in self.setups.values())
        counts = {"images": images, "realms": len(sizes)}
        return {"name": self.name, **counts, "sizes": sizes, "notes": list(self.notes)}


def open_data(backbone: Backbone, root: Path, options: OmniConfig, labels: Labels) -> Realms:
    """List the images of every realm: of each folder in `root`, or of `root` itself.

    Args:
        backbone: with or without a classifier; its features are probed.
        root: the data.
        options: see there.
        labels: not used.

    Raises:
        UsageError: no realm, or one that cannot be probed.
    """
    is_realm = (root / "train").is_dir() or _lists(root) is not None
    realms = [root] if is_realm else [root / name for name in class_folders(root)]
    if not realms:
        raise UsageError(f"{root} has no folders. Expected {root}/REALM/train/CLASS/*.jpg.")
    setups, notes = dict[str, ClassificationSetup](), list[str]()
    for realm in realms:
        # a link has a name of its own: two may lead to folders of the same
        config, name = _config(options, realm), (realm.resolve() if is_realm else realm).name
        lists = _lists(realm)
        data = (
            open_image_folders(realm, config.dataset) if lists is None else open_lists(realm, lists)
        )
        setups[name] = build(backbone, config, data)
        notes += [f"{name}: {note}" for note in data.notes]
        if data.scored_name != "test":
            notes.append(
                f"{name} has no test images with labels: lam is chosen on images held out of "
                f"train, and what is scored is {data.scored_name}"
            )
    paths = [path for setup in setups.values() for path in setup.data.files]
    annotations = [path for setup in setups.values() for path in setup.data.annotations]
    files = DataFiles((root,), paths, annotations)
    return Realms(root.resolve().name, setups, files, tuple(notes))


def open_lists(realm: Path, folder: Path) -> ClassificationData:
    """The images that lists name, one `PATH NUMBER` a line, paths being relative to the realm.

    Raises:
        UsageError: a line of another form, fewer than two classes, or only one of the lists.
    """
    splits, paths, numbers = dict[str, Indices](), list[str](), list[int]()
    lists, notes = list[Path](), list[str]()
    for file in (folder / f"{split}.txt" for split in ("train", "val", "test")):
        lines = read_text(file, largest=2**28).splitlines() if file.is_file() else []
        listed = [line.strip().rpartition(" ")[::2] for line in lines]
        for count, (name, number) in enumerate(listed, 1):
            if not name or not number.isdecimal() or len(number) > 9:
                raise UsageError(
                    f"{file}, line {count}: {lines[count - 1][:60]!r} is no path and number."
                )
        if file.stem == "test" and len({number for _, number in listed}) == 1:
            notes.append(
                f"{file} is left out: it has one class for all images, as the lists of the "
                "challenge, whose labels are hidden"
            )
        elif listed:
            lists.append(file)
            splits[file.stem] = np.arange(len(paths), len(paths) + len(listed))
            paths += [name for name, _ in listed]
            numbers += [int(number) for _, number in listed]
    names, labels = np.unique(numbers, return_inverse=True)
    if len(names) < 2 or len(splits) < 2 or "train" not in splits:
        raise UsageError(
            f"{folder}: the lists that can be used ({', '.join(splits) or 'none'}) name "
            f"{len(names)} of the two classes at least; train.txt is needed, and val.txt or "
            "test.txt with labels."
        )
    train, *others = splits.values()
    fit, choose, chosen_on = train, others[0], "val"
    if len(others) == 1:
        keys = [f"{number}/{Path(path).name}" for number, path in zip(numbers, paths, strict=True)]
        fit, choose = hold_out(keys, numbers, train, DatasetConfig().val_fraction, "choose")
        chosen_on = "held out of train"
    return ClassificationData(
        name=realm.name,
        classes=tuple(map(str, names)),
        paths=tuple(realm / path for path in paths),
        names=tuple(paths),
        labels=labels,
        train=train,
        fit=fit,
        choose=choose,
        val=others[0],
        scored=others[-1],
        scored_name=[*splits][-1],
        chosen_on=chosen_on,
        notes=tuple(notes),
        annotations=tuple(lists),
    )


def _lists(realm: Path) -> Path | None:
    """The folder of a realm's lists."""
    places = (realm, realm / "annotations" / "v2")
    return next((place for place in places if (place / "train.txt").is_file()), None)


def _config(
    options: OmniConfig, realm: Path, workers: int = 2, max_corrupt: int = 0
) -> ClassificationConfig:
    """The protocol, as a run of classification."""
    return ClassificationConfig(
        data=str(realm),
        mode="linear",
        dataset=DatasetConfig(
            image_size=options.image_size,
            crop_pct=1.0,
            interpolation="bicubic",
            max_corrupt=max_corrupt,
        ),
        linear=LinearConfig(
            penalty="norm",
            penalties=tuple(lam / _PARTS for lam in options.penalties),
            max_iterations=10_000,
        ),
        loader=LoaderConfig(workers=workers),
        cache=options.cache,
    )


def evaluate(
    backbone: Backbone, data: Realms, options: OmniConfig, session: Session
) -> dict[str, Any]:
    """Probe every realm.

    Returns:
        mean_top1 and mean_per_class over the realms, percent; `realms`: of each by name its top1,
        per_class, lam, the top-1 that each lam has where it is chosen, what was scored and whether
        the solver has converged.
    """
    realms = dict[str, dict[str, Any]]()
    for name, setup in data.setups.items():

        def probe(setup: ClassificationSetup = setup) -> dict[str, Any]:
            config = _config(options, setup.files.roots[0], session.workers, session.max_corrupt)
            frozen = encode(setup, config, session.fabric, "--max-corrupt")
            found = linear_probe(frozen, config).metrics
            lam_of = {lam / _PARTS: lam for lam in options.penalties}
            return {
                "top1": found["linear_top1"],
                "per_class": found["linear_mean_per_class"],
                "lam": lam_of[found["linear_penalty"]],
                "chosen_on": setup.data.chosen_on,
                "top1_of_lam": {
                    f"{lam:g}": found["linear_path"][f"{penalty:g}"]
                    for penalty, lam in sorted(lam_of.items())
                },
                "scored": setup.data.scored_name,
                "images": len(setup.data.scored),
                "converged": found["linear_converged"],
            }

        realms[name] = session.part(name, probe)
    means = {
        f"mean_{key}": sum(realm[key] for realm in realms.values()) / len(realms)
        for key in ("top1", "per_class")
    }
    return {**means, "realms": realms}
