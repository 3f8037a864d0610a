"""Points of 3D Slicer, which files are points, and damaged ones."""

import json
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.damage import damaged, edited_lines

from crossalign.errors import InputError, InputWarning
from crossalign.images import PointsFile, is_points_file, read_points, write_points

FCSV = (
    "# Markups fiducial file version = 4.11\n# CoordinateSystem = {frame}\n"
    "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n"
)
ROW = "vtkMRMLMarkupsFiducialNode_0,1.5,-2,3e1,0,0,0,1,1,1,0,{label},,\n"


def mrk(*lists: dict[str, Any], schema: str = "markups-schema-v1.0.0.json#") -> str:
    return json.dumps({"@schema": schema, "markups": lists}, indent=1)


def point_list(*points: dict[str, Any], frame: Any = "LPS", kind: str = "Fiducial", **more: Any) -> dict[str, Any]:
    return {"type": kind, "coordinateSystem": frame, "controlPoints": list(points), **more}


def point(*position: Any, **more: Any) -> dict[str, Any]:
    return {"id": "1", "label": "F-1", "position": list(position), **more}


def read(folder: Path, text: str, name: str = "p") -> PointsFile:
    (folder / name).write_text(text, encoding="utf-8")
    assert is_points_file(folder / name)
    return read_points(folder / name)


@pytest.mark.parametrize(
    ("frame", "expected"), [("RAS", [-1.5, 2, 30]), ("0", [-1.5, 2, 30]), ("LPS", [1.5, -2, 30]), ("1", [1.5, -2, 30])]
)
def test_fcsv_is_read_by_its_stated_frame(tmp_path: Path, frame: str, expected: list[float]) -> None:
    text = FCSV.format(frame=frame) + ROW.format(label='"apex, ""left"""') + ROW.format(label="")
    for name in ("p.fcsv", "p.csv", "p.txt", "p.nii"):  # content decides
        points = read(tmp_path, text, name)
        assert points.names == ('apex, "left"', "point2")
        assert points.points_mm.tolist() == [expected] * 2
        assert points.frame == ""


def test_fcsv_of_slicer_5_says_which_positions_are_not_defined(tmp_path: Path) -> None:
    rows = [ROW.format(label=label).rstrip("\n") + f",{status},0\n" for label, status in (("a", 2), ("b", 0))]
    with pytest.warns(InputWarning, match="1 points whose position is not defined were left out"):
        assert read(tmp_path, FCSV.format(frame="LPS") + "".join(rows)).names == ("a",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (FCSV.format(frame="RAS"), "holds no points"),
        (FCSV.format(frame="IJK") + ROW, "CoordinateSystem: got 'IJK', expected LPS or RAS"),
        (FCSV.replace("# CoordinateSystem = {frame}\n", "") + ROW, "CoordinateSystem: got nothing"),
        (FCSV.format(frame="RAS").replace("# columns", "# colums") + ROW, "expected a line '# columns ="),
        (FCSV.format(frame="RAS").replace("id,x,", "id,x,x,") + ROW, "expected a line '# columns ="),
        (FCSV.format(frame="RAS") + "0,1,2,3\n", "line 4: 4 values, expected 14: is the file cut off"),
        (FCSV.format(frame="RAS") + ROW.replace("-2", "nan"), "line 4, column 'y': got 'nan'"),
        (FCSV.format(frame="RAS") + ROW.replace("-2", "1e400"), "line 4, column 'y': got '1e400'"),
        (FCSV.format(frame="RAS") + ROW.replace("-2", "9" * 9000), r"column 'y': got '9+ \.\.\. 9+'"),
    ],
)
def test_faulty_fcsv_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^p.*{message}"):
        read(tmp_path, text)


def test_markups_are_read_by_the_frame_and_unit_of_each_list(tmp_path: Path) -> None:
    points = read(tmp_path, mrk(point_list(point(1, -2.5, 3), point(4, 5, 6, label=""), frame="RAS")))
    assert (points.names, points.points_mm.tolist()) == (("F-1", "point2"), [[-1, 2.5, 3], [-4, -5, 6]])
    assert read(tmp_path, mrk(point_list(point(1, 2, 3), coordinateUnits="mm"))).points_mm.tolist() == [[1, 2, 3]]
    micro = mrk(point_list(point(1000, 2000, -3000), frame="RAS", coordinateUnits=["um"] * 3))
    assert read(tmp_path, micro).points_mm[0].tolist() == pytest.approx([-1, -2, -3])


