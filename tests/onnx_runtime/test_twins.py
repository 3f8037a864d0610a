"""Registration in numpy is the one with torch: part by part, and whole, on simulated and on real scans."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.geometry import strategies

from crossalign.export.graphs import MATCHING_OUTPUTS, MatchingGraph
from crossalign.geometry import Grid, Rigid, draw_perturbation, mean_displacement_mm, quarter_turn
from crossalign.images import (
    Image,
    LabelMap,
    read_image,
    read_mask,
    read_transform,
    surface_points,
    write_image,
    write_label_map,
)
from crossalign.images.intensity import empty_value, foreground
from crossalign.images.preprocessing import preprocess
from crossalign.models import Model, load_model
from crossalign.models.run_settings import OrientationCorrection
from crossalign.onnx_runtime import axes, motions, scans
from crossalign.onnx_runtime.axes import expected_rotation, rotation_to_axes
from crossalign.onnx_runtime.description import Description
from crossalign.onnx_runtime.evidence import crop_evidence
from crossalign.onnx_runtime.initialisation import shown_center_mm
from crossalign.onnx_runtime.motions import Motion, nearest_rotation, perturbed
from crossalign.onnx_runtime.networks import ExportedModel, Network
from crossalign.onnx_runtime.problem import Pair
from crossalign.onnx_runtime.registration import ExportedResult, register_exported
from crossalign.onnx_runtime.scans import Lattice, Scan, at_working_spacing, scaled
from crossalign.registration import NetworkRegistration, RegistrationResult, evidence, frame, initialisation, pose_prior
from crossalign.registration import register as register_with_torch
from crossalign.registration.consensus import perturbed_initialisations
from crossalign.simulation import simulate_pairs

SAME_MM = 2e-3


class TorchSession:
    """What a session of onnxruntime is to `Network`, computed by the network itself: exporting it would take long."""

    def __init__(self, module: MatchingGraph) -> None:
        self.module = module

    def get_outputs(self) -> list[object]:
        return [type("Output", (), {"name": name}) for name in MATCHING_OUTPUTS]

    def run(self, _: object, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        with torch.no_grad():
            return [one.numpy() for one in self.module(*(torch.from_numpy(value) for value in inputs.values()))]


def exported(model: Model) -> ExportedModel:
    sizes = dict.fromkeys(("fixed", "moving", "attraction_mm2"), "")
    of = Description("net", "registration", "correspondence", "", {}, sizes, ("0",) * len(model.stages))
    networks = tuple(
        Network(TorchSession(MatchingGraph(stage.network).eval()), of, stage.settings) for stage in model.stages
    )
    return ExportedModel((networks,), model.run, model.calibration, "net")


def motion_of(transform: Rigid) -> Motion:
    return Motion(transform.rotation.double().numpy(), transform.translation_mm.double().numpy())


def rigid_of(motion: Motion) -> Rigid:
    return Rigid(torch.from_numpy(motion.rotation.copy()), torch.from_numpy(motion.translation_mm.copy()))


def lattice_of(grid: Grid) -> Lattice:
    z, y, x = grid.shape
    return Lattice((x, y, z), np.array(grid.spacing_mm), np.array(grid.origin_mm), np.array(grid.direction))


def scan_of(image: Image) -> Scan:
    return Scan(image.voxels.numpy(), lattice_of(image.grid), image.name)


@given(strategies.rigids(), strategies.rigids())
def test_motions_are_rigid_transforms(a: Rigid, b: Rigid) -> None:
    found, expected = motion_of(a) @ motion_of(b).inverse(), a @ b.inverse()
    assert np.allclose(found.rotation, expected.rotation.numpy(), atol=1e-9)
    assert np.allclose(found.translation_mm, expected.translation_mm.numpy(), atol=1e-6)
    again = Motion.from_parameters(found.parameters())
    assert np.allclose(again.rotation, found.rotation, atol=1e-6)
    assert found.angle_deg() == pytest.approx(float(expected.angle_deg()), abs=1e-5)
    assert np.allclose(nearest_rotation(found.rotation * 3), found.rotation, atol=1e-9)


def test_motions_beside_an_answer_are_those_that_torch_draws() -> None:
    points = torch.randn(50, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 20
    center = points.mean(0)
    expected = perturbed_initialisations(Rigid.identity(), points, center, 3, 6.0, 0)
    for found, one in zip(perturbed(Motion.identity(), points.numpy(), center.numpy(), 6.0), expected, strict=True):
        assert np.allclose(found.rotation, one.rotation.numpy(), atol=1e-12)
        assert np.allclose(found.translation_mm, one.translation_mm.numpy(), atol=1e-9)


def test_numbers_are_those_of_the_other_room() -> None:
    prior = pose_prior.TRANSRECTAL
    assert (prior.mean_deg, prior.sd_deg, prior.text()) == (axes.MEAN_DEG, axes.SD_DEG, axes.PRIOR_TEXT)
    found = axes.CLEAR_DEG, axes.BELIEVED_DEG, axes.FARTHEST_DEG
    assert found == (pose_prior.CLEAR_DEG, pose_prior.BELIEVED_DEG, pose_prior.FARTHEST_DEG)
    assert motions.RANGES.tolist() == [5.0] * 3 + [6.0] * 3
    assert [turn.tolist() for turn in map(axes.quarter_turn, (0, 90, 180, 270))] == [
        quarter_turn(quarters).tolist() for quarters in range(4)
    ]


@settings(max_examples=20)
@given(st.integers(0, 1000), st.floats(0, 50))
def test_the_prior_is_expected_alike(seed: int, angle: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    direction = np.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64).numpy())[0]
    a, b, c = direction.tolist()
    grid = Grid((4, 4, 4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (tuple(a), tuple(b), tuple(c)))
    parameters = torch.tensor([0.0, 0.0, 0.0, angle, -angle / 2, 3.0], dtype=torch.float64)
    initial = Rigid.from_parameters(parameters, torch.zeros(3))
    rotation = torch.from_numpy(axes.quarter_turn(90 * (seed % 4)))
    assert np.allclose(rotation_to_axes(lattice_of(grid)), frame.rotation_to_axes(grid).numpy(), atol=1e-12)
    for headers in (True, False):
        wanted = pose_prior.expected_rotation(pose_prior.TRANSRECTAL, grid, initial, rotation, headers)
        found = expected_rotation(lattice_of(grid), motion_of(initial), rotation.numpy(), headers)
        assert (found is None) == (wanted is None)
        if found is not None and wanted is not None:
            assert np.allclose(found.attraction(), wanted.attraction().numpy(), atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_scans_are_prepared_alike(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    voxels = torch.randn(20, 24, 30, generator=generator) * 100
    voxels[:, :6] = (0.0, 255.0, -1000.0)[seed]
    oblique = Rigid.from_parameters(torch.tensor([0, 0, 0, 20.0, -10, 35 * seed]).double(), torch.zeros(3))
    a, b, c = oblique.rotation.tolist()
    image = Image(voxels, Grid(tuple(voxels.shape), (1.1, 0.7, 2.0), (5.0, -3.0, 9.0), (tuple(a), tuple(b), tuple(c))))  # type: ignore[arg-type]
    scan = scan_of(image)
    assert np.array_equal(scans.foreground(scan.voxels), foreground(voxels).numpy())
    assert np.allclose(shown_center_mm(scan), initialisation.shown_center_mm(image).numpy())
    assert scans.empty_value(scan.voxels) == empty_value(voxels)
    found, wanted = at_working_spacing(scaled(scan), 1.5), preprocess(image, 1.5)
    assert found.lattice.size == wanted.grid.shape[::-1]
    assert np.allclose(found.lattice.origin_mm, wanted.grid.origin_mm, atol=1e-9)
    assert float(np.abs(found.voxels - wanted.voxels.numpy()).max()) < 1e-4


def test_crops_say_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(1, 1, 32, 32, 32, generator=generator) for _ in range(2))
    found = crop_evidence(a[0, 0].numpy(), (a * b)[0, 0].numpy())
    assert found == pytest.approx(evidence.crop_evidence(a, a * b), rel=1e-4)


def both(
    pair: tuple[Image, Image, LabelMap | None], initial: Rigid, name: str, degrees: OrientationCorrection = 0
) -> tuple[RegistrationResult, ExportedResult]:
    """Register in both rooms."""
    fixed, moving, mask = pair
    model = load_model(name)
    model = replace(model, run=replace(model.run, orientation_correction=degrees))
    expected = register_with_torch(fixed, moving, NetworkRegistration(model), initial, mask)
    marked = None if mask is None else scan_of(mask.foreground())
    given = Pair(scan_of(fixed), scan_of(moving), motion_of(initial), marked, model.run.orientations_deg()[0])
    return expected, register_exported(given, exported(model))


def check_same(expected: RegistrationResult, found: ExportedResult, mask: LabelMap) -> None:
    points = surface_points(mask)
    assert float(mean_displacement_mm(expected.fixed_to_moving, rigid_of(found.fixed_to_moving), points)) < SAME_MM
    wanted = expected.expectation
    assert set(found.evidence) == set(wanted.evidence)
    for name, value in wanted.evidence.items():
        assert found.evidence[name] == pytest.approx(value, abs=5e-3, rel=5e-3), name
    assert found.dispersion_mm == pytest.approx(wanted.dispersion_mm, abs=SAME_MM)
    assert found.network_sre_mm == pytest.approx(wanted.network_sre_mm, abs=SAME_MM)
    assert found.expected_sre_mm == pytest.approx(wanted.expected_sre_mm, abs=0.02)
    assert found.trusted is (None if expected.trusted else False)  # never True
    assert len(found.reasons) == len(expected.reasons)
    assert found.notes == expected.notes


@pytest.fixture(scope="module")
def simulated() -> tuple[Image, Image, LabelMap, Rigid]:
    """A simulated pair in an oblique world, and an initial transform 8 mm off."""
    pairs = simulate_pairs(1, torch.Generator().manual_seed(3))
    oblique = Rigid.from_parameters(torch.tensor([10, -20, 5, 12, -7, 30]).double(), torch.zeros(3))

    def turned(grid: Grid) -> Grid:
        (a, b, c), (x, y, z) = (
            (oblique.rotation @ torch.tensor(grid.direction).double()).tolist(),
            oblique.apply(torch.tensor([grid.origin_mm]).double())[0].tolist(),
        )
        return Grid(grid.shape, grid.spacing_mm, (x, y, z), (tuple(a), tuple(b), tuple(c)))

    fixed_grid, moving_grid = turned(pairs.fixed_grid), turned(pairs.moving_grid)
    mask = LabelMap((pairs.fixed_mask[0, 0] > 0.5).long(), fixed_grid)
    truth = oblique @ pairs.fixed_to_moving[0].to("cpu", torch.float64) @ oblique.inverse()
    points = surface_points(mask)
    target = torch.tensor([8.0], dtype=torch.float64)
    off = draw_perturbation(points[None], points.mean(0)[None], target, torch.Generator().manual_seed(1))[0]
    return Image(pairs.fixed[0, 0], fixed_grid), Image(pairs.moving[0, 0], moving_grid), mask, truth @ off


@pytest.mark.parametrize(("name", "degrees"), [("correspondence-label", 0), ("correspondence-image", 90)])
def test_a_simulated_pair_is_registered_alike(
    simulated: tuple[Image, Image, LabelMap, Rigid], name: str, degrees: OrientationCorrection
) -> None:
    fixed, moving, mask, initial = simulated
    check_same(*both((fixed, moving, mask), initial, name, degrees), mask)


def test_a_pair_without_a_mask_is_registered_alike(simulated: tuple[Image, Image, LabelMap, Rigid]) -> None:
    fixed, moving, mask, initial = simulated
    expected, found = both((fixed, moving, None), initial, "correspondence-few-shot")
    check_same(expected, found, mask)
    assert "fixed_dice" not in found.evidence
    assert any("no fixed mask" in text for text in found.warnings)


def test_a_real_pair_is_registered_alike(shared_data: Path) -> None:
    folder = shared_data / "mrus" / "obs056"
    mask = read_mask(folder / "mr_gland.nii.gz")
    points, target = surface_points(mask), torch.tensor([10.0], dtype=torch.float64)
    off = draw_perturbation(points[None], points.mean(0)[None], target, torch.Generator().manual_seed(3))[0]
    initial = read_transform(folder / "reference.tfm") @ off
    pair = read_image(folder / "mr.nii.gz"), read_image(folder / "us.nii.gz"), mask
    check_same(*both(pair, initial, "correspondence-few-shot", 270), mask)


def test_files_are_read_alike(simulated: tuple[Image, Image, LabelMap, Rigid], tmp_path: Path) -> None:
    fixed, _, mask, _ = simulated
    for ending in (".nii.gz", ".nrrd", ".mha"):
        write_image(fixed, tmp_path / f"fixed{ending}")
        found, wanted = scans.read_scan(tmp_path / f"fixed{ending}"), read_image(tmp_path / f"fixed{ending}")
        assert np.array_equal(found.voxels, wanted.voxels.numpy())
        assert np.allclose(found.lattice.corners_mm(), wanted.grid.corners_mm().numpy(), atol=2e-3)
    write_label_map(mask, tmp_path / "mask.nii.gz")
    marked = scans.read_mask(tmp_path / "mask.nii.gz", scans.read_scan(tmp_path / "fixed.nii.gz"))
    assert int(marked.voxels.sum()) == mask.foreground_count()
