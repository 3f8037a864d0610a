"""Where the voxels of a file lie: contradictions are told, shear is resampled, impossible geometry is refused."""

import gzip
import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.geometry.strategies import grids

from crossalign.errors import ImageError, InputWarning
from crossalign.geometry import Grid, Rigid
from crossalign.images import Image, read_grid, read_image, read_label_map, read_volume, write_image
from crossalign.images.files.formats.header import Header
from crossalign.images.files.formats.placement import placed

SHAPE = (6, 7, 8)  # x, y, z
RAMP = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
AFFINE = np.array([[-1.5, 0, 0, 10.0], [0, 1.5, 0, -20], [0, 0, 2, 30], [0, 0, 0, 1]])


def nifti(path: Path, affine: np.ndarray = AFFINE, voxels: np.ndarray = RAMP, **fields: object) -> Path:
    """Write a NIfTI-1 file with sform and qform (codes 2 and 1), then change fields of its header."""
    image = nib.Nifti1Image(voxels, affine)
    image.set_sform(affine, 2)
    image.set_qform(affine, 1)
    image.header.set_xyzt_units("mm")
    data = bytearray(image.to_bytes())
    header = nib.Nifti1Header(bytes(data[:348]), check=False)
    for key, value in fields.items():
        header[key] = value
    data[:348] = header.binaryblock
    path.write_bytes(gzip.compress(bytes(data)) if path.name.endswith(".gz") else data)
    return path


def last_voxel(image: Image) -> list[float]:
    """The place of the last voxel, RAS as nibabel has it."""
    index = torch.tensor([[size - 1 for size in image.grid.shape[::-1]]], dtype=torch.float64)
    return (image.grid.to_physical(index)[0] * torch.tensor([-1, -1, 1])).tolist()


def place(affine: np.ndarray) -> list[float]:
    return (affine @ [*(n - 1 for n in SHAPE), 1])[:3].tolist()


def pixdim(*values: float) -> np.ndarray:
    return np.array([1, *values, 0, 0, 0, 0], np.float32)


SHIFTED = AFFINE + np.array([[0, 0, 0, 20.0], [0] * 4, [0] * 4, [0] * 4])
TOLD = {
    "sform shifted from qform": ({"srow_x": SHIFTED[0]}, r"sform \(code 2, aligned\) and the qform", SHIFTED),
    "qform alone": ({"sform_code": 0, "srow_x": SHIFTED[0]}, None, AFFINE),
    "pixdim of 1": ({"qform_code": 0, "pixdim": pixdim(1, 1, 1)}, "pixdim says a spacing of 1 x 1 x 1", AFFINE),
    "pixdim of 0": ({"pixdim": pixdim(1.5, 1.5, 0)}, "pixdim is 1.5 x 1.5 x 0: the spacing 1.5 x 1.5 x 2 mm", AFFINE),
    "sform, pixdim NaN": ({"pixdim": pixdim(1.5, np.nan, 2)}, "pixdim is 1.5 x nan x 2", AFFINE),
    "sform, pixdim infinite": ({"qform_code": 0, "pixdim": pixdim(np.inf, 1.5, 2)}, "pixdim is inf x", AFFINE),
    "sform of zeros": ({"srow_x": [0] * 4, "srow_y": [0] * 4, "srow_z": [0] * 4}, r"sform \(code 2\) is not", AFFINE),
    "sform NaN": ({"srow_x": [np.nan] * 4}, "sform .* is not a matrix", AFFINE),
    "rounding stays silent": ({"srow_x": AFFINE[0] * (1 + 1e-5)}, None, AFFINE),
    "unknown unit": ({"xyzt_units": 0}, None, AFFINE),
    "unit without a meaning": ({"xyzt_units": 5}, "unknown code 5: taken as mm", AFFINE),
}


@pytest.mark.parametrize(("fields", "message", "affine"), TOLD.values(), ids=TOLD.keys())
@pytest.mark.parametrize("read", [read_image, read_volume, read_grid, read_label_map])
def test_contradictions_of_a_nifti_header_are_told_once(tmp_path: Path, fields, message, affine, read, recwarn) -> None:
    got = read(nifti(tmp_path / "scan.nii.gz", **fields))
    grid = got if read is read_grid else got.grid
    assert np.allclose(grid.voxel_to_physical().numpy(), np.diag([-1, -1, 1, 1]) @ affine, atol=1e-3)
    texts = [str(warning.message) for warning in recwarn.list]
    assert len(texts) == (0 if message is None else 1)
    assert all(issubclass(warning.category, InputWarning) for warning in recwarn.list)
    if message is not None:
        with pytest.warns(InputWarning, match=message):
            read(nifti(tmp_path / "scan.nii.gz", **fields))


