import base64
import gzip
import json
import re
import shutil
import struct
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from pretrain.config import LoaderConfig
from pretrain.errors import UsageError
from pretrain.run import Run
from pretrain.synthetic import heart
from pretrain.training import make_fabric
from transfer.segmentation.acdc import open_acdc
from transfer.segmentation.acdc_check import check_acdc
from transfer.segmentation.config import (
    VOID,
    DatasetConfig,
    SegmentationConfig,
    SegmenterConfig,
)
from transfer.segmentation.data import open_data
from transfer.segmentation.engine import finetune
from transfer.segmentation.inference import load_segmenter, scoring_loader, segment
from transfer.segmentation.nifti import read_volume, write_labels
from transfer.segmentation.patients import Patient, read_patients, split_folds

CONFIG = DatasetConfig()
FOLD = DatasetConfig(fold=0)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return heart(tmp_path_factory.mktemp("heart"), patients=6, size=32, slices=3)


@pytest.fixture
def tree(drawn, tmp_path):
    return Path(shutil.copytree(drawn, tmp_path / "tree"))


def frames(tree, ending=""):
    return sorted(tree.glob(f"training/*/*_frame??{ending}.nii.gz"))


def save(path, voxels, affine, zooms=None, **fields):
    image = nibabel.Nifti1Image(voxels, affine)
    if zooms:
        image.header.set_zooms(zooms)
    for name, value in fields.items():
        image.header[name] = value
    image.to_filename(path)


# ---- what is read


def test_slices_are_nibabels_and_standardised_over_the_volume(drawn):
    data = open_data(drawn, CONFIG)
    assert data.splits == ("training", "testing")
    assert data.classes == ("background", "RV", "MYO", "LV")
    assert (len(data.train), len(data.val)) == (6 * 2 * 3, 3 * 2 * 3)
    cases = [path.name.removesuffix(".nii.gz") for path in frames(drawn)]
    ids = [f"{case}/slice{number:03d}" for case in cases for number in range(3)]
    assert [record.image_id for record in data.train] == ids
    record = data.train[4]
    image = nibabel.load(frames(drawn)[1])
    voxels, x, y = image.get_fdata(), *image.header.get_zooms()[:2]
    standard = (voxels - voxels.mean()) / voxels.std()
    assert record.case == frames(drawn)[1].name.removesuffix(".nii.gz")
    assert record.spacing == pytest.approx((y, x))
    assert record.read_image().shape == (1, 28, 32)
    assert np.allclose(record.read_image()[0].numpy(), standard[:, :, 1].T, atol=1e-5)
    mask = nibabel.load(frames(drawn, "_gt")[1]).get_fdata()
    assert (record.read_mask().numpy() == mask[:, :, 1].T).all()
    assert len(data.paths) == 18
    assert len(data.annotations) == 27  # labels, and Info.cfg


def test_database_and_a_folder_of_patients(tree):
    before = [record.image_id for record in open_data(tree, FOLD).val]
    assert [record.image_id for record in open_data(tree / "training", FOLD).val] == before
    (tree / "database").mkdir()
    for split in ("training", "testing"):
        (tree / split).rename(tree / "database" / split)
    assert [record.image_id for record in open_data(tree, FOLD).val] == before


def test_a_frame_without_a_file_is_taken_out_of_the_volumes_over_time(tree):
    before = open_acdc(tree, FOLD)
    assert before.name == tree.name  # a phantom's figures are not called ACDC's
    for path in frames(tree):
        path.unlink()
    after = open_acdc(tree, FOLD)
    for one, two in zip(before.val, after.val, strict=True):
        assert (one.read_image() == two.read_image()).all()
        assert one.image_id == two.image_id


