"""Networks that are given the moving mask: what they see, in training and in use, and how a trained one becomes one."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.training.toys import make_dataset

from crossalign.data import LoadedCase
from crossalign.errors import InputError, SettingError
from crossalign.explanation.gradients import integrated_gradients
from crossalign.export.graphs import registration_graph
from crossalign.geometry import Rigid
from crossalign.models import Model, Stage, StageSettings, load_stage, save_stage
from crossalign.models.moving_mask import with_moving_mask
from crossalign.networks import build_network
from crossalign.registration import NetworkRegistration, Problem, register
from crossalign.registration.preprocessed_pair import PreprocessedPair
from crossalign.simulation import simulate_pairs
from crossalign.training import NO_AUGMENTATION, TrainingSettings
from crossalign.training.preparation import dataset_from_simulation, simulated_cases, simulation_grid
from crossalign.training.pretraining_settings import PretrainingSettings
from crossalign.training.sampling import Batch, draw_batch
from crossalign.training.tasks.registration import RegistrationTask

PLAIN = StageSettings("correspondence-short", (8, 8, 8), 6.0, 3.0, "label")
BOTH = replace(PLAIN, moving_input="image-label")
OUTLINES = replace(NO_AUGMENTATION, outline_mm=2.0)


@pytest.fixture(scope="module")
def case() -> LoadedCase:
    grid = simulation_grid(BOTH)
    pairs = simulate_pairs(1, torch.Generator().manual_seed(5), shape=grid.shape, spacing_mm=grid.spacing_mm[0])
    return simulated_cases(pairs)[0]


def stage(settings: StageSettings, seed: int = 0) -> Stage:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Stage(settings.build().eval(), settings, {})


def problem_of(case: LoadedCase) -> Problem:
    initial = case.fixed_to_moving @ Rigid.from_translation(torch.tensor([3.0, -2.0, 4.0], dtype=torch.float64))
    return Problem(case.fixed, case.moving, initial, case.fixed_mask, case.moving_mask)


def draw(settings: StageSettings, seed: int = 0, augmentation: object = NO_AUGMENTATION) -> Batch:
    dataset, generator = make_dataset(3), torch.Generator().manual_seed(seed)
    return draw_batch(dataset, torch.arange(3), settings, (5.0, 5.0), augmentation, generator)  # type: ignore[arg-type]


def test_training_and_registration_make_the_same_crops(case: LoadedCase) -> None:
    dataset = dataset_from_simulation(1, 5, BOTH)
    batch = draw_batch(dataset, torch.tensor([0]), BOTH, (8.0, 8.0), NO_AUGMENTATION, torch.Generator().manual_seed(3))
    center = case.fixed_mask.centroid_mm()
    shift = Rigid.from_translation(center)
    initial = case.fixed_to_moving @ shift @ batch.correction[0].inverse().to("cpu", torch.float64) @ shift.inverse()
    pair = PreprocessedPair(replace(problem_of(case), initial=initial), torch.device("cpu"))
    fixed, moving = pair.crops(BOTH, center, initial[None], torch.eye(3, dtype=torch.float64))
    assert moving.shape == batch.moving.shape == (1, 2, 8, 8, 8)
    assert float((batch.fixed - fixed).abs().max()) < 1e-3
    assert float((batch.moving - moving).abs().max()) < 1e-3
    assert float(moving[:, 1].std()) > 0.1


def test_the_image_is_what_a_network_without_the_mask_is_given() -> None:
    plain, both = draw(PLAIN), draw(BOTH)
    assert torch.equal(both.moving[:, :1], plain.moving)
    assert torch.equal(both.fixed, plain.fixed)


def test_outlines_change_each_by_itself_and_the_answer_does_not() -> None:
    before, after = draw(BOTH), draw(BOTH, augmentation=OUTLINES)
    assert torch.equal(before.correction.matrix(), after.correction.matrix())
    assert torch.equal(before.surface_mm, after.surface_mm)
    assert torch.allclose(before.moving[:, 0], after.moving[:, 0], atol=2e-4)
    fixed, moving = after.fixed - before.fixed, after.moving[:, 1:] - before.moving[:, 1:]
    for changed in (fixed, moving):
        assert float(changed.abs().max()) > 0.1
        assert float(changed.abs().mean()) < 0.1
    assert not torch.allclose(fixed, moving, atol=0.05)


def test_every_case_needs_a_moving_mask() -> None:
    dataset = replace(make_dataset(2), moving_mask=None)
    with pytest.raises(InputError, match="needs one of every case"):
        draw_batch(dataset, torch.arange(2), BOTH, (5.0, 5.0), NO_AUGMENTATION, torch.Generator())


def test_a_trained_network_is_given_the_mask_and_answers_as_before(tmp_path: Path) -> None:
    before = stage(PLAIN)
    after = with_moving_mask(before)
    batch = draw(BOTH)
    found = after.network(batch.fixed, batch.moving)
    torch.testing.assert_close(found, before.network(batch.fixed, batch.moving[:, :1]), atol=1e-4, rtol=1e-4)
    assert with_moving_mask(after) is after
    save_stage(after, tmp_path / "both.safetensors")
    again = load_stage(tmp_path / "both.safetensors")
    assert again.settings == BOTH
    assert again.settings.text().endswith("fixed label, moving image and label")
    torch.testing.assert_close(again.network(batch.fixed, batch.moving), found)


def test_one_step_of_training_changes_what_the_mask_says() -> None:
    settings = TrainingSettings(stage=BOTH, steps=1, val_every=1, val_initialisations=1, augmentation=OUTLINES)
    dataset = make_dataset(2)
    task = RegistrationTask(dataset, dataset, settings, with_moving_mask(stage(PLAIN)).network)
    network = task.fresh_model().train()
    task.loss(network, 0).backward()
    slope = network.get_parameter("moving_extractor.stem.0.weight").grad
    assert slope is not None
    assert float(slope[:, 8:].abs().max()) > 0


def test_registration_uses_the_mask(case: LoadedCase) -> None:
    method, problem = NetworkRegistration(Model(stage(BOTH))), problem_of(case)
    assert method.uses_moving_mask
    assert not NetworkRegistration(Model(stage(PLAIN))).uses_moving_mask
    given = problem.fixed, problem.moving, method, problem.initial, problem.fixed_mask
    found = register(*given, problem.moving_mask)
    assert found.settings["masks used"] == "fixed and moving"
    assert problem.moving_mask is not None
    shifted = replace(problem.moving_mask, labels=problem.moving_mask.labels.roll(3, 0))
    assert not torch.allclose(register(*given, shifted).fixed_to_moving.matrix(), found.fixed_to_moving.matrix())
    with pytest.raises(InputError, match="--moving-mask"):
        register(*given)


def test_attributions_of_both_channels_are_complete() -> None:
    network, batch = stage(BOTH).network, draw(BOTH)
    fixed, moving = batch.fixed[:1], batch.moving[:1]
    attributions, baseline = integrated_gradients(network, fixed, moving, 48)
    assert attributions.shape == (6, 2, 8, 8, 8)
    whole = network(fixed, moving)[0].double() - baseline
    torch.testing.assert_close(attributions.sum((1, 2, 3, 4)), whole.detach(), atol=0.15, rtol=0.05)


def test_the_exported_graph_takes_two_channels() -> None:
    graph = registration_graph(stage(BOTH).network, BOTH.crop_shape, BOTH.moving_channels())
    assert graph.inputs["moving"] == ("batch", 2, 8, 8, 8)
    outputs = graph.reference(*graph.draw(3, torch.Generator().manual_seed(0)))
    assert outputs[0].shape == (3, 6)


def test_what_cannot_be() -> None:
    with pytest.raises(InputError, match="takes the moving image alone"):
        StageSettings("attention-reg", (8, 8, 8), moving_input="image-label")
    with pytest.raises(InputError, match="takes the moving image alone"):
        build_network("correspondence-fc", (8, 8, 8), 5.0, moving_channels=2)
    with pytest.raises(SettingError, match="must be image for pre-training"):
        PretrainingSettings(BOTH)
    batch = draw(BOTH)
    with pytest.raises(InputError, match="the moving volume is"):
        stage(BOTH).network(batch.fixed, batch.moving[:, :1])
