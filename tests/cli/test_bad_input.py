"""What a user can get wrong: each ends in one clear line and status 2, and leaves no file behind."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from safetensors.torch import save_file

from crossalign.cli.checks import check_apart
from crossalign.cli.main import main
from crossalign.errors import OutputError

ARGUMENTS = {
    "fixed": "mr.nii.gz",
    "moving": "us.nii.gz",
    "--initial": "start.tfm",
    "--fixed-mask": "gland.nii.gz",
    "--method": "identity",
}


def write_array(path: Path, array: np.ndarray) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=False), str(path))


RAMP = np.arange(512, dtype=np.float32).reshape(8, 8, 8)


def truncated(path: Path) -> None:
    write_array(path, RAMP)
    data = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(data[: len(data) // 2]))


def cut_short(path: Path) -> None:
    write_array(path, RAMP)
    path.write_bytes(path.read_bytes()[:-40])


def with_direction(path: Path, like: Path, spacing_mm: float) -> None:
    image = sitk.ReadImage(str(like))
    image.SetSpacing([spacing_mm] * 3)
    sitk.WriteImage(image, str(path))


def write_affine(path: Path, matrix: list[float], translation: tuple[float, float, float] = (0, 0, 0)) -> None:
    affine = sitk.AffineTransform(3)
    affine.SetMatrix(matrix)
    affine.SetTranslation(translation)
    sitk.WriteTransform(affine, str(path))


def leave(_path: Path) -> None:
    """Make no file."""


BAD_IMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (leave, "no such file"),
    "a folder": (lambda path: path.mkdir(), "is a folder"),
    "empty": (lambda path: path.write_bytes(b""), "the file is empty"),
    "not an image": (lambda path: path.write_bytes(b"Dear diary"), "image by its content"),
    "truncated": (truncated, "truncated"),
    "cut short": (cut_short, "truncated"),
    "2-D": (lambda path: write_array(path, RAMP[0]), "2-D, expected 3-D"),
    "4-D": (lambda path: write_array(path, np.stack([RAMP, RAMP])), "4-D, expected 3-D"),
    "NaN": (lambda path: write_array(path, np.where(RAMP == 3, np.nan, RAMP)), "NaN"),
    "Inf": (lambda path: write_array(path, np.where(RAMP == 3, np.inf, RAMP)), "infinite"),
    "constant": (lambda path: write_array(path, np.ones_like(RAMP)), "constant"),
}
BAD_MASKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: write_array(path, np.zeros_like(RAMP)), "mask is empty"),
    "of another grid": (lambda path: write_array(path, np.ones_like(RAMP)), "does not lie on the grid"),
    "a scan": (lambda path: write_array(path, RAMP / 3), "whole numbers"),
}
BAD_STARTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (leave, "no such file"),
    "not a transform": (lambda path: path.write_text("Dear diary\n"), "not a transform file"),
    "no overlap": (lambda path: write_affine(path, [1, 0, 0, 0, 1, 0, 0, 0, 1], (5000, 0, 0)), "no point of"),
    "scaling": (lambda path: write_affine(path, [1.1, 0, 0, 0, 1.1, 0, 0, 0, 1.1]), "not rigid"),
    "a deformation": (lambda path: sitk.WriteTransform(sitk.BSplineTransform(3), str(path)), "deformation"),
    "2-D": (lambda path: sitk.WriteTransform(sitk.Euler2DTransform(), str(path)), "2-D transform"),
}
BAD_WEIGHTS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "missing": ("bad.safetensors", leave, "bad.safetensors"),
    "not weights": ("bad.safetensors", lambda path: path.write_bytes(b"Dear diary"), "bad.safetensors"),
    "another network": ("bad.safetensors", lambda path: save_file({"w": torch.zeros(3)}, path), "bad.safetensors"),
    "a truncated pth": ("bad.pth", lambda path: path.write_bytes(b"PK\x03\x04junk"), "bad.pth"),
    "an unknown name": ("elastix", leave, "unknown method"),
}


def refusal(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> str:
    """Run a command that must fail with status 2, nothing on standard output and one line on standard error."""
    status = main(arguments)
    out, err = capfd.readouterr()
    assert (status, out) == (2, ""), err
    assert err.startswith("crossalign: error: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    return err


def register_refusal(pair: Path, work: Path, capfd: pytest.CaptureFixture[str], **changed: str) -> str:
    """Run `register` with all of its outputs and some options changed, and check that it leaves no file."""
    given = {key: value if key == "--method" else str(pair / value) for key, value in ARGUMENTS.items()}
    given |= {"--output-transform": "out.tfm", "--moved": "moved.nii.gz", "--report": "report.html"}
    given |= {
        "--" + key.replace("_", "-") if "--" + key.replace("_", "-") in given else key: v for key, v in changed.items()
    }
    before = sorted(path.name for path in work.iterdir())
    options = [word for key, value in given.items() if key.startswith("--") for word in (key, value)]
    message = refusal(["register", given["fixed"], given["moving"], *options], capfd)
    assert sorted(path.name for path in work.iterdir()) == before
    return message


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("which", ["fixed", "moving"])
@pytest.mark.parametrize(("make", "message"), BAD_IMAGES.values(), ids=BAD_IMAGES.keys())
def test_bad_images(pair: Path, work: Path, capfd, which: str, make, message: str) -> None:
    make(work / "bad.nii.gz")
    error = register_refusal(pair, work, capfd, **{which: "bad.nii.gz"})
    assert message in error
    assert "bad.nii.gz" in error


@pytest.mark.parametrize(("make", "message"), BAD_MASKS.values(), ids=BAD_MASKS.keys())
def test_bad_masks(pair: Path, work: Path, capfd, make, message: str) -> None:
    make(work / "bad.nii.gz")
    assert message in register_refusal(pair, work, capfd, fixed_mask="bad.nii.gz")


def test_a_mask_that_differs_in_spacing_alone(pair: Path, work: Path, capfd) -> None:
    with_direction(work / "bad.nii.gz", pair / "gland.nii.gz", 1.9)
    assert "2 x 2 x 2 mm" in register_refusal(pair, work, capfd, fixed_mask="bad.nii.gz")


@pytest.mark.parametrize(("make", "message"), BAD_STARTS.values(), ids=BAD_STARTS.keys())
def test_bad_starts(pair: Path, work: Path, capfd, make, message: str) -> None:
    make(work / "bad.tfm")
    assert message in register_refusal(pair, work, capfd, initial="bad.tfm")


def test_a_mask_centre_without_a_mask(pair: Path, work: Path, capfd) -> None:
    arguments = ["register", str(pair / "mr.nii.gz"), str(pair / "us.nii.gz"), "--initial", "mask-center"]
    assert "needs --fixed-mask" in refusal([*arguments, "--output-transform", "out.tfm"], capfd)
    assert "needs --fixed-mask" in refusal(
        [*arguments[:-1], "center", "--output-transform", "out.tfm", "--reference", "r.tfm"], capfd
    )


@pytest.mark.parametrize("option", ["output_transform", "moved", "report"])
def test_unwritable_outputs(pair: Path, work: Path, capfd, option: str) -> None:
    name = {"output_transform": "x.tfm", "moved": "x.nii.gz", "report": "x.html"}[option]
    (work / "file").write_text("")
    (work / name).write_text("precious")
    assert "make it first" in register_refusal(pair, work, capfd, **{option: f"missing/{name}"})
    assert "make it first" in register_refusal(pair, work, capfd, **{option: f"file/{name}"})
    assert "exists already" in register_refusal(pair, work, capfd, **{option: name})
    assert (work / name).read_text() == "precious"


def test_outputs_of_unknown_formats_and_inputs_as_outputs(pair: Path, work: Path, capfd) -> None:
    assert "end the name in .tfm" in register_refusal(pair, work, capfd, output_transform="out.mat")
    assert "cannot tell the format" in register_refusal(pair, work, capfd, moved="moved.jpg")
    assert "two outputs" in register_refusal(pair, work, capfd, output_transform="a.txt", report="a.txt")
    (work / "start.tfm").write_bytes((pair / "start.tfm").read_bytes())
    arguments = ["register", str(pair / "mr.nii.gz"), str(pair / "us.nii.gz"), "--initial", "start.tfm"]
    assert "is an input" in refusal([*arguments, "--output-transform", "start.tfm", "--overwrite"], capfd)
    assert (work / "start.tfm").read_bytes() == (pair / "start.tfm").read_bytes()


@pytest.mark.parametrize(("name", "make", "message"), BAD_WEIGHTS.values(), ids=BAD_WEIGHTS.keys())
def test_bad_weights(pair: Path, work: Path, capfd, name: str, make, message: str) -> None:
    make(work / name)
    assert message in register_refusal(pair, work, capfd, method=name)


def test_bad_devices(pair: Path, work: Path, capfd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    arguments = ["register", str(pair / "mr.nii.gz"), str(pair / "us.nii.gz"), "--initial", "center"]
    arguments += ["--output-transform", "out.tfm", "--method", "identity", "--device"]
    assert "sees no CUDA device" in refusal([*arguments, "cuda"], capfd)
    assert "must be one of auto, cpu, cuda, got 'abacus'" in refusal([*arguments, "abacus"], capfd)


def test_a_writer_that_fails_leaves_none_of_the_outputs(pair: Path, work: Path, capfd, monkeypatch) -> None:
    def fails(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("crossalign.cli.registration.command.write_image", fails)
    given = [str(pair / name) for name in ("mr.nii.gz", "us.nii.gz")]
    options = ["--initial", "center", "--output-transform", "out.tfm", "--moved", "m.nii", "--method", "identity"]
    assert main(["register", *given, *options]) == 2
    assert list(work.iterdir()) == []
    assert "out.tfm (and 1 other outputs): cannot be written: no space left on the disk" in capfd.readouterr().err
    assert main(["register", *given, *options, "--debug"]) == 2
    assert "Traceback" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("b,exam,mr.nii.gz,us.nii.gz,gland.nii.gz,reference.tfm", "row 3, column 'split': got 'exam'"),
        ("b,test,no.nii.gz,us.nii.gz,gland.nii.gz,reference.tfm", "row 3, column 'fixed': no such file"),
        ("b,test,mr.nii.gz,us.nii.gz,gland.nii.gz,", "row 3, column 'reference': is empty"),
        ("a,test,mr.nii.gz,us.nii.gz,gland.nii.gz,reference.tfm", "row 3, column 'case'"),
    ],
)
def test_a_manifest_with_an_error_in_row_3(pair: Path, work: Path, capfd, row: str, message: str) -> None:
    manifest = pair / "faulty.csv"
    manifest.write_text(
        f"case,split,fixed,moving,fixed_mask,reference\na,test,mr.nii.gz,us.nii.gz,gland.nii.gz,reference.tfm\n{row}\n"
    )
    command = ["evaluate", str(manifest), "--method", "identity", "--initial-sre-mm", "8", "-o", "table.csv"]
    assert message in refusal(command, capfd)
    assert list(work.iterdir()) == []


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"--initial-sre-mm": "soon"}, "cannot read the initialisation 'soon'"),
        ({"--initial-sre-mm": "8,8"}, "cannot read the initialisation '8,8'"),
        ({"--method": "elastix"}, "unknown method 'elastix'"),
        ({"--method": ","}, "unknown method"),
        ({"--split": "train"}, "no case with split 'train'"),
        ({"--count": "0"}, "count"),
        ({"-o": "table.xlsx"}, ".csv"),
        ({"-o": "missing/table.csv"}, "make it first"),
    ],
)
def test_bad_requests_to_evaluate(pair: Path, work: Path, capfd, changed: dict[str, str], message: str) -> None:
    options = {"--method": "identity", "--initial-sre-mm": "8", "-o": "table.csv"} | changed
    words = [word for option in options.items() for word in option]
    assert message in refusal(["evaluate", str(pair / "manifest.csv"), *words], capfd)
    assert list(work.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["us.nii.gz", "-o", "x.nii"], "needs --reference"),
        (["us.nii.gz", "-o", "x.nii", "--reference", "no.nii"], "no such file"),
        (
            ["us.nii.gz", "-o", "x.nii", "--reference", "mr.nii.gz", "--direction", "inwards"],
            "--direction must be one of",
        ),
        (["us.nii.gz", "-o", "x.nii", "--reference", "mr.nii.gz", "--fill", "dark"], "--fill dark: expected a number"),
        (["us.nii.gz", "-o", "x.nii", "--reference", "mr.nii.gz", "--fill", "1e39"], "--fill 1e39: expected a number"),
        (["us.nii.gz", "-o", "x.nii", "--reference", "mr.nii.gz", "--label"], "whole numbers"),
        (["us.nii.gz", "-o", "x.png", "--reference", "mr.nii.gz"], "cannot tell the format"),
        (["p.csv", "-o", "x.csv", "--label"], "for images"),
        (["p.csv", "-o", "x.csv", "--fill", "0"], "for images"),
        (["p.csv", "-o", "x.txt"], "end the name in .csv"),
        (["p.csv", "-o", "x.csv", "--direction", "sideways"], "moving-to-fixed, got 'sideways'"),
        (["p.csv", "-o", "x.csv", "--direction", "moving-to-fixed"], "holds points of the fixed image"),
        (["no.csv", "-o", "x.csv"], "no such file"),
        (["p.csv", "-o", "p.csv", "--overwrite"], "is an input"),
    ],
)
def test_bad_requests_to_apply(pair: Path, work: Path, capfd, words: list[str], message: str) -> None:
    for name in ("us.nii.gz", "mr.nii.gz", "reference.tfm"):
        (work / name).write_bytes((pair / name).read_bytes())
    (work / "p.csv").write_text("x,y,z,frame\n1,2,3,fixed\n")
    before = sorted(path.name for path in work.iterdir())
    assert message in refusal(["apply", "reference.tfm", *words], capfd)
    assert sorted(path.name for path in work.iterdir()) == before


@pytest.mark.parametrize("words", [["register"], ["conquer"], ["register", "--fast"], ["register", "a", "b"]])
def test_bad_commands(capfd, words: list[str]) -> None:
    assert "--help)" in refusal(words, capfd)


@pytest.mark.parametrize("listed", [False, True])
def test_the_voxels_behind_a_header_are_an_input_too(listed: bool, tmp_path: Path, capsys) -> None:
    """`--overwrite` must not replace what a detached header reads its voxels from."""
    header = "ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementSpacing = 1 1 1\nElementType = MET_UCHAR\n"
    names = [f"slice{number}.csv" for number in range(4)] if listed else ["voxels.csv"]
    for name in names:
        (tmp_path / name).write_bytes(bytes(range(64 // len(names))))
    said = "ElementDataFile = " + ("\n".join(["LIST", *names]) if listed else names[0])
    (tmp_path / "scan.mhd").write_text(f"{header}{said}\n")
    given = ["apply", "identity", str(tmp_path / "scan.mhd"), "--reference", str(tmp_path / "scan.mhd")]
    kept = (tmp_path / names[-1]).read_bytes()
    with pytest.raises(OutputError, match="is an input of this run"):
        check_apart([tmp_path / names[-1]], [tmp_path / "scan.mhd"])
    assert main([*given, "-o", str(tmp_path / "out.nii.gz")]) == 0, capsys.readouterr().err
    assert (tmp_path / names[-1]).read_bytes() == kept
