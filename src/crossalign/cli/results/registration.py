"""What `register`, `demo`, `explain`, `apply` and `batch` return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

Point: TypeAlias = tuple[float, ...]  # x, y, z in LPS mm
Matrix: TypeAlias = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class ReferenceErrors:
    """Errors against the true transform, before and after the registration."""

    sre_before_mm: float
    """SRE of the initial transform."""
    sre_after_mm: float
    """SRE of the answer."""
    center_before_mm: float
    """Distance of the structure's centre from where it belongs, of the initial transform."""
    center_after_mm: float
    """The same of the answer."""
    angle_before_deg: float
    """Angle of the rotation that is left, of the initial transform."""
    angle_after_deg: float
    """The same of the answer."""


@dataclass(frozen=True)
class RegisterResult:
    """A registration: the entries of its record (`register --record`), and the errors against a reference."""

    method: str
    """Method that was run."""
    fixed_to_moving: list[list[float]]
    """4 x 4 matrix that maps fixed points (x, y, z, 1) to moving points, LPS, mm."""
    expected_sre_mm: float | None
    """SRE that the method expects of its answer."""
    bound: Mapping[str, float] | None
    """`sre_mm`, under which the true SRE lies with `probability`."""
    trusted: bool | None
    """Whether nothing speaks against the answer; null where the method cannot tell."""
    reasons: list[str]
    """Why the answer is not to be trusted, each with what to try next."""
    errors: ReferenceErrors | None
    """Errors against `--reference`; null without one."""
    motion: Mapping[str, Any]
    """How the structure was moved: `center_mm`, `translation_mm`, `rotation_deg`, `shift_mm`, `angle_deg`."""
    initialisation: Mapping[str, Any]
    """Where it began: `name`, `reason`, `fixed_to_moving`, `landmarks`."""
    orientation: Mapping[str, Any] | None
    """Where the axes of the scans were taken to point, and how sure that is."""
    assumed: list[str]
    """What was assumed beforehand."""
    evidence: Mapping[str, float | None]
    """Numbers, by name, that the expected SRE is made of."""
    covariance: list[list[float]] | None
    """6 x 6, of the six parameters, where the method gives it."""
    steps: list[Mapping[str, Any]]
    """Each step of the method: `name`, `seconds`, `fixed_to_moving`."""
    seconds: float
    """Time of the method, without reading and writing."""
    files: Mapping[str, str | None]
    """Names of the inputs by their part, without folders."""
    settings: Mapping[str, str]
    """Everything that decided the outcome."""


@dataclass(frozen=True)
class DemoResult:
    """The demonstration's pair and its registration."""

    folder: Path
    """Folder with the pair and the result."""
    report: Path
    """HTML report."""
    registration: RegisterResult
    """The registration, as `register` returns it."""


@dataclass(frozen=True)
class ParameterResult:
    """One of the six parameters that a stage answered."""

    name: str
    """tx, ty, tz, rx, ry or rz."""
    unit: str
    """mm or degrees."""
    value: float
    """The stage's answer."""
    fixed_fraction: float
    """The fixed crop's part of the attributions' sizes; the rest is the moving crop's."""


@dataclass(frozen=True)
class PointResult:
    """What a point of the fixed image attends to."""

    name: str
    """Name of the point."""
    point_mm: Point
    """The point, in the fixed image."""
    attended_mm: Point
    """Weighted mean of the positions that it attends to, in the moving image."""
    matched_mm: Point | None
    """The network's own match, where it makes one."""


@dataclass(frozen=True)
class StageResult:
    """One application of a network."""

    name: str
    """Name of the application."""
    parameters: tuple[ParameterResult, ...]
    """Its six parameters."""
    points: tuple[PointResult, ...]
    """The points that were asked for."""


@dataclass(frozen=True)
class ExplainResult:
    """What the networks of a registration attended to."""

    method: str
    """Method that was explained."""
    initial: str
    """Name of the initialisation."""
    trusted: bool | None
    """Whether nothing speaks against the answer; null where the method cannot tell."""
    reasons: tuple[str, ...]
    """Why the answer is not to be trusted."""
    stages: tuple[StageResult, ...]
    """Each application of a network, in order."""
    folder: Path
    """Folder of the maps, tables and pages."""
    report: Path
    """HTML report."""


@dataclass(frozen=True)
class ApplyResult:
    """What was resampled or mapped."""

    kind: str
    """image, label map or points."""
    direction: str
    """From which image's space to which: fixed-to-moving or moving-to-fixed."""
    points: int | None
    """How many points were mapped; null for images."""
    shape_voxels: tuple[int, ...] | None
    """Shape of the output's grid along its x, y and z axes; null for points."""
    spacing_mm: tuple[float, ...] | None
    """Spacing of the output's grid along the same axes; null for points."""
    overlap_fraction: float | None
    """How much of the smaller of the two grids lies on the other; null for points."""
    fill: float | None
    """Value of voxels outside the input; null for points, and where it is NaN."""


@dataclass(frozen=True)
class CaseResultEntry:
    """One case of a cohort."""

    case: str
    """Its name."""
    method: str
    """Method that was run; empty where the case failed before."""
    expected_sre_mm: float | None
    """SRE that the method expects of its answer."""
    trusted: bool | None
    """Whether nothing speaks against the answer; null where it is not known."""
    reasons: tuple[str, ...]
    """Why the answer is not to be trusted."""
    warnings: tuple[str, ...]
    """Warnings about its files and its registration."""
    error: str
    """Why the case failed; empty where it did not."""
    seconds: float
    """Time of the case."""


@dataclass(frozen=True)
class BatchResult:
    """A cohort."""

    cases: int
    """How many cases have a result or failed."""
    trusted: int
    """How many answers are trusted."""
    unknown: int
    """How many have no verdict."""
    untrusted: int
    """How many are not to be trusted."""
    failed: int
    """How many cases failed."""
    finished_before: int
    """How many were finished by an earlier run of the same command."""
    results: tuple[CaseResultEntry, ...]
    """Each case, in order."""
