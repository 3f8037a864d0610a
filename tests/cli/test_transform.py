"""`crossalign transform`: from format to format and back, directions, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nitransforms.io.fsl import FSLLinearTransform

from crossalign.cli.main import main
from crossalign.geometry import Grid, Rigid
from crossalign.images import Image, read_transform, write_image, write_transform

FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])
FIXED = Grid((9, 11, 13), (0.75, 1.25, 3.0), (12.0, -34.0, 56.0), ((0.8, -0.6, 0.0), (0.6, 0.8, 0.0), (0.0, 0.0, 1.0)))
MOVING = Grid((5, 8, 7), (2.0, 0.5, 1.25), (-70.0, 8.0, 9.0), ((-1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)))
FIXED_TO_MOVING = Rigid.from_parameters(
    torch.tensor([12.5, -7.25, 30.0, 15.0, -40.0, 100.0], dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
)
MATRIX = FIXED_TO_MOVING.matrix().numpy()
INVERSE = FIXED_TO_MOVING.inverse().matrix().numpy()


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with t.tfm (fixed to moving), fixed.nii.gz and moving.nii.gz."""
    monkeypatch.chdir(tmp_path)
    write_transform(FIXED_TO_MOVING, "t.tfm")
    for name, grid in (("fixed", FIXED), ("moving", MOVING)):
        write_image(Image(torch.rand(grid.shape), grid), f"{name}.nii.gz")
    return tmp_path


def run(capfd: pytest.CaptureFixture[str], line: str) -> str:
    status = main(["transform", *line.split()])
    out, err = capfd.readouterr()
    assert (status, err) == (0, "")
    return out


def refused(capfd: pytest.CaptureFixture[str], line: str) -> str:
    status = main(["transform", *line.split()])
    out, err = capfd.readouterr()
    assert (status, out) == (2, "")
    return err


IMAGES = "--fixed fixed.nii.gz --moving moving.nii.gz"
THERE_AND_BACK = {
    "h5": ("u.h5", "", "", 1e-9),
    "mat": ("u.mat", "--to itk", "", 1e-9),
    "lps": ("u.txt", "--to matrix-lps", "", 1e-9),
    "ras, the other way": ("u.txt", "--to matrix-ras --output-direction moving-to-fixed", "", 1e-9),
    "fsl": ("u.mat", f"--to fsl {IMAGES}", f"--from fsl {IMAGES}", 1e-4),  # NIfTI's grids are single precision
    "fsl, the other way": (
        "u.mat",
        f"--to fsl {IMAGES} --output-direction fixed-to-moving",
        f"--from fsl {IMAGES} --direction fixed-to-moving",
        1e-4,
    ),
    "lta": ("u.lta", IMAGES, "", 1e-4),
}


@pytest.mark.parametrize(("name", "there", "back", "precision"), THERE_AND_BACK.values(), ids=THERE_AND_BACK.keys())
def test_there_and_back_is_the_same(work: Path, capfd, name: str, there: str, back: str, precision: float) -> None:
    run(capfd, f"convert t.tfm {name} {there}")
    run(capfd, f"convert {name} back.tfm {back}")
    assert np.allclose(read_transform("back.tfm").matrix(), MATRIX, atol=precision)


def test_what_is_written_says_which_way_it_maps(work: Path, capfd) -> None:
    out = run(capfd, f"convert t.tfm t.lta {IMAGES}")
    assert "read     t.tfm (itk, maps fixed points to moving points; rigid)" in out
    assert "wrote    t.lta (lta, maps moving points to fixed points)" in out
    run(capfd, "convert t.tfm m.txt --to matrix-ras")
    assert Path("m.txt").read_text().startswith("# crossalign matrix: RAS, mm, fixed-to-moving\n")
    assert np.allclose(np.loadtxt("m.txt"), FLIP @ MATRIX @ FLIP, atol=1e-12)


def test_fsl_gets_what_nitransforms_would_write(work: Path, capfd) -> None:
    """From the images' own headers, one left-handed and both anisotropic."""
    import nibabel as nib

    run(capfd, f"convert t.tfm t.mat --to fsl {IMAGES}")
    ras = FLIP @ MATRIX @ FLIP
    images = {"moving": nib.load("moving.nii.gz"), "reference": nib.load("fixed.nii.gz")}
    theirs = FSLLinearTransform.from_ras(ras, **images).structarr["parameters"]
    assert np.allclose(np.loadtxt("t.mat"), theirs, atol=1e-6)


def test_a_bare_matrix_is_read_as_the_options_say(work: Path, capfd) -> None:
    np.savetxt("m.txt", FLIP @ INVERSE @ FLIP)
    assert "name it with --from" in refused(capfd, "convert m.txt out.tfm")
    assert "pass --direction" in refused(capfd, "convert m.txt out.tfm --from matrix-ras")
    run(capfd, "convert m.txt out.tfm --from matrix-ras --direction moving-to-fixed")
    assert np.allclose(read_transform("out.tfm").matrix(), MATRIX, atol=1e-9)


def test_the_inverse_maps_back(work: Path, capfd) -> None:
    out = run(capfd, "invert t.tfm i.tfm")
    assert "wrote    i.tfm (itk, maps moving points to fixed points)" in out
    assert np.allclose(read_transform("i.tfm").matrix(), INVERSE, atol=1e-9)
    run(capfd, "invert i.tfm again.tfm")
    assert np.allclose(read_transform("again.tfm").matrix(), MATRIX, atol=1e-9)


