"""The tables of the papers: what stands where, and how it is written in Markdown and in LaTeX."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeAlias

from crossalign.cells import markdown_cell
from crossalign.evaluation.error_parts import PATIENT_AXES
from crossalign.evaluation.initialisations import initialisation_title
from crossalign.evaluation.rows import Evaluation
from crossalign.evaluation.summary import NO_COUNTS, compare_with_best, plain_records, summarise

UNDEFINED = "-"
LATEX_ESCAPES = str.maketrans(
    {letter: f"\\{letter}" for letter in "%#_&{}$"}
    | {
        "\\": "\\textbackslash{}",
        "~": "\\textasciitilde{}",
        "^": "\\textasciicircum{}",
        "±": "$\\pm$",
        "<": "$<$",
        ">": "$>$",
    }
)
Record: TypeAlias = dict[str, Any]  # a row of `summarise` or `compare_with_best`
STAGE_SRE = re.compile("stage_[0-9]+_sre_mm_mean")
STAGE_SECONDS = re.compile("stage_[0-9]+_seconds_median")
DETAIL_CAPTION = "Sizes, landmarks, overlap and failures."
TRUST_CAPTION = "Expected error: means, rank correlation with the true SRE, trusted and other results."
COMPARISON_CAPTION = "Each method against the best of its initialisation; p-values are Holm-corrected."
PARTS_CAPTION = (
    "Centre and rotation apart. Errors of the structure's centre along the patient's axes (mm) and of the rotation "
    "(degrees): sizes, and signed means."
)
# The titles of the tables' columns, and what stands there (see `_texts`).
DETAIL_COLUMNS = {
    "Method": "method",
    "Initialisation": "initialisation",
    "n": "n",
    "Patients": "patients",
    "Failed": "failed",
    "TRE before (mm)": "initial_tre_mm",
    "TRE after (mm)": "tre_mm",
    "Dice before": "initial_dice",
    "Dice after": "dice",
    "Improved": "fraction_improved",
    "Under 5 mm": "fraction_under_5mm",
    "Seconds": "seconds",
}
PART_COLUMNS = {
    "Method": "method",
    "Initialisation": "initialisation",
    "n": "n",
    "Centre (mm)": "center_error_mm",
    "Left-right": "center_error_left_abs_mm",
    "Signed, to the left": "center_error_left_mm_mean",
    "Anterior-posterior": "center_error_posterior_abs_mm",
    "Signed, to posterior": "center_error_posterior_mm_mean",
    "Superior-inferior": "center_error_superior_abs_mm",
    "Signed, to superior": "center_error_superior_mm_mean",
    "Angle (deg)": "angle_error_deg",
}
COMPARED_PARTS = (
    "center_error_mm",
    *(f"center_error_{axis}_abs_mm" for axis in PATIENT_AXES),
    "angle_error_deg",
)
TRUST_COLUMNS = {
    "Method": "method",
    "Initialisation": "initialisation",
    "Expected SRE (mm)": "trust_expected_sre_mm",
    "Result SRE (mm)": "trust_sre_mm",
    "Rank correlation": "trust_rank_correlation",
    "Trusted": "trust_trusted",
    "Trusted SRE (mm)": "trust_trusted_sre_mm",
    "Untrusted": "trust_untrusted",
    "Untrusted SRE (mm)": "trust_untrusted_sre_mm",
}
COMPARISON_COLUMNS = {
    "Method": "method",
    "Best": "best",
    "Initialisation": "initialisation",
    "Pairs": "pairs",
    "Difference (mm)": "against_best_difference_mm",
    "95 % interval": "against_best_difference_mm_interval",
    "t-test p": "against_best_t_p_holm",
    "Wilcoxon p": "against_best_wilcoxon_p_holm",
}


@dataclass(frozen=True)
class Cell:
    """One entry; the best of its column is bold."""

    text: str
    bold: bool = False


@dataclass(frozen=True)
class Table:
    """A caption, a header, rows of as many cells, and where (before which row) a rule separates groups."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    rules: tuple[int, ...] = ()

    def markdown(self) -> str:
        """Write the table in Markdown, its caption ahead."""
        lines = [self.header, tuple("---" for _ in self.header)]
        for row in self.rows:
            texts = [markdown_cell(cell.text) for cell in row]
            lines.append(tuple(f"**{text}**" if cell.bold else text for text, cell in zip(texts, row, strict=True)))
        body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return f"{self.caption}\n\n{body}"

    def latex(self) -> str:
        """Write the table for a paper; it needs the LaTeX package booktabs."""
        lines = [
            "\\begin{table}",
            f"\\caption{{{_escaped(self.caption)}}}",
            f"\\begin{{tabular}}{{{'l' * len(self.header)}}}",
            "\\toprule",
            " & ".join(map(_escaped, self.header)) + " \\\\",
            "\\midrule",
        ]
        for index, row in enumerate(self.rows):
            if index in self.rules:
                lines.append("\\midrule")
            texts = [f"\\textbf{{{_escaped(cell.text)}}}" if cell.bold else _escaped(cell.text) for cell in row]
            lines.append(" & ".join(texts) + " \\\\")
        return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}"])