def test_a_file_without_form_codes_is_read_as_nibabel_reads_it(tmp_path: Path) -> None:
    path = nifti(tmp_path / "scan.nii", sform_code=0, qform_code=0)
    with pytest.warns(InputWarning, match="as nibabel and FSL do.*ITK and Slicer put it at") as told:
        image = read_image(path)
    assert len(told) == 1
    assert np.allclose(last_voxel(image), place(nib.Nifti1Image.from_filename(path).affine))


@pytest.mark.parametrize(("code", "scale"), [(1, 1e3), (3, 1e-3)])
def test_units_of_nifti_are_converted(tmp_path: Path, code: int, scale: float) -> None:
    affine = np.diag([1 / scale, 1 / scale, 1 / scale, 1]) @ AFFINE
    with pytest.warns(InputWarning, match="unit is .*metres: converted to mm"):
        image = read_image(nifti(tmp_path / "scan.nii", affine, xyzt_units=code))
    assert np.allclose(last_voxel(image), place(AFFINE), atol=1e-3)


@pytest.mark.parametrize(
    ("slope", "intercept", "told"),
    [(0, 100, True), (np.nan, 7, True), (np.inf, 0, True), (0, 0, False), (np.nan, np.nan, False)],
)
def test_a_slope_of_0_means_no_scaling(tmp_path: Path, slope: float, intercept: float, told: bool) -> None:
    path = nifti(tmp_path / "scan.nii", scl_slope=slope, scl_inter=intercept)
    if told:
        with pytest.warns(InputWarning, match="no scaling: the intercept .* is not added"):
            image = read_image(path)
    else:
        image = read_image(path)
    assert np.array_equal(image.voxels.numpy(), RAMP.T)


@pytest.mark.parametrize("spacing", [0.0, np.nan, np.inf, 1e-6, 1e30])
def test_an_impossible_spacing_without_an_sform_is_refused(tmp_path: Path, spacing: float) -> None:
    for code in (0, 1):
        path = nifti(tmp_path / "scan.nii", sform_code=0, qform_code=code, pixdim=pixdim(1.5, spacing, 2))
        for read in (read_image, read_volume, read_grid, read_label_map):
            with pytest.raises(ImageError, match="the spacing is") as caught:
                read(path)
            assert "scan.nii" in str(caught.value)


@pytest.mark.parametrize("spacing", [0.005, 0.001, 100.0, 1000.0])
def test_small_and_large_objects_are_read(tmp_path: Path, spacing: float) -> None:
    grid = read_grid(nifti(tmp_path / "scan.nii", np.diag([-spacing, spacing, spacing, 1])))
    assert np.allclose(grid.spacing_mm, spacing)


@pytest.mark.parametrize("spacing", [5e-4, 2e3])
def test_a_spacing_of_no_scan_is_refused_with_a_hint_about_units(tmp_path: Path, spacing: float) -> None:
    with pytest.raises(ImageError, match=r"expected 0\.001 to 1000 mm: .* unit of length"):
        read_grid(nifti(tmp_path / "scan.nii", np.diag([-spacing, spacing, spacing, 1])))


def test_a_negative_pixdim_is_read_without_its_sign(tmp_path: Path) -> None:
    path = nifti(tmp_path / "scan.nii", sform_code=0, pixdim=pixdim(-1.5, 1.5, 2))
    with pytest.warns(InputWarning, match="without the sign"):
        assert np.allclose(read_grid(path).spacing_mm, (1.5, 1.5, 2))


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("packed", [False, True])
def test_names_and_contents_may_disagree(tmp_path: Path, kind: type, packed: bool, recwarn) -> None:
    data = kind(RAMP, AFFINE).to_bytes()
    for name in ("a.nii", "a.nii.gz", "a.img", "a.mha", "a"):
        (tmp_path / name).write_bytes(gzip.compress(data) if packed else data)
        recwarn.clear()
        image = read_image(tmp_path / name)
        assert np.array_equal(image.voxels.numpy(), RAMP.T)
        assert np.allclose(last_voxel(image), place(AFFINE), atol=1e-4)
        fits = name == ("a.nii.gz" if packed else "a.nii")
        assert ["name ends in" in str(warning.message) for warning in recwarn.list] == ([] if fits else [True])


