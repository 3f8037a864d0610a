"""The fused volume and its JSON file: both or neither, and enough to read the inputs' values back."""

import json

import pytest
import SimpleITK as sitk
import torch
from tests.fusion.phantom import grid, pair

from crossalign.errors import InputError, ManifestError, OutputError
from crossalign.fusion import fuse
from crossalign.fusion.classical import Average
from crossalign.fusion.fused_files import read_scalings, sidecar_path, write_fusion
from crossalign.fusion.manifest import read_fusion_manifest
from crossalign.fusion.preparation import canvas_grid, foreground_box_mm, on_canvas
from crossalign.images import Image, read_image


@pytest.fixture(scope="module")
def result():
    mri, pet = pair()
    patient = "DOE_JANE.nii.gz"
    return fuse(Image(mri.voxels, mri.grid, patient), pet, Average(), b_unit="SUV")


@pytest.mark.parametrize("name", ["fused.nii.gz", "fused.nii", "fused.nrrd", "fused.mha"])
def test_both_files_read_back(result, tmp_path, name):
    volume, sidecar = write_fusion(result, tmp_path / name)
    assert sidecar == tmp_path / "fused.json"
    assert torch.equal(read_image(volume).voxels, result.fused.voxels)
    assert read_image(volume).grid.agrees_with(result.fused.grid)
    assert sitk.ReadImage(str(volume)).GetPixelID() == sitk.sitkFloat32
    assert read_scalings(volume) == (result.a_scaling, result.b_scaling)
    assert read_scalings(sidecar)[1].unit == "SUV"


def test_the_nifti_header_tells_the_scaling(result, tmp_path):
    volume, _ = write_fusion(result, tmp_path / "fused.nii.gz")
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(volume))
    reader.ReadImageInformation()
    assert reader.GetMetaData("descrip").startswith("average; MRI ")
    assert f"PET {result.b_scaling.low:.6g}..{result.b_scaling.high:.6g}" in reader.GetMetaData("descrip")


def test_no_file_name_goes_into_the_files(result, tmp_path):
    _, sidecar = write_fusion(result, tmp_path / "fused.nii.gz")
    assert "DOE" not in sidecar.read_text()
    assert json.loads(sidecar.read_text())["method"] == "average"


def test_neither_file_appears_where_one_cannot(result, tmp_path):
    (tmp_path / "fused.json").write_text("mine")
    with pytest.raises(OutputError, match=r"fused\.json: exists already"):
        write_fusion(result, tmp_path / "fused.nii.gz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fused.json"]
    assert (tmp_path / "fused.json").read_text() == "mine"
    write_fusion(result, tmp_path / "fused.nii.gz", overwrite=True)
    assert (tmp_path / "fused.nii.gz").is_file()


def test_a_json_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "fused.json").write_text("{}")
    with pytest.raises(InputError, match="not the JSON file of a fusion"):
        read_scalings(tmp_path / "fused.nii.gz")
    with pytest.raises(InputError, match="no such file"):
        read_scalings(tmp_path / "other.nii.gz")
    assert sidecar_path("a.b.nii.gz").name == "a.b.json"


def test_the_canvas_is_the_papers_cube_about_the_head():
    mri, pet = pair()
    low, high = foreground_box_mm(mri)
    canvas = canvas_grid(mri)
    assert canvas.shape == (128, 128, 128)
    assert canvas.extent_mm() == pytest.approx((224.0,) * 3)
    assert canvas.center_mm() == pytest.approx(((low + high) / 2).numpy())
    assert (high - low).tolist() == pytest.approx([76, 82, 70], abs=5)
    tight = canvas_grid(mri, 32, least_mm=10.0)
    assert max(tight.extent_mm()) == pytest.approx(float((high - low).max()))
    small_mri, small_pet = on_canvas(mri, pet, 32)
    assert small_mri.grid == small_pet.grid
    assert small_mri.voxels.shape == (32, 32, 32)


def test_noise_in_the_air_does_not_move_the_canvas():
    mri, _ = pair()
    speckled, center = mri.voxels.clone(), canvas_grid(mri).center_mm()
    speckled[0, 0, 0] = speckled[-1, -1, -1] = 900
    assert canvas_grid(Image(speckled, grid())).center_mm() == pytest.approx(center.numpy(), abs=1)


HEADER = "case,mri,pet,split,patient\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no cases"),
        (HEADER, "holds no cases"),
        ("case,mri\na,b\n", "row 1: expected case, mri, pet"),
        ("case,mri,pet,sex\na,m.nii,p.nii,f\n", "row 1: expected"),
        (HEADER + "a,m.nii,nowhere.nii,test,\n", "row 2, column 'pet': .*nowhere.nii is not a file"),
        (HEADER + "a,,p.nii,test,\n", "row 2, column 'mri': is empty"),
        (HEADER + "a,m.nii,p.nii,exam,\n", "row 2, column 'split': got 'exam'"),
        (HEADER + "a,m.nii,p.nii,test,x,y\n", "row 2: 6 values, but the header has 5 columns"),
        (HEADER + "a,m.nii,p.nii,test,\na,m.nii,p.nii,test,\n", "'a' stands there twice"),
        (HEADER + "a,m.nii,p.nii,test,x\nb,m.nii,p.nii,train,x\n", "'x' is in two splits"),
    ],
)
def test_a_faulty_manifest_is_told_by_row_and_column(tmp_path, text, words):
    for name in ("m.nii", "p.nii"):
        (tmp_path / name).touch()
    (tmp_path / "pairs.csv").write_text(text)
    with pytest.raises(ManifestError, match=words):
        read_fusion_manifest(tmp_path / "pairs.csv")


def test_a_manifest_needs_only_case_mri_and_pet(tmp_path):
    for name in ("m.nii", "p.nii"):
        (tmp_path / name).touch()
    (tmp_path / "pairs.csv").write_text("case,mri,pet\na,m.nii,p.nii\n")
    (only,) = read_fusion_manifest(tmp_path / "pairs.csv")
    assert (only.name, only.split, only.patient) == ("a", "test", "a")
    assert only.mri == tmp_path / "m.nii"
