"""Linear transforms of every format: laws, and agreement with SimpleITK, nibabel and nitransforms."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import nitransforms
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given
from hypothesis import strategies as st
from nitransforms.io.fsl import FSLLinearTransform
from nitransforms.io.lta import FSLinearTransformArray
from tests.geometry.strategies import grids, rigids

from crossalign.errors import OutputError, TransformError
from crossalign.geometry import Grid
from crossalign.images import LINEAR_FORMATS, Ends, read_linear, recognised_format, stored_grid, write_linear
from crossalign.images.files.transform_formats.fsl import from_scaled_voxels, to_scaled_voxels
from crossalign.output import whole_file

FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])
POINTS = torch.rand(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 200 - 100
WRITTEN = [(name, suffix) for name, one in LINEAR_FORMATS.items() if one.write is not None for suffix in one.suffixes]


def affine(seed: int = 0) -> torch.Tensor:
    """A matrix (4, 4) that turns, scales, shears and shifts."""
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] += 0.3 * torch.randn(3, 3, generator=generator, dtype=torch.float64)
    matrix[:3, 3] = 40 * torch.randn(3, generator=generator, dtype=torch.float64)
    return matrix


def image(grid: Grid) -> nib.Nifti1Image:
    """The image of a grid as nibabel has it: voxels (x, y, z), RAS."""
    stored = np.zeros(grid.shape[::-1], np.uint8)
    return nib.Nifti1Image(stored, FLIP @ grid.voxel_to_physical().numpy())


OBLIQUE = Grid(
    (9, 11, 13),
    (0.7, 1.1, 3.0),
    (12.0, -34.0, 56.0),
    ((0.8, -0.6, 0.0), (0.36, 0.48, -0.8), (0.48, 0.64, 0.6)),
)
LEFT_HANDED = Grid((5, 8, 7), (2.0, 0.5, 1.25), (-70.0, 8.0, 9.0), ((-1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)))
GRIDS = [OBLIQUE, LEFT_HANDED]


def write(matrix: torch.Tensor, path: Path, name: str, ends: Ends, direction: str = "") -> None:
    with whole_file(path) as partial:
        write_linear(matrix, partial, name, ends, direction)


@pytest.mark.parametrize(("name", "suffix"), WRITTEN)
def test_what_is_written_is_read_again_as_it_was(tmp_path: Path, name: str, suffix: str) -> None:
    path, ends = tmp_path / f"t{suffix}", Ends(*GRIDS)
    write(affine(), path, name, ends, "moving-to-fixed")
    kind = recognised_format(path)
    assert (None if kind is None else kind.format) == (None if name == "fsl" else name)
    assert kind is None or kind.direction == ("moving-to-fixed" if name.startswith("matrix") else "")
    precision = 1e-4 if name == "lta" else 1e-9  # nitransforms reads single precision
    assert torch.allclose(read_linear(path, name, ends), affine(), atol=precision)


@pytest.mark.parametrize("suffix", [".tfm", ".txt", ".h5", ".mat"])
def test_simpleitk_maps_points_as_the_files_of_itk_say(tmp_path: Path, suffix: str) -> None:
    write(affine(), tmp_path / f"t{suffix}", "itk", Ends())
    itk = sitk.ReadTransform(str(tmp_path / f"t{suffix}"))
    mapped = np.array([itk.TransformPoint(point) for point in POINTS.tolist()])
    assert np.allclose(mapped, POINTS @ affine()[:3, :3].T + affine()[:3, 3], atol=1e-9)


@pytest.mark.parametrize("suffix", [".tfm", ".h5", ".mat"])
def test_a_scaling_of_simpleitk_is_read(tmp_path: Path, suffix: str) -> None:
    itk = sitk.Similarity3DTransform(1.5, (0.0, 0.6, 0.8), 0.3, (4.0, 5.0, 6.0), (7.0, 8.0, 9.0))
    sitk.WriteTransform(itk, str(tmp_path / f"t{suffix}"))
    matrix = read_linear(tmp_path / f"t{suffix}", "itk")
    mapped = np.array([itk.TransformPoint(point) for point in POINTS.tolist()])
    assert np.allclose(POINTS @ matrix[:3, :3].T + matrix[:3, 3], mapped, atol=1e-9)


@pytest.mark.parametrize(("source", "target"), [(OBLIQUE, LEFT_HANDED), (LEFT_HANDED, OBLIQUE), (OBLIQUE, OBLIQUE)])
def test_matrices_of_fsl_are_those_of_nitransforms(tmp_path: Path, source: Grid, target: Grid) -> None:
    write(affine(), tmp_path / "t.mat", "fsl", Ends(source, target))  # moving to fixed, as flirt
    theirs = FSLLinearTransform.from_filename(tmp_path / "t.mat")
    fixed_to_moving = theirs.to_ras(moving=image(source), reference=image(target))
    assert np.allclose(FLIP @ np.linalg.inv(fixed_to_moving) @ FLIP, affine(), atol=1e-9)


def test_a_matrix_of_nitransforms_for_fsl_is_read(tmp_path: Path) -> None:
    ras = FLIP @ affine().numpy() @ FLIP  # fixed to moving
    theirs = FSLLinearTransform.from_ras(ras, moving=image(LEFT_HANDED), reference=image(OBLIQUE))
    theirs.to_filename(tmp_path / "t.mat")
    matrix = read_linear(tmp_path / "t.mat", "fsl", Ends(LEFT_HANDED, OBLIQUE))
    assert torch.allclose(torch.linalg.inv(matrix), affine(), atol=1e-4)  # it writes eight digits


@given(matrix=st.integers(0, 1000).map(affine), source=grids(), target=grids())
def test_scaled_voxels_there_and_back(matrix: torch.Tensor, source: Grid, target: Grid) -> None:
    scaled = to_scaled_voxels(matrix.numpy(), source, target)
    assert np.allclose(from_scaled_voxels(scaled, source, target), matrix, atol=1e-7)


@given(grid=grids(), rigid=rigids())
def test_scaled_voxels_of_one_grid_keep_lengths(grid: Grid, rigid) -> None:
    """FSL's frame is in mm: a rigid motion between one grid's scaled voxels is rigid."""
    scaled = to_scaled_voxels(rigid.matrix().numpy(), grid, grid)
    assert np.allclose(scaled[:3, :3] @ scaled[:3, :3].T, np.eye(3), atol=1e-9)


def test_files_for_freesurfer_say_where_the_voxels_lie(tmp_path: Path) -> None:
    """The matrix maps RAS points of src to dst; both geometries are those of nibabel's affines."""
    write(affine(), tmp_path / "t.lta", "lta", Ends(OBLIQUE, LEFT_HANDED), "moving-to-fixed")
    text = (tmp_path / "t.lta").read_text()
    assert text.startswith("# written by crossalign: maps points of src to dst (src: moving, dst: fixed image)\n")
    (theirs,) = FSLinearTransformArray.from_string(text).xforms
    assert np.allclose(theirs["m_L"], FLIP @ affine().numpy() @ FLIP, atol=1e-4)
    assert np.allclose(theirs["src"].as_affine(), image(OBLIQUE).affine, atol=1e-4)
    assert np.allclose(theirs["dst"].as_affine(), image(LEFT_HANDED).affine, atol=1e-4)
    lta = nitransforms.linear.load(tmp_path / "t.lta", fmt="lta")  # as resampling has it: fixed to moving
    assert np.allclose(lta.matrix, np.linalg.inv(FLIP @ affine().numpy() @ FLIP), atol=1e-4)


