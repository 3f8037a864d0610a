"""Every kind of transform file against SimpleITK, MINC's frame, what is nearly rigid, and what is refused by name."""

import gzip
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given
from hypothesis import strategies as st

from crossalign.errors import InputWarning, TransformError
from crossalign.geometry import Rigid
from crossalign.images import read_transform, write_transform
from crossalign.images.files.transform_formats.itk import KINDS, parse_itk_text, to_linear
from crossalign.images.files.transform_formats.matlab import parse_matlab_transform

POINTS = [(0.0, 0.0, 0.0), (12.5, -80.0, 33.0), (-140.0, 95.0, -260.0)]
HERE = Path(__file__).parent

NUMBER = st.floats(-300, 300, allow_subnormal=False)
SMALL = st.floats(-0.57, 0.57)  # three of them are a versor
MAKERS = {
    "AffineTransform": sitk.AffineTransform(3),
    "Euler3DTransform": sitk.Euler3DTransform(),
    "VersorRigid3DTransform": sitk.VersorRigid3DTransform(),
    "VersorTransform": sitk.VersorTransform(),
    "Similarity3DTransform": sitk.Similarity3DTransform(),
    "ScaleVersor3DTransform": sitk.ScaleVersor3DTransform(),
    "ScaleSkewVersor3DTransform": sitk.ScaleSkewVersor3DTransform(),
    "ScaleTransform": sitk.ScaleTransform(3),
    "TranslationTransform": sitk.TranslationTransform(3),
    "IdentityTransform": sitk.Transform(3, sitk.sitkIdentity),
}


def test_every_kind_that_is_read_is_tested() -> None:
    assert set(MAKERS) | {"MatrixOffsetTransformBase", "QuaternionRigidTransform"} == set(KINDS)


@st.composite
def drawn(draw: st.DrawFn, kind: str) -> tuple[list[float], list[float]]:
    """Numbers for a transform of this kind: parameters, fixed parameters."""
    first = SMALL if "Versor" in kind or "Similarity" in kind else NUMBER
    count, fixed = KINDS[kind].parameters, draw(st.sampled_from(KINDS[kind].fixed))
    parameters = [draw(first) for _ in range(min(3, count))] + [draw(NUMBER) for _ in range(count - 3)]
    center = [draw(NUMBER) for _ in range(min(3, fixed))] + ([draw(st.sampled_from([0.0, 1.0]))] if fixed == 4 else [])
    return parameters, center


def mapped(transform: sitk.Transform) -> np.ndarray:
    return np.array([transform.TransformPoint(point) for point in POINTS])


def ours(linear) -> np.ndarray:
    return (np.array(POINTS) - linear.center) @ linear.matrix.T + linear.center + linear.translation


@given(data=st.data(), kind=st.sampled_from(sorted(MAKERS)))
def test_text_and_mat_of_each_kind_map_points_as_simpleitk_does(data: st.DataObject, kind: str) -> None:
    parameters, fixed = data.draw(drawn(kind))
    itk = sitk.Transform(MAKERS[kind])
    itk.SetParameters(parameters)
    itk.SetFixedParameters(fixed)
    with tempfile.TemporaryDirectory() as folder:
        text, binary = Path(folder) / "t.tfm", Path(folder) / "t.mat"
        sitk.WriteTransform(itk, str(text))
        sitk.WriteTransform(itk, str(binary))
        (from_text,), (from_binary,) = (
            parse_itk_text(text.read_text(), "t.tfm"),
            parse_matlab_transform(binary.read_bytes(), "t.mat"),
        )
    assert from_text == from_binary
    np.testing.assert_allclose(ours(to_linear(from_text, "t")), mapped(itk), rtol=1e-12, atol=1e-9)


def text_of(kind: str, parameters: Sequence[float], fixed: Sequence[float], precision: str = "double") -> str:
    numbers = (" ".join(map(repr, row)) for row in (parameters, fixed))
    return (
        "#Insight Transform File V1.0\n#Transform 0\n"
        f"Transform: {kind}_{precision}_3_3\nParameters: {next(numbers)}\nFixedParameters: {next(numbers)}\n"
    )


@given(data=st.data(), kind=st.sampled_from(["MatrixOffsetTransformBase", "QuaternionRigidTransform"]))
def test_kinds_that_simpleitk_only_reads(data: st.DataObject, kind: str) -> None:
    text = text_of(kind, *data.draw(drawn(kind)), data.draw(st.sampled_from(["double", "float"])))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "t.tfm").write_text(text)
        itk = sitk.ReadTransform(str(Path(folder) / "t.tfm"))
    (transform,) = parse_itk_text(text, "t.tfm")
    np.testing.assert_allclose(ours(to_linear(transform, "t")), mapped(itk), rtol=1e-12, atol=1e-6)