def test_values_are_scaled_as_the_header_says(tmp_path):
    stored = np.arange(24, dtype=np.int16).reshape(4, 3, 2)
    image = nibabel.Nifti1Image(stored, np.diag([1, 1, 5, 1]))
    image.header.set_slope_inter(0.5, -7)
    image.header["vox_offset"] = 352
    (tmp_path / "a.nii").write_bytes(image.header.binaryblock + bytes(4) + stored.T.tobytes())
    volume = read_volume(tmp_path / "a.nii")
    expected = nibabel.load(tmp_path / "a.nii").get_fdata()
    assert expected.max() == 23 * 0.5 - 7
    assert (volume.voxels == expected.T[:, ::-1, ::-1]).all()
    assert volume.voxels.dtype == np.float32


# ---- spacing and axes


def test_the_size_of_a_voxel_is_pixdims(tmp_path):
    voxels = np.zeros((4, 3, 2), np.int16)
    save(tmp_path / "a.nii", voxels, np.diag([-1, -1, 1, 1]), (1.5, 1.25, 10))
    assert nibabel.affines.voxel_sizes(nibabel.load(tmp_path / "a.nii").affine).tolist() == [1] * 3
    assert read_volume(tmp_path / "a.nii").spacing == (10, 1.25, 1.5)
    save(tmp_path / "m.nii", voxels, np.diag([-1, -1, 1, 1]), (0.0015, 0.00125, 0.01), xyzt_units=1)
    assert read_volume(tmp_path / "m.nii").spacing == pytest.approx((10, 1.25, 1.5))


@pytest.mark.parametrize("axes", ["LPS", "RAS", "LAS", "RPS", "PLS", "ALS", "PRI", "LPI"])
def test_slices_are_turned_as_acdcs(axes, tmp_path):
    voxels = np.random.default_rng(0).integers(0, 99, (4, 3, 2)).astype(np.int16)
    lps = nibabel.Nifti1Image(voxels, np.diag([-1.5, -1.25, 10, 1]))
    turn = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(lps.affine), nibabel.orientations.axcodes2ornt(axes)
    )
    lps.as_reoriented(turn).to_filename(tmp_path / "a.nii.gz")
    volume = read_volume(tmp_path / "a.nii.gz")
    assert volume.axes == axes
    expected = voxels.T[:: -1 if axes[2] == "I" else 1]  # the order of slices stays
    assert (volume.voxels == expected).all()
    assert volume.spacing == (10, 1.25, 1.5)
    # and a label volume goes back into the file's own grid
    write_labels(tmp_path / "a.nii.gz", volume.voxels, tmp_path / "b.nii.gz")
    back = nibabel.load(tmp_path / "b.nii.gz")
    source = nibabel.load(tmp_path / "a.nii.gz")
    assert (np.asanyarray(back.dataobj) == np.asanyarray(source.dataobj)).all()
    assert (back.affine == source.affine).all()


FILES = Path(__file__).parents[2] / "fixtures/nifti_writers.json"


@pytest.mark.parametrize(
    "case",
    json.loads(FILES.read_text())["cases"],
    ids=lambda case: f"{case['writer']} {case['name']}",
)
def test_files_of_simpleitk_and_nibabel_as_simpleitk_reads_them(case, tmp_path):
    """See tests/peers/nifti_writers.py."""
    path = tmp_path / "a.nii.gz"
    path.write_bytes(base64.b64decode(case["file"]))
    volume = read_volume(path)
    assert (volume.voxels == np.array(case["voxels"])).all()
    assert volume.spacing == pytest.approx(case["spacing"])


def test_axes_that_are_not_said_or_oblique_stay(tmp_path):
    voxels = np.random.default_rng(0).integers(0, 99, (4, 3, 2)).astype(np.int16)
    save(tmp_path / "a.nii", voxels, None, (1, 1, 5), qform_code=0, sform_code=0)
    assert read_volume(tmp_path / "a.nii").axes == ""
    oblique = np.zeros((4, 4))
    oblique[[1, 2, 0, 3], [0, 1, 2, 3]] = (1, -1, 5, 1)  # the slices are sagittal
    save(tmp_path / "b.nii", voxels, oblique)
    assert read_volume(tmp_path / "b.nii").axes == "AIR"
    for name in "ab":
        assert (read_volume(tmp_path / f"{name}.nii").voxels == voxels.T).all()