def lta_between_voxels(matrix: np.ndarray, source: Grid, target: Grid) -> str:
    """What FreeSurfer's own programs write: voxels of src to voxels of dst."""
    rows = "\n".join(" ".join(f"{value:.15e}" for value in row) for row in matrix)
    ends = []
    for name, grid in (("src", source), ("dst", target)):
        ras = image(grid).affine
        size, axes = np.array(grid.shape[::-1]), ras[:3, :3] / grid.spacing_mm
        numbers = {"volume": size, "voxelsize": np.array(grid.spacing_mm)}
        numbers |= {f"{axis}ras": axes[:, column] for column, axis in enumerate("xyz")}
        numbers["cras"] = ras[:3, 3] + ras[:3, :3] @ (size / 2)
        lines = [f"{key:6s} = {' '.join(str(value) for value in values)}" for key, values in numbers.items()]
        ends.append(f"{name} volume info\nvalid = 1  # volume info valid\nfilename = {name}.mgz\n" + "\n".join(lines))
    return (
        "type      = 0 # LINEAR_VOX_TO_VOX\nnxforms   = 1\nmean      = 0.0000 0.0000 0.0000\nsigma     = 1.0000\n"
        f"1 4 4\n{rows}\n" + "\n".join(ends) + "\nsubject unknown\nfscale 0.150000\n"
    )


