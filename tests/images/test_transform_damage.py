"""Damaged transform files: each is refused, or gives a rigid transform; a cut one never gives another transform."""

import random
import re
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from crossalign.errors import InputWarning, TransformError
from crossalign.images import read_transform
from crossalign.images.files.transform_formats import hdf5

HEADER = "#Insight Transform File V1.0\n"
BLOCK = "#Transform 0\nTransform: {kind}_double_3_3\nParameters: {parameters}\nFixedParameters: {fixed}\n"
TRIES = 200
POINT = torch.tensor([[30.0, -60.0, 125.5]], dtype=torch.float64)


def euler(zyx: bool = False) -> sitk.Transform:
    transform = sitk.Euler3DTransform((11.25, -21.5, 31.0625), 0.125, -0.25, 1.5, (41.5, 5.25, -6.75))
    transform.SetComputeZYX(zyx)
    return transform


def affine() -> sitk.Transform:
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(euler().GetMatrix())
    transform.SetTranslation((14.5, 25.25, -36.125))
    transform.SetCenter((-17.5, 28.75, 19.0))
    return transform


def versor() -> sitk.Transform:
    return sitk.VersorRigid3DTransform((0.1, 0.2, 0.3, 0.9273618495495703), (4.5, 5.5, 6.5), (7.5, 8.5, 9.5))


SOUND = {
    "euler": euler(),
    "euler, the other order": euler(zyx=True),
    "affine": affine(),
    "versor": versor(),
    "turn": sitk.VersorTransform((0.1, 0.2, 0.3, 0.9273618495495703), (7.5, 8.5, 9.5)),
    "shift": sitk.TranslationTransform(3, (11.5, 22.25, 33.125)),
    "identity": sitk.Transform(3, sitk.sitkIdentity),
    "composite": sitk.CompositeTransform([euler(), sitk.TranslationTransform(3, (15.5, 0, -25.25)), versor()]),
}
MINC = (
    "MNI Transform File\n% a turn\n\nTransform_Type = Linear;\nInvert_Flag = True;\nLinear_Transform =\n"
    "0.86602540 -0.50000000 0.00000000 10.5\n0.50000000 0.86602540 0.0 20.5\n0.0 0.0 1.0 35.125;\n"
)


def content_of(kind: str, folder: Path, suffix: str) -> bytes:
    if kind == "minc":
        return MINC.encode()
    sitk.WriteTransform(SOUND[kind], str(folder / f"sound{suffix}"))
    return (folder / f"sound{suffix}").read_bytes()


def result(content: bytes, folder: Path) -> torch.Tensor | None:
    """Where the transform of a file takes a point, or None where it is refused; anything else is a failure."""
    (folder / "t").write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        try:
            read = read_transform(folder / "t")
        except TransformError as error:
            message = str(error)
            read = None
    if read is None:
        assert message.startswith("t")
        assert len(message) < 500
        return None
    torch.testing.assert_close(read.rotation @ read.rotation.T, torch.eye(3).double(), atol=1e-9, rtol=0)
    return read.apply(POINT)[0]


