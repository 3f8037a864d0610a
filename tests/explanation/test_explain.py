"""explain on whole problems: stages in their order, moved worlds, and what cannot be explained."""

import dataclasses
from typing import Literal

import pytest
import torch
from tests.explanation import planted
from tests.registration.toys import CENTER_MM, TRUTH, blob_problem, method, shift
from torch import Tensor, nn

from crossalign.errors import InputError
from crossalign.explanation import StageCrop, explain, grad_cams, lever_mm, stage_crops
from crossalign.explanation.map_files import check_point_names, map_volumes, tables
from crossalign.geometry import Grid, Rigid, sample
from crossalign.images import Image, LabelMap
from crossalign.images.preprocessing import preprocess
from crossalign.models import Cascade, Ensemble, Stage, StageSettings
from crossalign.networks import build_network
from crossalign.networks.capabilities import AttentionBlock, AttentionRow, TokenGrid
from crossalign.registration import NetworkRegistration, Problem, RegistrationResult, register

STEPS = 2
MOTION = Rigid.from_parameters(torch.tensor([7.0, -4, 9, 14, -11, 23], dtype=torch.float64), CENTER_MM)


def stage(name: str, seed: int = 0, fixed_input: Literal["image", "label"] = "image") -> Stage:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build_network(name, (8, 8, 8), 5.0).eval()
    return Stage(network, StageSettings(name, (8, 8, 8), 5.0, 3.0, fixed_input), {})


def cascade(*stages: Stage) -> NetworkRegistration:
    return method(Cascade(stages))


def ensemble(**settings: object) -> NetworkRegistration:
    return method(
        Ensemble((stage("attention-reg"), stage("correspondence", 1), stage("correspondence", 2))), **settings
    )


def registered(problem: Problem, ours: NetworkRegistration) -> RegistrationResult:
    return register(problem.fixed, problem.moving, ours, problem.initial, problem.fixed_mask)


def oblique(problem: Problem) -> Problem:
    """The same scans, both worlds turned by one motion: the fixed scan's axes are no longer L, P and S."""
    fixed, moving = (_moved(image.grid) for image in (problem.fixed, problem.moving))
    assert problem.fixed_mask is not None
    return Problem(
        Image(problem.fixed.voxels, fixed),
        Image(problem.moving.voxels, moving),
        MOTION @ problem.initial @ MOTION.inverse(),
        LabelMap(problem.fixed_mask.labels, fixed),
    )


def _moved(grid: Grid) -> Grid:
    a, b, c = (MOTION.rotation @ torch.tensor(grid.direction, dtype=torch.float64)).tolist()
    x, y, z = MOTION.apply(torch.tensor([grid.origin_mm], dtype=torch.float64))[0].tolist()
    return Grid(grid.shape, grid.spacing_mm, (x, y, z), ((a[0], a[1], a[2]), (b[0], b[1], b[2]), (c[0], c[1], c[2])))


PROBLEM = blob_problem(TRUTH @ shift(4.0, -3.0, 2.0))


RUNS = {
    "cascade": (cascade(stage("attention-reg"), stage("correspondence", 1)), PROBLEM),
    "ensemble of two passes": (ensemble(max_passes=2, refinement_step=0.75, refinement_step_z=0.0), PROBLEM),
    "oblique fixed scan": (ensemble(max_passes=2), oblique(PROBLEM)),
    "oblique, orientation corrected": (ensemble(orientation_correction=90), oblique(PROBLEM)),
    "several initialisations": (ensemble(initialisations=3), PROBLEM),
}


@pytest.mark.parametrize("run", RUNS)
def test_what_is_explained_is_what_register_does(run: str) -> None:
    """The crops that are cut again lead the networks to the answers whose mean the registration is."""
    ours, problem = RUNS[run]
    found = explain(problem, ours, steps=1)
    result = registered(problem, ours)
    assert torch.equal(found.result.fixed_to_moving.matrix(), result.fixed_to_moving.matrix())
    crops = [one.crop for one in found.stages]
    applications = [one for step in result.steps for one in step.applications if one.initialisation == 0]
    for crop, application in zip(crops, applications, strict=True):
        assert torch.equal(crop.application.answer.matrix(), application.answer.matrix())
        torch.testing.assert_close(answered(crop).matrix(), application.answer.matrix(), atol=1e-4, rtol=0)
        assert_cut_there(crop, problem)
    steps = len(result.steps)
    assert sum(one.weight for step in result.steps for one in step.applications) == pytest.approx(steps)
    assert any("from 3 initialisations" in text for text in found.warnings) is (run == "several initialisations")


