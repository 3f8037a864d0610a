"""Cases in memory, and landmark files."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.data.files import FIXED_GRID, HEADER, MOVING_GRID, REFERENCE, ROW, gland, write_case, write_manifest

from crossalign.data import Case, load_case, read_landmarks, read_manifest
from crossalign.errors import ImageError, InputWarning, ManifestError, TransformError
from crossalign.images import SURFACE_POINTS, write_label_map


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = write_case(tmp_path_factory.mktemp("case"))
    line = ROW.format(case="a", split="val") + ",p,us_gland.nii.gz,points.csv"
    (read,) = read_manifest(write_manifest(folder, line, header=HEADER + ",patient,moving_mask,landmarks"))
    return read


def test_loads_everything(case: Case) -> None:
    loaded = load_case(case)
    assert (loaded.name, loaded.patient, loaded.split) == ("a", "p", "val")
    assert loaded.fixed.grid.agrees_with(FIXED_GRID)
    assert loaded.moving.grid.agrees_with(MOVING_GRID)
    torch.testing.assert_close(loaded.fixed_to_moving.matrix(), REFERENCE.matrix())
    torch.testing.assert_close(loaded.fixed_mask.centroid_mm(), gland(FIXED_GRID).centroid_mm(), atol=1e-4, rtol=0)
    assert loaded.moving_mask is not None
    assert 0 < len(loaded.surface_mm) <= SURFACE_POINTS
    assert loaded.landmarks is not None
    assert loaded.landmarks.names == ("urethra", "apex")
    assert loaded.landmarks.fixed_mm.tolist() == [[1, 2, 3], [-1, 0.5, 10]]
    assert loaded.landmarks.moving_mm.tolist() == [[4, 5, 6], [0, 0, 0]]


def test_optional_parts_may_be_absent(case: Case) -> None:
    loaded = load_case(replace(case, moving_mask=None, landmarks=None))
    assert loaded.moving_mask is None
    assert loaded.landmarks is None


@pytest.mark.parametrize("part", ["fixed_mask", "moving_mask"])
@pytest.mark.parametrize("how", ["shift", "flip"])
def test_mask_of_another_grid(part: str, how: str, case: Case, tmp_path: Path) -> None:
    grid = FIXED_GRID if part == "fixed_mask" else MOVING_GRID
    x, y, z = grid.origin_mm
    other = {
        "shift": replace(grid, origin_mm=(x, y + 1.0, z)),
        "flip": replace(grid, direction=((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, -1.0))),
    }[how]
    write_label_map(gland(other), tmp_path / "mask.nii.gz")
    image = "mr.nii.gz" if part == "fixed_mask" else "us.nrrd"
    with pytest.raises(ImageError, match=rf"case a: mask\.nii\.gz: the mask does not lie on the grid of {image}"):
        load_case(replace(case, **{part: tmp_path / "mask.nii.gz"}))  # type: ignore[arg-type]


@pytest.mark.parametrize("part", ["fixed_mask", "moving_mask"])
def test_mask_on_another_grid_of_the_same_space_is_resampled_with_a_note(part: str, case: Case, tmp_path: Path) -> None:
    grid = FIXED_GRID if part == "fixed_mask" else MOVING_GRID
    larger = gland(replace(grid, shape=(grid.shape[0] + 1, *grid.shape[1:])))
    write_label_map(larger, tmp_path / "mask.nii.gz")
    with pytest.warns(InputWarning, match=r"mask\.nii\.gz: the mask was stored on another grid and was resampled"):
        loaded = load_case(replace(case, **{part: tmp_path / "mask.nii.gz"}))  # type: ignore[arg-type]
    mask = loaded.fixed_mask if part == "fixed_mask" else loaded.moving_mask
    assert mask is not None
    assert mask.grid.agrees_with(grid)
    assert torch.equal(mask.labels, larger.labels[: grid.shape[0]])


def test_bad_files_raise_their_own_errors(case: Case, tmp_path: Path) -> None:
    empty = gland(FIXED_GRID)
    empty.labels.zero_()
    write_label_map(empty, tmp_path / "empty.nii.gz")
    with pytest.raises(ImageError, match="mask is empty"):
        load_case(replace(case, fixed_mask=tmp_path / "empty.nii.gz"))
    with pytest.raises(ImageError):
        load_case(replace(case, moving=case.reference))
    with pytest.raises(TransformError):
        load_case(replace(case, reference=case.fixed))


GOOD = "name,fixed_x,fixed_y,fixed_z,moving_x,moving_y,moving_z"
BAD_LANDMARKS = {
    "empty": ("", r"row 1: expected name,fixed_x,.*got nothing"),
    "points file": ("name,x,y,z\na,1,2,3", "row 1: expected"),
    "wrong axes": (GOOD.replace("_y", "_q") + "\n", "row 1: expected"),
    "text": (GOOD + "\na,1,2,3,4,5,6\nb,1,2,3,4,five,6", r"row 3, column 'moving_y': got 'five', expected a finite"),
    "nan": (GOOD + "\n\nb,nan,2,3,4,5,6", "row 3, column 'fixed_x': got 'nan'"),
    "infinite": (GOOD + "\nb,1,2,3,4,5,1e999", "row 2, column 'moving_z': got '1e999'"),
    "no value": (GOOD + "\nb,1,,3,4,5,6", "row 2, column 'fixed_y': got ''"),
    "short": (GOOD + "\nb,1,2,3", "row 2: expected a name and six numbers, got 4 values"),
    "long": (GOOD + "\nb,1,2,3,4,5,6,7", "row 2: expected a name and six numbers, got 8 values"),
}


@pytest.mark.parametrize(("text", "message"), BAD_LANDMARKS.values(), ids=BAD_LANDMARKS)
def test_bad_landmarks(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text(text)
    with pytest.raises(ManifestError, match=rf"^points\.csv, {message}"):
        read_landmarks(tmp_path / "points.csv")


def test_unreadable_landmarks(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no such file"):
        read_landmarks(tmp_path / "none.csv")
    (tmp_path / "points.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ManifestError, match="not text in UTF-8"):
        read_landmarks(tmp_path / "points.csv")


def test_landmark_files_that_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    path.write_bytes(b"\xef\xbb\xbf" + (GOOD.upper() + '\r\n\r\n"left, upper",1,2,3,4,5,6\r\n').encode())
    landmarks = read_landmarks(path)
    assert landmarks is not None
    assert landmarks.names == ("left, upper",)
    assert landmarks.fixed_mm.dtype == torch.float64
    path.write_text(GOOD + "\n")
    assert read_landmarks(path) is None


def test_real_case(shared_data: Path) -> None:
    """Every part of a published pair loads and lies where its transform says."""
    folder = shared_data / "mrus" / "obs000"
    if not folder.is_dir():
        pytest.skip("no MR-ultrasound pairs in the shared data")
    loaded = load_case(
        Case(
            "obs000", "p", "train", folder / "mr.nii.gz", folder / "us.nii.gz", folder / "mr_gland.nii.gz",
            folder / "reference.tfm", folder / "us_gland.nii.gz", folder / "landmarks.csv",
        )
    )  # fmt: skip
    assert loaded.moving_mask is not None
    centers = loaded.fixed_to_moving.apply(loaded.fixed_mask.centroid_mm()[None])[0], loaded.moving_mask.centroid_mm()
    assert float((centers[0] - centers[1]).norm()) < 10
