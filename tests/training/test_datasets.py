"""Datasets: from files, from the simulator, to a file and back; and that training sees what registration sees."""

from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.damage import damaged
from tests.data.files import ROW, write_case, write_manifest
from tests.training.toys import Anatomy, make_dataset

from crossalign.data import Case, LoadedCase, load_case
from crossalign.errors import InputError, ManifestError, OutputError
from crossalign.geometry import Grid, Rigid, mean_displacement_mm
from crossalign.images import Image, LabelMap, surface_points
from crossalign.models import StageSettings
from crossalign.registration import Problem
from crossalign.registration.preprocessed_pair import PreprocessedPair
from crossalign.simulation import simulate_pairs
from crossalign.training import NO_AUGMENTATION, PairDataset
from crossalign.training.preparation import (
    dataset_from_cases,
    dataset_from_simulation,
    datasets_from_manifest,
    datasets_from_simulation,
    simulated_cases,
    simulation_grid,
)
from crossalign.training.sampling import draw_batch

SMALL = StageSettings("feature-reg", (12, 12, 12), 4.0, 2.5)


def equal(a: PairDataset, b: PairDataset) -> bool:
    pairs = [(getattr(a, item.name), getattr(b, item.name)) for item in fields(PairDataset)]
    return all(one is other if one is None or other is None else torch.equal(one, other) for one, other in pairs)


def test_round_trip(tmp_path: Path) -> None:
    dataset = make_dataset(3)
    dataset.save(tmp_path / "dataset.safetensors")
    assert equal(PairDataset.load(tmp_path / "dataset.safetensors"), dataset)
    with pytest.raises(OutputError, match="exists already"):
        dataset.save(tmp_path / "dataset.safetensors")
    dataset.take(torch.tensor([1])).save(tmp_path / "dataset.safetensors", overwrite=True)
    assert len(PairDataset.load(tmp_path / "dataset.safetensors")) == 1


def test_round_trip_without_moving_masks(tmp_path: Path) -> None:
    dataset = replace(make_dataset(2), moving_mask=None)
    dataset.save(tmp_path / "dataset.safetensors")
    loaded = PairDataset.load(tmp_path / "dataset.safetensors")
    assert equal(loaded, dataset)
    assert loaded.take(torch.tensor([1])).moving_mask is None
    index = torch.tensor([0, 1])
    points = torch.zeros(2, 4, 4, 4, 3)
    assert bool((loaded.moving_mask_at(index, points) == -1).all())


def test_not_a_dataset(tmp_path: Path) -> None:
    path = tmp_path / "dataset.safetensors"
    for content in (b"", b"text", None):
        if content is None:
            save_file({"fixed": torch.zeros(3)}, path)
        else:
            path.write_bytes(content)
        with pytest.raises(InputError, match=r"dataset\.safetensors: not a dataset of image pairs"):
            PairDataset.load(path)
    with pytest.raises(InputError, match="no such file"):
        PairDataset.load(tmp_path / "none.safetensors")


def test_datasets_that_lack_something_or_are_damaged(tmp_path: Path) -> None:
    path = tmp_path / "dataset.safetensors"
    dataset = make_dataset(2)
    for change, message in (
        ({"fixed": dataset.fixed[:1]}, "'"),
        ({"rotation": torch.zeros(2, 3)}, "'rotation' has the shape"),
        ({"spacing_mm": torch.zeros(2)}, "'spacing_mm' has the shape"),
        ({"surface_mm": torch.zeros(2, 5, 3, dtype=torch.int32)}, "of type I32"),
        ({"luck": torch.zeros(2)}, "it holds 'luck'"),
        ({"center_mm": torch.full((2, 3), float("nan"))}, "'center_mm' holds numbers that are not finite"),
    ):
        save_file({**dataset.tensors(), **change}, path)
        with pytest.raises(InputError, match="not a dataset of image pairs") as error:
            PairDataset.load(path)
        assert message in str(error.value)
    dataset.save(path, overwrite=True)
    whole = path.read_bytes()
    for copy in damaged(whole, np.random.default_rng(7), 40):
        path.write_bytes(copy)
        if copy != whole:
            with pytest.raises(InputError, match=r"dataset\.safetensors: not a dataset of image pairs"):
                PairDataset.load(path)


def test_no_cases() -> None:
    with pytest.raises(InputError, match="no cases to train on"):
        dataset_from_cases([], SMALL)


