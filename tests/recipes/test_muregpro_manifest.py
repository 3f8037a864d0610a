"""Made-up files of the muRegPro layout: the manifest reads back, landmarks and reference are those that were drawn."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from recipes.muregpro_manifest import main

from crossalign.data import load_case, read_manifest
from crossalign.geometry import Rigid

SHAPES = {"mr": (40, 44, 36), "us": (38, 36, 32)}
AFFINES = {"mr": np.diag([0.8, 0.8, 0.8, 1.0]), "us": np.diag([-0.8, -0.8, 0.8, 1.0])}
POINTS_MM = np.array(
    [[0, 0, 0], [6, 1, 0], [0, 7, 2], [-5, 0, 5], [2, -6, -4], [0, 0, 0]], float
)  # of the gland's centre
RADIUS_MM = (7.5, 1.7, 1.7, 1.7, 1.7, 1.7)


def motion() -> Rigid:
    """From MR to ultrasound, LPS mm."""
    return Rigid.from_parameters(torch.tensor([30.0, 28.0, -2.0, 8.0, -5.0, 12.0]).double(), torch.zeros(3).double())


def write(data: Path, split: str, name: str, missing: tuple[int, ...] = ()) -> None:
    """Write a case; the last structure is empty in the ultrasound, and those in `missing` in both."""
    middle = np.array([-16.0, -17.0, 14.0])
    for side, shape in SHAPES.items():
        affine = AFFINES[side]
        voxels = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
        places = nib.affines.apply_affine(affine, voxels) * [-1, -1, 1]
        centres = torch.from_numpy(POINTS_MM + middle)
        if side == "us":
            centres = motion().apply(centres)
        labels = np.zeros((*shape, 6), np.uint8)
        for number, centre in enumerate(centres.numpy()):
            if number not in missing and not (side == "us" and number == 5):
                labels[..., number] = np.linalg.norm(places - centre, axis=-1) < RADIUS_MM[number]
        image = np.random.default_rng(0).normal(size=shape).astype(np.float32) + 20 * labels[..., 0]
        for kind, values in (("images", image), ("labels", labels)):
            folder = data / split / f"{side}_{kind}"
            folder.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(values, affine), folder / f"{name}.nii.gz")


def test_cases_read_back(tmp_path: Path) -> None:
    data = tmp_path / "nifti_data"
    write(data, "train", "case000000")
    write(data, "train", "case000001", missing=(1, 2, 3, 4))
    write(data, "val", "case000000")
    assert main([str(data), "-o", str(tmp_path / "out")]) == 0
    cases = read_manifest(tmp_path / "out" / "manifest.csv")
    assert [(case.name, case.split) for case in cases] == [
        ("train-case000000", "train"),
        ("train-case000001", "train"),
        ("val-case000000", "val"),
    ]
    whole, gland_alone, _ = map(load_case, cases)
    assert whole.landmarks is not None
    assert len(whole.landmarks.names) == 4
    assert gland_alone.landmarks is None
    truth = motion()
    misses = truth.apply(whole.landmarks.fixed_mm) - whole.landmarks.moving_mm
    assert float(misses.norm(dim=1).max()) < 0.3  # of a voxel of 0.8 mm
    assert float((whole.fixed_to_moving.inverse() @ truth).angle_deg()) < 3
    shift = gland_alone.fixed_to_moving
    assert float(shift.angle_deg()) == pytest.approx(0, abs=1e-4)
    assert whole.moving_mask is not None
    torch.testing.assert_close(
        whole.moving_mask.centroid_mm(), truth.apply(whole.fixed_mask.centroid_mm()[None])[0], atol=0.3, rtol=0
    )


def test_a_missing_counterpart_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "nifti_data"
    write(data, "train", "case000007")
    (data / "train" / "us_labels" / "case000007.nii.gz").unlink()
    assert main([str(data), "-o", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert "case000007" in message
    assert "us_labels" in message
    assert not (tmp_path / "out").exists()


def test_labels_of_another_layout_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "nifti_data"
    write(data, "train", "case000000")
    path = data / "train" / "mr_labels" / "case000000.nii.gz"
    nib.save(nib.Nifti1Image(np.ones(SHAPES["mr"], np.uint8), np.eye(4)), path)
    assert main([str(data), "-o", str(tmp_path / "out")]) == 2
    assert "an axis of structures" in capsys.readouterr().err
    assert main([str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    assert "no cases" in capsys.readouterr().err