@pytest.mark.parametrize(
    ("shape", "zooms", "message"),
    [
        ((2, 4, 3), (10, 1.5, 1.5), r"10 x 1.5 x 1.5 mm; slices lie along the third axis"),
        ((4, 3, 2), (0, 1.5, 10), r"0 x 1.5 x 10 mm; all must be above 0"),
        ((4, 3, 2), (1500, 1500, 8000), r"1500 x 1500 x 8000 mm; .* at most 100 mm"),
        ((4, 3), (1, 1), r"has 2 axes, \(4, 3\); a volume has 3"),
        ((4, 3, 2, 5), (1, 1, 1, 1), r"has 4 axes, \(4, 3, 2, 5\); a volume has 3"),
    ],
)
def test_volumes_that_are_none(shape, zooms, message, tmp_path):
    save(tmp_path / "a.nii", np.zeros(shape, np.int16), np.eye(4), zooms)
    with pytest.raises(UsageError, match=message):
        read_volume(tmp_path / "a.nii")


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (42, "<h", "there is no voxel"),
        (70, "<h", "is no NIfTI file"),  # a type of voxels that is none
        (280, "<f", "its affine holds what is no number"),
    ],
)
def test_headers_that_are_broken(place, value, message, drawn, tmp_path):
    content = bytearray(gzip.decompress(frames(drawn)[0].read_bytes()))
    struct.pack_into(value, content, place, {42: 0, 70: 999}.get(place, float("nan")))
    (tmp_path / "a.nii").write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_volume(tmp_path / "a.nii")


def test_written_labels_have_the_header_of_the_image(drawn, tmp_path):
    source = frames(drawn)[0]
    labels = read_volume(frames(drawn, "_gt")[0]).voxels
    for name in ("a.nii.gz", "b.nii.gz", "c.nii"):
        write_labels(source, labels, tmp_path / name)
    written, image = nibabel.load(tmp_path / "a.nii.gz"), nibabel.load(source)
    assert (written.get_fdata() == nibabel.load(frames(drawn, "_gt")[0]).get_fdata()).all()
    assert written.get_data_dtype() == np.uint8
    for field in ("pixdim", "sform_code", "qform_code", "srow_x", "xyzt_units"):
        assert (written.header[field] == image.header[field]).all()
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    assert (nibabel.load(tmp_path / "c.nii").get_fdata() == written.get_fdata()).all()


# ---- folds and splits


def test_no_patient_is_on_both_sides_and_each_is_scored_once(drawn):
    folds, scored = 5, Counter()
    for fold in range(folds):
        for phases in (("ED", "ES"), ("ES",)):
            data = open_acdc(drawn, replace(CONFIG, fold=fold, folds=folds, phases=phases))
            sides = [{one.case[:10] for one in side} for side in (data.train, data.val)]
            assert not sides[0] & sides[1]
            assert len(sides[0] | sides[1]) == 6
            scored.update((patient, phases) for patient in sides[1])
    assert set(scored.values()) == {1}
    assert len(scored) == 12


def test_folds_have_as_many_of_each_group():
    groups = ["DCM"] * 21 + ["HCM"] * 19 + ["NOR"] * 20 + ["RV"] * 13
    patients = [
        Patient(Path(f"patient{number:03d}"), group, {}, None)
        for number, group in enumerate(groups)
    ]
    folds = split_folds(patients, 5)
    assert sorted(one.name for fold in folds for one in fold) == [one.name for one in patients]
    for group in set(groups):
        counts = [sum(one.group == group for one in fold) for fold in folds]
        assert max(counts) - min(counts) <= 1
    assert {len(fold) for fold in folds} == {14, 15}
    with pytest.raises(UsageError, match=r"dataset.folds is 5, but there are only 4 patients"):
        split_folds(patients[:4], 5)