def toy_case() -> LoadedCase:
    """One blob case on flipped, anisotropic grids, its gland at the volume's middle."""
    anatomy = Anatomy(torch.Generator().manual_seed(4))
    center = torch.tensor([31.0, -42.0, 17.0], dtype=torch.float64)
    reference = Rigid.from_parameters(torch.tensor([-20.0, 15, 9, 12, -7, 10], dtype=torch.float64), center)
    flipped = ((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 1.0))
    fixed_grid = Grid((44, 84, 80), (1.1, 1.1, 2.0), (75.0, 4.0, -26.0), flipped)
    middle = reference.apply(center[None])[0]
    moving_grid = Grid.centered(tuple(middle.tolist()), (70, 72, 74), (1.3, 1.3, 1.3))
    inverse = reference.inverse()
    fixed_points, moving_points = fixed_grid.points_mm(), moving_grid.points_mm()
    mapped = inverse.apply(moving_points.flatten(0, 2)).reshape(moving_points.shape)
    mask = ((fixed_points - center) / anatomy.half_axes_mm).square().sum(-1) < 1
    gland = LabelMap(mask.long(), fixed_grid)
    return LoadedCase(
        "toy", "toy", "train",
        fixed=Image(anatomy((fixed_points - center).float()) + 0.01, fixed_grid),
        moving=Image(anatomy((mapped - center).float()) + 0.01, moving_grid),
        fixed_mask=gland, fixed_to_moving=reference, surface_mm=surface_points(gland),
    )  # fmt: skip


