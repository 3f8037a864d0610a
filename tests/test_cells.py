"""Text of the user's in tables."""

import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossalign.cells import STARTS, csv_text, markdown_cell, plain_cell, spreadsheet_cell


@pytest.mark.parametrize(
    "text", ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "-", "=", "\uff1d1", "-apex"]
)
def test_formulas_are_quoted(text: str) -> None:
    assert spreadsheet_cell(text) == "'" + text
    assert plain_cell("'" + text) == text


@pytest.mark.parametrize(
    "text", ["", "a", "-1", "-1.25", "+3", "-1e-05", "-inf", "nan", "'quoted", "a=b", "8-16", "it's"]
)
def test_numbers_and_plain_text_stay(text: str) -> None:
    assert spreadsheet_cell(text) == text
    assert plain_cell(text) == text


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_no_cell_begins_a_formula_and_all_are_read_back(text: str) -> None:
    (row,) = csv.reader(io.StringIO(csv_text([[text, "b"]]), newline=""))
    cell = row[0]
    assert not cell.startswith(STARTS) or re.fullmatch(r"[-+]?[0-9.einfa+-]*", cell)
    if not text.startswith("'"):
        assert plain_cell(cell) == text


@given(st.text())
def test_a_markdown_cell_is_one_cell(text: str) -> None:
    cell = markdown_cell(text)
    assert "\n" not in cell
    assert re.sub(r"\\\\|\\\|", "", cell).count("|") == 0
    assert re.search(r"<[A-Za-z/!?]", cell) is None