def test_nrrd_and_metaimage_are_recognised_under_other_names(tmp_path: Path) -> None:
    image = read_image(nifti(tmp_path / "scan.nii"))
    for suffix, content in ((".nrrd", "NRRD"), (".mha", "MetaImage")):
        write_image(image, tmp_path / f"scan{suffix}")
        shutil.copy(tmp_path / f"scan{suffix}", tmp_path / "copy.nii")
        with pytest.warns(InputWarning, match=f"name ends in .nii but the file is {content}"):
            again = read_image(tmp_path / "copy.nii")
        assert torch.equal(again.voxels, image.voxels)
        assert again.grid.agrees_with(image.grid)
        (tmp_path / f"packed{suffix}").write_bytes(gzip.compress((tmp_path / f"scan{suffix}").read_bytes()))
        with pytest.raises(ImageError, match="unpack it first"):
            read_image(tmp_path / f"packed{suffix}")


def test_the_file_that_is_named_is_read_and_not_its_sibling(tmp_path: Path) -> None:
    nifti(tmp_path / "scan.nii")
    nifti(tmp_path / "scan.nii.gz", voxels=RAMP + 1000)
    assert float(read_image(tmp_path / "scan.nii").voxels.max()) == RAMP.max()
    assert float(read_image(tmp_path / "scan.nii.gz").voxels.max()) == RAMP.max() + 1000


def test_a_pair_of_header_and_image_is_read_and_analyze_is_not(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Pair(RAMP, AFFINE), tmp_path / "pair.hdr")
    image = read_image(tmp_path / "pair.hdr")
    assert np.array_equal(image.voxels.numpy(), RAMP.T)
    assert np.allclose(last_voxel(image), place(AFFINE))
    with pytest.raises(ImageError, match="give the header"):
        read_image(tmp_path / "pair.img")
    (tmp_path / "pair.img").unlink()
    with pytest.raises(ImageError, match="is not beside it"):
        read_image(tmp_path / "pair.hdr")
    nib.save(nib.AnalyzeImage(RAMP, np.eye(4)), tmp_path / "old.hdr")
    with pytest.raises(ImageError, match="ANALYZE"):
        read_image(tmp_path / "old.hdr")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_names_that_are_not_utf_8_are_read_and_written(tmp_path: Path, suffix: str) -> None:
    # SimpleITK ends the process on such a name.
    folder = tmp_path / os.fsdecode(b"f\xe9vrier")
    folder.mkdir()
    path = folder / os.fsdecode(b"t\xeate" + suffix.encode())
    write_image(read_image(nifti(tmp_path / "plain.nii")), path)
    image = read_image(path)
    assert np.array_equal(image.voxels.numpy(), RAMP.T)
    assert np.allclose(last_voxel(image), place(AFFINE), atol=1e-4)
    assert image.name == f"t?te{suffix}"
    assert list(folder.iterdir()) == [path]


