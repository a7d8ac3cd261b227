import gzip
import hashlib

import nibabel
import numpy as np
import pytest

from pretrain.errors import UsageError
from pretrain.synthetic import heart


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return heart(tmp_path_factory.mktemp("heart"), patients=5, size=32, slices=4)


def volumes(tree, ending):
    return [nibabel.load(path) for path in sorted(tree.glob(f"*/*/*_frame??{ending}.nii.gz"))]


def test_the_tree_is_acdcs(tree):
    assert sorted(path.name for path in tree.iterdir()) == ["testing", "training"]
    names = [path.name for path in sorted(tree.glob("*/*"))]
    assert names == [f"patient00{number}" for number in (6, 7, 8, 1, 2, 3, 4, 5)]
    folder = tree / "training" / "patient003"
    info = dict(line.split(": ") for line in (folder / "Info.cfg").read_text().splitlines())
    assert list(info) == ["ED", "ES", "Group", "Height", "NbFrame", "Weight"]
    stems = [f"patient003_frame{int(info[phase]):02d}" for phase in ("ED", "ES")]
    files = [f"{stem}{end}.nii.gz" for stem in stems for end in ("", "_gt", "_scribble")]
    assert {path.name for path in folder.iterdir()} == {"Info.cfg", "patient003_4d.nii.gz", *files}
    over_time = nibabel.load(folder / "patient003_4d.nii.gz")
    assert over_time.shape == (32, 28, 4, int(info["NbFrame"]))
    for phase, stem in zip(("ED", "ES"), stems, strict=True):
        frame = np.asanyarray(nibabel.load(folder / f"{stem}.nii.gz").dataobj)
        assert (frame == np.asanyarray(over_time.dataobj)[..., int(info[phase]) - 1]).all()


def test_the_five_groups_and_both_headers(tree):
    groups = {path.read_text().split("Group: ")[1][:3].strip() for path in tree.glob("training/*/*")
              if path.name == "Info.cfg"}  # fmt: skip
    assert groups == {"DCM", "HCM", "MIN", "NOR", "RV"}
    for image in (*volumes(tree, ""), *volumes(tree, "_gt")):
        header = image.header  # as in ACDC: the voxel's size in pixdim, an affine of 1 mm
        assert (header["qform_code"], header["sform_code"]) == (0, 2)
        assert (image.affine == np.diag([-1, -1, 1, 1])).all()
        x, y, z = header.get_zooms()
        assert x == y
        assert 1.36 < x / 4 < 1.69
        assert 10 <= z <= 20
    for image in volumes(tree, "_scribble"):  # as in Valvano's
        assert (image.header["qform_code"], image.header["sform_code"]) == (1, 0)
        assert image.get_data_dtype() == np.uint16
        assert nibabel.aff2axcodes(image.affine) == ("L", "P", "S")


def test_hearts_contract_and_structures_lie_as_in_a_heart(tmp_path):
    tree = heart(tmp_path, patients=5, size=64, slices=3, seed=2)
    masks = [np.asanyarray(image.dataobj) for image in volumes(tree, "_gt")]
    for diastole, systole in zip(masks[::2], masks[1::2], strict=True):
        for cavity in (1, 3):
            assert 0.2 < (systole == cavity).sum() / (diastole == cavity).sum() < 0.99
        assert 0.7 < (systole == 2).sum() / (diastole == 2).sum() < 1.3  # the wall keeps its volume
    for mask in masks:
        x = [np.nonzero(mask == label)[0].mean() for label in (1, 3)]
        assert x[0] < x[1]  # the patient's right is on the left
        sizes = [(mask[..., z] == 3).sum() for z in range(mask.shape[2])]
        assert sizes == sorted(sizes, reverse=True)  # from base to apex
        cavity = mask == 3
        grown = cavity.copy()
        for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
            grown |= np.roll(cavity, step, axis)
        assert set(np.unique(mask[grown & ~cavity])) == {2}  # the wall is closed around it


def test_scribbles_are_thin_true_and_of_every_structure(tree):
    for mask, scribble in zip(volumes(tree, "_gt"), volumes(tree, "_scribble"), strict=True):
        truth, drawn = np.asanyarray(mask.dataobj), np.asanyarray(scribble.dataobj)
        labelled = drawn != 4
        assert (truth[labelled] == drawn[labelled]).all()
        assert labelled.mean() < 0.3  # of 32 pixels; a few percent at 128
        for z in range(truth.shape[2]):
            if labelled[..., z].any():
                assert set(np.unique(truth[..., z])) - {0} <= set(np.unique(drawn[..., z]))


def test_always_the_same_bytes(tree, tmp_path):
    again = heart(tmp_path, patients=1, size=32, slices=4)
    other = heart(tmp_path, patients=1, size=32, slices=4, seed=1)

    def digest(folder):
        files = sorted((folder / "training/patient001").iterdir())
        return [(file.name, hashlib.md5(file.read_bytes()).hexdigest()) for file in files]

    assert digest(again) == digest(tree) != digest(other)
    content = (again / "training/patient001/patient001_4d.nii.gz").read_bytes()
    assert content[4:8] == bytes(4)  # no time of writing
    assert len(gzip.decompress(content)) == 352 + 32 * 28 * 4 * 5 * 2


def test_too_small(tmp_path):
    with pytest.raises(UsageError, match="2 slices and 32 columns"):
        heart(tmp_path, patients=1, size=16, slices=4)
    assert not list(tmp_path.iterdir())