def test_lists_are_joined_and_others_left_out_with_a_note(tmp_path: Path) -> None:
    lists = (point_list(point(1, 2, 3)), point_list(point(1, 2, 3), frame="RAS"), point_list(kind="Plane"))
    with (
        pytest.warns(InputWarning, match="1 of 3 markups are not points"),
        pytest.warns(InputWarning, match="2 lists of points were read one after another"),
    ):
        assert read(tmp_path, mrk(*lists)).points_mm.tolist() == [[1, 2, 3], [-1, -2, 3]]
    half = point_list(point(1, 2, 3), {"label": "b", "position": None, "positionStatus": "undefined"})
    with pytest.warns(InputWarning, match="1 points whose position is not defined"):
        assert read(tmp_path, mrk(half)).names == ("F-1",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "JSON without a list 'markups'"),
        ('{"markups": 3}', "JSON without a list 'markups'"),
        ('{"markups": [3]}', "JSON without a list 'markups'"),
        (mrk(), "no list of points"),
        (mrk(point_list(kind="Line")), "no list of points .*only Line"),
        (mrk(point_list()), "holds no points"),
        (mrk(point_list(point(1, 2, 3), frame=None)), "coordinateSystem: got nothing, expected LPS or RAS"),
        (mrk(point_list(point(1, 2, 3), frame=["LPS"])), "coordinateSystem: got"),
        (mrk(point_list(point(1, 2, 3), frame="IJK")), "coordinateSystem: got 'IJK'"),
        (mrk(point_list(point(1, 2, 3), coordinateUnits="inch")), "coordinateUnits: got 'inch'"),
        (mrk(point_list(point(1, 2, 3), coordinateUnits=["mm", "um", "mm"])), "coordinateUnits: got"),
        (mrk(point_list(point(1, 2, 3), coordinateUnits=[{}])), "coordinateUnits: got"),
        (mrk(point_list(point(1, 2))), "list 1, point 1: position: got"),
        (mrk(point_list(point(1, 2, "3"))), "list 1, point 1: position: got"),
        (mrk(point_list(point(1, 2, True))), "list 1, point 1: position: got"),
        (mrk(point_list(point(1, 2, 3, label=[]))), "list 1, point 1: label: got"),
        (mrk(point_list(point(1, 2, 3))).replace("3\n", "NaN\n", 1), "not JSON"),
        (mrk(point_list(point(1, 2, 3))).replace("3\n", "1e400\n", 1), "not JSON.*too large"),
        ("[" * 100_000, "nested more than"),
        (mrk(point_list(point(1, 2, 3)))[:-5], "not JSON"),
    ],
)
def test_faulty_markups_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^p.*{message}") as caught:
        read(tmp_path, text)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x;y;z\n1,5;2;3\n", "commas between the columns and points in the numbers"),
        ("x,y,z\n1,5,2,5,3,5\n", "row 2: 6 values, expected 3.*write numbers with a point"),
        ("x,y,z,x\n1,2,3,4\n", "row 1: expected the columns"),
        ("hello\n", r"points are read from \.csv.*\.fcsv and \.mrk\.json"),
        ("x,y,z\n1,2,1_0\n", "got '1_0'"),
        ("x,y,z\n" + "1,2,3\n" * 100_001, "more than 100000 rows"),
    ],
)
def test_other_text_says_what_is_read(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(tmp_path, text, "p.txt")


def test_what_is_a_points_file(tmp_path: Path) -> None:
    contents = {
        "a.txt": b"x,y,z\n1,2,3\n", "b.nii": b"x,y,z\n1,2,3\n", "c": b"\xef\xbb\xbfhello", "absent.fcsv": None,
        "d.csv": b"\0\1",
    }  # fmt: skip
    others = {
        "e.nii": b"\x5c\1\0\0" + b"\0" * 99,
        "f": b"NRRD0004\n",
        "g": b"ObjectType = Image\n",
        "h": b"\x1f\x8b\xff\xfe" * 9,
    }
    for name, content in (contents | others | {"i.nii.gz": b"not an image", "absent.nii": None}).items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        assert is_points_file(tmp_path / name) == (name in contents), name
    os.mkfifo(tmp_path / "pipe")
    assert not is_points_file(tmp_path / "pipe")
    assert not is_points_file(tmp_path)
    assert not is_points_file("a\0b")
    assert not is_points_file("x" * 5000)


def test_a_name_that_a_spreadsheet_would_run_comes_back_quoted_and_plain(tmp_path: Path) -> None:
    points = PointsFile(("=cmd", "-3", "'quoted"), torch.zeros(3, 3, dtype=torch.float64))
    write_points(points, tmp_path / "p.csv")
    assert "\n'=cmd," in (tmp_path / "p.csv").read_text()
    assert read_points(tmp_path / "p.csv").names == points.names


@pytest.mark.parametrize(
    "text",
    [
        'name,x,y,z,frame\na,1,2,3,fixed\n"b, c",4,5,6,fixed\n',
        FCSV.format(frame="RAS") + ROW.format(label="a") * 3,
        mrk(point_list(point(1, 2, 3), point(4, 5, 6, positionStatus="defined"), frame="RAS")),
    ],
    ids=["csv", "fcsv", "mrk.json"],
)
def test_damaged_points_are_refused_or_read(tmp_path: Path, text: str) -> None:
    generator = np.random.default_rng(1)
    copies = [*damaged(text.encode(), generator, 200), *(t.encode() for t in edited_lines(text, generator, 200))]
    messages: list[str] = []
    for copy in copies:
        (tmp_path / "p").write_bytes(copy)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InputWarning)
            try:
                assert bool(read_points(tmp_path / "p").points_mm.isfinite().all())
            except InputError as error:
                messages.append(str(error))
    assert len(copies) / 6 < len(messages) < len(copies)
    assert max(map(len, messages)) < 600
