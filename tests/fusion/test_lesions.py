"""Scores of a lesion and of the read-out: agreement with scikit-learn, laws, and what their parts count."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression
from sklearn.metrics import roc_auc_score
from tests.fusion.phantom import SHAPE, ball, grid, pair

from crossalign.cli.main import main
from crossalign.errors import ImageError
from crossalign.fusion.classical import Average, Maximum
from crossalign.fusion.evaluation import FusionProtocol, evaluate_fusion
from crossalign.fusion.metrics.lesions import auc_score, body_mask, lesion_masks, score_lesion
from crossalign.fusion.metrics.read_out import FOLDS, read_out_scores
from crossalign.fusion.tables import fusion_markdown
from crossalign.fusion.window_settings import WindowSettings
from crossalign.geometry import Grid
from crossalign.images import Image, LabelMap, write_image, write_label_map

PLACE = (22, 24, 23)


def _noise(seed: int, shape: tuple[int, int, int] = (15, 8, 9)) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=20), st.lists(st.integers(0, 4), min_size=1, max_size=20))
def test_the_auc_is_scikit_learns(inside: list[int], outside: list[int]) -> None:
    truth = [1] * len(inside) + [0] * len(outside)
    found = auc_score(np.array(inside, dtype=float), np.array(outside, dtype=float))
    assert found == pytest.approx(roc_auc_score(truth, inside + outside))
    assert auc_score(np.array(outside, dtype=float), np.array(inside, dtype=float)) == pytest.approx(1 - found)


def test_the_surroundings_are_a_shell_inside_the_body_and_the_pet() -> None:
    where = Grid((30, 40, 50), (1.0, 2.0, 4.0), (0.0, 0.0, 0.0))  # x 1 mm, y 2 mm, z 4 mm
    labels = torch.zeros(where.shape, dtype=torch.int64)
    labels[15, 20, 25] = 1
    body = torch.ones(where.shape)
    body[:, :17] = 0
    pet_grid = Grid((30, 40, 28), (1.0, 2.0, 4.0), (0.0, 0.0, 0.0))  # the PET ends at x = 27.5
    lesion, around = lesion_masks(LabelMap(labels, where), body, where, pet_grid)
    assert int(lesion.sum()) == 1
    assert not bool((lesion & around).any())
    z, y, x = (around.nonzero()[:, axis] for axis in range(3))
    distance_mm = ((x - 25) ** 2 + (2 * (y - 20)) ** 2 + (4 * (z - 15)) ** 2).sqrt()
    assert 19 < float(distance_mm.max()) <= 20
    assert int(x.max()) == 27
    assert int(y.min()) == 16  # the body's border, by a mean of 3 voxels
    assert not bool(around[14:17, 19:22, 24:27].any())  # a voxel all around is left out
    assert bool(around[15, 20, 23])


def test_a_mask_outside_the_pet_is_an_error() -> None:
    labels = torch.zeros(SHAPE, dtype=torch.int64)
    labels[2, 2, 2] = 1
    far = Grid(SHAPE, (2.0, 2.0, 2.0), (30.0, 30.0, 30.0))
    with pytest.raises(ImageError, match="nothing of the lesion lies in both scans"):
        lesion_masks(LabelMap(labels, grid(), "mass.nii.gz"), torch.ones(SHAPE), grid(), far)


def test_the_body_is_what_is_bright_and_what_it_encloses() -> None:
    volume = torch.zeros((9, 30, 30))
    volume[:, 5:25, 5:25] = 0.5
    volume[:, 12:18, 12:18] = 0.0  # bone without signal
    volume[4, 2, 2] = 1.0  # noise in the air
    body = body_mask(volume)
    assert bool(body[4, 15, 15])
    assert not bool(body[4, 2, 2])
    assert not bool(body[4, 1, 15])


@pytest.mark.parametrize("weight", [0.25, 0.5, 1.0])
def test_contrast_and_lead_of_a_mixture(weight: float) -> None:
    inside = ball(PLACE, 5.0)
    around = ball(PLACE, 12.0) & ~ball(PLACE, 7.0)
    pet = 0.2 + 0.6 * inside + 0.01 * _noise(1, SHAPE)
    mri = 0.5 + 0.01 * _noise(2, SHAPE)
    found = score_lesion(weight * pet + (1 - weight) * mri, mri, pet, inside, around)
    assert found.shown
    assert found.contrast_kept("pet") == pytest.approx(weight, abs=0.01)
    assert math.isnan(found.contrast_kept("mri"))  # the MRI has none
    assert found.lead_kept == pytest.approx(1, abs=1e-6)  # still the brightest: nothing of the order is lost
    assert found.cnr["pet"] == pytest.approx(found.contrast["pet"] / float(pet[around].double().std(correction=0)))
    hidden = score_lesion(mri, mri, pet, inside, around)
    assert abs(hidden.lead_kept) < 0.1
    assert (found.lesion_voxels, found.surroundings_voxels) == (int(inside.sum()), int(around.sum()))


def test_the_read_out_is_that_of_scikit_learn_on_the_same_blocks() -> None:
    fused, pet = _noise(1), _noise(2)
    mri = 0.3 * fused + 0.2 * torch.roll(fused, 1, dims=2) + 0.1 * _noise(3)
    inside = torch.rand(fused.shape, generator=torch.Generator().manual_seed(4)) > 0.3
    found = read_out_scores(fused, mri, pet, inside)
    padded = np.pad(fused.numpy(), 1, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3, 3)).reshape(*fused.shape, 27)
    block = (np.arange(15) * FOLDS // 15)[:, None, None] * np.ones(fused.shape, dtype=int)
    for target, of_voxel, of_neighbours in zip((mri, pet), found.voxel, found.neighbourhood, strict=True):
        for features, value in ((windows[..., 13:14], of_voxel), (windows, of_neighbours)):
            error = deviation = 0.0
            for number in range(FOLDS):
                test, rest = (inside.numpy() & chosen for chosen in (block == number, block != number))
                y, known = target.numpy()[test], target.numpy()[rest]
                model = LinearRegression().fit(features[rest].astype(float), known.astype(float))
                error += ((y - model.predict(features[test])) ** 2).sum()
                deviation += ((y - known.mean()) ** 2).sum()
            assert value == pytest.approx(1 - error / deviation, abs=1e-3)
    assert found.neighbourhood[0] > found.voxel[0] + 0.1  # the shifted part is in a neighbour
    assert found.voxel[1] < 0.02  # of noise nothing can be read


@given(st.floats(0.1, 1.0), st.floats(-0.5, 0.5), st.integers(0, 20))
def test_a_linear_copy_is_fully_recovered(gain: float, offset: float, seed: int) -> None:
    fused = _noise(seed)
    found = read_out_scores(gain * fused + offset, fused, _noise(seed + 100), torch.ones(fused.shape, dtype=torch.bool))
    assert found.voxel[0] == pytest.approx(1, abs=1e-4)
    assert found.neighbourhood[0] == pytest.approx(1, abs=1e-4)


def _lesion_pair() -> tuple[Image, Image]:
    mri, pet = pair()
    return mri, Image(pet.voxels + 6.0 * ball(PLACE, 4.0), pet.grid, pet.name)


def test_the_command_scores_lesions_of_a_manifest(tmp_path: Path, capsys) -> None:
    mri, pet = _lesion_pair()
    write_image(mri, tmp_path / "mri.nii.gz")
    write_image(pet, tmp_path / "pet.nii.gz")
    write_label_map(LabelMap(ball(PLACE, 4.0).long(), grid()), tmp_path / "mass.nii.gz")
    rows = ["case,mri,pet,mask", "one,mri.nii.gz,pet.nii.gz,mass.nii.gz", "two,mri.nii.gz,pet.nii.gz,"]
    (tmp_path / "pairs.csv").write_text("\n".join(rows) + "\n")
    given = ["evaluate-fusion", str(tmp_path / "pairs.csv"), "-o", str(tmp_path / "scores.csv"), "--method", "maximum"]
    assert main([*given, "--protocol", "whole-volume", "--window-b", "0,12"]) == 0
    printed = capsys.readouterr().out
    assert "### Over 2 cases: whole volume" in printed
    assert "### Lesions" in printed
    assert "published slice" not in printed
    one, two = csv.DictReader((tmp_path / "scores.csv").read_text().splitlines())
    assert float(one["lesion_auc_pet"]) > 0.9
    assert two["lesion_auc_pet"] == ""
    assert 0 < float(one["read_out_r2_mri"]) <= float(one["read_out_r2_mri_27"]) + 0.01 <= 1.01
    assert one["read_out_r2_mri"] == two["read_out_r2_mri"]


def test_a_mask_beside_a_manifest_is_an_error(tmp_path: Path, capsys) -> None:
    (tmp_path / "pairs.csv").write_text("case,mri,pet\n")
    given = ["evaluate-fusion", str(tmp_path / "pairs.csv"), "-o", str(tmp_path / "s.csv"), "--method", "average"]
    assert main([*given, "--mask", str(tmp_path / "mass.nii.gz")]) == 2
    assert "--mask is for a single pair" in capsys.readouterr().err


def test_the_summary_has_mean_sd_and_n() -> None:
    masks = {"a": lambda: LabelMap(ball(PLACE, 4.0).long(), grid())}
    settings = FusionProtocol(WindowSettings(window_b=(0.0, 12.0)), published_slice=False)
    methods = {"average": Average(), "maximum": Maximum()}
    found = evaluate_fusion({"a": _lesion_pair, "b": pair}, methods, masks=masks, settings=settings)
    assert [row.lesion is not None for row in found.rows] == [True, True, False, False]
    values = [row.scores.qabf for row in found.rows if row.method == "average"]
    text = fusion_markdown(found)
    assert f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}" in text
    assert "| average | 2 |" in text