def ball(shape: tuple[int, int, int], affine: np.ndarray) -> np.ndarray:
    """A smooth blob that stands still in space (RAS), whatever grid looks at it."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    points = index @ affine[:3, :3].T + affine[:3, 3]
    return (100 * np.exp(-((points - [2, 3, 4]) ** 2).sum(-1) / 60)).astype(np.float32)


def sheared(degrees: float) -> np.ndarray:
    """A tilted gantry: slices are stacked along an axis that leans in y."""
    affine = np.diag([1.0, 1.0, 1.5, 1.0])
    affine[1, 2] = 1.5 * np.tan(np.deg2rad(degrees))
    affine[:3, 3] = (-14, -14, -14)
    return affine


@pytest.mark.parametrize("degrees", [2.0, 16.7, -25.0])
@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_a_tilted_scan_is_resampled_and_its_structures_stay_where_they_are(
    tmp_path, degrees: float, suffix: str
) -> None:
    affine, shape = sheared(degrees), (32, 34, 26)
    voxels = ball(shape, affine)
    path = tmp_path / f"tilted{suffix}"
    lps = np.diag([-1.0, -1, 1, 1]) @ affine
    lengths = np.linalg.norm(lps[:3, :3], axis=0)
    sizes = " ".join(map(str, shape))
    vectors = " ".join(f"({','.join(map(repr, map(float, column)))})" for column in lps[:3, :3].T)
    if suffix == ".nii.gz":
        tilted = nib.Nifti1Image(voxels, affine)
        tilted.set_qform(None, 0)
        tilted.header["pixdim"][1:4] = lengths
        nib.save(tilted, path)
    elif suffix == ".nrrd":
        head = f"NRRD0005\ntype: float\ndimension: 3\nspace: LPS\nsizes: {sizes}\nspace directions: {vectors}\n"
        head += f"space origin: ({','.join(map(str, lps[:3, 3]))})\nendian: little\nencoding: raw\n\n"
        path.write_bytes(head.encode() + voxels.T.tobytes())
    else:
        rows = " ".join(map(repr, map(float, (lps[:3, :3] / lengths).T.ravel())))
        head = f"ObjectType = Image\nNDims = 3\nDimSize = {sizes}\nTransformMatrix = {rows}\n"
        head += f"Offset = {' '.join(map(str, lps[:3, 3]))}\n"
        head += f"ElementSpacing = {' '.join(map(repr, map(float, lengths)))}\n"
        path.write_bytes((head + "ElementType = MET_FLOAT\nElementDataFile = LOCAL\n").encode() + voxels.T.tobytes())
    with pytest.warns(InputWarning, match=f"{abs(degrees):.1f} degrees .* resampled onto a straight grid"):
        image = read_image(path)
    with pytest.warns(InputWarning, match="resampled") as told:
        assert read_grid(path) == image.grid
    assert len(told) == 1
    matrix = np.diag([-1, -1, 1, 1]) @ image.grid.voxel_to_physical().numpy()
    expected = ball(image.grid.shape[::-1], matrix).T
    inside = image.voxels.numpy() > 5
    assert inside.sum() > 1000
    assert np.abs(image.voxels.numpy() - expected)[inside].max() < 2.5  # what trilinear interpolation loses
    assert np.allclose(image.grid.spacing_mm, (1, 1, 1.5), atol=1e-5)
    corners = np.array([[x, y, z] for x in (0, 31) for y in (0, 33) for z in (0, 25)])
    found = image.grid.to_voxel(torch.tensor(corners @ lps[:3, :3].T + lps[:3, 3])).numpy()
    assert (found >= -1e-3).all()
    assert (found <= np.array(image.grid.shape[::-1]) - 1 + 1e-3).all()


def test_labels_of_a_tilted_scan_stay_labels_and_its_slices_stay_slices(tmp_path: Path) -> None:
    affine, shape = sheared(20), (20, 22, 24)
    labels = np.where(ball(shape, affine) > 40, 7, 0).astype(np.int16)
    path = tmp_path / "labels.nii.gz"
    image = nib.Nifti1Image(labels, affine)
    image.set_qform(None, 0)
    nib.save(image, path)
    with pytest.warns(InputWarning, match="20.0 degrees"):
        read = read_label_map(path)
    assert read.labels.unique().tolist() == [0, 7]
    assert read.grid.shape[0] == shape[2]
    per_slice = (read.labels == 7).sum((1, 2)).numpy()
    assert np.abs(per_slice - (labels == 7).sum((0, 1))).max() <= 3


def test_what_lies_outside_a_tilted_scan_is_what_the_scan_means_by_nothing(tmp_path: Path) -> None:
    affine = sheared(20)
    for empty in (0.0, -1000.0, np.nan):
        voxels = ball((20, 22, 24), affine)
        voxels[voxels < 30] = empty
        image = nib.Nifti1Image(voxels, affine)
        image.set_qform(None, 0)
        nib.save(image, tmp_path / "scan.nii")
        with pytest.warns(InputWarning, match="resampled"):
            read = read_volume(tmp_path / "scan.nii").voxels
        corner = float(read[0, -1, 0])
        assert corner == empty or (np.isnan(empty) and np.isnan(corner))


@pytest.mark.parametrize(("digits", "told"), [(3, True), (4, True), (6, False)])
def test_a_rounded_direction_matrix_is_made_orthonormal(tmp_path: Path, digits: int, told: bool, recwarn) -> None:
    parameters = torch.tensor([0, 0, 0, 20.0, -35, 50], dtype=torch.float64)
    rotation = Rigid.from_parameters(parameters, torch.zeros(3).double()).rotation.numpy()
    rounded = np.round(rotation, digits)
    vectors = " ".join(f"({','.join(map(str, column))})" for column in rounded.T)
    (tmp_path / "a.nhdr").write_text(
        f"NRRD0005\ntype: uchar\ndimension: 3\nspace: LPS\nsizes: 400 400 300\nspace directions: {vectors}\n"
        "space origin: (0,0,0)\nencoding: raw\ndata file: a.raw\n"
    )
    (tmp_path / "a.raw").touch()
    grid = read_grid(tmp_path / "a.nhdr")
    axes = np.array(grid.direction)
    assert np.allclose(axes @ axes.T, np.eye(3), atol=1e-12)
    assert np.allclose(axes, rotation, atol=2 * 10.0**-digits)
    assert [("rounded" in str(warning.message)) for warning in recwarn.list] in ([], [True])
    assert not recwarn.list or told


NRRD = "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 4 4 4\nencoding: raw\n{}\n\n"
VECTORS = "space directions: (2,0,0) (0,3,0) (0,0,4)\nspace origin: (5,6,7)"
METRES = "space directions: (0.002,0,0) (0,0.003,0) (0,0,0.004)\nspace origin: (0.005,0.006,0.007)"
MICRO = "space directions: (2000,0,0) (0,3000,0) (0,0,4000)\nspace origin: (5000,6000,7000)"
NRRD_CASES = {
    "RAS": (f"space: RAS\n{VECTORS}", None, (-5, -6, 7), (-11, -15, 19)),
    "LAS": (f"space: left-anterior-superior\n{VECTORS}", None, (5, -6, 7), (11, -15, 19)),
    "LPS": (f"space: LPS\n{VECTORS}", None, (5, 6, 7), (11, 15, 19)),
    "scanner": (f"space: scanner-xyz\n{VECTORS}", "not tied to the patient", (5, 6, 7), (11, 15, 19)),
    "dimension": (f"space dimension: 3\n{VECTORS}", "a space without a name", (5, 6, 7), (11, 15, 19)),
    "metres": (f'space: LPS\nspace units: "m" "m" "m"\n{METRES}', "unit is m: converted", (5, 6, 7), (11, 15, 19)),
    "micrometres": (f'space: RAS\nspace units: "um" "um" "um"\n{MICRO}', "unit is um", (-5, -6, 7), (-11, -15, 19)),
    "spacings": ("spacings: 2 3 4\naxis mins: 5 6 7", "how the axes lie", (6, 7.5, 9), (12, 16.5, 21)),
    "node": ("spacings: 2 3 4\naxis mins: 5 6 7\ncenters: node node node", "how the axes lie", (5, 6, 7), (11, 15, 19)),
}


@pytest.mark.parametrize(("text", "message", "first", "last"), NRRD_CASES.values(), ids=NRRD_CASES.keys())
def test_spaces_and_units_of_nrrd(tmp_path: Path, text: str, message: str | None, first, last) -> None:
    (tmp_path / "a.nrrd").write_bytes(NRRD.format(text).encode() + bytes(range(64)))
    if message is None:
        grid = read_grid(tmp_path / "a.nrrd")
    else:
        with pytest.warns(InputWarning, match=message):
            grid = read_grid(tmp_path / "a.nrrd")
    ends = grid.to_physical(torch.tensor([[0, 0, 0], [3, 3, 3]], dtype=torch.float64)).numpy()
    assert np.allclose(ends, [first, last])


META = "ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\n{}ElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
META_CASES = {
    "no spacing": ("", "gives no spacing"),
    "size for spacing": ("ElementSize = 2 3 4\n", None),
    "units": ("ElementSpacing = 20 20 20\nDistanceUnits = um\n", "unit is um"),
    "letters": ("ElementSpacing = 1 1 1\nAnatomicalOrientation = LPI\n", "says LPI, TransformMatrix RAI"),
    "same letters": ("ElementSpacing = 1 1 1\nAnatomicalOrientation = RAI\n", None),
    "unknown letters": ("ElementSpacing = 1 1 1\nAnatomicalOrientation = ???\n", None),
    "center": (
        "ElementSpacing = 1 1 1\nTransformMatrix = 0 1 0 1 0 0 0 0 1\nCenterOfRotation = 1 2 3\n",
        "CenterOfRotation",
    ),
    "center of nothing": ("ElementSpacing = 1 1 1\nCenterOfRotation = 1 2 3\n", None),
    "scale": ("ElementSpacing = 1 1 1\nElementToIntensityFunctionSlope = 2\n", "not applied"),
}


@pytest.mark.parametrize(("text", "message"), META_CASES.values(), ids=META_CASES.keys())
def test_what_a_metaimage_header_leaves_open_is_told(tmp_path: Path, text: str, message: str | None) -> None:
    (tmp_path / "a.mha").write_bytes(META.format(text).encode() + bytes(range(64)))
    if message is None:
        image = read_volume(tmp_path / "a.mha")
    else:
        with pytest.warns(InputWarning, match=message) as told:
            image = read_volume(tmp_path / "a.mha")
        assert len(told) == 1
    assert image.voxels.flatten().tolist() == list(range(64))
    expected = {"size for spacing": (2, 3, 4), "units": (0.02, 0.02, 0.02)}
    spacing = next((value for key, value in expected.items() if META_CASES[key][0] == text), (1, 1, 1))
    assert np.allclose(image.grid.spacing_mm, spacing)


def test_axes_in_one_plane_are_refused(tmp_path: Path) -> None:
    affine = np.eye(4)
    affine[:3, 2] = (0, 1, 0.05)
    image = nib.Nifti1Image(RAMP, affine)
    nib.save(image, tmp_path / "flat.nii")
    with pytest.raises(ImageError, match="almost in one plane"):
        read_grid(tmp_path / "flat.nii")


@pytest.mark.parametrize(
    ("first", "message"),
    [
        (b"\x89HDF\r\n", "HDF5"),
        (bytes(128) + b"DICM", "hold no image"),
        (b"PK\x03\x04", "unpack it first"),
        (b"\x89PNG", "PNG"),
    ],
)
def test_other_formats_are_named_with_what_to_do(tmp_path: Path, first: bytes, message: str) -> None:
    (tmp_path / "a.nii").write_bytes(first + bytes(600))
    with pytest.raises(ImageError, match=message):
        read_image(tmp_path / "a.nii")


def test_one_slice_can_be_moved_but_not_registered(tmp_path: Path) -> None:
    path = nifti(tmp_path / "slice.nii", voxels=RAMP[:, :, :1])
    assert read_volume(path).voxels.shape == (1, 7, 6)
    assert read_label_map(path, allow_empty=True).labels.shape == (1, 7, 6)
    for read in (read_image, read_label_map):
        with pytest.raises(ImageError, match="expected 2 or more on each axis"):
            read(path)


def test_an_image_is_read_as_it_is(tmp_path: Path) -> None:
    odd = RAMP.copy()
    odd[0, 0, :3] = (np.nan, np.inf, -np.inf)
    for name, voxels in {"nan": odd, "constant": np.full_like(RAMP, 7), "empty": np.zeros_like(RAMP)}.items():
        read = read_volume(nifti(tmp_path / f"{name}.nii.gz", voxels=voxels))
        assert np.array_equal(read.voxels.numpy(), voxels.T, equal_nan=True)
        with pytest.raises(ImageError):
            read_image(tmp_path / f"{name}.nii.gz")
    assert int(read_label_map(tmp_path / "empty.nii.gz", allow_empty=True).labels.sum()) == 0
    with pytest.raises(ImageError, match="empty"):
        read_label_map(tmp_path / "empty.nii.gz")


@given(
    grid=grids(),
    lean=st.tuples(*[st.floats(-0.6, 0.6)] * 3),
    size=st.tuples(*[st.integers(2, 30)] * 3),
)
def test_a_straight_grid_covers_a_sheared_volume(grid: Grid, lean: tuple[float, ...], size: tuple[int, ...]) -> None:
    shear = np.eye(4)
    shear[0, 1], shear[0, 2], shear[1, 2] = lean
    x, y, z = size
    affine = grid.voxel_to_physical().numpy() @ np.diag([*(1 / np.array(grid.spacing_mm)), 1]) @ shear
    affine[:3, :3] *= grid.spacing_mm
    header = Header("scan", (x, y, z), np.dtype("u1"), affine, ())
    placement = placed(header)
    index = np.array([[a, b, c, 1] for a in (0, x - 1) for b in (0, y - 1) for c in (0, z - 1)], float)
    corners = index @ affine.T
    found = placement.grid.to_voxel(torch.tensor(corners[:, :3])).numpy()
    if placement.grid_to_stored is None:
        moved = placement.grid.to_physical(torch.tensor(index[:, :3])).numpy()
        assert np.abs(moved - corners[:, :3]).max() < 2e-3 * 30 * np.linalg.norm(affine[:3, :3], axis=0).max() * 2
        return
    assert (found > -1e-4).all()
    assert (found < np.array(placement.grid.shape[::-1]) - 1 + 1e-4).all()
    back = np.c_[found, np.ones(8)] @ placement.grid_to_stored.T
    assert np.allclose(back, index, atol=1e-5)
