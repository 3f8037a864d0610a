"""explain on whole problems: stages in their order, moved worlds, and what cannot be explained."""

import dataclasses

import pytest
import torch
from tests.registration.toys import CENTER_MM, TRUTH, blob_problem, shift
from torch import Tensor

from crossalign.errors import InputError
from crossalign.explanation import explain, grad_cams, lever_mm, stage_views
from crossalign.explanation.map_files import check_point_names, tables, volumes
from crossalign.geometry import Grid, Rigid
from crossalign.images import Image
from crossalign.models import Stage, StageSettings
from crossalign.models.cascade_settings import CascadeSettings
from crossalign.networks import build_network
from crossalign.registration import Cascade, Problem, register

CPU = torch.device("cpu")
STEPS = 2


def stage(name: str, seed: int = 0, fixed_input: str = "image") -> Stage:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build_network(name, (8, 8, 8), 5.0).eval()
    return Stage(model, StageSettings(name, (8, 8, 8), 5.0, 3.0, fixed_input), {})


def cascade(*stages: Stage, run: CascadeSettings | None = None) -> Cascade:
    return Cascade(stages, CPU, "ours", CascadeSettings() if run is None else run)


PROBLEM = blob_problem(TRUTH @ shift(4.0, -3.0, 2.0))


def test_each_stage_starts_where_the_one_before_arrived() -> None:
    ours = cascade(stage("attention-reg"), stage("correspondence", 1))
    found = explain(PROBLEM, ours, {"middle": CENTER_MM}, STEPS)
    result = register(PROBLEM.fixed, PROBLEM.moving, ours, PROBLEM.initial, PROBLEM.fixed_mask)
    assert len(found.stages) == 2
    first, second = (one.view for one in found.stages)
    torch.testing.assert_close(first.start.matrix(), PROBLEM.initial.matrix())
    torch.testing.assert_close(second.start.matrix(), result.steps[0].fixed_to_moving.matrix())
    torch.testing.assert_close(second.found().matrix(), result.fixed_to_moving.matrix())
    assert [len(one.cams) for one in found.stages] == [4, 8]  # two kinds for each block
    assert [look.name for one in found.stages for look in one.attended_points] == ["middle", "middle"]
    for one in found.stages:
        torch.testing.assert_close(torch.tensor([p.value for p in one.parameters]).double(), one.view.parameters)
        for shown in one.maps():
            assert shown.image.voxels.dtype == torch.float32
            assert 0 <= float(shown.image.voxels.min()) <= float(shown.image.voxels.max()) <= 1


def test_a_moved_world_gives_the_same_maps() -> None:
    """Turning the moving scan's world, and the start with it, changes nothing of what the network is shown."""
    frame = Rigid.from_parameters(torch.tensor([12.0, -7, 30, 0, 0, 90], dtype=torch.float64), CENTER_MM)
    turned = blob_problem(TRUTH @ shift(4.0, -3.0, 2.0), frame)
    ours = cascade(stage("attention-reg"))
    for plain, moved in zip(cams_of(PROBLEM, ours), cams_of(turned, ours), strict=True):
        assert float((plain - moved).abs().max()) < 0.05


def cams_of(problem: Problem, ours: Cascade) -> list[Tensor]:
    (view,) = stage_views(ours, problem)
    return [cam.image.voxels for cam in grad_cams(view, lever_mm(problem, view))]


def test_the_same_problem_gives_the_same_maps() -> None:
    ours = cascade(stage("correspondence"))
    for a, b in zip(cams_of(PROBLEM, ours), cams_of(PROBLEM, ours), strict=True):
        assert torch.equal(a, b)


def test_an_oblique_fixed_scan_is_explained_with_a_warning() -> None:
    """`register` cuts its crops along the scan's axes there; storage in another order is no cause to warn."""
    turn = Rigid.from_parameters(torch.tensor([0.0, 0, 0, 0, 0, 20], dtype=torch.float64), CENTER_MM)
    grid = PROBLEM.fixed.grid
    for direction, warned in ((turn.rotation, True), (torch.diag(torch.tensor([-1.0, -1.0, 1.0])), False)):
        a, b, c = (tuple(row) for row in direction.tolist())
        other = Image(PROBLEM.fixed.voxels, Grid(grid.shape, grid.spacing_mm, (0.0, 0.0, 0.0), (a, b, c)), "mr")
        moved = shift(*(PROBLEM.fixed.grid.center_mm() - other.grid.center_mm()).tolist())
        problem = Problem(other, PROBLEM.moving, PROBLEM.initial @ moved, None)
        told = [
            one for one in explain(problem, cascade(stage("feature-reg")), None, STEPS).warnings if "oblique" in one
        ]
        assert bool(told) is warned


def test_lever_of_a_ball_and_of_a_crop() -> None:
    (view,) = stage_views(cascade(stage("attention-reg")), PROBLEM)
    # Of a ball the mean square distance is 3/5 r^2; its mask is made of voxels of 3 mm.
    assert lever_mm(PROBLEM, view) == pytest.approx(15 * (0.6 * 2 / 3) ** 0.5, rel=0.05)
    assert lever_mm(dataclasses.replace(PROBLEM, fixed_mask=None), view) == 10.0


@pytest.mark.parametrize("name", ["feature-reg", "dvnet"])
def test_without_attention_there_is_attribution_and_a_warning(name: str) -> None:
    ours = cascade(stage(name))
    found = explain(PROBLEM, ours, steps=1)
    assert found.stages[0].cams == ()
    assert len(found.stages[0].parameters) == 6
    assert any(f"stage 1 ({name}) has no attention" in text for text in found.warnings)
    with pytest.raises(InputError, match="no stage of 'ours' has attention, so no point can be followed"):
        explain(PROBLEM, ours, {"middle": CENTER_MM}, 1)


def test_a_mixed_cascade_explains_what_it_can() -> None:
    found = explain(PROBLEM, cascade(stage("feature-reg"), stage("attention-reg")), {"middle": CENTER_MM}, STEPS)
    assert [len(one.attended_points) for one in found.stages] == [0, 1]
    assert [len(one.cams) for one in found.stages] == [0, 4]
    names = set(volumes(found))
    assert {"stage1-tx.nii.gz", "stage2-gradcam-fixed.nii.gz", "stage2-point-middle-on-moving.nii.gz"} <= names
    assert not any(name.startswith("stage1-gradcam") for name in names)
    rows = tables(found)
    assert [len(rows[name]) for name in ("parameters.csv", "attention.csv", "points.csv")] == [13, 5, 2]
    assert all(len(row) == len(table[0]) for table in rows.values() for row in table)


def test_label_mode_needs_its_mask() -> None:
    ours = cascade(stage("attention-reg", fixed_input="label"))
    explain(PROBLEM, ours, steps=1)
    with pytest.raises(InputError, match="--fixed-mask"):
        explain(dataclasses.replace(PROBLEM, fixed_mask=None), ours, steps=1)


def test_points_beyond_the_crop_and_ways_of_running() -> None:
    ours = cascade(stage("attention-reg"), run=CascadeSettings(starts=3))
    with pytest.raises(InputError, match="lies outside what stage 1"):
        explain(PROBLEM, ours, {"far": CENTER_MM + 60}, STEPS)
    warnings = explain(PROBLEM, ours, steps=1).warnings
    assert any("explained is one pass of each stage" in text for text in warnings)


@pytest.mark.parametrize("names", [("a/b",), ("..",), ("",), ("one", "ONE")])
def test_names_that_no_file_can_have(names: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match=r"file's name|named twice"):
        check_point_names(names)
