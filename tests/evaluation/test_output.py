"""The files of an evaluation: all or none, and figures that can be opened."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from tests.evaluation.toys import hand_evaluation

from crossalign.errors import OutputError
from crossalign.evaluation import (
    box_plots,
    check_evaluation_output,
    evaluation_paths,
    failure_curves,
    write_evaluation,
)
from crossalign.evaluation.plots import fraction_within

NAMES = ["table.csv", "table.summary.csv", "table.summary.md", "table.summary.tex"]
FIGURES = [f"table.{name}.{kind}" for name in ("boxes", "failures", "parts") for kind in ("png", "svg")]


def test_tables_and_figures_are_written_side_by_side(tmp_path: Path) -> None:
    paths = write_evaluation(hand_evaluation(), tmp_path / "table.csv", parameter_counts={"still": 12}, figures=True)
    assert [path.name for path in paths] == NAMES + FIGURES
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(NAMES + FIGURES)
    assert "| 12 |" in paths[2].read_text(encoding="utf-8")
    for path in paths[4:]:
        if path.suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG")
        else:
            assert ET.parse(path).getroot().tag.endswith("svg")


def test_the_same_evaluation_gives_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_evaluation(hand_evaluation(), tmp_path / folder / "table.csv", figures=True)
    for name in NAMES + FIGURES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


@pytest.mark.parametrize("taken", NAMES + FIGURES)
def test_nothing_is_written_where_one_file_exists(tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).write_text("mine")
    with pytest.raises(OutputError, match=taken):
        write_evaluation(hand_evaluation(), tmp_path / "table.csv", figures=True)
    assert [path.name for path in tmp_path.iterdir()] == [taken]
    assert (tmp_path / taken).read_text() == "mine"


def test_overwrite_replaces(tmp_path: Path) -> None:
    (tmp_path / "table.summary.md").write_text("old")
    paths = write_evaluation(hand_evaluation(), tmp_path / "table.csv", overwrite=True)
    assert paths[2].read_text(encoding="utf-8").startswith("Table 1.")


def test_outputs_can_be_checked_before_the_work(tmp_path: Path) -> None:
    check_evaluation_output(tmp_path / "table.csv", figures=True)
    assert evaluation_paths(tmp_path / "my.run.csv")[1].name == "my.run.summary.csv"
    with pytest.raises(OutputError, match=r"end the name in \.csv"):
        check_evaluation_output(tmp_path / "table.xlsx")
    with pytest.raises(OutputError, match="nowhere"):
        check_evaluation_output(tmp_path / "nowhere" / "table.csv")


def test_figures_show_every_method_and_the_initial_errors() -> None:
    boxes, curves = box_plots(hand_evaluation()), failure_curves(hand_evaluation())
    (panel,) = boxes.axes
    assert [label.get_text() for label in panel.get_xticklabels()] == ["initial", "still", "net_&_two"]
    assert panel.get_ylim()[0] == 0
    assert panel.get_ylim()[1] >= 12
    (legend,) = curves.legends
    assert [text.get_text() for text in legend.get_texts()] == ["initial", "still", "net_&_two"]


def test_failure_curve_by_hand() -> None:
    x, y = fraction_within([4.0, 30.0, 2.0, 4.0])
    assert x == [0.0, 2.0, 4.0, 4.0, 30.0, 30.0]
    assert y == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    assert fraction_within([4.0])[0] == [0.0, 4.0, 20.0]


def test_importing_the_room_loads_neither_statistics_nor_tables_nor_plots() -> None:
    heavy = ("scipy.stats", "matplotlib", "pandas")
    rooms = "crossalign.registration.result, crossalign.evaluation.protocol, crossalign.evaluation.result_files"
    code = f"import sys, {rooms}; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.strip() == "[]"
