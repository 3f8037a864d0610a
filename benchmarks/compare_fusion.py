"""Compare two fusion methods, paired over the cases of a table that `crossalign evaluate-fusion` wrote.

    python benchmarks/compare_fusion.py scores.csv dcfb-compact dcfb-compact-2d

Prints for each score the mean difference, first minus second, its 95 % confidence interval (t), and the p of Wilcoxon's
signed-rank test, of whole volumes. The lead kept is of the cases whose tumour the PET shows (an AUC over 0.85). With
few cases the test can show little: of six that all differ in one direction its p is 0.03, the least there is.
"""

import argparse
import csv
import sys
from pathlib import Path

import numpy as np
from scipy import stats

from crossalign.evaluation.statistics import paired_p_values

SCORES = ("lesion_lead_kept", "lesion_auc_fused", "ssim_mean", "ssim_mri", "ssim_pet", "qabf", "vif_mean", "nmi_mean")
SHOWN_AUC = 0.85


def main() -> int:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("first")
    parser.add_argument("second")
    given = parser.parse_args()
    with given.table.open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["protocol"] == "whole-volume"]
    print(f"| score | n | {given.first} | {given.second} | mean difference (95 % CI) | Wilcoxon p |")
    print("|---|---|---|---|---|---|")
    for score in SCORES:
        first, second = (values_of(rows, method, score) for method in (given.first, given.second))
        both = sorted(set(first) & set(second))
        if both:
            print(line(score, np.array([first[case] for case in both]), np.array([second[case] for case in both])))
    return 0


def values_of(rows: list[dict[str, str]], method: str, score: str) -> dict[str, float]:
    """Return a method's values of a score by case, where it is defined."""
    mine = [row for row in rows if row["method"] == method and row.get(score)]
    if score == "lesion_lead_kept":
        mine = [row for row in mine if float(row["lesion_auc_pet"]) > SHOWN_AUC]
    return {row["case"]: float(row[score]) for row in mine}


def line(score: str, first: np.ndarray, second: np.ndarray) -> str:
    """Return a line of the table."""
    difference = first - second
    mean, half = difference.mean(), np.nan
    if len(difference) > 1:
        half = stats.t.ppf(0.975, len(difference) - 1) * difference.std(ddof=1) / np.sqrt(len(difference))
    p = paired_p_values(first, second)[1]
    interval = f"{mean:+.4f} ({mean - half:+.4f} to {mean + half:+.4f})"
    return f"| {score} | {len(first)} | {first.mean():.4f} | {second.mean():.4f} | {interval} | {p:.3f} |"


if __name__ == "__main__":
    sys.exit(main())
