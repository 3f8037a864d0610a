"""The manifest script, and the protocol on real pairs."""

import csv
import math
from pathlib import Path

import pytest
from recipes.mrus_manifest import COLUMNS, main

from crossalign.data import read_manifest
from crossalign.evaluation import evaluate, parse_initialisations
from crossalign.registration import Identity

FILES = ("mr.nii.gz", "us.nii.gz", "mr_gland.nii.gz", "us_gland.nii.gz", "reference.tfm")


def pair_folder(folder: Path, listing: str) -> Path:
    for name in ("one", "two"):
        (folder / name).mkdir(parents=True)
        for file in FILES:
            (folder / name / file).touch()
        points = "l1,1,2,3,4,5,6\n" if name == "one" else ""
        (folder / name / "landmarks.csv").write_text(f"name,mr_x,mr_y,mr_z,us_x,us_y,us_z\n{points}")
    (folder / "cases.csv").write_text(listing)
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_manifest_that_the_library_reads(tmp_path: Path) -> None:
    folder = pair_folder(tmp_path / "data", "case,patient,split\none,p1,train\ntwo,p2,val\n")
    (tmp_path / "out").mkdir()
    assert main([str(folder), "-o", str(tmp_path / "out" / "manifest.csv")]) == 0
    one, two = rows(tmp_path / "out" / "manifest.csv")
    assert tuple(one) == COLUMNS
    assert one["fixed"] == "../data/one/mr.nii.gz"
    assert (one["landmarks"], two["landmarks"]) == ("../data/one/landmarks.csv", "")
    cases = read_manifest(tmp_path / "out" / "manifest.csv")
    assert [(case.name, case.patient, case.split) for case in cases] == [("one", "p1", "train"), ("two", "p2", "val")]


def test_a_split_is_given_where_there_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = pair_folder(tmp_path / "data", "case\none\ntwo\n")
    manifest = tmp_path / "manifest.csv"
    assert main([str(folder), "-o", str(manifest)]) == 2
    assert "pass --split" in capsys.readouterr().err
    assert not manifest.exists()
    assert main([str(folder), "-o", str(manifest), "--split", "test", "--absolute"]) == 0
    assert rows(manifest)[0]["fixed"] == str((folder / "one" / "mr.nii.gz").resolve())
    assert {(row["patient"], row["split"]) for row in rows(manifest)} == {("one", "test"), ("two", "test")}


def test_a_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = pair_folder(tmp_path / "data", "case,split\none,train\ntwo,train\n")
    (folder / "two" / "us.nii.gz").unlink()
    assert main([str(folder), "-o", str(tmp_path / "manifest.csv")]) == 2
    assert "us.nii.gz: no such file" in capsys.readouterr().err
    assert main([str(tmp_path), "-o", str(tmp_path / "manifest.csv")]) == 2
    assert "holds cases.csv" in capsys.readouterr().err


def test_real_pairs(shared_data: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "open.csv"
    assert main([str(shared_data / "mrus_open"), "-o", str(manifest), "--split", "train"]) == 0
    cases = read_manifest(manifest)[:3]
    published = {row["case"]: float(row["reference_tre_mm"]) for row in rows(shared_data / "mrus_open" / "cases.csv")}
    for row in evaluate(cases, {"identity": Identity()}, parse_initialisations("0,8,0-20"), 1, 0).rows:
        if row.initialisation == "0":  # the reference itself
            assert row.after.sre_mm == pytest.approx(0.0, abs=1e-3)
            assert row.after.tre_mm == pytest.approx(published[row.case], abs=0.01) or math.isnan(published[row.case])
            assert row.after.dice > 0.8
        elif row.initialisation == "8":
            assert row.after.sre_mm == pytest.approx(8.0, abs=0.01)
            assert row.after.dice < 0.8
        assert row.error == ""
