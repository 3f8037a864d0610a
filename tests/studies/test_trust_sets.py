"""The sets of failures: known answers stay known, and the tables say what is trusted."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from studies.trust_pairs import (
    CUT,
    FAR,
    MR_MR,
    ORDINARY,
    OTHER_PATIENT,
    TURNED,
    KnownCase,
    cut,
    phantom_cases,
    simulated_cases,
    trials_of,
    trials_without_content,
    turned,
    with_ultrasound_of,
)
from studies.trust_tables import FIT, JUDGE, estimates_of, figures, fitted, judged, threshold_curve, write_recipe

from crossalign.fields import settings_of
from crossalign.geometry import mean_displacement_mm
from crossalign.models import Calibration


@pytest.fixture(scope="module")
def cases() -> list[KnownCase]:
    return simulated_cases(2, 5)


def voxel(case: KnownCase, point: torch.Tensor) -> torch.Tensor:
    return case.moving.grid.to_voxel(point[None])[0]


def test_a_turned_header_keeps_the_answer_and_the_place_in_the_picture(cases: list[KnownCase]) -> None:
    case = cases[0]
    trial = turned(case, case.truth, torch.Generator().manual_seed(0))
    points = case.points_mm().double()
    before, after = (one.moving.grid.to_voxel(one.truth.apply(points)) for one in (case, trial.case))
    assert torch.allclose(before, after, atol=1e-6)
    center = case.mask.centroid_mm()
    start = trial.initial.apply(center[None])[0]
    assert torch.allclose(voxel(trial.case, start), voxel(case, case.truth.apply(center[None])[0]), atol=1e-6)
    assert torch.equal(trial.initial.rotation, case.truth.rotation)
    assert float((trial.case.truth.rotation - case.truth.rotation).abs().max()) > 0.5


@pytest.mark.parametrize("seed", range(6))
def test_a_cut_field_of_view_shows_the_same_where_it_shows_something(cases: list[KnownCase], seed: int) -> None:
    case = cases[0]
    smaller = cut(case, torch.Generator().manual_seed(seed))
    lost = [a - b for a, b in zip(case.moving.grid.shape, smaller.moving.grid.shape, strict=True)]
    (voxels,) = (count for count in lost if count)
    assert 9 <= voxels * case.moving.grid.spacing_mm[0] <= 21
    index = torch.tensor([[3.0, 4.0, 5.0]], dtype=torch.float64)
    there = case.moving.grid.to_voxel(smaller.moving.grid.to_physical(index))[0].round().long().tolist()
    assert smaller.moving.voxels[5, 4, 3] == case.moving.voxels[there[2], there[1], there[0]]


def test_every_set_is_made_with_starts_of_its_range(cases: list[KnownCase]) -> None:
    made = list(trials_of(cases[0], cases[1], 2, torch.Generator().manual_seed(1)))
    assert [trial.group for trial in made] == [ORDINARY, ORDINARY, FAR, CUT, TURNED, OTHER_PATIENT, MR_MR]
    for trial in made:
        points = trial.case.points_mm().double()
        start = float(mean_displacement_mm(trial.initial, trial.case.truth, points))
        assert start > 20 if trial.group in (FAR, TURNED) else start <= 20.01
    swapped = with_ultrasound_of(cases[0], cases[1])
    assert cases[1].moving_mask is not None
    centers = swapped.truth.apply(cases[0].mask.centroid_mm()[None])[0], cases[1].moving_mask.centroid_mm()
    assert torch.allclose(*centers, atol=1e-6)
    empty = list(trials_without_content(cases, torch.Generator().manual_seed(2)))
    assert {float(trial.case.moving.voxels.std()) > 0 for trial in empty} == {True, False}


def test_every_third_phantom_is_a_ball_in_a_block() -> None:
    blocks = [len(case.fixed.voxels.unique()) == 2 for case in phantom_cases(3, 4)]
    assert blocks == [False, False, True]


def rows(count: int, seed: int) -> list[dict[str, str]]:
    """Ordinary registrations whose network knows its error, and noise, which is rough."""
    drawn, made = np.random.default_rng(seed), []
    for number in range(count):
        noise = number % 3 == 0
        network = drawn.uniform(2, 6)
        error = drawn.uniform(5, 9) if noise else network * drawn.lognormal(0, 0.2)
        row = {
            "role": FIT if number % 2 else JUDGE,
            "set": "noise" if noise else "ordinary",
            "patient": f"p{number % 30}",
        }
        row |= {"sre_mm": str(error), "network_sre_mm": str(network), "dispersion_mm": "", "error": ""}
        row |= {"evidence_moving_rough": str(drawn.uniform(0.8, 1.0) if noise else drawn.uniform(0, 0.1))}
        made.append(row | {"expected_sre_mm": "", "bound_mm": "", "trusted": ""})
    return made


def test_a_calibration_of_a_table_trusts_no_noise_though_its_error_is_small(tmp_path: Path) -> None:
    table = rows(240, 0)
    calibration = fitted(table)
    said = [row for row in judged(table, calibration) if row["role"] == JUDGE]
    assert not any(row["trusted"] == "1" for row in said if row["set"] == "noise")
    ordinary = [row for row in said if row["set"] == "ordinary"]
    assert np.mean([row["trusted"] == "1" for row in ordinary]) > 0.8
    text = "\n".join(figures(said))
    assert "| noise | 40 | 0% | 0 of 0 |" in text
    path = tmp_path / "recipe.json"
    path.write_text('{"card": {"name": "x"}, "calibration": null}')
    write_recipe(path, calibration, [*table[1::2], *said])
    recipe = json.loads(path.read_text())
    assert recipe["card"]["name"] == "x"
    assert "on 120 registrations" in recipe["card"]["expected_error"]
    assert "| noise | 40 | 0% | 0 of 0 |" in recipe["card"]["expected_error"]
    read = settings_of(Calibration, recipe["calibration"])
    assert read.threshold_mm == pytest.approx(calibration.threshold_mm, rel=1e-3)
    assert [term.name for term in read.terms] == [term.name for term in calibration.terms]


def test_what_the_recognition_network_tells_weighs_little() -> None:
    seen = [{"recognition": "other scans"}, {"evidence_unlikely": "0.6"}, {"evidence_unlikely": "0.5"}, {}]
    table = [row | more for row, more in zip(rows(4, 0), seen, strict=True)]
    weight = estimates_of(table).weight
    assert weight is not None
    assert weight.tolist() == [0.2, 0.2, 1.0, 1.0]


def test_the_curve_of_thresholds_by_hand() -> None:
    drawn = range(1, 21)
    table = [{"set": "ordinary", "expected_sre_mm": str(n), "sre_mm": "11" if n > 17 else "5"} for n in drawn]
    other = {"set": "noise", "expected_sre_mm": "2", "sre_mm": "20"}
    text = list(threshold_curve([*table, other, other | {"recognition": "other scans"}]))
    assert text[5] == "| 17.00 | 85% | 1 of 18 (5.6%) |"
    assert text[6] == "| 18.00 | 90% | 2 of 19 (10.5%) |"


def test_what_was_refused_is_not_trusted() -> None:
    table = rows(240, 0)
    table[1]["error"] = "the moving image shows nothing"
    said = judged(table, fitted(table))
    assert (said[1]["trusted"], said[1]["expected_sre_mm"]) == ("0", "")


def test_figures_by_hand() -> None:
    pair = {"set": "ordinary", "expected_sre_mm": "4", "bound_mm": "6", "trusted": "1"}
    table = [pair | {"sre_mm": error} for error in ("3", "5", "12")] + [pair | {"sre_mm": "30", "trusted": "0"}]
    text = list(figures(table))
    assert text[2] == "| ordinary | 4 | 75% | 1 of 3 (33.3%) | 8.5 | 4.0 | 67% (n 3) |"
    assert text[3] == text[2].replace("ordinary", "all")