def test_the_inverse_of_fsls_matrix_is_that_matrix_inverted(work: Path, capfd) -> None:
    """As FSL's convert_xfm -inverse writes it."""
    run(capfd, f"convert t.tfm t.mat --to fsl {IMAGES}")
    run(capfd, f"invert t.mat i.mat --from fsl --to fsl {IMAGES}")
    assert np.allclose(np.loadtxt("i.mat"), np.linalg.inv(np.loadtxt("t.mat")), atol=1e-6)


def test_the_first_transform_named_maps_points_first(work: Path, capfd) -> None:
    """MR to ultrasound, then ultrasound to CT, is MR to CT; SimpleITK's composite says the same."""
    us_to_ct = Rigid.from_parameters(
        torch.tensor([-3.0, 4.0, 5.0, -20.0, 0.0, 7.0], dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    )
    write_transform(us_to_ct, "us_to_ct.tfm")
    out = run(capfd, "compose t.tfm us_to_ct.tfm -o mr_to_ct.tfm")
    assert "points that t.tfm maps, to where us_to_ct.tfm maps them" in out
    itk = sitk.CompositeTransform([sitk.ReadTransform("us_to_ct.tfm"), sitk.ReadTransform("t.tfm")])  # last one first
    point = (10.0, -20.0, 30.0)
    assert np.allclose(sitk.ReadTransform("mr_to_ct.tfm").TransformPoint(point), itk.TransformPoint(point), atol=1e-9)
    run(capfd, "compose mr_to_ct.tfm us_to_ct.tfm t.tfm -o three.h5")
    expected = FIXED_TO_MOVING @ us_to_ct @ us_to_ct @ FIXED_TO_MOVING
    assert np.allclose(read_transform("three.h5").matrix(), expected.matrix(), atol=1e-9)


def test_a_transform_and_its_inverse_compose_to_nothing(work: Path, capfd) -> None:
    run(capfd, "invert t.tfm i.txt --to matrix-lps")
    run(capfd, "compose t.tfm i.txt -o nothing.txt --to matrix-lps")
    assert np.allclose(np.loadtxt("nothing.txt"), np.eye(4), atol=1e-9)
    np.savetxt("bare.txt", INVERSE)
    assert "bare.txt: is a bare matrix (pass --from)" in refused(capfd, "compose t.tfm bare.txt -o n.tfm")
    run(capfd, "compose t.tfm bare.txt -o n.tfm --from matrix-lps")
    assert np.allclose(read_transform("n.tfm").matrix(), np.eye(4), atol=1e-9)


def test_a_scaling_is_converted_and_named(work: Path, capfd) -> None:
    scaling = sitk.ScaleTransform(3, (1.5, 1.0, 0.5))
    sitk.WriteTransform(scaling, "s.tfm")
    assert "affine: it scales its axes by 1.5, 1, 0.5" in run(capfd, "invert s.tfm i.h5")
    point = (10.0, -20.0, 30.0)
    assert np.allclose(sitk.ReadTransform("i.h5").TransformPoint(scaling.TransformPoint(point)), point, atol=1e-9)


REFUSED = {
    "convert t.tfm out.mat": "--to itk or --to fsl",
    "convert t.tfm out.xyz": "does not say which format",
    "convert t.tfm out.lta": "name them with --fixed and --moving",
    f"convert t.tfm out.lta {IMAGES.split(' --moving', maxsplit=1)[0]}": "name them with --moving",
    "convert t.tfm out.tfm --to fsl": "ends in .mat or .txt",
    "convert t.tfm out.h5 --from fsl": "refers to the grids of both images",
    "convert t.tfm out.h5 --from lta": "is of the format itk, but --from says lta",
    "convert bare.txt out.h5 --from itk": "is a bare matrix, not a file of itk",
    "convert said.txt out.tfm --direction moving-to-fixed": "--direction says moving-to-fixed",
    "convert bspline.tfm out.h5": "deformation",
    "convert fixed.nii.gz out.h5": "is an image",
    "convert no.tfm out.h5": "no such file",
    "convert t.tfm t.tfm --overwrite": "is an input",
    "convert t.tfm said.txt": "exists already",
    "convert t.tfm folder/out.h5": "not a folder",
    "compose t.tfm -o out.tfm": "two transforms or more",
    "compose t.tfm t.tfm -o out.lta": "ends in .tfm",
    "compose t.tfm t.lta -o out.tfm": "goes with two images",
}


@pytest.mark.parametrize(("line", "message"), REFUSED.items(), ids=REFUSED.keys())
def test_what_cannot_be_done_is_refused(work: Path, capfd, line: str, message: str) -> None:
    np.savetxt("bare.txt", MATRIX)
    Path("said.txt").write_text("# crossalign matrix: LPS, mm, fixed-to-moving\n1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n")
    sitk.WriteTransform(sitk.BSplineTransform(3), "bspline.tfm")
    if "t.lta" in line:
        run(capfd, f"convert t.tfm t.lta {IMAGES}")
    before = sorted(work.iterdir())
    assert message in refused(capfd, line)
    assert sorted(work.iterdir()) == before