def answered(crop: StageCrop) -> Rigid:
    """The network's answer to the crops, brought from the crop's axes to the fixed image's space."""
    with torch.no_grad():
        parameters = crop.stage.network(crop.fixed, crop.moving)[0].double()
    axes, center_mm = torch.tensor(crop.grid.direction, dtype=torch.float64), crop.grid.center_mm()
    local = Rigid.from_parameters(parameters, torch.zeros(3, dtype=torch.float64))
    rotation = axes @ local.rotation @ axes.T
    return crop.initial @ Rigid(rotation, center_mm + axes @ local.translation_mm - rotation @ center_mm)


def assert_cut_there(crop: StageCrop, problem: Problem) -> None:
    """Both crops show what lies at the crop's grid, and where the initial transform puts it."""
    points = crop.grid.points_mm().flatten(0, 2)
    for voxels, image, at in (
        (crop.fixed, problem.fixed, points),
        (crop.moving, problem.moving, crop.initial.apply(points)),
    ):
        whole = preprocess(image, crop.stage.settings.working_spacing_mm)
        index = whole.grid.to_voxel(at).reshape(1, *crop.grid.shape, 3)
        assert planted.correlation(sample(whole.voxels[None, None], index)[0, 0], voxels[0, 0]) > 0.99


def test_each_stage_goes_on_from_the_one_before() -> None:
    ours = cascade(stage("attention-reg"), stage("correspondence", 1))
    found = explain(PROBLEM, ours, {"middle": CENTER_MM}, STEPS)
    first, second = (one.crop for one in found.stages)
    torch.testing.assert_close(first.initial.matrix(), PROBLEM.initial.matrix())
    torch.testing.assert_close(second.initial.matrix(), first.application.answer.matrix())
    torch.testing.assert_close(second.application.answer.matrix(), found.result.fixed_to_moving.matrix())
    assert [len(one.cams) for one in found.stages] == [4, 8]  # two kinds for each block
    assert [point.name for one in found.stages for point in one.attended_points] == ["middle", "middle"]
    for one in found.stages:
        torch.testing.assert_close(torch.tensor([p.value for p in one.parameters]).double(), one.crop.parameters)
        for crop_map in one.maps():
            voxels = crop_map.image.voxels
            assert voxels.dtype == torch.float32
            assert 0 <= float(voxels.min()) <= float(voxels.max()) <= 1


def test_passes_are_told_apart() -> None:
    found = explain(PROBLEM, ensemble(max_passes=2), {"middle": CENTER_MM}, 1)
    assert [one.crop.label for one in found.stages] == [f"stage{n}-pass{p}" for p in (1, 2) for n in (1, 2, 3)]
    assert found.stages[-1].crop.name == "stage 3 (correspondence), pass 2"
    assert "stage2-pass2-point-middle-on-moving.nii.gz" in map_volumes(found)
    assert [row[:2] for row in tables(found)["points.csv"][1:]] == [(str(n), str(p)) for p in (1, 2) for n in (1, 2, 3)]


def test_an_oblique_world_gives_the_same_maps_and_points() -> None:
    ours, there = cascade(stage("attention-reg"), stage("correspondence", 1)), oblique(PROBLEM)
    point = CENTER_MM + 3
    plain = explain(PROBLEM, ours, {"middle": point}, 1)
    turned = explain(there, ours, {"middle": MOTION.apply(point[None])[0]}, 1)
    for one, other in zip(plain.stages, turned.stages, strict=True):
        for a, b in zip(one.maps(), other.maps(), strict=True):
            torch.testing.assert_close(a.image.voxels, b.image.voxels, atol=0.02, rtol=0)
        for point_a, point_b in zip(one.attended_points, other.attended_points, strict=True):
            for field in ("attended_mm", "matched_mm", "answer_mm"):
                before, after = getattr(point_a, field), getattr(point_b, field)
                assert (before is None) is (after is None)
                if before is not None:
                    torch.testing.assert_close(MOTION.apply(before[None])[0], after, atol=0.2, rtol=0)


def test_a_moved_world_gives_the_same_maps() -> None:
    """Turning the moving scan's world, and the initial transform with it, changes nothing of the crops."""
    frame = Rigid.from_parameters(torch.tensor([12.0, -7, 30, 0, 0, 90], dtype=torch.float64), CENTER_MM)
    turned = blob_problem(TRUTH @ shift(4.0, -3.0, 2.0), frame)
    ours = cascade(stage("attention-reg"))
    for plain, moved in zip(cams_of(PROBLEM, ours), cams_of(turned, ours), strict=True):
        assert float((plain - moved).abs().max()) < 0.05


def cams_of(problem: Problem, ours: NetworkRegistration) -> list[Tensor]:
    (crop,) = crops_of(problem, ours)
    return [cam.image.voxels for cam in grad_cams(crop, lever_mm(problem, crop))]


def crops_of(problem: Problem, ours: NetworkRegistration) -> tuple[StageCrop, ...]:
    return stage_crops(
        problem, ours, register(problem.fixed, problem.moving, ours, problem.initial, problem.fixed_mask)
    )


