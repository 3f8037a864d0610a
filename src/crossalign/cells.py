"""The user's text in tables: no spreadsheet runs it as a formula, and a Markdown table keeps its columns."""

import csv
import io
import re
from collections.abc import Iterable, Sequence

# What spreadsheets take for the start of a formula, also in the wide forms of East Asian keyboards.
STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001 (meant)
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?inf|nan")
QUOTE = "'"


def spreadsheet_cell(text: str) -> str:
    """Put a quote ahead of what a spreadsheet would run as a formula; numbers, negative ones too, stay as they are."""
    if text.startswith(STARTS) and NUMBER.fullmatch(text) is None:
        return QUOTE + text
    return text


def plain_cell(text: str) -> str:
    """Return the text that `spreadsheet_cell` was given."""
    return text[1:] if text.startswith(QUOTE) and text[1:].startswith(STARTS) else text


def csv_text(rows: Iterable[Sequence[str]]) -> str:
    """Write rows as CSV, every cell as `spreadsheet_cell` gives it."""
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([spreadsheet_cell(cell) for cell in row] for row in rows)
    return table.getvalue()


def markdown_cell(text: str) -> str:
    """Return a text for a Markdown table or line: on one line, with no bar, backslash, tag or link that means one."""
    line = " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("](", "]\\(")
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", line)