def test_a_transform_of_freesurfer_between_voxels_is_read(tmp_path: Path) -> None:
    source, target = OBLIQUE, LEFT_HANDED
    voxels = target.physical_to_voxel() @ affine() @ source.voxel_to_physical()
    (tmp_path / "t.lta").write_text(lta_between_voxels(voxels.numpy(), source, target))
    kind = recognised_format(tmp_path / "t.lta")
    assert kind is not None
    assert kind.format == "lta"
    assert torch.allclose(read_linear(tmp_path / "t.lta", "lta"), affine(), atol=1e-3)


def test_a_matrix_in_ras_is_the_one_of_nibabels_world(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "t.txt", FLIP @ affine().numpy() @ FLIP)
    assert recognised_format(tmp_path / "t.txt") is None
    assert torch.allclose(read_linear(tmp_path / "t.txt", "matrix-ras"), affine(), atol=1e-12)


def test_numpy_reads_a_matrix_that_is_written(tmp_path: Path) -> None:
    write(affine(), tmp_path / "t.txt", "matrix-lps", Ends(), "fixed-to-moving")
    assert np.array_equal(np.loadtxt(tmp_path / "t.txt"), affine())
    assert (tmp_path / "t.txt").read_text().startswith("# crossalign matrix: LPS, mm, fixed-to-moving\n")


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_the_stored_grid_is_that_of_the_file(tmp_path: Path, suffix: str) -> None:
    stored = sitk.GetImageFromArray(np.zeros(OBLIQUE.shape, np.float32))
    stored.SetSpacing(OBLIQUE.spacing_mm)
    stored.SetOrigin(OBLIQUE.origin_mm)
    stored.SetDirection(np.array(OBLIQUE.direction).flatten().tolist())
    sitk.WriteImage(stored, str(tmp_path / f"i{suffix}"))
    assert stored_grid(tmp_path / f"i{suffix}").agrees_with(OBLIQUE, 1e-3)


DAMAGED: dict[str, tuple[str, str, str]] = {
    "three rows": ("matrix-lps", "1 0 0 0\n0 1 0 0\n0 0 1 0\n", "four lines of four"),
    "a word": ("matrix-lps", "1 0 0 0\n0 1 0 0\n0 0 1 x\n0 0 0 1\n", "got 'x'"),
    "infinite": ("matrix-ras", "1 0 0 0\n0 1 0 0\n0 0 1 inf\n0 0 0 1\n", "got 'inf'"),
    "flat": ("matrix-lps", "1 0 0 0\n0 1 0 0\n0 0 0 0\n0 0 0 1\n", "no inverse"),
    "projective": ("matrix-lps", "1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 1 1\n", "last row"),
    "fsl without images": ("fsl", "1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n", "both images"),
    "lta cut off": ("lta", "type      = 1\nnxforms   = 1\nmean      = 0 0 0\n", "nitransforms"),
    "lta of two": ("lta", "type      = 1\nnxforms   = 0\n", "0 transforms"),
}