def whole_before(content: bytes) -> set[int]:
    """Lengths at which a cut composite is a whole file of fewer parts, which nobody can tell."""
    return {match.start() for match in re.finditer(rb"#Transform [2-9]", content)}


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [*((kind, ".tfm") for kind in SOUND if kind != "turn"), ("minc", ".xfm"), ("euler", ".mat"), ("shift", ".mat")],
)
def test_a_file_cut_anywhere_is_refused_or_gives_the_right_value(tmp_path: Path, kind: str, suffix: str) -> None:
    content = content_of(kind, tmp_path, suffix)
    right = result(content, tmp_path)
    assert right is not None
    accepted = 0
    for length in set(range(len(content))) - (whole_before(content) if kind == "composite" else set()):
        cut = result(content[:length], tmp_path)
        accepted += cut is not None
        assert cut is None or torch.allclose(cut, right, atol=1e-9), content[:length]
    assert accepted <= 2  # where the final line break alone is missing, after an empty row of numbers or after ';'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER, "cut off before the line 'Transform:'"),
        (HEADER + "#Transform 0\n", "cut off before"),
        (HEADER + "Transform: Euler3DTransform_double_3_3\n", "the line 'Parameters:' is missing"),
        (HEADER + "Transform: Euler3DTransform_double_3_3\nParameters: 0 0 0 1 2 3\n", "'FixedParameters:' is missing"),
        (HEADER + "Transform: Euler3DTransform_double_3_3\nFixedParameters: 0 0 0\n", "'Parameters:' is missing"),
        (HEADER + "Transform: CompositeTransform_double_3_3\n", "composite without a part"),
        (HEADER + "Transform: CompositeTransform_double_3_3\nParameters: 1\n", "no Parameters of its own"),
        (HEADER + "Parameters: 1 2 3\n", "line 2: got 'Parameters: 1 2 3', expected a line that begins with"),
        (HEADER + BLOCK.replace("Parameters:", "parameters:", 1), "line 4: got 'parameters: "),
        (HEADER + BLOCK.replace("Parameters:", "Parameters", 1), "line 4: got 'Parameters "),
        (HEADER + BLOCK + "Parameters: 1 2 3\n", "a second line 'Parameters:'"),
        (HEADER + BLOCK + "FixedParameters: 1\n", "a second line 'FixedParameters:'"),
        (HEADER + BLOCK + BLOCK, "holds 2 transforms"),
        (HEADER + BLOCK + "#" + "x" * 9000 + "\n" + BLOCK, "holds 2 transforms"),
        (HEADER + BLOCK + "Transform: CompositeTransform_double_3_3\n" + BLOCK, "composite within a list"),
        (HEADER + BLOCK.replace("_double_3_3", ""), "expected one such as AffineTransform_double_3_3"),
        (HEADER + BLOCK.replace("{kind}", "KaleidoscopeTransform"), "type KaleidoscopeTransform is not read"),
        (HEADER + BLOCK.replace("{kind}", "x" * 100_000), "is not read"),
        (HEADER + BLOCK.replace("{kind}_double_3_3", "BSplineTransform_double_3_3"), "deformation"),
        (HEADER + BLOCK.replace("{kind}_double_3_3", "Euler2DTransform_double_2_2"), "2-D transform"),
        (HEADER + BLOCK.rstrip("\n"), "does not end with a line break"),
    ],
)
def test_each_line_is_required_once_and_as_itk_writes_it(tmp_path: Path, text: str, message: str) -> None:
    text = text.format(kind="Euler3DTransform", parameters="0 0 0 1 2 3", fixed="0 0 0 0")
    (tmp_path / "t.tfm").write_text(text)
    with pytest.raises(TransformError, match=rf"^t\.tfm.*{re.escape(message)}"):
        read_transform(tmp_path / "t.tfm")


