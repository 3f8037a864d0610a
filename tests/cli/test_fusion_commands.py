"""The commands of fusion from the outside: files in, files out, and what a mistake leaves behind (nothing)."""

import json
import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from tests.fusion.phantom import SHAPE, grid, pair

from crossalign.cli.main import main
from crossalign.errors import InputWarning
from crossalign.fusion.fused_files import read_scalings
from crossalign.geometry import Grid, Rigid
from crossalign.images import Image, read_image, read_transform, write_image
from crossalign.images.files.stored import opened


@pytest.fixture
def folder(tmp_path):
    mri, pet = pair()
    write_image(mri, tmp_path / "mri.nii.gz")
    write_image(pet, tmp_path / "pet.nii.gz")
    (tmp_path / "out").mkdir()
    return tmp_path


def _fuse(folder, *more, mri="mri.nii.gz", pet="pet.nii.gz", output="fused.nii.gz", method="laplacian"):
    given = ["fuse", str(folder / mri), str(folder / pet), "-o", str(folder / "out" / output), "--method", method]
    return main([*given, *more])


def _left(folder):
    return sorted(path.name for path in (folder / "out").iterdir())


def test_fuse_writes_a_volume_and_its_scaling(folder, capsys):
    assert _fuse(folder, "--unit", "SUV") == 0
    assert _left(folder) == ["fused.json", "fused.nii.gz"]
    fused, mri = read_image(folder / "out" / "fused.nii.gz"), read_image(folder / "mri.nii.gz")
    assert fused.grid.agrees_with(mri.grid)
    assert 0 <= float(fused.voxels.min()) < float(fused.voxels.max()) <= 1
    scaling = read_scalings(folder / "out" / "fused.nii.gz")[1]
    pet = read_image(folder / "pet.nii.gz").voxels
    assert torch.allclose(scaling.invert(scaling.apply(pet)), pet.clamp(scaling.low, scaling.high), atol=1e-4)
    assert "SUV became 0 to 1" in capsys.readouterr().out


def test_windows_are_given_counted_and_read_back(folder, capsys):
    assert _fuse(folder, "--window-b", "0.5,3", "--modality-b", "spect", method="average") == 0
    said = capsys.readouterr().out
    assert "PET      0.5 to 3 became 0 to 1 (spect: given)" in said
    record = json.loads((folder / "out" / "fused.json").read_text())["inputs"]
    above = int((read_image(folder / "pet.nii.gz").voxels > 3).sum())
    assert record["pet"]["saturated"] == above > 0
    assert f"{above} voxels" in said
    windows = [
        f"--window-{name}={record[key]['low']!r},{record[key]['high']!r}" for name, key in (("a", "mri"), ("b", "pet"))
    ]
    assert _fuse(folder, *windows, output="again.nii.gz", method="average") == 0
    first, again = (read_image(folder / "out" / name).voxels for name in ("fused.nii.gz", "again.nii.gz"))
    assert torch.equal(first, again)


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--window-b", "6,0", "--window-b must be LOW,HIGH with LOW below HIGH"),
        ("--window-a", "6", "--window-a takes 2 values"),
        ("--modality-b", "xray", "--modality-b must be one of auto, mr, ct, pet, spect, other"),
    ],
)
def test_a_window_that_is_none_is_an_error(folder, capsys, option, value, expected):
    assert _fuse(folder, option, value) == 2
    assert expected in capsys.readouterr().err
    assert _left(folder) == []


def test_fuse_writes_pictures_and_a_page_on_request(folder):
    out = folder / "out"
    pages = ("--report", str(out / "r.html"), "--overlay", str(out / "o.nii.gz"), "--title", "Case 7")
    assert _fuse(folder, "--colour", str(out / "c.png"), *pages) == 0
    overlay = ["o.html", "o.json", "o.nii.gz", "o.png"]
    assert _left(folder) == ["c.png", "fused.json", "fused.nii.gz", *overlay, "r.html"]
    assert all("<h1>Case 7</h1>" in (out / name).read_text() for name in ("r.html", "o.html"))


def test_a_title_needs_a_page(folder, capsys):
    assert _fuse(folder, "--title", "Case 7") == 2
    assert "--title is the heading of pages: it needs --report or --overlay" in capsys.readouterr().err
    assert _left(folder) == []


