"""The fused volume and its JSON file: both or neither, and enough to read the inputs' values back."""

import json
from dataclasses import replace

import pytest
import SimpleITK as sitk
import torch
from tests.fusion.phantom import pair, write

from crossalign.errors import InputError, OutputError
from crossalign.fusion import fuse
from crossalign.fusion.classical import Average
from crossalign.fusion.fused_files import check_fusion_output, read_scalings, sidecar_path
from crossalign.images import Image, read_image


@pytest.fixture(scope="module")
def result():
    mri, pet = pair()
    patient = "DOE_JANE.nii.gz"
    return fuse(Image(mri.voxels, mri.grid, patient), pet, Average(), b_unit="SUV")


@pytest.mark.parametrize("name", ["fused.nii.gz", "fused.nii", "fused.nrrd", "fused.mha"])
def test_both_files_read_back(result, tmp_path, name):
    volume, sidecar = write(result, tmp_path / name)
    assert sidecar == tmp_path / "fused.json"
    assert torch.equal(read_image(volume).voxels, result.fused.voxels)
    assert read_image(volume).grid.agrees_with(result.fused.grid)
    assert sitk.ReadImage(str(volume)).GetPixelID() == sitk.sitkFloat32
    assert read_scalings(volume) == (result.a_scaling, result.b_scaling)
    assert read_scalings(sidecar)[1].unit == "SUV"


def test_the_nifti_header_holds_the_scaling(result, tmp_path):
    volume, _ = write(result, tmp_path / "fused.nii.gz")
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(volume))
    reader.ReadImageInformation()
    assert reader.GetMetaData("descrip").startswith("average; MRI ")
    assert f"PET {result.b_scaling.low:.6g}..{result.b_scaling.high:.6g}" in reader.GetMetaData("descrip")


def test_no_file_name_is_written(result, tmp_path):
    _, sidecar = write(result, tmp_path / "fused.nii.gz")
    assert "DOE" not in sidecar.read_text()
    assert json.loads(sidecar.read_text())["method"] == "average"


def test_neither_file_appears_where_one_cannot(result, tmp_path):
    (tmp_path / "fused.json").write_text("mine")
    for step in (check_fusion_output, lambda path: write(result, path)):
        with pytest.raises(OutputError, match=r"fused\.json: exists already"):
            step(tmp_path / "fused.nii.gz")
    assert [path.name for path in tmp_path.iterdir()] == ["fused.json"]
    assert (tmp_path / "fused.json").read_text() == "mine"
    check_fusion_output(tmp_path / "fused.nii.gz", overwrite=True)


def test_a_json_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "fused.json").write_text("{}")
    with pytest.raises(InputError, match="not the JSON file of a fusion"):
        read_scalings(tmp_path / "fused.nii.gz")
    with pytest.raises(InputError, match="no such file"):
        read_scalings(tmp_path / "other.nii.gz")
    assert sidecar_path("a.b.nii.gz").name == "a.b.json"


def test_reasons_and_warnings_are_in_the_json_file_without_names(tmp_path) -> None:
    mri, pet = pair()
    named = Image(mri.voxels, mri.grid, "DOE_JANE.nii.gz")
    result = fuse(named, Image(pet.voxels.roll(14, 2), pet.grid, "DOE_JANE_PET.nii"), Average())
    result = replace(result, trusted=False, reasons=("DOE_JANE_PET.nii lies elsewhere: try again",))
    _, sidecar = write(result, tmp_path / "fused.nii.gz")
    record = json.loads(sidecar.read_text())
    assert "DOE" not in sidecar.read_text()
    assert record["trusted"] is False
    assert record["reasons"] == ["the PET lies elsewhere: try again"]
    assert "are the two registered?" in record["warnings"][0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"low": "0"}, "'pet.low' must be a finite number, got '0'"),
        ({"high": None}, "'pet.high' must be a finite number, got None"),
        ({"high": True}, "'pet.high' must be a finite number, got True"),
        ({"high": -5.0}, "'high' is -5, expected more than 'low'"),
        ({"unit": 3}, "'pet.unit' must be text, got 3"),
        ({"padding": []}, r"'pet.padding' must be a finite number, got \[\]"),
    ],
)
def test_a_damaged_json_file_is_an_error_that_names_the_field(tmp_path, change: dict[str, object], words: str) -> None:
    _, sidecar = write(fuse(*pair(), Average()), tmp_path / "fused.nii.gz")
    record = json.loads(sidecar.read_text())
    record["inputs"]["pet"] |= change
    sidecar.write_text(json.dumps(record))
    with pytest.raises(InputError, match=words):
        read_scalings(sidecar)


@pytest.mark.parametrize("text", ["", "[1, 2]", '{"inputs": 3}', '{"inputs": {"mri": {}}}', "[" * 5000, '{"a": 1e999}'])
def test_other_json_is_refused(tmp_path, text: str) -> None:
    (tmp_path / "fused.json").write_text(text)
    with pytest.raises(InputError, match=r"fused\.json"):
        read_scalings(tmp_path / "fused.json")


def test_json_files_of_earlier_versions_are_read(tmp_path) -> None:
    result = fuse(*pair(), Average())
    _, sidecar = write(result, tmp_path / "fused.nii.gz")
    record = json.loads(sidecar.read_text())
    for which in ("mri", "pet"):
        del record["inputs"][which]["padding"]
        record["inputs"][which]["clipped_share"] = record["inputs"][which].pop("clipped_fraction")
    sidecar.write_text(json.dumps(record))
    assert read_scalings(sidecar)[0] == replace(result.a_scaling, padding=None)


def test_save_writes_what_the_command_writes(result, tmp_path):
    result.save(tmp_path / "fused.nrrd")
    assert torch.equal(read_image(tmp_path / "fused.nrrd").voxels, result.fused.voxels)
    assert json.loads((tmp_path / "fused.json").read_text()) == json.loads(json.dumps(result.to_dict()))
    with pytest.raises(OutputError, match="exists already"):
        result.save(tmp_path / "fused.json")
    result.save(tmp_path / "fused.json", overwrite=True)
    with pytest.raises(OutputError, match="cannot tell the format"):
        result.save(tmp_path / "fused.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fused.json", "fused.nrrd"]


def test_a_notebook_shows_a_table(result):
    told = replace(result, reasons=("it may be <off>",), warnings=("DOE_JANE.nii.gz: is odd",))
    html = told._repr_html_()
    assert "<th" in html
    assert "average" in html
    assert "it may be &lt;off&gt;" in html
    assert "the MRI: is odd" in html
    assert "do not trust this result" in html
    assert "do not trust" not in result._repr_html_()
