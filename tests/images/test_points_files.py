"""Points files."""

from pathlib import Path

import pytest
import torch

from crossalign.errors import InputError, OutputError
from crossalign.images import PointsFile, read_points, write_points


def test_points_come_back(tmp_path: Path) -> None:
    points = PointsFile(("apex", "base, left"), torch.tensor([[1.25, -2, 3], [4, 5, 6.0625]]).double(), "fixed")
    write_points(points, tmp_path / "p.csv")
    again = read_points(tmp_path / "p.csv")
    assert (again.names, again.frame) == (points.names, "fixed")
    assert torch.allclose(again.points_mm, points.points_mm, atol=1e-4)
    with pytest.raises(OutputError, match="exists already"):
        write_points(points, tmp_path / "p.csv")


def test_names_and_frame_are_optional_and_columns_come_in_any_order(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_bytes(b"\xef\xbb\xbfZ, X ,y\r\n3,1,2\r\n6,4,5\r\n\r\n")
    points = read_points(tmp_path / "p.csv")
    assert points.points_mm.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert (points.names, points.frame) == (("point1", "point2"), "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "row 1: expected the columns"),
        ("x,y\n1,2\n", "row 1: expected the columns"),
        ("x,y,z,colour\n1,2,3,red\n", "row 1: expected the columns"),
        ("x,y,z\n", "no points"),
        ("x,y,z\n1,2,3\n1,2\n", "row 3: 2 values, expected 3"),
        ("x,y,z\n1,2,three\n", "row 2, column 'z': got 'three'"),
        ("x,y,z\n1,nan,3\n", "row 2, column 'y': got 'nan'"),
        ("x,y,z,frame\n1,2,3,here\n", "column 'frame'"),
        ("x,y,z,frame\n1,2,3,fixed\n1,2,3,moving\n", "column 'frame'"),
        ("x,y,z\n\xff\xfe\x00", "p.csv"),
    ],
)
def test_a_fault_is_named_by_row_and_column(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "p.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=message):
        read_points(tmp_path / "p.csv")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_points(tmp_path / "no.csv")