@pytest.mark.parametrize(
    ("parameters", "fixed", "message"),
    [
        ("0 0", "0 0 0", "2 Parameters, expected 6 for Euler3DTransform"),
        ("", "0 0 0", "0 Parameters, expected 6"),
        ("0 0 0 1 2 3 4", "0 0 0", "7 Parameters, expected 6"),
        ("0 0 0 1 2 3", "", "0 FixedParameters, expected 3 or 4"),
        ("0 0 0 1 2 3", "0 0", "2 FixedParameters"),
        ("0,5 0 0 1 2 3", "0 0 0", "line 4: got '0,5', expected a finite number: write numbers with a point"),
        ("nan 0 0 1 2 3", "0 0 0", "line 4: got 'nan'"),
        ("0 0 0 1 2 inf", "0 0 0", "line 4: got 'inf'"),
        ("0 0 0 1 2 1e400", "0 0 0", "line 4: got '1e400'"),
        ("0 0 0 1 2 1_000", "0 0 0", "line 4: got '1_000'"),
        ("0 0 0 1 2 three", "0 0 0", "line 4: got 'three'"),
        ("0 0 0 1 2 3", "0 0 x", "line 5: got 'x'"),
        ("0 0 0 1 2 " + "9" * 5000, "0 0 0", "line 4: got '999"),
        ("0 0 0 1e308 1e308 1e308", "1e308 1e308 1e308", "too large"),
    ],
)
def test_each_number_is_required(tmp_path: Path, parameters: str, fixed: str, message: str) -> None:
    text = HEADER + BLOCK.format(kind="Euler3DTransform", parameters=parameters, fixed=fixed)
    (tmp_path / "t.tfm").write_text(text)
    with pytest.raises(TransformError, match=rf"^t\.tfm.*{re.escape(message)}"):
        read_transform(tmp_path / "t.tfm")


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Flip a bit, cut, double, or overwrite a stretch."""
    data = bytearray(content)
    start = chance.randrange(len(data))
    stop = min(len(data), start + chance.choice((1, 4, 40)))
    match chance.randrange(5):
        case 0:
            data[start] ^= 1 << chance.randrange(8)
        case 1:
            del data[start:stop]
        case 2:
            data[start:start] = data[start:stop]
        case 3:
            data[start:stop] = chance.choice((b"\0", b"\xff", b"%", b"nan ", b"1e400 ", b",", b"\n")) * (stop - start)
        case _:
            del data[start:]
    return bytes(data)


@pytest.mark.parametrize("suffix", [".tfm", ".mat", ".xfm"])
def test_damage_of_any_kind_is_refused_or_read(tmp_path: Path, suffix: str) -> None:
    chance = random.Random(suffix)
    kinds = ["minc"] if suffix == ".xfm" else [kind for kind in SOUND if suffix == ".tfm" or kind != "composite"]
    sound = [content_of(kind, tmp_path, suffix) for kind in kinds]
    read = [result(damaged(chance.choice(sound), chance), tmp_path) for _ in range(TRIES)]
    refused = sum(one is None for one in read)
    assert TRIES / 6 < refused < TRIES
    assert all(bool(one.isfinite().all()) for one in read if one is not None)


def test_damaged_hdf5_neither_crashes_nor_hangs(tmp_path: Path) -> None:
    content = content_of("composite", tmp_path, ".h5")
    chance = random.Random(5)
    flipped = [bytearray(content) for _ in range(4)]
    for number, data in enumerate(flipped):
        for _ in range(20**number):
            data[chance.randrange(8, len(data))] ^= 1 << chance.randrange(8)
    cut = [content[:length] for length in (8, 3000)]
    assert all(result(bytes(data), tmp_path) is None for data in [*cut, flipped[-1]])
    for data in flipped[:-1]:
        result(bytes(data), tmp_path)
    right = result(content, tmp_path)
    assert right is not None
    assert np.allclose(right.numpy(), SOUND["composite"].TransformPoint(POINT[0].tolist()))


@pytest.mark.parametrize(
    "program",
    ["import os; os.abort()", "import time; time.sleep(60)", "print('{')", "print([])", "raise SystemExit(1)"],
    ids=["crash", "hang", "no JSON", "other JSON", "error"],
)
def test_whatever_the_reader_of_hdf5_does_is_a_transform_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    (tmp_path / "child.py").write_text(program)
    monkeypatch.setattr(hdf5, "CHILD", tmp_path / "child.py")
    monkeypatch.setattr(hdf5, "SECONDS", 0.5 if "sleep" in program else 60.0)
    (tmp_path / "t").write_bytes(hdf5.SIGNATURE)
    with pytest.raises(TransformError, match="HDF5, but not a transform that ITK can read: is the file damaged"):
        read_transform(tmp_path / "t")


def test_hdf5_without_a_temporary_folder_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    (tmp_path / "t").write_bytes(hdf5.SIGNATURE)
    with pytest.raises(TransformError, match="temporary copy, which failed: No such file"):
        read_transform(tmp_path / "t")