def paper_tables(evaluation: Evaluation, parameter_counts: Mapping[str, int] = NO_COUNTS) -> list[Table]:
    """Lay out the MICCAI paper's Tables 1 and 2, the measures beside them, and the tests.

    `parameter_counts` says how many trainable parameters one stage of a method has, by the method's name.
    """
    records = plain_records(summarise(evaluation, parameter_counts))
    tables = [result_table(records), stage_table(records), _table(DETAIL_CAPTION, DETAIL_COLUMNS, records)]
    if any(record["center_error_mm_mean"] is not None for record in records):
        tables.insert(2, part_table(records))
    if expecting := [record for record in records if record["trust_trusted"] is not None]:
        tables.append(_table(TRUST_CAPTION, TRUST_COLUMNS, expecting))
    if comparisons := plain_records(compare_with_best(evaluation)):
        tables.append(_table(COMPARISON_CAPTION, COMPARISON_COLUMNS, comparisons))
    return tables


def result_table(records: list[Record]) -> Table:
    """Lay out Table 1: the final SRE of each method, one group for each initialisation range."""
    columns = {"Method": "method", "Initialisation": "initialisation", "Result SRE (mm)": "sre_mm"}
    columns |= {"Median": "sre_mm_median", "95 % interval": "sre_mm_interval", "n": "n"}
    caption = "Table 1. Result of each method, by initialisation."
    return _grouped_table(caption, columns, _with_initial(records), ("sre_mm",))


def part_table(records: list[Record]) -> Table:
    """Lay out the errors of the centre, along the patient's axes, and of the rotation; the initial ones first."""
    return _grouped_table(PARTS_CAPTION, PART_COLUMNS, _with_initial(records), COMPARED_PARTS)


def stage_table(records: list[Record]) -> Table:
    """Lay out Table 2: SRE after each stage, trainable parameters and run time of one stage."""
    stages = [name.removesuffix("_mean") for name in records[0] if STAGE_SRE.fullmatch(name)]
    columns = {"Method": "method", "Initialisation": "initialisation", "Initial SRE": "initial_sre_mm"}
    columns |= {f"Stage {number}": name for number, name in enumerate(stages, start=1)}
    columns |= {"#Parameters": "parameters", "Runtime": "run_time"}
    caption = "Table 2. SRE (mm) after each stage. Parameter count and run time (median) are of one stage."
    return _grouped_table(caption, columns, records, stages)


def p_text(p: float) -> str:
    """Write a p-value as papers do."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _table(caption: str, columns: Mapping[str, str], records: list[Record]) -> Table:
    texts = [_texts(record) for record in records]
    return Table(caption, tuple(columns), tuple(tuple(Cell(row[name]) for name in columns.values()) for row in texts))


def _grouped_table(caption: str, columns: Mapping[str, str], records: list[Record], compared: Sequence[str]) -> Table:
    """Lay out records by initialisation range; the lowest mean of each column that is compared is bold in its group."""
    rows: list[tuple[Cell, ...]] = []
    rules: list[int] = []
    for group in _groups(records):
        rules.append(len(rows))
        for record in group:
            texts = _texts(record) | {"method": _method(record)}
            if record is not group[0]:
                texts["initialisation"] = ""
            best = {name for name in compared if record[f"{name}_mean"] == _lowest(group, f"{name}_mean")}
            best = {name for name in best if _has_result(record) and record[f"{name}_mean"] is not None}
            rows.append(tuple(Cell(texts[name], name in best) for name in columns.values()))
    return Table(caption, tuple(columns), tuple(rows), tuple(rules[1:]))


def _with_initial(records: list[Record]) -> list[Record]:
    """Put ahead of each initialisation range a row of its initial errors."""
    found: list[Record] = []
    for group in _groups(records):
        first = group[0]
        initial = {name: first[f"initial_{name}"] for name in first if f"initial_{name}" in first}
        found += [first | initial | {"method": "no registration", "failed": None}, *group]
    return found


def _groups(records: list[Record]) -> list[list[Record]]:
    return [list(group) for _, group in groupby(records, key=lambda record: record["initialisation"])]


def _has_result(record: Record) -> bool:
    return record["failed"] is not None and record["failed"] < record["n"]


def _lowest(group: list[Record], name: str) -> float | None:
    return min((record[name] for record in group if _has_result(record) and record[name] is not None), default=None)


def _texts(record: Record) -> dict[str, str]:
    """Write every value of a record, and of each measure mean ± sd (by its own name) and the interval."""
    texts = {name: _text(name, value) for name, value in record.items()}
    texts["initialisation"] = initialisation_title(str(record["initialisation"]))
    texts["run_time"] = _run_time([record[name] for name in record if STAGE_SECONDS.fullmatch(name)])
    for name in (name.removesuffix("_mean") for name in record if name.endswith("_mean")):
        sd = "" if record[f"{name}_sd"] is None else f" ± {texts[f'{name}_sd']}"
        texts[name] = texts[f"{name}_mean"] + sd
    for name in (name.removesuffix("_low") for name in record if name.endswith("_low")):
        ends = (texts[f"{name}_low"], texts[f"{name}_high"])
        texts[f"{name}_interval"] = UNDEFINED if UNDEFINED in ends else " to ".join(ends)
    return texts


def _text(name: str, value: object) -> str:
    if value is None:
        return UNDEFINED
    if not isinstance(value, float):
        return f"{value:,}" if name == "parameters" else str(value)
    if name.endswith("_p_holm"):
        return p_text(value)
    if name.startswith("fraction_"):
        return f"{value:.0%}"
    return f"{value:.2f}"


def _method(record: Record) -> str:
    return f"{record['method']} ({record['failed']} failed)" if record["failed"] else str(record["method"])


def _run_time(seconds: list[float | None]) -> str:
    written = (f"{s:.1f} s" if s >= 1 else f"{s * 1000:.0f} ms" for s in seconds if s is not None)
    return " / ".join(written) or UNDEFINED


def _escaped(text: str) -> str:
    return " ".join(text.split()).translate(LATEX_ESCAPES)