def test_valvanos_split(tmp_path):
    for number in range(1, 101):
        folder = tmp_path / "training" / f"patient{number:03d}"
        folder.mkdir(parents=True)
        (folder / "Info.cfg").write_text("ED: 1\nES: 9\n")
    sides = [
        {patient.name for patient in read_patients(tmp_path, f"valvano_{split}")}
        for split in ("train", "val", "test")
    ]
    assert [len(side) for side in sides] == [35, 15, 15]
    assert len(set.union(*sides)) == 65
    shutil.rmtree(tmp_path / "training/patient005")
    with pytest.raises(UsageError, match="valvano_test needs patient005, which are not there"):
        read_patients(tmp_path, "valvano_test")


def test_one_heart_under_two_names_is_not_on_both_sides(tree):
    data = open_acdc(tree, FOLD)
    scored, trained = data.val[0].case[:10], data.train[0].case[:10]
    (source,) = (tree / "training" / scored).glob("*_frame01.nii.gz")
    (path,) = (tree / "training" / trained).glob("*_frame01.nii.gz")
    header = nibabel.load(path).header
    voxels = np.asanyarray(nibabel.load(source).dataobj)
    nibabel.Nifti1Image(voxels, None, header).to_filename(path)
    after = open_acdc(tree, FOLD)
    assert len(after.train) == len(data.train) - 3
    assert after.notes == (
        f"{trained}_frame01 is the same volume as {scored}_frame01, which is scored: it is not "
        "trained on",
    )
    assert [one.image_id for one in after.val] == [one.image_id for one in data.val]


def test_scored_and_trained_on_is_noted(drawn):
    data = open_acdc(drawn, replace(CONFIG, val="training"))
    assert data.notes == ("6 patients are both trained on and scored: the score says little",)
    with pytest.raises(UsageError, match=r"dataset.fold and dataset.val both say what is scored"):
        open_acdc(drawn, replace(FOLD, val="testing"))


# ---- scribbles


def test_scribbles_are_trained_on_and_masks_scored(drawn):
    masks = open_acdc(drawn, FOLD)
    scribbles = open_acdc(drawn, replace(FOLD, labels="scribbles"))
    for one, two in zip(masks.val, scribbles.val, strict=True):
        assert (one.read_mask() == two.read_mask()).all()
    for path, start in zip(
        frames(drawn, "_scribble")[2:4], range(0, 6, 3), strict=True
    ):  # patient001 is of the fold
        stored = np.asanyarray(nibabel.load(path).dataobj)
        for z in range(3):
            record = scribbles.train[start + z]
            assert record.case in path.name
            expected = np.where(stored[:, :, z] == 4, VOID, stored[:, :, z]).T
            assert (record.read_mask().numpy() == expected).all()


def test_scribbles_in_a_folder_of_their_own(tree):
    config = replace(FOLD, labels="scribbles")
    before = open_acdc(tree, config)
    (tree / "acdc_scribbles").mkdir()
    for path in frames(tree, "_scribble"):
        path.rename(tree / "acdc_scribbles" / path.name)
    after = open_acdc(tree, config)
    assert (before.train[0].read_mask() == after.train[0].read_mask()).all()
    (tree / "acdc_scribbles").rename(tree / "others")
    with pytest.raises(UsageError, match=r"_scribble.nii.gz: is not in .*dataset.masks names"):
        open_acdc(tree, config)
    named = open_acdc(tree, replace(config, masks="others"))
    assert (before.train[0].read_mask() == named.train[0].read_mask()).all()