def euler(angles: Sequence[float] = (0.1, -0.2, 0.3), center: Sequence[float] = (40.0, -25.0, 90.0)) -> sitk.Transform:
    return sitk.Euler3DTransform(center, *angles, (4, 5, -6))


@pytest.mark.parametrize("suffix", [".tfm", ".h5"])
def test_a_composite_applies_its_last_part_first(tmp_path: Path, suffix: str) -> None:
    parts = [euler(), sitk.TranslationTransform(3, (5, 0, -50)), euler((1.0, 0.5, -2.0), (1, 2, 3))]
    itk = sitk.CompositeTransform(parts)
    sitk.WriteTransform(itk, str(tmp_path / f"t{suffix}"))
    read = read_transform(tmp_path / f"t{suffix}")
    np.testing.assert_allclose(read.apply(torch.tensor(POINTS, dtype=torch.float64)), mapped(itk), atol=1e-9)
    first = sitk.CompositeTransform(parts[::-1])
    assert not np.allclose(mapped(first), mapped(itk), atol=1)


def test_content_decides_and_not_the_name(tmp_path: Path) -> None:
    for suffix in (".tfm", ".mat", ".h5"):
        sitk.WriteTransform(euler(), str(tmp_path / f"t{suffix}"))
    expected = read_transform(tmp_path / "t.tfm").matrix()
    for suffix in (".tfm", ".mat", ".h5"):
        for name in ("t.nii", b"caf\xe9.txt".decode("utf-8", "surrogateescape")):  # Latin-1, as old disks have it
            (tmp_path / name).write_bytes((tmp_path / f"t{suffix}").read_bytes())
            torch.testing.assert_close(read_transform(tmp_path / name).matrix(), expected, atol=1e-12, rtol=0)


def test_comments_may_be_long_and_stand_anywhere(tmp_path: Path) -> None:
    lines = text_of("TranslationTransform", (1, 2, 3), ()).splitlines()
    comment = "# caf\xe9 " + "x" * 100_000
    (tmp_path / "t.tfm").write_bytes("\r\n".join(f"{line}\r\n{comment}\r\n" for line in lines).encode("latin-1"))
    assert read_transform(tmp_path / "t.tfm").translation_mm.tolist() == [1, 2, 3]
    second = f"{comment}\n" * 5 + text_of("TranslationTransform", (1, 2, 3), ())
    (tmp_path / "t.tfm").write_text(text_of("TranslationTransform", (1, 2, 3), ()) + second)
    with pytest.raises(TransformError, match=r"holds 2 transforms.*CompositeTransform"):
        read_transform(tmp_path / "t.tfm")


def test_lists_of_transforms_are_refused_in_every_format(tmp_path: Path) -> None:
    for number in (1, 2):
        sitk.WriteTransform(sitk.TranslationTransform(3, (number, 0, 0)), str(tmp_path / f"{number}.mat"))
    (tmp_path / "t.mat").write_bytes((tmp_path / "1.mat").read_bytes() + (tmp_path / "2.mat").read_bytes())
    (tmp_path / "t.h5").write_bytes(gzip.decompress((HERE / "list_of_transforms.h5.gz").read_bytes()))
    (tmp_path / "t.tfm").write_text(text_of("VersorTransform", (0, 0, 0), (1, 2, 3)) * 2)
    for suffix in (".mat", ".h5", ".tfm"):
        with pytest.raises(TransformError, match=r"transforms, and not in which order.*CompositeTransform"):
            read_transform(tmp_path / f"t{suffix}")
    sitk.WriteTransform(sitk.CompositeTransform([euler(), euler()]), str(tmp_path / "c.mat"))
    with pytest.raises(TransformError, match=r"composite in \.mat lacks its parts: save it as \.tfm or \.h5"):
        read_transform(tmp_path / "c.mat")


def test_deformations_in_mat_and_large_text_are_refused_by_name(tmp_path: Path) -> None:
    spline = sitk.BSplineTransform([sitk.Image(8, 8, 8, sitk.sitkFloat64)] * 3, 3)
    sitk.WriteTransform(spline, str(tmp_path / "t.mat"))
    sitk.WriteTransform(sitk.Euler2DTransform(), str(tmp_path / "flat.mat"))
    head = text_of("TranslationTransform", (1, 2, 3), ()) + "Transform: DisplacementFieldTransform_double_3_3\n"
    (tmp_path / "t.tfm").write_text(head + "Parameters: " + "0 " * 1_000_000 + "\n")
    for name, message in (("t.mat", "BSpline"), ("flat.mat", "2-D"), ("t.tfm", "DisplacementField")):
        with pytest.raises(TransformError, match=message):
            read_transform(tmp_path / name)


