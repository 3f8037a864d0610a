"""The tables, letter by letter, and read back."""
# ruff: noqa: E501 - tables are as wide as they are

import csv
import io
from dataclasses import replace

import pytest
from tests.evaluation.toys import hand_evaluation, row

from crossalign.evaluation import Evaluation, rows_csv, summary_csv, summary_latex, summary_markdown
from crossalign.evaluation.paper_tables import p_text

COUNTS = {"net_&_two": 1_248_777}

MARKDOWN = """\
Table 1. Result of each method, by initialisation.

| Method | Initialisation | Result SRE (mm) | Median | 95 % interval | n |
| --- | --- | --- | --- | --- | --- |
| no registration | [0, 20] mm | 9.00 ± 2.58 | 9.00 | 9.00 to 9.00 | 4 |
| still |  | 9.00 ± 2.58 | 9.00 | 9.00 to 9.00 | 4 |
| net_&_two (1 failed) |  | **4.50 ± 1.29** | 4.50 | 4.50 to 4.50 | 4 |

Table 2. SRE (mm) after each stage. Parameter count and run time (median) are of one stage.

| Method | Initialisation | Initial SRE | Stage 1 | Stage 2 | #Parameters | Runtime |
| --- | --- | --- | --- | --- | --- | --- |
| still | [0, 20] mm | 9.00 ± 2.58 | 9.00 ± 2.58 | - | - | 10 ms |
| net_&_two (1 failed) |  | 9.00 ± 2.58 | **6.00 ± 0.82** | **4.50 ± 1.29** | 1,248,777 | 10 ms / 20 ms |

Sizes, landmarks, overlap and failures.

| Method | Initialisation | n | Patients | Failed | TRE before (mm) | TRE after (mm) | Dice before | Dice after | Improved | Under 5 mm | Seconds |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
| still | [0, 20] mm | 4 | 2 | 0 | 10.00 ± 2.58 | 10.00 ± 2.58 | 0.55 ± 0.13 | 0.55 ± 0.13 | 0% | 0% | 0.03 ± 0.00 |
| net_&_two | [0, 20] mm | 4 | 2 | 1 | 10.00 ± 2.58 | 5.50 ± 1.29 | 0.55 ± 0.13 | 0.77 ± 0.06 | 75% | 50% | 0.03 ± 0.00 |

Each method against the best of its initialisation; p-values are Holm-corrected.

| Method | Best | Initialisation | Pairs | Difference (mm) | 95 % interval | t-test p | Wilcoxon p |
| --- | --- | --- | --- | --- | --- | --- | --- |
| still | net_&_two | [0, 20] mm | 4 | 4.50 | 4.50 to 4.50 | 0.103 | 0.250 |

4 cases of 2 patients; initialisations for each case and range: 1; seed 7.
"""

LATEX = r"""
\begin{table}
\caption{Table 2. SRE (mm) after each stage. Parameter count and run time (median) are of one stage.}
\begin{tabular}{lllllll}
\toprule
Method & Initialisation & Initial SRE & Stage 1 & Stage 2 & \#Parameters & Runtime \\
\midrule
still & [0, 20] mm & 9.00 $\pm$ 2.58 & 9.00 $\pm$ 2.58 & - & - & 10 ms \\
net\_\&\_two (1 failed) &  & 9.00 $\pm$ 2.58 & \textbf{6.00 $\pm$ 0.82} & \textbf{4.50 $\pm$ 1.29} & 1,248,777 & 10 ms / 20 ms \\
\bottomrule
\end{tabular}
\end{table}
"""


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_markdown_is_laid_out_as_the_papers_tables() -> None:
    text = summary_markdown(hand_evaluation(), COUNTS)
    assert text.startswith(MARKDOWN)
    assert text.endswith("- still: no settings\n- net_&_two: crop = 30 %\n")


def test_latex_is_laid_out_as_the_papers_tables() -> None:
    text = summary_latex(hand_evaluation(), COUNTS)
    assert LATEX in text
    assert text.count("\\begin{tabular}") == text.count("\\end{tabular}") == 4
    assert "95 \\% interval" in text