def test_a_value_that_nothing_says_is_refused(tree):
    config = replace(FOLD, labels="scribbles")
    for path in frames(tree, "_scribble"):
        image = nibabel.load(path)
        values = np.asanyarray(image.dataobj)
        nibabel.Nifti1Image(np.where(values == 4, 9, values), None, image.header).to_filename(path)
    with pytest.raises(UsageError, match=r"holds 9; the classes are \[0, 1, 2, 3\], and pixels "
                                         r"without one \[4, 255\] \(--dataset.void\)"):  # fmt: skip
        open_acdc(tree, config)
    assert VOID in open_acdc(tree, replace(config, void=9)).train[0].read_mask()
    # in masks 4 is no class either
    path = frames(tree, "_gt")[0]
    image = nibabel.load(path)
    labels = np.asanyarray(image.dataobj)
    for other, found in (
        (labels * 2, "4, 6"),
        (labels * np.float32("nan"), "nan"),
        (labels * np.float32(0.5), "0.5, 1.5"),
        (labels - np.int16(1), "-1"),
    ):
        image.header.set_data_dtype(other.dtype)
        nibabel.Nifti1Image(other, None, image.header).to_filename(path)
        with pytest.raises(UsageError, match=f"holds {found}.*; the classes are"):
            open_acdc(tree, FOLD)


def test_labels_that_nibabel_scaled_are_whole_numbers(tree):
    before = open_acdc(tree, FOLD).val[0].read_mask()
    path = frames(tree, "_gt")[0]
    image = nibabel.load(path)
    image.header.set_data_dtype(np.int16)
    nibabel.Nifti1Image(image.get_fdata(), None, image.header).to_filename(path)
    assert 3 not in nibabel.load(path).get_fdata()
    assert (open_acdc(tree, FOLD).val[0].read_mask() == before).all()


# ---- what is refused, or left out


def test_labels_of_another_grid(tree):
    path = frames(tree, "_gt")[0]
    image = nibabel.load(path)
    labels, affine = np.asanyarray(image.dataobj), image.affine
    zooms = image.header.get_zooms()
    for voxels, other, sizes, message in (
        (
            labels[:, :, :2],
            affine,
            zooms,
            r"has slices, rows, columns \(2, 28, 32\), and its image",
        ),
        (labels, np.eye(4), zooms, "its axes point to RAS, and those of its image to LPS"),
        (labels, affine, (1, 1, 10), "its voxels have 10 x 1 x 1 mm, and those of its image"),
    ):
        save(path, voxels, other, sizes)
        with pytest.raises(UsageError, match=message):
            open_acdc(tree, FOLD)
    affine[:3, 3] = 40  # as of the scribbles
    save(path, labels, affine, zooms)
    open_acdc(tree, FOLD)


def test_broken_files_are_counted_and_left_out(tree):
    paths = frames(tree)
    paths[3].write_bytes(paths[3].read_bytes()[:2000])
    frames(tree, "_gt")[5].unlink()
    paths[6].write_bytes(b"none")
    with pytest.raises(UsageError, match=r"3 frames cannot be used, at most 0 may be: .*max_corr"):
        open_acdc(tree, FOLD)
    data = open_acdc(tree, replace(FOLD, max_corrupt=3))
    assert len(data.train) + len(data.val) == (12 - 3) * 3
    assert [note.split(": ")[0] for note in data.notes] == ["left out"] * 3
    texts = " ".join(data.notes)
    for path in (paths[3], frames(tree, "")[6]):
        assert str(path) in texts
    scored = {record.case.partition("_")[0] for record in data.val}
    for path in (one for one in frames(tree, "_gt") if one.parent.name in scored):
        path.unlink()
    with pytest.raises(UsageError, match="fold 1 of 5: no frame is left"):
        open_acdc(tree, replace(FOLD, max_corrupt=12))


def test_a_patient_without_info_is_not_passed_over(tree):
    info = tree / "training/patient002/Info.cfg"
    info.write_bytes(b"\xef\xbb\xbf" + info.read_bytes())  # as Windows' editor writes it
    assert len(read_patients(tree, "training")) == 6
    info.unlink()
    with pytest.raises(UsageError, match=r"patient002/Info.cfg: No such file"):
        open_acdc(tree, FOLD)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ED: 1\n", "", r"does not say which frame is ED"),
        ("ED: 1\n", "ED: first\n", r"ED is 'first'; it must be a whole number"),
        ("ED: 1\n", "ED: 0\n", r"ED is '0'; it must be a whole number above 0"),
        ("NbFrame: 5", "NbFrame: 2", r"ED and ES are \[1, .\], but NbFrame is 2"),
        ("ED: 1\n", "ED: 2\n", r"_frame02.nii.gz: there is no such file, nor .*Info.cfg names fr"),
    ],
)
def test_info_that_does_not_fit(tree, old, new, message):
    path = tree / "training/patient002/Info.cfg"
    (path.parent / "patient002_4d.nii.gz").unlink()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UsageError, match=message):
        open_acdc(tree, FOLD)