TURN = "0.5 -0.86602540 0 10\n0.86602540 0.5 0 20\n0 0 1 5;\n"
SHIFT = "1 0 0 100\n0 1 0 0\n0 0 1 0;\n"
MINC = "MNI Transform File\n% made by hand\n\n"


def minc(matrix: str, flag: str = "") -> str:
    return f"Transform_Type = Linear;\n{flag}Linear_Transform =\n{matrix}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (minc(TURN), (-22.320508, -1.339746, 35)),
        (minc(SHIFT, "Invert_Flag = True;\n"), (110, 20, 30)),
        (minc(SHIFT, "Invert_Flag = False;\n"), (-90, 20, 30)),
        (minc(SHIFT) + minc(TURN), (-72.320508, -87.942286, 35)),
    ],
    ids=["turn", "inverted", "not inverted", "concatenated: the first is applied first"],
)
def test_minc_maps_ras_points(tmp_path: Path, text: str, expected: tuple[float, float, float]) -> None:
    (tmp_path / "t.xfm").write_text(MINC + text)
    point = torch.tensor([[10.0, 20.0, 30.0]], dtype=torch.float64)  # in RAS -10, -20, 30
    assert read_transform(tmp_path / "t.xfm").apply(point)[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_the_minc_file_that_was_read_as_lps(shared_data: Path) -> None:
    point = torch.tensor([[-10.0, -20.0, 30.0]], dtype=torch.float64)
    read = read_transform(shared_data / "bug_inputs" / "minc-xfm-read-as-lps" / "ras.xfm")
    assert read.apply(point)[0].tolist() == pytest.approx((-8.6603, -42.3205, 35.0), abs=1e-4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Transform_Type = Grid_Transform;\nDisplacement_Volume = grid.mnc;\n", "type Grid_Transform"),
        ("Transform_Type = Thin_Plate_Spline_Transform;\nNumber_Dimensions = 3;\n", "Thin_Plate_Spline"),
        (minc(TURN.replace(" 5;", ";")), "got 11 of them"),
        (minc(TURN.replace("0.5", "0,5")), "got 10 of them"),
        (minc(TURN.replace(" 5", " nan")), "got 11 of them"),
        (minc(TURN.replace("5;", "5")), "does not end with ';'"),
        (minc(TURN, "Inverted = True;\n"), "and Inverted"),
        (minc(TURN, "Invert_Flag = yes;\n"), "expected 'Linear_Transform ='"),
        (minc(TURN) + "Linear_Transform = 1;", "stands twice"),
        (minc("0 0 0 0 " * 3 + ";", "Invert_Flag = True;\n"), "no inverse"),
        ("", "does not end with ';'"),
        ("Linear_Transform = 1;", "expected 'Transform_Type = Linear'"),
    ],
)
def test_other_minc_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.xfm").write_text(MINC + text)
    with pytest.raises(TransformError, match=rf"^t\.xfm: .*{re.escape(message)}"):
        read_transform(tmp_path / "t.xfm")


