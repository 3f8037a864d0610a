"""`crossalign batch`: each case as `register` does it, resumed, with broken cases, as a BIDS derivative."""

import csv
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from tests.cli.batch_cases import FAST, contents, write_cohort

from crossalign.cli.batch.work import _privacy
from crossalign.cli.main import main
from crossalign.cli.requests.registration import RegisterRequest
from crossalign.output import PARTIAL


def rows(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "results.csv").open(newline="") as file:
        return {row["case"]: row for row in csv.DictReader(file)}


def times(folder: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("*/case.json")}


def untimed(record: Path) -> str:
    return re.sub(r'"seconds": [0-9.e-]+', "", record.read_text())


def assert_as_registered(folder: Path, words: list[str], tmp_path: Path) -> None:
    """Register the same files alone; every output must be the same, seconds aside."""
    alone = tmp_path / "alone"
    alone.mkdir()
    names = {"--output-transform": "transform.tfm", "--moved": "moved.nii.gz", "--record": "record.json"}
    outputs = [word for option, name in names.items() for word in (option, str(alone / name))]
    assert main(["register", *words, *outputs, "--report", str(alone / "report.html")]) == 0
    small, full = (place.joinpath("report.html").read_text() for place in (folder, alone))
    assert ('id="reduced"' in small, 'id="reduced"' in full) == (True, False)
    for name in ("transform.tfm", "moved.nii.gz"):
        assert (folder / name).read_bytes() == (alone / name).read_bytes()
    assert untimed(folder / "record.json") == untimed(alone / "record.json")
    assert (folder / "report.html").stat().st_size > 10_000
    shutil.rmtree(alone)


@pytest.mark.slow
def test_real_cases_are_as_register_does_them(shared_data: Path, tmp_path: Path, one_thread: None) -> None:
    cases = {name: shared_data / "mrus_open" / name for name in ("open00", "open01")}
    lines = [f"{name},{case}/mr.nii.gz,{case}/us.nii.gz,{case}/mr_gland.nii.gz" for name, case in cases.items()]
    (tmp_path / "pairs.csv").write_text("\n".join(["case,fixed,moving,fixed_mask", *lines]) + "\n")
    out = tmp_path / "out"
    assert main(["batch", str(tmp_path / "pairs.csv"), "-o", str(out), "--moved"]) == 0
    name, case = "open01", cases["open01"]  # the second one: its method had been used before
    words = [str(case / "mr.nii.gz"), str(case / "us.nii.gz"), "--fixed-mask", str(case / "mr_gland.nii.gz")]
    assert_as_registered(out / name, words, tmp_path)
    record = json.loads((out / name / "record.json").read_text())
    assert float(rows(out)[name]["expected_error_mm"]) == pytest.approx(record["expected_sre_mm"], abs=1e-3)
    assert rows(out)[name]["trusted"] == {True: "yes", False: "no"}[record["trusted"]]
    assert float(rows(out)[name]["seconds"]) > 0
    page = (out / "index.html").read_text()
    assert page.count("data:image/jpeg;base64,/9j/") == 2
    assert 'href="open00/report.html"' in page


def test_dicom_folders_work_and_no_name_of_them_leaves(shared_data: Path, tmp_path: Path) -> None:
    series = shared_data / "dicom" / "sts002"
    shutil.copytree(series / "MR_T1" / "image", tmp_path / "DOE^JANE")
    (tmp_path / "ROE^RICHARD").mkdir()
    slices = sorted((series / "PET" / "image").iterdir())
    (tmp_path / "ROE^RICHARD" / "broken.dcm").write_bytes(slices[0].read_bytes()[:2000])
    (tmp_path / "pairs.csv").write_text(f"case,fixed,moving\n1,DOE^JANE,{series}/PET/image\n2,DOE^JANE,ROE^RICHARD\n")
    out = tmp_path / "out"
    words = ["batch", str(tmp_path / "pairs.csv"), "-o", str(out), "--moved", "--no-report", *FAST]
    assert main(words) == 1
    assert [row["error"] != "" for row in rows(out).values()] == [False, True]
    header = pydicom.dcmread(slices[0], stop_before_pixels=True)
    hidden = ["DOE", "ROE", str(header.PatientName), str(header.PatientID), str(header.SeriesInstanceUID)]
    for path in (p for p in out.rglob("*") if p.is_file() and p.suffix != ".gz"):
        assert not [name for name in hidden if name in path.read_text()], path