def test_no_tree(tmp_path):
    with pytest.raises(UsageError, match=r"has no training/patientNNN/Info.cfg, nor database"):
        open_acdc(tmp_path, FOLD)


def test_without_nibabel(drawn, monkeypatch):
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(UsageError, match=r"read by nibabel, which is not installed.*extra nifti"):
        open_acdc(drawn, FOLD)


def test_checks(tree):
    results = check_acdc(tree, 100)
    assert not [one for one in results if one.state == "wrong"]
    texts = [one.text for one in results]
    assert "training: 12 frames read with their scribbles" in texts
    assert any(re.match("training: 6 patients: DCM 2, HCM 1, MINF 1", text) for text in texts)
    path = frames(tree)[3]
    path.write_bytes(path.read_bytes()[:500])
    info = tree / "training/patient001/Info.cfg"
    info.write_text(info.read_text().replace("NbFrame: 5", "NbFrame: 30"))
    (tree / "testing/patient008/Info.cfg").write_text("ED: 1\n")
    wrong = [one.text for one in check_acdc(tree, 100) if one.state == "wrong"]
    assert len(wrong) == 4  # with masks and with scribbles
    assert any("has x, y, slices, frames (32, 28, 3, 5), and NbFrame" in text for text in wrong)
    assert any("patient008/Info.cfg: does not say which frame is ES" in text for text in wrong)


# ---- a run


def test_the_score_is_that_of_the_label_volumes_on_disk(drawn, backbone, tmp_path, monkeypatch):
    """3D Dice in the grid of the files, read by nibabel alone; also of slices that are resized."""
    monkeypatch.setattr("transfer.body.verify_body", lambda *_: None)
    monkeypatch.setattr("transfer.segmentation.engine.draw_all", lambda *_: None)
    config = SegmentationConfig(
        data=str(drawn),
        dataset=replace(FOLD, labels="scribbles", spacing=8.0, crop_size=32, phases=("ED",)),
        segmenter=SegmenterConfig(kind="unet", decoder_channels=(8,) * 5),
        epochs=1,
        batch_size=4,
        loader=LoaderConfig(workers=0),
    )
    fabric = make_fabric("cpu")
    result = finetune(backbone, config, Run(tmp_path / "run"), fabric)
    records = open_acdc(drawn, config.dataset).val
    label_maps = dict[int, np.ndarray]()
    segment(
        load_segmenter(tmp_path / "run").model,
        scoring_loader(records, config.dataset, fabric),
        fabric,
        lambda index, label_map, _: label_maps.update({index: label_map.numpy()}),
    )
    dice = []
    for place, path in enumerate(frames(drawn)[::8]):  # patients 001 and 005
        slices = [label_maps[3 * place + z] for z in range(3)]
        assert records[3 * place].case == path.name.removesuffix(".nii.gz")
        write_labels(path, np.stack(slices), tmp_path / "labels.nii.gz")
        found = nibabel.load(tmp_path / "labels.nii.gz").get_fdata()
        truth = nibabel.load(frames(drawn, "_gt")[8 * place]).get_fdata()
        for label in (1, 2, 3):
            both = (found == label).sum() + (truth == label).sum()
            dice.append(200 * ((found == label) & (truth == label)).sum() / both)
    assert result.metric == "Dice_3D"
    assert result.metrics["Dice_3D"] == pytest.approx(np.mean(dice), abs=1e-9)
    assert result.data["splits"] == ["training", "training, fold 1 of 5"]