def test_fuse_registers_on_request_and_says_how_far(folder, capsys):
    pet = read_image(folder / "pet.nii.gz")
    shifted = Grid(SHAPE, (2.0, 2.0, 2.0), (300.0, 40.0, -20.0))  # another scanner's coordinates
    write_image(Image(pet.voxels, shifted), folder / "far.nii.gz")
    transform = folder / "out" / "mri_to_pet.tfm"
    assert _fuse(folder, pet="far.nii.gz") == 2
    assert _left(folder) == []
    assert "--register" in capsys.readouterr().err
    assert _fuse(folder, "--register", "--output-transform", str(transform), pet="far.nii.gz") == 0
    assert "motion " in capsys.readouterr().out
    truth = Rigid(torch.eye(3).double(), torch.tensor([300.0, 40.0, -20.0]).double())
    found, center = read_transform(transform), grid().center_mm()[None]
    assert float((found.apply(center) - truth.apply(center)).norm()) < 4.0  # a phantom that is nearly round
    assert _left(folder) == ["fused.json", "fused.nii.gz", "mri_to_pet.tfm"]


def test_a_registration_that_does_not_trust_itself_says_so_first(folder, capsys, monkeypatch):
    from crossalign.fusion import alignment as fusion_alignment
    from crossalign.registration.problem import Expectation

    trusting = fusion_alignment.align

    def doubting(fixed, moving):
        return replace(
            trusting(fixed, moving), expectation=Expectation(trusted=False, reasons=("pet.nii.gz: turn it",))
        )

    monkeypatch.setattr(fusion_alignment, "align", doubting)
    page = folder / "out" / "page.html"
    assert _fuse(folder, "--register", "--report", str(page)) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0] == "do not trust this result: pet.nii.gz: turn it"
    assert "do not trust this result" in printed.err
    record = json.loads((folder / "out" / "fused.json").read_text())
    assert (record["trusted"], record["reasons"]) == (False, ["the PET: turn it"])
    assert "Do not trust this result" in page.read_text()


def test_what_a_reader_warns_of_stands_in_the_results(folder, capsys, monkeypatch):
    def warning(path, series=None):
        warnings.warn(f"{path.name}: two headers disagree", InputWarning, stacklevel=2)
        return opened(path, series=series)

    monkeypatch.setattr("crossalign.cli.fusion.volume.opened", warning)
    page = folder / "out" / "page.html"
    assert _fuse(folder, "--report", str(page)) == 0
    assert "warning: pet.nii.gz: two headers disagree" in capsys.readouterr().err
    assert "the PET: two headers disagree" in json.loads((folder / "out" / "fused.json").read_text())["warnings"]
    assert "the PET: two headers disagree" in page.read_text()


def test_a_pet_of_a_part_of_the_head_is_a_note_and_no_warning(folder, capsys):
    pet = read_image(folder / "pet.nii.gz")
    part = Grid((12, *SHAPE[1:]), (2.0, 2.0, 2.0), (0.0, 0.0, 32.0))
    write_image(Image(pet.voxels[16:28].contiguous(), part), folder / "part.nii.gz")
    assert _fuse(folder, pet="part.nii.gz") == 0
    printed = capsys.readouterr()
    assert "note     part.nii.gz covers " in printed.out
    assert printed.err == ""


def _spoilt(folder, kind):
    image = sitk.ReadImage(str(folder / "pet.nii.gz"))
    array = sitk.GetArrayFromImage(image)
    if kind == "nan":
        array[3, 3, 3] = math.nan
    elif kind == "constant":
        array[:] = 5
    elif kind == "4-D":
        return sitk.JoinSeries([image, image])
    elif kind == "slice":
        array = array[:1]
    elif kind == "elsewhere":
        image.SetOrigin((900, 0, 0))
    elif kind == "another size":
        image.SetOrigin((0, 0, 600))
        array = np.ascontiguousarray(array[:20])
    changed = sitk.GetImageFromArray(array)
    changed.SetSpacing(image.GetSpacing())
    changed.SetOrigin(image.GetOrigin())
    return changed


