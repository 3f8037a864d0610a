"""What a result offers in Python: the record, files by their ending, the moved image, and what a notebook shows."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from tests.registration.toys import TRUTH, blob_problem

import crossalign as ca
from crossalign.errors import OutputError
from crossalign.images import affine_ras, to_metatensor, to_nibabel, to_simpleitk
from crossalign.registration import Expectation, Identity, RegistrationResult

PROBLEM = blob_problem(TRUTH)


@pytest.fixture(scope="module")
def result() -> RegistrationResult:
    return ca.register(PROBLEM.fixed, PROBLEM.moving, Identity(), TRUTH, PROBLEM.fixed_mask)


@pytest.mark.parametrize("suffix", [".tfm", ".txt", ".h5", ".mat"])
def test_simpleitk_reads_what_is_saved(tmp_path: Path, result: RegistrationResult, suffix: str) -> None:
    result.save(tmp_path / f"t{suffix}")
    itk = sitk.ReadTransform(str(tmp_path / f"t{suffix}"))
    point = (10.0, -20.0, 30.0)
    expected = TRUTH.apply(torch.tensor([point], dtype=torch.float64))[0]
    assert np.allclose(itk.TransformPoint(point), expected, atol=1e-9)


def test_the_record_is_what_is_saved_as_json(tmp_path: Path, result: RegistrationResult) -> None:
    result.save(tmp_path / "r.json")
    record = json.loads((tmp_path / "r.json").read_text())
    assert record == result.to_dict()
    assert np.allclose(record["fixed_to_moving"], TRUTH.matrix())


def test_other_endings_and_what_exists_are_refused(tmp_path: Path, result: RegistrationResult) -> None:
    with pytest.raises(OutputError, match=r"result\.moved"):
        result.save(tmp_path / "r.nii.gz")
    (tmp_path / "t.h5").write_text("the user's")
    with pytest.raises(OutputError, match="exists already"):
        result.save(tmp_path / "t.h5")
    assert (tmp_path / "t.h5").read_text() == "the user's"
    result.save(tmp_path / "t.h5", overwrite=True)
    assert ca.read_transform(tmp_path / "t.h5").matrix().allclose(TRUTH.matrix())


def test_the_moved_image_is_simpleitks(result: RegistrationResult) -> None:
    moved = result.moved(PROBLEM.moving, PROBLEM.fixed)
    itk = sitk.AffineTransform(3)
    itk.SetMatrix(TRUTH.rotation.flatten().tolist())
    itk.SetTranslation(TRUTH.translation_mm.tolist())
    expected = sitk.Resample(to_simpleitk(PROBLEM.moving), to_simpleitk(PROBLEM.fixed), itk, sitk.sitkLinear, 0.0)
    inside = moved.voxels > 1e-3
    assert int(inside.sum()) > 1000
    assert np.allclose(moved.voxels[inside], torch.from_numpy(sitk.GetArrayFromImage(expected))[inside], atol=1e-4)
    assert torch.equal(moved.voxels, result.moved(PROBLEM.moving, PROBLEM.fixed.grid).voxels)


def to_torchio(image: ca.Image | ca.LabelMap) -> Any:
    import torchio

    kind = torchio.ScalarImage if isinstance(image, ca.Image) else torchio.LabelMap
    return kind(tensor=to_metatensor(image).as_tensor(), affine=affine_ras(image.grid))


@pytest.mark.parametrize("hold", [to_simpleitk, to_nibabel, to_metatensor, to_torchio])
def test_one_transform_from_images_of_every_library(hold, result: RegistrationResult) -> None:
    held = ca.register(hold(PROBLEM.fixed), hold(PROBLEM.moving), Identity(), TRUTH, hold(PROBLEM.fixed_mask))
    assert torch.allclose(held.fixed_to_moving.matrix(), result.fixed_to_moving.matrix())
    assert torch.allclose(held.center_mm, result.center_mm, atol=1e-4)


def test_what_is_no_image_ends_in_a_type_error(shape_checks_off: None) -> None:
    with pytest.raises(TypeError, match="fixed: got list"):
        ca.register([1], PROBLEM.moving, Identity(), TRUTH)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="fixed mask: got int"):
        ca.register(PROBLEM.fixed, PROBLEM.moving, Identity(), TRUTH, 1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="PET: got a bare ndarray"):
        ca.fuse(PROBLEM.fixed, np.zeros((3, 3, 3)), ca.named_fusion_method("average"))  # type: ignore[arg-type]


def test_fuse_takes_images_of_other_libraries() -> None:
    method, (mri, pet) = ca.named_fusion_method("average"), (PROBLEM.fixed, PROBLEM.fixed)
    fused = ca.fuse(to_nibabel(mri), to_simpleitk(pet), method).fused
    assert torch.allclose(fused.voxels, ca.fuse(mri, pet, method).fused.voxels, atol=1e-6)


def test_a_notebook_shows_the_verdict_and_no_markup_of_its_own(result: RegistrationResult) -> None:
    from dataclasses import replace

    doubted = replace(result, expectation=Expectation(12.0, False, reasons=("look at <b>it</b>",)))
    html = doubted._repr_html_()
    assert "12.0 mm" in html
    assert "do not trust this result" in html
    assert "look at &lt;b&gt;it&lt;/b&gt;" in html


def test_show_gives_the_reports_page(tmp_path: Path, result: RegistrationResult) -> None:
    shown = ca.show(result, to_nibabel(PROBLEM.fixed), PROBLEM.moving, PROBLEM.fixed_mask)
    shown.save(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.lower().startswith("<!doctype html>")
    frame = shown._repr_html_()
    assert frame.startswith("<iframe sandbox=")
    assert "<script" not in frame  # the page stands escaped in an attribute