def crops_of_both(
    case: LoadedCase, dataset: PairDataset, stage: StageSettings, sre_mm: float, seed: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield the fixed and the moving crop as training and as registration make them, from one initial transform."""
    generator = torch.Generator().manual_seed(seed)
    batch = draw_batch(dataset, torch.tensor([0]), stage, (sre_mm, sre_mm), NO_AUGMENTATION, generator)
    center = case.fixed_mask.centroid_mm()
    shift = Rigid(torch.eye(3, dtype=torch.float64), center)
    initial = case.fixed_to_moving @ shift @ batch.correction[0].inverse().to("cpu", torch.float64) @ shift.inverse()
    reached = float(mean_displacement_mm(initial, case.fixed_to_moving, case.surface_mm))
    assert reached == pytest.approx(sre_mm, abs=0.1)
    problem = Problem(case.fixed, case.moving, initial, case.fixed_mask)
    straight = torch.eye(3, dtype=torch.float64)
    used = PreprocessedPair(problem, torch.device("cpu")).crops(stage, center, initial[None], straight)
    yield from zip((batch.fixed, batch.moving), used, strict=True)


@pytest.mark.parametrize("fixed_input", ["image", "label"])
@pytest.mark.parametrize("sre_mm", [0.0, 6.0, 20.0])
def test_training_and_registration_make_the_same_crops(fixed_input: Literal["image", "label"], sre_mm: float) -> None:
    stage = StageSettings("feature-reg", (12, 12, 12), 4.0, 2.5, fixed_input)
    case = toy_case()
    for trained, used in crops_of_both(case, dataset_from_cases([case], stage), stage, sre_mm, 1):
        assert float(used.std()) > 0.05
        assert float((trained - used).abs().max()) < 1e-3  # half-precision volumes: 2.4e-4


def test_the_border_of_a_scan_is_the_same_in_training_and_in_registration() -> None:
    """A crop that is larger than the scan: ITK's rule holds half a voxel beyond its outermost voxels."""
    stage = StageSettings("feature-reg", (12, 12, 12), 9.1, 2.5)
    case = toy_case()
    for trained, used in crops_of_both(case, dataset_from_cases([case], stage), stage, 5.0, 2):
        assert 0.2 < float((used == 0).float().mean()) < 0.9
        assert float((trained - used).abs().max()) < 1e-3


def test_simulated_pairs_are_prepared_as_their_scans_would_be() -> None:
    stage = StageSettings("feature-reg", (16, 16, 16), 4.0, 3.0)
    grid = simulation_grid(stage)
    pairs = simulate_pairs(1, torch.Generator().manual_seed(5), shape=grid.shape, spacing_mm=grid.spacing_mm[0])
    case = simulated_cases(pairs)[0]
    for trained, used in crops_of_both(case, dataset_from_simulation(1, 5, stage), stage, 8.0, 3):
        assert float((trained - used).abs().max()) < 1e-3


def test_real_scans_reach_the_network_alike_in_training_and_in_registration(shared_data: Path) -> None:
    folder = shared_data / "mrus_open" / "open00"
    files = ("mr.nii.gz", "us.nii.gz", "mr_gland.nii.gz", "reference.tfm", "us_gland.nii.gz")
    case = load_case(Case("real", "real", "val", *(folder / name for name in files)))
    stage = StageSettings("correspondence")
    dataset = dataset_from_cases([case], stage)
    for seed, sre_mm in ((0, 0.0), (1, 10.0), (2, 20.0)):
        for trained, used in crops_of_both(case, dataset, stage, sre_mm, seed):
            assert float((trained - used).abs().max()) < 1e-3


def test_dataset_of_a_case_holds_its_truth() -> None:
    case = toy_case()
    dataset = dataset_from_cases([case], SMALL)
    assert len(dataset) == 1
    assert dataset.fixed.dtype == torch.float16
    assert 0 <= float(dataset.fixed.min()) <= float(dataset.fixed.max()) <= 1
    torch.testing.assert_close(dataset.center_mm[0].double(), case.fixed_mask.centroid_mm(), atol=1e-4, rtol=0)
    torch.testing.assert_close(dataset.reference(torch.tensor([0])).matrix()[0].double(), case.fixed_to_moving.matrix(),
                               atol=1e-4, rtol=1e-5)  # fmt: skip
    assert float(torch.cdist(dataset.surface_mm[0].double(), case.surface_mm).amin(1).max()) < 1e-2


def test_manifest_gives_both_splits(tmp_path: Path) -> None:
    folder = write_case(tmp_path)
    rows = [ROW.format(case=name, split=split) for name, split in (("a", "train"), ("b", "val"), ("c", "train"))]
    train, val = datasets_from_manifest(write_manifest(folder, *rows), SMALL)
    assert (len(train), len(val)) == (2, 1)
    with pytest.raises(ManifestError, match="no case with split 'val'"):
        datasets_from_manifest(write_manifest(folder, rows[0]), SMALL)


def test_simulated_dataset() -> None:
    stage = StageSettings("feature-reg", (16, 16, 16), 4.0, 3.0)
    dataset, again, other = (dataset_from_simulation(count, seed, stage) for count, seed in ((3, 5), (3, 5), (2, 6)))
    assert equal(dataset, again)
    assert not torch.equal(dataset.fixed[:2], other.fixed)
    assert len(dataset) == 3
    assert dataset.fixed.dtype == torch.float16
    for volumes in (dataset.fixed, dataset.moving, dataset.fixed_mask):
        assert 0 <= float(volumes.min()) < float(volumes.max()) <= 1
    batch = draw_batch(dataset, torch.arange(3), stage, (4.0, 4.0), NO_AUGMENTATION, torch.Generator().manual_seed(0))
    assert float(batch.fixed.std()) > 0.05
    assert float(batch.moving.std()) > 0.05
    distance = batch.surface_mm.norm(dim=-1)
    assert 5 < float(distance.min()) < float(distance.max()) < 60  # about the gland, which is about the centre
    masks = dataset.fixed_at(torch.arange(3), dataset.center_mm[:, None, None, None], label=True)
    assert bool((masks > 0.5).all())


def test_a_fraction_of_a_simulated_dataset_shows_shapes() -> None:
    stage = StageSettings("feature-reg", (8, 8, 8), 6.0, 4.0)
    pelves, mixed, shapes = (
        dataset_from_simulation(2, 5, stage, shapes_fraction=fraction) for fraction in (0.0, 0.5, 1.0)
    )
    assert len(mixed) == len(shapes) == 2
    assert not torch.equal(mixed.fixed[1], pelves.fixed[1])
    assert not torch.equal(shapes.fixed[0], pelves.fixed[0])
    # One pelvis of two draws other numbers than two at once, so it is compared with a dataset of one.
    assert torch.equal(mixed.fixed[0], dataset_from_simulation(1, 5, stage).fixed[0])
    for bad in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match=r"0\.\.1"):
            dataset_from_simulation(2, 5, stage, shapes_fraction=bad)


def test_simulated_splits_differ() -> None:
    stage = StageSettings("feature-reg", (8, 8, 8), 6.0, 4.0)
    train, val = datasets_from_simulation(2, 1, stage)
    assert (len(train), len(val)) == (2, 8)
    assert not torch.equal(train.fixed[0], val.fixed[0])
