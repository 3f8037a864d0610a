"""The manifest of fusion: what it needs, and errors that name row and column."""

import pytest

from crossalign.errors import ManifestError
from crossalign.fusion.manifest import read_fusion_manifest

HEADER = "case,mri,pet,split,patient\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty, expected a header with the columns case, mri, pet"),
        (HEADER, "holds no cases"),
        ("case,mri\na,b\n", "row 1: column 'pet' is missing; expected case, mri, pet and optionally split, patient"),
        ("case,mri,pet,sex\na,m.nii,p.nii,f\n", "row 1: unknown column 'sex'"),
        (HEADER + "a,m.nii,nowhere.nii,test,\n", "row 2, column 'pet': no such file: nowhere.nii"),
        (HEADER + "a,,p.nii,test,\n", "row 2, column 'mri': is empty"),
        (HEADER + "a,m.nii,p.nii,exam,\n", "row 2, column 'split': got 'exam'"),
        (HEADER + "a,m.nii,p.nii,test,x,y\n", "row 2, column 6: 6 values, but the header has 5 columns"),
        (HEADER + "a,m.nii,p.nii,test,\na,m.nii,p.nii,test,\n", "row 3, column 'case': 'a' stands in row 2 already"),
        (HEADER + "a,m.nii,p.nii,test,x\nb,m.nii,p.nii,train,x\n", "patient 'x' is in 'test' and 'train'"),
    ],
)
def test_an_error_names_row_and_column(tmp_path, text, words):
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
