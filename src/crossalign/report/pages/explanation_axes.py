"""An explanation along the patient's axes, for pictures, where the header of the fixed image was not believed."""

from __future__ import annotations

from dataclasses import replace

from crossalign.explanation import AttendedPoint, CropMap, Explanation, StageExplanation
from crossalign.geometry import Rigid
from crossalign.images import Image, LabelMap
from crossalign.registration.patient_axes import along_patient, patient_turn, turned_grid
from crossalign.types import Vector


def explanation_turn(explanation: Explanation) -> Rigid | None:
    """Return the rotation from the fixed header's axes to the patient's, about the origin; None where they are one."""
    return patient_turn(explanation.result, explanation.problem.fixed_to_patient)


def along_patient_axes(explanation: Explanation) -> Explanation:
    """Return the explanation with both worlds turned to the patient's axes: voxels and values stay as they are.

    Its points, transforms and grids are then along L, P and S, and no longer those of the files.
    """
    turn = explanation_turn(explanation)
    if turn is None:
        return explanation
    problem, mask = explanation.problem, explanation.problem.fixed_mask
    moving_mask = problem.moving_mask
    return replace(
        explanation,
        problem=replace(
            problem,
            fixed=_turned_image(problem.fixed, turn),
            moving=_turned_image(problem.moving, turn),
            fixed_mask=None if mask is None else _turned_mask(mask, turn),
            moving_mask=None if moving_mask is None else _turned_mask(moving_mask, turn),
            initial=_turned_transform(problem.initial, turn),
            fixed_to_patient=None,
        ),
        result=along_patient(explanation.result, turn),
        stages=tuple(_turned_stage(stage, turn) for stage in explanation.stages),
    )


def _turned_stage(stage: StageExplanation, turn: Rigid) -> StageExplanation:
    crop = stage.crop
    application = replace(crop.application, initial=_turned_transform(crop.initial, turn))
    return replace(
        stage,
        crop=replace(crop, grid=turned_grid(crop.grid, turn), application=application),
        cams=tuple(_turned_map(cam, turn) for cam in stage.cams),
        attended_points=tuple(_turned_point(point, turn) for point in stage.attended_points),
        parameters=tuple(replace(one, map=_turned_map(one.map, turn)) for one in stage.parameters),
    )


def _turned_point(point: AttendedPoint, turn: Rigid) -> AttendedPoint:
    def turned(position: Vector) -> Vector:
        return turn.apply(position.cpu().double()[None])[0]

    return replace(
        point,
        point_mm=turned(point.point_mm),
        token_mm=turned(point.token_mm),
        map=_turned_map(point.map, turn),
        initial_mm=turned(point.initial_mm),
        attended_mm=turned(point.attended_mm),
        matched_mm=None if point.matched_mm is None else turned(point.matched_mm),
        answer_mm=turned(point.answer_mm),
    )


def _turned_map(one: CropMap, turn: Rigid) -> CropMap:
    return replace(one, image=_turned_image(one.image, turn))


def _turned_image(image: Image, turn: Rigid) -> Image:
    return replace(image, grid=turned_grid(image.grid, turn))


def _turned_mask(mask: LabelMap, turn: Rigid) -> LabelMap:
    return replace(mask, grid=turned_grid(mask.grid, turn))


def _turned_transform(transform: Rigid, turn: Rigid) -> Rigid:
    return turn @ transform.to("cpu", turn.rotation.dtype) @ turn.inverse()
