"""Training of fusion: it learns to beat the average, and continues bit for bit."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from safetensors.torch import load_file
from tests.fusion.test_compact import SMALL
from tests.fusion.test_simulation import maps

from crossalign.errors import InputError, OutputError
from crossalign.fusion.metrics.scores import gradient_preservation_score as qabf
from crossalign.fusion.metrics.scores import invented_gradient_score
from crossalign.fusion.metrics.scores import structural_similarity_score as ssim
from crossalign.fusion.networks.compact import DCFBCompact
from crossalign.fusion.networks.model_files import load_fusion_model
from crossalign.fusion.networks.settings import DCFBSettings, FusionStageSettings
from crossalign.fusion.simulation.settings import HeadSettings
from crossalign.fusion.training.dataset import FusionDataset, draw_patches, insert_lesions
from crossalign.fusion.training.losses import (
    BASELINE_MARGIN,
    LESION_CONTRAST,
    MARGIN,
    baseline_loss,
    draw_steps,
    invented_gradient_loss,
    lesion_loss,
    paper_fusion_loss,
    salience_loss,
    ssim_qabf_loss,
)
from crossalign.fusion.training.preparation import fusion_dataset_from_simulation
from crossalign.fusion.training.settings import FusionAugmentation, FusionTrainingSettings
from crossalign.fusion.training.task import FusionTask
from crossalign.similarity import lncc_score
from crossalign.training.engine import RunResult, run_task
from crossalign.training.run_folder import read_history

pytestmark = pytest.mark.usefixtures("one_thread")

Datasets = tuple[FusionDataset, FusionDataset]
STAGE = FusionStageSettings(
    "dcfb-compact",
    replace(SMALL, hidden=6),
    DCFBSettings(channels=8, depths=(1,), heads=(2,), drop_path=0.1),
)
SETTINGS = FusionTrainingSettings(STAGE, steps=6, patch=16, val_every=3, precision="float32")
HEADS = HeadSettings(spacing_mm=(4.0, 4.0))


def dataset(count: int = 3, seed: int = 0) -> FusionDataset:
    return fusion_dataset_from_simulation(count, seed, maps(), HEADS, (24, 28, 24))


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def datasets() -> Datasets:
    return dataset(3, 1), dataset(2, 2)


def train(datasets: Datasets, folder: Path, settings: FusionTrainingSettings) -> RunResult:
    return run_task(FusionTask(*datasets, settings), folder)


class StopError(Exception):
    """Raised in the loop by a test."""


@pytest.fixture(scope="module")
def finished(datasets: Datasets, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunResult]:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return folder, train(datasets, folder, SETTINGS)


def test_a_stopped_run_ends_as_one_that_was_not(
    datasets: Datasets, finished: tuple[Path, RunResult], tmp_path: Path
) -> None:
    folder, whole = finished
    assert whole.finished

    def stop(row: dict[str, float]) -> None:
        if row["step"] == 4:
            raise StopError

    with pytest.raises(StopError):
        run_task(FusionTask(*datasets, SETTINGS), tmp_path / "stopped", watch=stop)
    again = train(datasets, tmp_path / "stopped", SETTINGS)
    assert again.measure == whole.measure
    for name in ("last", "best"):
        mine, theirs = (load_file(run / f"{name}.safetensors") for run in (tmp_path / "stopped", folder))
        assert all(torch.equal(mine[key], theirs[key]) for key in theirs)
    rows = [[row["val_loss"] for row in read_history(run / "history.csv")] for run in (tmp_path / "stopped", folder)]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 2


def test_a_run_goes_on_with_the_same_settings_only(datasets: Datasets, finished: tuple[Path, RunResult]) -> None:
    with pytest.raises(OutputError, match="other settings"):
        train(datasets, finished[0], replace(SETTINGS, rate=1e-4))


def test_settings_of_an_earlier_version_are_understood(datasets: Datasets) -> None:
    task = FusionTask(*datasets, SETTINGS)
    old = json.loads(json.dumps(task.settings()))
    for new, name in (("qabf_weights", "transfer"), ("lesion_weight", "lesions"), ("ema_decay", "average")):
        old[name] = old.pop(new)
    old["stage"]["model"], old["loss"] = old["stage"].pop("network"), "keeping"
    assert json.loads(json.dumps(task.renamed(old))) == json.loads(json.dumps(task.settings()))


def test_a_small_training_learns(datasets: Datasets, tmp_path: Path) -> None:
    # After 24 steps the untrained network is close to the best that so small a one can learn.
    stage = replace(STAGE, compact=replace(STAGE.compact, score_steps=3))
    settings = replace(SETTINGS, stage=stage, steps=40, val_every=20, rate=5e-3, ema_decay=0.9)
    task = FusionTask(*datasets, settings)
    with torch.no_grad():
        untrained = task.validate(task.fresh_model().eval())
    result = run_task(task, tmp_path / "run")
    assert result.measure < untrained - 0.05
    model = load_fusion_model(result.best)
    assert model.settings == stage
    assert float(model.notes["val_loss"]) == pytest.approx(result.measure, rel=1e-3)


@pytest.mark.parametrize("network", ["dcfb", "dcfb-compact"])
def test_the_papers_loss_trains_both(
    network: Literal["dcfb", "dcfb-compact"], datasets: Datasets, tmp_path: Path
) -> None:
    stage = replace(STAGE, network=network)
    settings = replace(SETTINGS, stage=stage, steps=2, val_every=2, loss="paper", schedule="power")
    assert train(datasets, tmp_path / network, settings).steps == 2


def test_the_ssim_qabf_loss_agrees_with_its_formula(datasets: Datasets) -> None:
    patches = draw_patches(datasets[0], [0, 1], (20, 20, 20), None, torch.Generator().manual_seed(5))
    patches = replace(patches, detail=torch.tensor([0.0, 1.0]))
    fused = (patches.a + patches.b) / 2
    expected = 0.0
    for k, weight in enumerate((0.1, 0.4)):
        f, a, b = (v[k, 0] for v in (fused, patches.a, patches.b))
        expected += 1 - float(ssim(f, a) + ssim(f, b)) / 2 + weight * (1 - float(qabf(f, a, b)))
    assert float(ssim_qabf_loss(fused, patches, (0.1, 0.4))) == pytest.approx(expected / 2, abs=1e-4)


def test_the_papers_loss_agrees_with_its_formula(datasets: Datasets) -> None:
    patches = draw_patches(datasets[0], [0, 1], (20, 20, 20), None, torch.Generator().manual_seed(5))
    fused, expected = (patches.a + patches.b) / 2, 0.0
    for weight, other in ((2.0, patches.a), (1.0, patches.b)):
        similar = sum(float(ssim(fused[k, 0], other[k, 0])) for k in (0, 1)) / 2
        expected += weight * (2 - similar - float(lncc_score(fused, other)) + float((fused - other).abs().mean()))
    assert float(paper_fusion_loss(fused, patches)) == pytest.approx(expected, abs=1e-3)


def test_the_loss_of_lesions_is_the_contrast_that_they_lack(datasets: Datasets) -> None:
    generator = torch.Generator().manual_seed(2)
    patches = insert_lesions(draw_patches(datasets[0], [0, 1], (20, 20, 20), None, generator), generator)
    lesions = patches.lesions
    assert lesions is not None
    without = (patches.a + patches.b) / 2
    for fraction, loss in ((0.0, LESION_CONTRAST**2), (0.5, (LESION_CONTRAST - 0.5) ** 2), (1.0, 0.0)):
        fused = without + fraction * (lesions.a - patches.a + lesions.b - patches.b)
        assert float(lesion_loss(without, fused, patches)) == pytest.approx(loss, abs=1e-5)
    assert float(lesion_loss(without, without, replace(patches, lesions=None))) == 0
    no_contrast = replace(patches, lesions=replace(lesions, a=patches.a, b=patches.b))
    assert float(lesion_loss(without, without, no_contrast)) == 0


def blob(shape: tuple[int, int, int], center: tuple[int, int, int], radius: float) -> torch.Tensor:
    axes = torch.meshgrid(*(torch.arange(n) for n in shape), indexing="ij")
    return (torch.stack([(x - c) ** 2 for x, c in zip(axes, center, strict=True)]).sum(0).sqrt() < radius).float()


def test_salience_is_lost_where_uptake_is_no_longer_above_what_is_around_it() -> None:
    shape = (24, 32, 32)
    hot = blob(shape, (12, 16, 16), 7.0)[None, None]
    steps = draw_steps(shape, torch.Generator().manual_seed(1))
    above, level, below = (float(salience_loss(0.4 + rise * hot, 0.1 + 0.6 * hot, steps)) for rise in (0.1, 0.0, -0.2))
    assert above == 0
    assert 0 < level < MARGIN
    assert below > 3 * level
    # Uptake that varies little weighs little, and none at all where there is none.
    assert float(salience_loss(0.4 - 0.2 * hot, 0.1 + 0.03 * hot, steps)) < below / 3
    assert float(salience_loss(0.4 - 0.2 * hot, torch.zeros_like(hot), steps)) == 0
    # Four times as much uptake as around it, and of no interest all the same.
    assert float(salience_loss(0.4 - 0.2 * hot, 0.01 + 0.03 * hot, steps)) == 0


def test_the_loss_of_invented_gradients_is_nabf(datasets: Datasets) -> None:
    generator = torch.Generator().manual_seed(5)
    patches = draw_patches(datasets[0], [0, 1], (20, 20, 20), None, generator)
    average, noise = (patches.a + patches.b) / 2, 0.1 * torch.randn(patches.a.shape, generator=generator)
    for fused in (average, average + noise):
        pairs = [[v[k, 0] for v in (fused, patches.a, patches.b)] for k in (0, 1)]
        expected = sum(float(invented_gradient_score(*volumes)) for volumes in pairs) / 2
        assert float(invented_gradient_loss(fused, patches)) == pytest.approx(expected, abs=1e-5)
    assert expected > 0.1
    empty = replace(patches, a=torch.zeros_like(patches.a), b=torch.zeros_like(patches.b))
    assert float(invented_gradient_loss(average, empty)) == 0


def test_the_loss_of_the_baseline_is_what_ssim_lacks_of_the_averages(datasets: Datasets) -> None:
    patches = draw_patches(datasets[0], [0, 1], (20, 20, 20), None, torch.Generator().manual_seed(5))
    average = (patches.a + patches.b) / 2
    balanced, detail = (replace(patches, detail=torch.full((2,), value)) for value in (0.0, 1.0))
    assert float(baseline_loss(average, balanced)) == pytest.approx(BASELINE_MARGIN, abs=1e-6)
    dark = 0.2 * average
    means = [
        sum(float(ssim(v[k, 0], other[k, 0])) for k in (0, 1) for other in (patches.a, patches.b)) / 4
        for v in (average, dark)
    ]
    assert means[0] - means[1] > 0.1
    assert float(baseline_loss(dark, balanced)) == pytest.approx(means[0] - means[1] + BASELINE_MARGIN, abs=1e-3)
    assert float(baseline_loss(dark, detail)) == 0


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31), st.tuples(st.integers(16, 40), st.integers(16, 64), st.integers(16, 64)))
def test_pairs_of_voxels_lie_in_the_patch_and_apart(seed: int, shape: tuple[int, int, int]) -> None:
    steps = draw_steps(shape, torch.Generator().manual_seed(seed))
    assert steps
    for step in steps:
        assert any(step)
        assert all(abs(size) < extent for size, extent in zip(step, shape, strict=True))
    ordered = torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(seed))
    assert float(salience_loss(ordered, ordered, steps)) <= MARGIN


def test_losses_of_empty_volumes_are_finite(datasets: Datasets) -> None:
    patches = draw_patches(datasets[0], [0], (16, 16, 16), None, torch.Generator().manual_seed(5))
    empty = replace(patches, a=torch.zeros_like(patches.a), b=torch.zeros_like(patches.b))
    for value in (ssim_qabf_loss(empty.a, empty, (0.1, 0.4)), paper_fusion_loss(empty.a, empty)):
        assert bool(value.isfinite())


@pytest.mark.parametrize("limited", [True, False])
def test_a_setting_limits_the_gradient_through_the_steps(datasets: Datasets, limited: bool) -> None:
    network = FusionTask(*datasets, replace(SETTINGS, limit_gradient=limited)).fresh_model()
    assert isinstance(network, DCFBCompact)
    assert network.limit_gradient == limited


def test_validation_is_the_same_each_time(datasets: Datasets) -> None:
    task = FusionTask(*datasets, SETTINGS)
    network = task.fresh_model().eval()
    with torch.no_grad():
        assert task.validate(network) == task.validate(network)
    assert torch.equal(task.loss(network, 3), task.loss(network, 3))


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 0},
        {"patch": 8},
        {"rate": 0.0},
        {"qabf_weights": (0.2, 0.1)},
        {"loss": "l2"},
        {"lesion_weight": -1.0},
        {"planes": 8},
        {"salience_weight": -1.0},
        {"invented_gradient_weight": -1.0},
        {"baseline_weight": -1.0},
    ],
)
def test_invalid_settings_are_an_error(change: dict[str, object]) -> None:
    with pytest.raises((InputError, TypeCheckError)):
        replace(SETTINGS, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize("change", [{"gain": 1.0}, {"noise": -1.0}, {"rotated_fraction": 1.5}])
def test_an_invalid_augmentation_is_an_error(change: dict[str, float]) -> None:
    with pytest.raises(InputError):
        FusionAugmentation(**change)  # type: ignore[arg-type]