def test_the_same_problem_gives_the_same_maps() -> None:
    ours = cascade(stage("correspondence"))
    for a, b in zip(cams_of(PROBLEM, ours), cams_of(PROBLEM, ours), strict=True):
        assert torch.equal(a, b)


def test_lever_of_a_ball_and_of_a_crop() -> None:
    (crop,) = crops_of(PROBLEM, cascade(stage("attention-reg")))
    # Of a ball the mean square distance is 3/5 r^2; its mask is made of voxels of 3 mm.
    assert lever_mm(PROBLEM, crop) == pytest.approx(15 * (0.6 * 2 / 3) ** 0.5, rel=0.05)
    assert lever_mm(dataclasses.replace(PROBLEM, fixed_mask=None), crop) == 10.0


@pytest.mark.parametrize("name", ["feature-reg", "dvnet"])
def test_without_attention_there_is_attribution_and_a_warning(name: str) -> None:
    ours = cascade(stage(name))
    found = explain(PROBLEM, ours, steps=1)
    assert found.stages[0].cams == ()
    assert len(found.stages[0].parameters) == 6
    assert any(f"stage 1 ({name}) has no attention" in text for text in found.warnings)
    with pytest.raises(InputError, match="no stage of 'toy' has attention, so no point can be followed"):
        explain(PROBLEM, ours, {"middle": CENTER_MM}, 1)


def test_a_mixed_cascade_explains_what_it_can() -> None:
    found = explain(PROBLEM, cascade(stage("feature-reg"), stage("attention-reg")), {"middle": CENTER_MM}, STEPS)
    assert [len(one.attended_points) for one in found.stages] == [0, 1]
    assert [len(one.cams) for one in found.stages] == [0, 4]
    names = set(map_volumes(found))
    assert {"stage1-tx.nii.gz", "stage2-gradcam-fixed.nii.gz", "stage2-point-middle-on-moving.nii.gz"} <= names
    assert not any(name.startswith("stage1-gradcam") for name in names)
    rows = tables(found)
    assert [len(rows[name]) for name in ("parameters.csv", "attention.csv", "points.csv")] == [13, 5, 2]
    assert all(len(row) == len(table[0]) for table in rows.values() for row in table)


class NewNetwork(nn.Module):
    """A network that no room knows: it says by protocol where it attends, and answers with a shift along x."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv3d(1, 3, 3, stride=2, padding=1)

    def forward(self, fixed: Tensor, moving: Tensor) -> Tensor:
        shift = (self.features(moving) - self.features(fixed)).mean((1, 2, 3, 4))
        return torch.stack((shift, *[torch.zeros_like(shift)] * 5), dim=1) + 0 * fixed.sum()

    def attention_blocks(self) -> tuple[AttentionBlock, ...]:
        return (AttentionBlock("moving", self.features),)

    def token_grid(self) -> TokenGrid:
        return TokenGrid((4, 4, 4), (2, 2, 2))

    def attention_row(self, fixed: Tensor, moving: Tensor, token: int) -> AttentionRow:  # noqa: ARG002 (the protocol's)
        return AttentionRow(nn.functional.one_hot(torch.tensor(token), 64).double())


def test_a_new_network_is_explained_without_an_edit() -> None:
    known = stage("feature-reg")
    with torch.random.fork_rng():
        torch.manual_seed(4)
        ours = cascade(dataclasses.replace(known, network=NewNetwork().eval()))
    (one,) = explain(PROBLEM, ours, {"middle": CENTER_MM}, STEPS).stages
    assert [cam.name for cam in one.cams] == ["gradcam-moving", "local-moving"]
    (point,) = one.attended_points
    assert point.largest_weight == 1
    assert point.effective_tokens == pytest.approx(1)
    torch.testing.assert_close(point.attended_mm, PROBLEM.initial.apply(point.token_mm[None])[0])
    assert float((point.token_mm - CENTER_MM).abs().max()) <= 5.0  # tokens are 10 mm apart


def test_label_mode_needs_its_mask() -> None:
    ours = cascade(stage("attention-reg", fixed_input="label"))
    explain(PROBLEM, ours, steps=1)
    with pytest.raises(InputError, match="--fixed-mask"):
        explain(dataclasses.replace(PROBLEM, fixed_mask=None), ours, steps=1)


def test_points_beyond_the_crop_are_refused() -> None:
    ours = cascade(stage("attention-reg"))
    with pytest.raises(InputError, match="lies outside the crop of stage 1"):
        explain(PROBLEM, ours, {"far": CENTER_MM + 60}, STEPS)


@pytest.mark.parametrize("names", [("a/b",), ("..",), ("",), ("one", "ONE")])
def test_names_that_no_file_can_have(names: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match=r"file's name|named twice"):
        check_point_names(names)
