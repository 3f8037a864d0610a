"""Transform files, judged by SimpleITK and nitransforms."""

import os
from pathlib import Path

import nitransforms
import numpy as np
import pytest
import SimpleITK as sitk
import torch

from crossalign.errors import OutputError, TransformError
from crossalign.geometry import Rigid
from crossalign.images import read_transform, write_transform

POINTS = torch.rand(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 200 - 100


def some_rigid() -> Rigid:
    parameters = torch.tensor([12.5, -7.25, 30.0, 15.0, -40.0, 100.0], dtype=torch.float64)
    return Rigid.from_parameters(parameters, torch.tensor([10.0, 20.0, -30.0], dtype=torch.float64))


def map_with_itk(transform: sitk.Transform) -> np.ndarray:
    return np.array([transform.TransformPoint(point) for point in POINTS.tolist()])


@pytest.mark.parametrize("suffix", [".tfm", ".txt"])
def test_simpleitk_maps_points_as_we_do(tmp_path: Path, suffix: str) -> None:
    write_transform(some_rigid(), tmp_path / f"t{suffix}")
    itk = sitk.ReadTransform(str(tmp_path / f"t{suffix}"))
    assert itk.GetName() == "AffineTransform"
    assert np.allclose(map_with_itk(itk), some_rigid().apply(POINTS), atol=1e-9)


def test_nitransforms_maps_points_as_we_do(tmp_path: Path) -> None:
    write_transform(some_rigid(), tmp_path / "t.tfm")
    affine = nitransforms.linear.load(tmp_path / "t.tfm", fmt="itk")
    flip = np.array([-1.0, -1.0, 1.0])  # it works in RAS
    assert np.allclose(affine.map(POINTS.numpy() * flip) * flip, some_rigid().apply(POINTS), atol=1e-6)


def test_a_transform_comes_back_to_double_precision(tmp_path: Path) -> None:
    write_transform(some_rigid(), tmp_path / "t.tfm")
    assert torch.allclose(read_transform(tmp_path / "t.tfm").matrix(), some_rigid().matrix(), atol=1e-12)


def euler() -> sitk.Transform:
    return sitk.Euler3DTransform((1, 2, 3), 0.1, -0.2, 0.3, (4, 5, 6))


def versor() -> sitk.Transform:
    return sitk.VersorRigid3DTransform((0.1, 0.2, 0.3, 0.9273618495495703), (4, 5, 6), (7, 8, 9))


def composite() -> sitk.Transform:
    return sitk.CompositeTransform([euler(), sitk.TranslationTransform(3, (5, 0, -5)), versor()])


@pytest.mark.parametrize("make", [euler, versor, composite, lambda: sitk.TranslationTransform(3, (1, 2, 3))])
@pytest.mark.parametrize("suffix", [".tfm", ".h5", ".txt"])
def test_every_rigid_kind_of_itk_is_read(tmp_path: Path, make, suffix: str) -> None:
    itk = make()
    sitk.WriteTransform(itk, str(tmp_path / f"t{suffix}"))
    assert np.allclose(read_transform(tmp_path / f"t{suffix}").apply(POINTS), map_with_itk(itk), atol=1e-9)


def affine(matrix: list[float]) -> sitk.Transform:
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(matrix)
    return transform


NOT_RIGID = {
    "scaling": (affine([1.01, 0, 0, 0, 1, 0, 0, 0, 1]), "not rigid"),
    "shear": (affine([1, 0.01, 0, 0, 1, 0, 0, 0, 1]), "not rigid"),
    "mirror": (affine([-1, 0, 0, 0, 1, 0, 0, 0, 1]), "mirrors"),
    "collapse": (affine([1, 0, 0, 0, 1, 0, 0, 0, 0]), "not rigid"),
    "2-D": (sitk.Euler2DTransform(), "2-D transform, expected 3-D"),
    "B-spline": (sitk.BSplineTransform(3), "deformation"),
    "bent composite": (sitk.CompositeTransform([sitk.Euler3DTransform(), sitk.BSplineTransform(3)]), "deformation"),
    "field": (sitk.DisplacementFieldTransform(sitk.Image(4, 4, 4, sitk.sitkVectorFloat64)), "deformation"),
}


@pytest.mark.parametrize(("itk", "message"), NOT_RIGID.values(), ids=NOT_RIGID.keys())
def test_what_is_not_rigid_is_refused(tmp_path: Path, itk: sitk.Transform, message: str) -> None:
    sitk.WriteTransform(itk, str(tmp_path / "t.tfm"))
    with pytest.raises(TransformError, match=message):
        read_transform(tmp_path / "t.tfm")


HEADER = "#Insight Transform File V1.0\n"
BLOCK = "#Transform {n}\nTransform: AffineTransform_double_3_3\nParameters: {p}\nFixedParameters: 0 0 0\n"
SHIFT = "1 0 0 0 1 0 0 0 1 1 2 3"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello\n",
        HEADER,
        HEADER + BLOCK.format(n=0, p="1 0 0"),
        HEADER + BLOCK.format(n=0, p="1 0 0 0 1 0 0 0 1 nan 2 3"),
        HEADER + BLOCK.format(n=0, p=SHIFT) + BLOCK.format(n=1, p=SHIFT),
    ],
    ids=["empty", "prose", "no transform", "too few parameters", "NaN", "two transforms"],
)
def test_what_is_no_transform_is_refused_in_silence(tmp_path: Path, text: str, capfd) -> None:
    (tmp_path / "t.tfm").write_text(text)
    with pytest.raises(TransformError, match=r"t\.tfm"):
        read_transform(tmp_path / "t.tfm")
    assert capfd.readouterr() == ("", "")


def test_a_missing_transform_a_folder_and_a_pipe_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tfm")
    refused = {"no.tfm": "no such file", "pipe.tfm": "pipe, socket or device", "": "is a folder", "x" * 5000: "read"}
    for name, message in refused.items():
        with pytest.raises(TransformError, match=message):
            read_transform(tmp_path / name)
    with pytest.raises(TransformError, match="NUL"):
        read_transform("a\0b.tfm")


def test_only_one_finite_transform_is_written_and_only_as_text(tmp_path: Path) -> None:
    batch = Rigid(torch.eye(3).expand(2, 3, 3), torch.zeros(2, 3))
    for rigid in (batch, Rigid(torch.eye(3), torch.tensor([float("nan"), 0, 0]))):
        with pytest.raises(TransformError, match="one finite transform"):
            write_transform(rigid, tmp_path / "t.tfm")
    with pytest.raises(OutputError, match=r"\.tfm or \.txt"):
        write_transform(some_rigid(), tmp_path / "t.h5")
    assert list(tmp_path.iterdir()) == []