@pytest.mark.parametrize("which", ["mri", "pet"])
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("nan", "NaN"),
        ("constant", "constant"),
        ("4-D", "4-D"),
        ("slice", "2 or more"),
        ("elsewhere", "register"),
        ("another size", "register"),
    ],
)
def test_what_cannot_be_fused_is_refused_and_leaves_nothing(folder, capsys, which, kind, words):
    sitk.WriteImage(_spoilt(folder, kind), str(folder / "bad.nii.gz"))
    assert _fuse(folder, **{which: "bad.nii.gz"}) == 2
    error = capsys.readouterr().err
    assert error.startswith("crossalign: error: ")
    assert words in error
    assert "Traceback" not in error
    assert _left(folder) == []


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--method", "mean"], "unknown fusion method"),
        (["--emphasis", "detail"], "has no emphasis"),
        (["--output-transform", "t.tfm"], "needs --register"),
        (["--colour", "picture.jpg"], "end the name in .png"),
        (["--device", "gpu"], "must be one of auto, cpu, cuda"),
    ],
)
def test_requests_that_cannot_be_met_are_refused(folder, capsys, more, words):
    assert _fuse(folder, *more) == 2
    assert words in capsys.readouterr().err
    assert _left(folder) == []


def test_nothing_is_overwritten_unasked_and_no_input_ever(folder, capsys):
    assert _fuse(folder) == 0
    before = (folder / "out" / "fused.nii.gz").read_bytes()
    assert _fuse(folder, method="average") == 2
    assert (folder / "out" / "fused.nii.gz").read_bytes() == before
    assert _fuse(folder, "--overwrite", method="average") == 0
    assert (folder / "out" / "fused.nii.gz").read_bytes() != before
    assert _fuse(folder, "--overwrite", output="../mri.nii.gz") == 2
    assert "is an input" in capsys.readouterr().err


def test_evaluate_fusion_takes_a_pair_or_a_manifest(folder, capsys):
    files = [str(folder / "mri.nii.gz"), str(folder / "pet.nii.gz")]
    table = folder / "out" / "scores.csv"
    assert main(["evaluate-fusion", *files, "--method", "average", "--method", "maximum", "-o", str(table)]) == 0
    assert _left(folder) == ["scores.csv", "scores.md"]
    assert "| maximum |" in capsys.readouterr().out
    manifest = folder / "pairs.csv"
    manifest.write_text("case,mri,pet,split\nx,mri.nii.gz,pet.nii.gz,val\n")
    again = ["evaluate-fusion", str(manifest), "--method", "average", "-o", str(table), "--overwrite"]
    assert main([*again, "--split", "val"]) == 0
    assert "x,whole-volume,average," in table.read_text()
    assert main([*again, "--split", "train"]) == 2
    assert main(["evaluate-fusion", files[0], "--method", "average", "-o", str(folder / "out" / "t.csv")]) == 2
    assert "give a manifest" in capsys.readouterr().err


def test_prepare_fusion_makes_a_folder_with_a_manifest(folder, capsys):
    files = [str(folder / "mri.nii.gz"), str(folder / "pet.nii.gz")]
    prepared = folder / "prepared"
    assert main(["prepare-fusion", *files, "-o", str(prepared), "--size", "40"]) == 0
    assert (prepared / "pairs.csv").read_text().splitlines()[1] == "pair,pair/mri.nii.gz,pair/pet.nii.gz,test,pair"
    names = sorted(path.name for path in (prepared / "pair").iterdir())
    assert names == ["mni_to_mri.tfm", "mri.nii.gz", "mri_to_pet.tfm", "pet.nii.gz", "prepared.json"]
    assert json.loads((prepared / "pair" / "prepared.json").read_text())["voxels"] == 40
    assert main(["prepare-fusion", *files, "-o", str(prepared)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_prepare_fusion_affinely_takes_the_templates_size(folder, shared_data, capsys):
    brain = shared_data / "brain"
    files = [str(brain / "spm12_T1.nii.gz"), str(brain / "spm12_PET.nii.gz")]
    prepared = folder / "affine"
    assert main(["prepare-fusion", *files, "-o", str(prepared), "--size", "40", "--affine"]) == 0
    assert "stretched by" in capsys.readouterr().out
    assert json.loads((prepared / "pair" / "prepared.json").read_text())["template"].endswith("affine")
