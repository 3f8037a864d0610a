"""Written images and transforms: every reader finds what was written, and ITK's own writers are agreed with."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from crossalign.errors import OutputError
from crossalign.images.files import writing
from crossalign.images.files.writing import write_affine_text, write_sitk

KINDS = (np.float32, np.uint8, np.int16, np.int32, np.int64)
SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha")
HALF_TURN = Rotation.from_rotvec([0, 0, np.pi - 1e-4]).as_matrix()


def image(seed: int, kind: type = np.float32, axes: np.ndarray | None = None) -> sitk.Image:
    random = np.random.default_rng(seed)
    made = sitk.GetImageFromArray((random.normal(size=(5, 6, 7)) * 50).astype(kind))
    made.SetSpacing(random.uniform(0.01, 30, 3).tolist())
    made.SetOrigin(random.uniform(-2000, 2000, 3).tolist())
    turned = Rotation.random(random_state=seed).as_matrix() if axes is None else axes
    made.SetDirection(turned.flatten().tolist())
    return made


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", KINDS)
def test_itk_reads_what_its_own_writer_would_have_written(kind: type, suffix: str, tmp_path: Path) -> None:
    for seed, axes in enumerate((None, HALF_TURN, np.diag([1.0, 1.0, -1.0]))):
        written = image(seed, kind, axes)
        ours, theirs = tmp_path / f"ours{seed}{suffix}", tmp_path / f"theirs{seed}{suffix}"
        write_sitk(written, ours)
        sitk.WriteImage(written, str(theirs), useCompression=True)
        found, expected = sitk.ReadImage(str(ours)), sitk.ReadImage(str(theirs))
        assert found.GetPixelID() == written.GetPixelID()
        assert np.array_equal(sitk.GetArrayFromImage(found), sitk.GetArrayFromImage(written))
        assert np.allclose(found.GetSpacing(), expected.GetSpacing(), rtol=1e-6)
        assert np.allclose(found.GetOrigin(), expected.GetOrigin(), rtol=1e-6)
        assert np.allclose(found.GetDirection(), expected.GetDirection(), atol=2e-6)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_both_forms_of_a_nifti_header_are_set_in_mm_of_the_scanner(suffix: str, tmp_path: Path) -> None:
    written = image(3)
    written.SetMetaData("ITK_FileNotes", "note " * 30)
    write_sitk(written, tmp_path / f"a{suffix}")
    found = nib.load(tmp_path / f"a{suffix}")
    affine = np.diag([-1, -1, 1, 1]) @ np.vstack(
        [
            np.c_[np.reshape(written.GetDirection(), (3, 3)) * written.GetSpacing(), written.GetOrigin()],
            [0, 0, 0, 1],
        ]
    )
    for form, code in (found.header.get_sform(coded=True), found.header.get_qform(coded=True)):
        assert int(code) == 1
        assert np.allclose(form, affine, rtol=1e-4, atol=1e-3)
    assert found.header.get_xyzt_units() == ("mm", "sec")
    assert bytes(found.header["descrip"]).decode().rstrip("\0") == ("note " * 30)[:79]
    assert np.array_equal(np.asarray(found.dataobj).T, sitk.GetArrayFromImage(written))


def test_the_same_image_is_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.nii.gz", "b.nii.gz"):
        write_sitk(image(4), tmp_path / name)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("spoil", ["cut", "empty", "another"])
def test_what_does_not_read_back_is_refused(suffix: str, spoil: str, tmp_path: Path, monkeypatch) -> None:
    other = tmp_path / f"other{suffix}"
    sitk.WriteImage(image(6), str(other))

    def badly(_image: sitk.Image, path: Path) -> None:
        content = other.read_bytes()
        path.write_bytes({"cut": content[:-200], "empty": b"", "another": content}[spoil])

    for writer in ("_write_nifti", "_write_itk"):
        monkeypatch.setattr(writing, writer, badly)
    with pytest.raises(OutputError, match="does not read back as it should"):
        write_sitk(image(5), tmp_path / f"a{suffix}")


NUMBER = st.floats(-1e6, 1e6, allow_nan=False)


@given(st.lists(NUMBER, min_size=12, max_size=12), st.lists(NUMBER, min_size=3, max_size=3))
def test_itk_reads_transforms_to_the_last_digit(tmp_path_factory, parameters: list[float], center: list[float]) -> None:
    path = tmp_path_factory.mktemp("transform") / "a.tfm"
    affine = sitk.AffineTransform(3)
    affine.SetParameters(parameters)
    affine.SetFixedParameters(center)
    write_affine_text(affine, path)
    found = sitk.ReadTransform(str(path))
    assert found.GetName() == "AffineTransform"
    assert found.GetParameters() == affine.GetParameters()
    assert found.GetFixedParameters() == affine.GetFixedParameters()
