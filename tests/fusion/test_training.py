"""Training of fusion: it learns to beat the average, and goes on bit for bit."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.fusion.test_simulation import template

from crossalign.cli.main import main
from crossalign.errors import InputError, ManifestError, OutputError
from crossalign.fusion.networks.compact import CompactSettings
from crossalign.fusion.networks.dcfb import DCFBSettings
from crossalign.fusion.networks.model_files import FusionStageSettings, load_fusion_stage
from crossalign.fusion.simulation.head_anatomy import BrainSettings
from crossalign.fusion.training import preparation as fusion_prepare
from crossalign.fusion.training.dataset import FusionDataset, draw_patches, plant_lesions
from crossalign.fusion.training.settings import FusionAugmentation, FusionTrainingSettings
from crossalign.fusion.training.task import (
    KEPT,
    FusionTask,
    FusionTrainingResult,
    keeping_loss,
    lesion_loss,
    paper_fusion_loss,
    train_fusion,
)
from crossalign.geometry import Grid
from crossalign.images import Image, write_image
from crossalign.training.schedule import pick_cases
from crossalign.training.run_folder import read_history

pytestmark = pytest.mark.usefixtures("one_thread")

STAGE = FusionStageSettings(
    "dcfb-compact",
    CompactSettings(channels=8, blocks=1, heads=2, window=2, kernel=3, context=4, hidden=6, steps=1),
    DCFBSettings(channels=8, depths=(1,), heads=(2,), drop_path=0.1),
)
SETTINGS = FusionTrainingSettings(STAGE, steps=6, patch=16, val_every=3, precision="float32")
BRAINS = BrainSettings(spacing_mm=(4.0, 4.0))


def dataset(count: int = 3, seed: int = 0) -> FusionDataset:
    return fusion_prepare.fusion_dataset_from_simulation(count, seed, template(), BRAINS, (24, 28, 24))


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def datasets() -> tuple[FusionDataset, FusionDataset]:
    return dataset(3, 1), dataset(2, 2)


def train(
    datasets: tuple[FusionDataset, FusionDataset], folder: Path, settings: FusionTrainingSettings
) -> FusionTrainingResult:
    return train_fusion(*datasets, settings, folder)


class StopError(Exception):
    """Thrown into the loop from outside."""


def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    datasets: tuple[FusionDataset, FusionDataset], tmp_path: Path
) -> None:
    whole = train(datasets, tmp_path / "whole", SETTINGS)
    assert whole.finished

    def stop(row: dict[str, float]) -> None:
        if row["step"] == 4:
            raise StopError

    with pytest.raises(StopError):
        train_fusion(*datasets, SETTINGS, tmp_path / "stopped", watch=stop)
    again = train(datasets, tmp_path / "stopped", SETTINGS)
    assert again.val_loss == whole.val_loss
    for name in ("last", "best"):
        mine, theirs = (load_file(tmp_path / run / f"{name}.safetensors") for run in ("stopped", "whole"))
        assert all(torch.equal(mine[key], theirs[key]) for key in theirs)
    rows = [[row["val_loss"] for row in read_history(tmp_path / run / "history.csv")] for run in ("stopped", "whole")]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 2
    with pytest.raises(OutputError, match="other settings"):
        train(datasets, tmp_path / "whole", replace(SETTINGS, rate=1e-4))


def test_it_learns_more_than_the_average(datasets: tuple[FusionDataset, FusionDataset], tmp_path: Path) -> None:
    result = train(datasets, tmp_path / "run", replace(SETTINGS, steps=40, val_every=20, rate=5e-3, average=0.9))
    assert result.val_loss < result.average_loss - 0.01
    stage = load_fusion_stage(result.best)
    assert stage.settings == STAGE
    assert float(stage.notes["val_loss"]) == pytest.approx(result.val_loss, rel=1e-3)


@pytest.mark.parametrize("model", ["dcfb", "dcfb-compact"])
def test_the_papers_loss_trains_both(model: str, datasets: tuple[FusionDataset, FusionDataset], tmp_path: Path) -> None:
    settings = replace(
        SETTINGS, stage=replace(STAGE, model=model), steps=2, val_every=2, loss="paper", schedule="power"
    )
    assert train(datasets, tmp_path / model, settings).steps == 2


def test_losses_agree_with_their_formulas(datasets: tuple[FusionDataset, FusionDataset]) -> None:
    from crossalign.fusion.metrics.structure import qabf_score, ssim_score
    from crossalign.similarity import lncc_score

    patches = draw_patches(datasets[0], [0, 1], 20, None, torch.Generator().manual_seed(5))
    patches = replace(patches, emphasis=torch.tensor([0.0, 1.0]))
    fused = (patches.a + patches.b) / 2
    expected = 0.0
    for k, weight in enumerate((0.1, 0.4)):
        f, a, b = (v[k, 0] for v in (fused, patches.a, patches.b))
        expected += 1 - float(ssim_score(f, a) + ssim_score(f, b)) / 2 + weight * (1 - float(qabf_score(f, a, b)))
    assert float(keeping_loss(fused, patches, (0.1, 0.4))) == pytest.approx(expected / 2, abs=1e-4)
    paper = 0.0
    for weight, other in ((2.0, patches.a), (1.0, patches.b)):
        similar = sum(float(ssim_score(fused[k, 0], other[k, 0])) for k in (0, 1)) / 2
        lncc = float(lncc_score(fused, other))
        paper += weight * (2 - similar - lncc + float((fused - other).abs().mean()))
    assert float(paper_fusion_loss(fused, patches)) == pytest.approx(paper, abs=1e-3)


def test_planted_lesions_change_one_scan_where_they_are(datasets: tuple[FusionDataset, FusionDataset]) -> None:
    generator = torch.Generator().manual_seed(2)
    patches = draw_patches(datasets[0], [0, 1, 2] * 4, 20, None, generator)
    planted = plant_lesions(patches, generator).planted
    assert planted is not None
    changes = [(planted.a - patches.a).abs(), (planted.b - patches.b).abs()]
    in_mri, in_pet = (change.flatten(1).amax(1) > 0 for change in changes)
    assert not bool((in_mri & in_pet).any())
    assert bool(in_mri.any())
    assert bool(in_pet.any())
    assert float(((changes[0] + changes[1]) * (planted.where < 0.01)).max()) < 0.01
    assert 0 <= float(planted.a.min()) <= float(planted.a.max()) <= 1


def test_the_loss_of_lesions_is_what_is_short_of_the_share_to_keep(
    datasets: tuple[FusionDataset, FusionDataset],
) -> None:
    generator = torch.Generator().manual_seed(2)
    patches = plant_lesions(draw_patches(datasets[0], [0, 1], 20, None, generator), generator)
    planted = patches.planted
    assert planted is not None
    bare = (patches.a + patches.b) / 2
    for share, loss in ((0.0, KEPT**2), (0.5, (KEPT - 0.5) ** 2), (1.0, 0.0)):
        fused = bare + share * (planted.a - patches.a + planted.b - patches.b)
        assert float(lesion_loss(bare, fused, patches)) == pytest.approx(loss, abs=1e-5)
    assert float(lesion_loss(bare, bare, replace(patches, planted=None))) == 0
    nothing = replace(patches, planted=replace(planted, a=patches.a, b=patches.b))
    assert float(lesion_loss(bare, bare, nothing)) == 0


def test_losses_are_finite_where_nothing_is(datasets: tuple[FusionDataset, FusionDataset]) -> None:
    patches = draw_patches(datasets[0], [0], 16, None, torch.Generator().manual_seed(5))
    empty = replace(patches, a=torch.zeros_like(patches.a), b=torch.zeros_like(patches.b))
    for value in (keeping_loss(empty.a, empty, (0.1, 0.4)), paper_fusion_loss(empty.a, empty)):
        assert bool(value.isfinite())


def test_validation_is_the_same_each_time(datasets: tuple[FusionDataset, FusionDataset]) -> None:
    task = FusionTask(*datasets, SETTINGS)
    model = task.fresh_model().eval()
    with torch.no_grad():
        assert task.validate(model) == task.validate(model)
    assert torch.equal(task.loss(model, 3), task.loss(model, 3))


def test_both_volumes_of_a_patch_move_together() -> None:
    """Two copies of one volume, turned and mirrored, stay two copies."""
    volume = dataset(1, 4).mri[0]
    twin = FusionDataset((volume,), (volume,))
    moves = FusionAugmentation(turn_rad=0.2, turned_share=1.0, gamma=0.0, noise=0.0, gain=0.0, mirror=True)
    for seed in range(4):
        patches = draw_patches(twin, [0], 16, moves, torch.Generator().manual_seed(seed))
        torch.testing.assert_close(patches.a, patches.b)


def test_contrast_and_noise_change_the_mri_alone() -> None:
    volume = dataset(1, 4).mri[0]
    twin = FusionDataset((volume,), (volume,))
    changes = FusionAugmentation(0.0, 0.0, 0.3, 0.05, 0.0, False)
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    plain = draw_patches(twin, [0], 16, None, generators[0])
    varied = draw_patches(twin, [0], 16, changes, generators[1])
    torch.testing.assert_close(plain.b, varied.b)
    assert not torch.allclose(plain.a, varied.a)
    assert bool((varied.a[plain.a <= 1e-4] <= 1e-4).all())


def test_a_short_volume_is_extended() -> None:
    volume = torch.rand(10, 20, 30)
    patches = draw_patches(FusionDataset((volume,), (volume,)), [0], 16, None, torch.Generator().manual_seed(0))
    assert patches.a.shape == (1, 1, 16, 16, 16)
    torch.testing.assert_close(patches.a[:, :, 9], patches.a[:, :, 15])


def test_a_bank_survives_its_file(tmp_path: Path) -> None:
    first = dataset(2, 3)
    first.save(tmp_path / "bank.safetensors")
    back = FusionDataset.load(tmp_path / "bank.safetensors")
    assert len(back) == 2
    assert all(torch.equal(a, b) for a, b in zip(first.mri + first.pet, back.mri + back.pet, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first.mri, dataset(2, 3).mri, strict=True))
    (tmp_path / "no.safetensors").write_text("x")
    with pytest.raises(InputError, match="not a bank"):
        FusionDataset.load(tmp_path / "no.safetensors")
    for odd in ({"mri/x": torch.zeros(2, 2, 2)}, {"mri/00000": torch.zeros(2)}, {"luck": torch.zeros(2, 2, 2)}):
        save_file(odd, tmp_path / "odd.safetensors")
        with pytest.raises(InputError, match="not a bank of fusion pairs: it holds"):
            FusionDataset.load(tmp_path / "odd.safetensors")


def test_every_epoch_visits_all() -> None:
    seen = [index for step in range(3) for index in pick_cases(6, 4, step, 0)]
    assert sorted(seen) == sorted(list(range(6)) * 2)


def manifest(folder: Path, splits: tuple[str, ...]) -> Path:
    """Write pairs of which the PET has its own, coarser grid."""
    rows = ["case,mri,pet,split"]
    generator = torch.Generator().manual_seed(0)
    for number, split in enumerate(splits):
        for kind, shape, step in (("mri", (20, 22, 24), 2.0), ("pet", (14, 15, 16), 3.0)):
            grid = Grid.centered((0.0, 0.0, 0.0), shape, (step, step, step))
            write_image(Image(torch.rand(shape, generator=generator), grid, kind), folder / f"{kind}{number}.nii.gz")
        rows.append(f"c{number},mri{number}.nii.gz,pet{number}.nii.gz,{split}")
    path = folder / "pairs.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def test_a_manifest_becomes_banks_on_the_mris_grid(tmp_path: Path) -> None:
    first, second = fusion_prepare.fusion_datasets_from_manifest(manifest(tmp_path, ("train", "val")))
    assert first.mri[0].shape == first.pet[0].shape == (20, 22, 24)
    assert 0 <= float(second.pet[0].min()) <= float(second.pet[0].max()) <= 1


def test_a_manifest_needs_both_splits(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="'val'"):
        fusion_prepare.fusion_datasets_from_manifest(manifest(tmp_path, ("train", "train")))


def test_the_command_trains_from_a_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = manifest(tmp_path, ("train", "val"))
    words = [
        "train-fusion",
        str(path),
        "-o",
        str(tmp_path / "run"),
        "--steps",
        "1",
        "--patch",
        "16",
        "--val-every",
        "1",
    ]
    assert main(words) == 0
    assert "finished" in capsys.readouterr().out
    assert (tmp_path / "run" / "best.safetensors").is_file()
    assert main(["train-fusion", "-o", str(tmp_path / "other")]) == 2
    assert "MANIFEST" in capsys.readouterr().err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    assert main(["train-fusion", str(path), "-o", str(tmp_path / "full")]) == 2


def test_the_command_trains_from_simulation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusion_prepare, "mni_maps", template)
    monkeypatch.setattr(fusion_prepare, "SIMULATED_SHAPE", (16, 16, 16))
    words = ["train-fusion", "--simulate", "1", "-o", str(tmp_path / "run"), "--steps", "1", "--patch", "16"]
    assert main(words) == 0


def test_the_weights_of_kept_gradients_can_be_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = manifest(tmp_path, ("train", "val"))
    words = [
        "train-fusion",
        str(path),
        "--model",
        "dcfb-compact-2d",
        "--steps",
        "1",
        "--patch",
        "16",
        "--val-every",
        "1",
    ]
    assert main([*words, "-o", str(tmp_path / "run"), "--transfer", "0.1,0.3", "--lesions", "0.2"]) == 0
    saved = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert saved["transfer"] == [0.1, 0.3]
    assert saved["lesions"] == 0.2
    assert load_fusion_stage(tmp_path / "run" / "best.safetensors").settings.model == "dcfb-compact-2d"
    for wrong, reason in (("0.1", "two numbers"), ("a,b", "two numbers"), ("0.3,0.1", "runs from over 0 upwards")):
        assert main([*words, "-o", str(tmp_path / "no"), "--transfer", wrong]) == 2
        assert reason in capsys.readouterr().err


def test_the_template_comes_with_nilearn() -> None:
    maps = fusion_prepare.mni_maps()
    assert maps.t1.shape == (189, 233, 197)
    assert 0.9 < float(maps.white.max()) <= 1


def test_settings_that_cannot_be() -> None:
    for change in (
        {"steps": 0},
        {"patch": 8},
        {"rate": 0.0},
        {"transfer": (0.2, 0.1)},
        {"loss": "l2"},
        {"lesions": -1.0},
    ):
        with pytest.raises(InputError):
            replace(SETTINGS, **change)
    for change in ({"gain": 1.0}, {"noise": -1.0}, {"turned_share": 1.5}):
        with pytest.raises(InputError):
            FusionAugmentation(**change)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no pairs"):
        FusionDataset((), ())
    with pytest.raises(InputError, match="one grid"):
        FusionDataset((torch.zeros(2, 2, 2),), (torch.zeros(2, 2, 3),))