def drawn_rotation(seed: int) -> Rigid:
    turns = torch.rand(6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 300 - 150
    return Rigid.from_parameters(turns, torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize("digits", [3, 4, 5, 6, 7, 9])
def test_a_rounded_matrix_is_made_orthonormal_and_the_user_is_told(tmp_path: Path, digits: int) -> None:
    for seed in range(5):
        exact = drawn_rotation(seed)
        rounded = [round(value, digits) for value in exact.rotation.flatten().tolist()]
        (tmp_path / "t.tfm").write_text(text_of("AffineTransform", [*rounded, 1, 2, 3], (50, -700, 20)))
        if digits <= 4:
            with pytest.warns(InputWarning, match=r"t\.tfm: .*rotation but for rounding.*moved by up to 0\.\d+ mm"):
                read = read_transform(tmp_path / "t.tfm")
        elif digits >= 6:
            read = read_transform(tmp_path / "t.tfm")
        else:
            continue  # at the border
        torch.testing.assert_close(read.rotation @ read.rotation.T, torch.eye(3).double(), atol=1e-14, rtol=0)
        torch.testing.assert_close(read.rotation, exact.rotation, atol=2 * 10.0**-digits, rtol=0)
        center = torch.tensor([[50.0, -700.0, 20.0]], dtype=torch.float64)  # where rounding changes nothing
        assert read.apply(center)[0].tolist() == pytest.approx([51, -698, 23], abs=1e-9)


def test_what_is_written_comes_back_exactly(tmp_path: Path) -> None:
    for seed in range(5):
        write_transform(drawn_rotation(seed), tmp_path / "t.tfm", overwrite=True)
        assert torch.equal(read_transform(tmp_path / "t.tfm").matrix(), drawn_rotation(seed).matrix())


@pytest.mark.parametrize(
    ("kind", "parameters", "message"),
    [
        ("AffineTransform", (1.006, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0), "scales its axes by 1.006, 1, 1"),
        ("AffineTransform", (1, 0.006, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0), "shears: its axes are 89.66, 90, 90 degrees"),
        ("AffineTransform", (1, 0, 0, 0, -1, 0, 0, 0, 1, 0, 0, 0), "mirrors"),
        ("AffineTransform", (0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0), "flattens"),
        ("AffineTransform", (1e300, 0, 0, 0, 1e300, 0, 0, 0, 1, 0, 0, 0), "too large"),
        ("Similarity3DTransform", (0, 0, 0.1, 4, 5, 6, 1.1), "scales its axes by 1.1, 1.1, 1.1"),
        ("ScaleVersor3DTransform", (0, 0, 0, 4, 5, 6, 1, 1.1, 1), "scales its axes by 1, 1.1, 1"),
        ("ScaleSkewVersor3DTransform", (0,) * 6 + (1,) * 3 + (0.1,) + (0,) * 5, "scales|shears"),
        ("VersorRigid3DTransform", (1, 1, 1, 0, 0, 0), "versor has the length 1.732"),
    ],
)
def test_what_is_wrong_with_a_matrix_is_said(
    tmp_path: Path, kind: str, parameters: tuple[float, ...], message: str
) -> None:
    (tmp_path / "t.tfm").write_text(text_of(kind, parameters, (0, 0, 0)))
    with pytest.raises(TransformError, match=rf"^t\.tfm: .*({message})"):
        read_transform(tmp_path / "t.tfm")


def test_parts_that_scale_may_make_a_rigid_whole(tmp_path: Path) -> None:
    parts = [sitk.ScaleTransform(3, (2, 2, 2)), euler(), sitk.ScaleTransform(3, (0.5, 0.5, 0.5))]
    sitk.WriteTransform(sitk.CompositeTransform(parts), str(tmp_path / "t.tfm"))
    read = read_transform(tmp_path / "t.tfm").apply(torch.tensor(POINTS, dtype=torch.float64))
    np.testing.assert_allclose(read, mapped(sitk.CompositeTransform(parts)), atol=1e-9)


FOREIGN = {
    "empty": (b"", "is empty"),
    "bare matrix": (b"1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n", "bare matrix.*--from fsl"),
    "AFNI": (b"# 3dAllineate matrices\n1 0 0 0 0 1 0 0 0 0 1 0\n", "bare matrix"),
    "FreeSurfer": (b"type      = 0\nnxforms   = 1\nmean      = 0 0 0\n", "FreeSurfer.*transform convert"),
    "elastix": (b'(Transform "EulerTransform")\n(NumberOfParameters 6)\n', "elastix.*ITKTransformOutputFileName"),
    "scene": (b'<MRML  version="Slicer4.4.0">', "XML.*tfm"),
    "JSON": (b'{"transform": [1, 0]}', "JSON.*read from"),
    "points": (b"name,x,y,z\na,1,2,3\n", "holds points"),
    "Slicer's points": (b"# Markups fiducial file version = 4.11\n", "holds points"),
    "MATLAB 5": (b"MATLAB 5.0 MAT-file, Platform: GLNXA64" + b" " * 100, "MATLAB file that is not ITK's"),
    "image": (b"\x5c\x01\0\0" + b"\0" * 400, "is an image"),
    "gzip": (b"\x1f\x8b\x08" + b"\0" * 400, "is an image"),
    "much of MINC": (b"MNI Transform File\n" + b"Transform_Type = Linear;" * 50_000, "not a transform file"),
    "noise": (bytes(range(256)), "not a transform file: transforms are read from"),
}


@pytest.mark.parametrize(("content", "message"), FOREIGN.values(), ids=FOREIGN)
def test_other_files_are_refused_by_what_they_are(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "t.tfm").write_bytes(content)
    with pytest.raises(TransformError, match=rf"^t\.tfm: .*{message}"):
        read_transform(tmp_path / "t.tfm")