def test_finished_cases_are_skipped_and_changes_are_named(
    pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scans = tmp_path / "scans"
    shutil.copytree(pair, scans)
    words = ["batch", str(write_cohort(tmp_path, scans)), "-o", str(tmp_path / "out"), *FAST, "--no-report"]
    out = tmp_path / "out"
    assert main(words) == 0
    first = times(out)
    assert first.keys() == {"a", "b", "c"}
    (out / "b" / "transform.tfm").unlink()  # no longer whole
    os.utime(scans / "mr.nii.gz")  # touched, its content as before
    (out / "index.html").unlink()
    assert main(words) == 0
    assert "cases    3 (0 trusted, 3 of unknown trust, 0 not to be trusted, 0 failed; 2 finished before)" in (
        capsys.readouterr().out
    )
    assert {name for name, time in times(out).items() if time != first[name]} == {"b"}
    assert (out / "index.html").exists()
    assert main([*words, "--rotation-prior", "none"]) == 2
    said = capsys.readouterr().err
    assert 'a (rotation_prior was "transrectal" and is "none"), b' in said
    assert "pass --overwrite" in said
    shutil.copy(scans / "reference.tfm", scans / "start.tfm")
    assert main(words) == 2
    assert "3 finished cases had other inputs or settings: a (initial is another file)" in capsys.readouterr().err
    assert main([*words, "--moved"]) == 2
    assert "moved.nii.gz was not asked for" in capsys.readouterr().err
    before = times(out)
    assert main([*words, "--overwrite", "--moved"]) == 0
    assert all(time != before[name] for name, time in times(out).items())
    assert not list(tmp_path.rglob(f"{PARTIAL}*"))


def test_a_broken_case_is_reported_and_the_rest_goes_on(
    pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_cohort(tmp_path, pair)
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes((pair / "us.nii.gz").read_bytes()[:200])
    text = (tmp_path / "pairs.csv").read_text()
    (tmp_path / "pairs.csv").write_text(
        text.replace(f"b,{pair}/mr.nii.gz,{pair}/us.nii.gz", f"b,{pair}/mr.nii.gz,{broken}")
    )
    out = tmp_path / "out"
    words = ["batch", str(tmp_path / "pairs.csv"), "-o", str(out), *FAST]
    assert main(words) == 1
    said = capsys.readouterr()
    assert "1 failed" in said.out
    assert "case 'b' failed: the moving image:" in said.err
    found = rows(out)
    assert list(found) == ["a", "b", "c"]
    assert found["b"]["error"]
    assert found["a"]["error"] == found["c"]["error"] == ""
    page = (out / "index.html").read_text()
    assert page.index('id="case-1">b<') < page.index(">a</a>")
    assert 'href="b/report.html"' not in page
    done = times(out)
    shutil.copy(pair / "us.nii.gz", broken)
    assert main(words) == 0
    assert {name: time for name, time in times(out).items() if name != "b"} == done


def test_a_bids_data_set_gives_a_derivative_whose_transforms_go_as_named(pair: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for name in ("sub-01/ses-a/anat/sub-01_ses-a", "sub-02/anat/sub-02"):
        (data / name).parent.mkdir(parents=True)
        shutil.copy(pair / "mr.nii.gz", data / f"{name}_T2w.nii.gz")
        shutil.copy(pair / "us.nii.gz", data / f"{name}_TRUS.nii.gz")
    (data / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    (data / "derivatives").mkdir()
    out = data / "derivatives" / "crossalign"
    words = ["batch", str(data), "-o", str(out), "--moved", "--initial", str(pair / "start.tfm"), *FAST]
    assert main(words) == 0
    held = json.loads((out / "dataset_description.json").read_text())
    assert (held["DatasetType"], held["GeneratedBy"][0]["Name"]) == ("derivative", "crossalign")
    stem = out / "sub-01" / "ses-a" / "sub-01_ses-a"
    there, back = (
        sitk.ReadTransform(f"{stem}_from-{way}_mode-image_xfm.txt") for way in ("T2w_to-TRUS", "TRUS_to-T2w")
    )
    point = (3.0, -4.0, 5.0)
    assert there.TransformPoint(back.TransformPoint(point)) == pytest.approx(point)
    fixed, moving = (sitk.ReadImage(str(pair / f"{name}.nii.gz"), sitk.sitkFloat32) for name in ("mr", "us"))
    expected = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, back))  # images go from TRUS to T2w
    moved = sitk.GetArrayFromImage(sitk.ReadImage(f"{stem}_space-T2w_TRUS.nii.gz", sitk.sitkFloat32))
    assert np.abs(moved - expected)[expected != 0].max() < 1e-3
    assert rows(out).keys() == {"sub-01_ses-a", "sub-02"}
    page = (out / "index.html").read_text()
    assert all((out / place).is_file() for place in re.findall(r'href="(sub-[^"]+)"', page))
    before = (out / "batch.json").stat().st_mtime_ns
    assert main(words) == 0  # its own results are not taken for inputs
    assert (out / "batch.json").stat().st_mtime_ns == before


def test_short_names_of_folders_leave_numbers_alone() -> None:
    request = RegisterRequest(Path("/x/8"), Path("/x/JANE DOE"), output_transform=Path("t.tfm"))
    text = "/x/8 is 8.5 mm off, and JANE DOE: cannot be read"
    assert _privacy(request).clean(text) == "the fixed image is 8.5 mm off, and the moving image: cannot be read"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.csv"], "none.csv: no such file"),
        (["pairs.txt"], "expected a manifest (.csv) or the folder of a data set"),
        (["."], "holds no dataset_description.json: not a BIDS data set"),
        (["pairs.csv", "--method", "no-such-method"], "unknown method 'no-such-method'"),
        (["pairs.csv", "--mi.bins", "8", "--method", "identity"], "--mi.bins: is for mi and mi-best"),
        (["pairs.csv", "--workers", "0"], "--workers must be 1 or more"),
        (["pairs.csv", "--workers", "2", "--scheduler", "tcp://localhost:1"], "--workers is for this machine"),
        (["pairs.csv", "-o", "full"], "full: holds files that are not of a batch: name a new folder"),
        (["pairs.csv", "-o", "pairs.csv"], "pairs.csv: is a file, expected a folder"),
    ],
)
def test_what_concerns_all_cases_ends_the_command_first(
    words: list[str], message: str, pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    write_cohort(tmp_path, pair)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    assert main(["batch", *words, *([] if "-o" in words else ["-o", "out"])]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert contents(tmp_path) == {}