@pytest.mark.parametrize(("name", "text", "message"), DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_files_are_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / "t.txt").write_text(text)
    with pytest.raises(TransformError, match=message):
        read_linear(tmp_path / "t.txt", name)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("type      = 0", "type      = 14"),
        lambda text: text.replace("valid = 1", "valid = 0"),
    ],
)
def test_transforms_of_freesurfer_that_cannot_be_placed_are_refused(
    tmp_path: Path, change: Callable[[str], str]
) -> None:
    (tmp_path / "t.lta").write_text(change(lta_between_voxels(np.eye(4), OBLIQUE, OBLIQUE)))
    with pytest.raises(TransformError, match=r"expected 0 \(voxels\)|does not say where"):
        read_linear(tmp_path / "t.lta", "lta")


def test_deformations_are_refused_and_minc_is_not_written(tmp_path: Path) -> None:
    sitk.WriteTransform(sitk.BSplineTransform(3), str(tmp_path / "t.tfm"))
    with pytest.raises(TransformError, match="deformation"):
        read_linear(tmp_path / "t.tfm", "itk")
    with pytest.raises(OutputError, match="not written as minc"):
        write(affine(), tmp_path / "t.xfm", "minc", Ends())


def test_without_nitransforms_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "nitransforms.io", None)
    with pytest.raises(TransformError, match=r"pip install 'crossalign\[transforms\]'"):
        write(affine(), tmp_path / "t.lta", "lta", Ends(*GRIDS))
    assert not (tmp_path / "t.lta").exists()


REAL_HEADERS = {  # degrees off the axes, handedness (FSL's "neurological" is right-handed), spacing
    "hitachi/anatomical/001_ground_truth": "39, left, 2.34 x 2.34 x 4",
    "failing/sliceincrement/002_ground_truth": "16, left, 0.51 x 0.51 x 0.78",
    "generic/anatomical/002_non_isotropic_ground_truth": "2, right, 6.4 x 4 x 0.5",
    "philips_enhanced/anatomical/001_ground_truth": "0, right, 1 x 1 x 1.2",
}


@pytest.mark.parametrize("moving", REAL_HEADERS)
@pytest.mark.parametrize("fixed", REAL_HEADERS)
def test_real_headers_give_what_nitransforms_makes_of_them(
    shared_data: Path, tmp_path: Path, fixed: str, moving: str
) -> None:
    """FSL's matrices and both geometries of FreeSurfer's files, from headers as converters of real scans wrote them."""
    files = {"fixed": fixed, "moving": moving}
    paths = {part: shared_data / "dicom" / "series" / f"{name}.nii.gz" for part, name in files.items()}
    images = {part: nib.load(path) for part, path in paths.items()}
    ends = Ends(stored_grid(paths["moving"]), stored_grid(paths["fixed"]))
    write(affine(), tmp_path / "t.mat", "fsl", ends)
    ras = np.linalg.inv(FLIP @ affine().numpy() @ FLIP)  # fixed to moving
    theirs = FSLLinearTransform.from_ras(ras, moving=images["moving"], reference=images["fixed"])
    assert np.allclose(np.loadtxt(tmp_path / "t.mat"), theirs.structarr["parameters"], atol=1e-3)
    write(affine(), tmp_path / "t.lta", "lta", ends)
    (lta,) = FSLinearTransformArray.from_string((tmp_path / "t.lta").read_text()).xforms
    for end, part in (("src", "moving"), ("dst", "fixed")):
        assert np.allclose(lta[end].as_affine(), images[part].affine, atol=1e-3), part