def test_latex_escapes_whatever_a_method_is_called() -> None:
    strange = replace(row("a", "50%_{#1}~^\\$<", 8.0, (2.0,)))
    text = summary_latex(Evaluation((strange,), (strange.method,), ("0-20",), 1, 0))
    expected = r"50\%\_\{\#1\}\textasciitilde{}\textasciicircum{}\textbackslash{}\$$<$"
    assert expected in text


def test_groups_are_ruled_apart_in_latex_alone() -> None:
    rows = tuple(replace(row("a", "m", 8.0, (2.0,)), initialisation=one) for one in ("8", "16"))
    evaluation = Evaluation(rows, ("m",), ("8", "16"), 1, 0)
    assert summary_latex(evaluation).split("Table 2.")[0].count("\\midrule") == 2
    assert "| no registration | 16 mm | 8.00 | 8.00 | - | 1 |" in summary_markdown(evaluation)


def test_rows_read_back() -> None:
    evaluation = hand_evaluation()
    lines = read(rows_csv(evaluation))
    assert len(lines) == len(evaluation.rows)
    for line, expected in zip(lines, evaluation.rows, strict=True):
        assert (line["case"], line["patient"], line["method"]) == (expected.case, expected.patient, expected.method)
        assert float(line["initial_sre_mm"]) == expected.before.sre_mm
        assert float(line["sre_mm"]) == expected.after.sre_mm
        assert float(line["dice"]) == pytest.approx(expected.after.dice)
        assert line["error"] == expected.error
    assert (lines[1]["sre_step_1_mm"], lines[1]["sre_step_2_mm"], lines[1]["steps"]) == ("6.0000", "4.0000", "s0 > s1")
    assert (lines[7]["sre_step_1_mm"], lines[7]["seconds_step_2"]) == ("", "")


def test_what_is_undefined_is_an_empty_cell() -> None:
    evaluation = hand_evaluation()
    first = evaluation.rows[0]
    nan = float("nan")
    blind = replace(first, before=replace(first.before, tre_mm=nan), after=replace(first.after, tre_mm=nan, dice=nan))
    (line,) = read(rows_csv(replace(evaluation, rows=(blind,))))
    assert (line["initial_tre_mm"], line["tre_mm"], line["dice"]) == ("", "", "")


def test_awkward_text_survives_the_csv() -> None:
    awkward = replace(row("a", "m", 8.0, (2.0,)), error='got "3", expected\t4', warnings=("one, two", "three"))
    (line,) = read(rows_csv(Evaluation((awkward,), ("m",), ("0-20",), 1, 0)))
    assert line["error"] == awkward.error
    assert line["warnings"] == "one, two | three"


def test_summary_in_numbers() -> None:
    still, net = read(summary_csv(hand_evaluation(), COUNTS))
    assert (net["method"], net["initialisation"], net["n"], net["failed"], net["parameters"]) == (
        *("net_&_two", "0-20", "4", "1", "1248777"),
    )
    assert (net["initial_sre_mm_mean"], net["sre_mm_mean"], net["sre_mm_sd"]) == ("9.0000", "4.5000", "1.2910")
    assert (net["stage_1_sre_mm_mean"], net["stage_2_sre_mm_median"]) == ("6.0000", "4.5000")
    assert net["stage_2_seconds_median"] == "0.0200"
    assert (net["best"], net["against_best_t_p"]) == ("", "")
    assert (still["best"], still["against_best_difference_mm"]) == ("net_&_two", "4.500000")
    assert float(still["against_best_t_p_holm"]) == pytest.approx(0.102728)
    assert (still["stage_2_sre_mm_mean"], still["parameters"]) == ("", "")


def test_p_values_as_in_papers() -> None:
    assert [p_text(p) for p in (0.0004, 0.0123, 1.0)] == ["< 0.001", "0.012", "1.000"]
