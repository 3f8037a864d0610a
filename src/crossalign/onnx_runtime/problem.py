"""A pair of scans as networks see it: crops through a transform. The twin of `registration.context`."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from crossalign.errors import InputError
from crossalign.models.stage_settings import StageSettings
from crossalign.onnx_runtime.axes import ExpectedRotation, expected_rotation, frame_of, quarter_turn
from crossalign.onnx_runtime.motions import Array, Motion
from crossalign.onnx_runtime.networks import Answer, ExportedModel, Network
from crossalign.onnx_runtime.scans import Scan, at_working_spacing, scaled
from crossalign.onnx_runtime.structure import centroid_mm, crop_lattice, crop_points, surface_points


@dataclass(frozen=True, eq=False)
class Pair:
    """Two scans, the fixed structure's mask or None, the transform to begin with, and what is assumed.

    `initial` maps fixed to moving points. `orientation_deg` corrects wrong axes in both headers, a rotation about z.
    `prior` says whether the rotation prior of transrectal ultrasound is used.
    """

    fixed: Scan
    moving: Scan
    initial: Motion
    fixed_mask: Scan | None = None
    orientation_deg: int = 0
    prior: bool = True


@dataclass(frozen=True, eq=False)
class Problem:
    """A pair in the frame that crops are cut in, in which the fixed axes run along L, P and S."""

    pair: Pair
    frame: Motion
    model: ExportedModel
    _working: dict[tuple[str, float], Scan] = field(default_factory=dict, repr=False)

    @staticmethod
    def of(pair: Pair, model: ExportedModel) -> Problem:
        """Turn both worlds alike. Raises InputError where a network needs a mask and there is none."""
        labelled = any(one.settings.fixed_input == "label" for one in model.networks)
        if labelled and pair.fixed_mask is None:
            raise InputError("this model is given the structure's mask: name it as the fixed mask (--fixed-mask)")
        if any(one.settings.takes_moving_mask() for one in model.networks):
            raise InputError(
                "this model is given the moving image's mask too, which registration by exported files does not take: "
                "use `crossalign register`"
            )
        frame = frame_of(pair.fixed.lattice)
        mask = pair.fixed_mask
        turned = Pair(
            _turned(pair.fixed, frame),
            _turned(pair.moving, frame),
            frame @ pair.initial @ frame.inverse(),
            None if mask is None else _turned(mask, frame),
            pair.orientation_deg,
            pair.prior,
        )
        return Problem(turned, frame, model)

    def to_world(self, found: Motion) -> Motion:
        """Bring a transform of the frame back to the images' own space."""
        return self.frame.inverse() @ found @ self.frame

    @cached_property
    def rotation(self) -> Array:
        """The rotation (3, 3) from the fixed image's axes to the crops'."""
        return quarter_turn(self.pair.orientation_deg)

    @cached_property
    def center_mm(self) -> Array:
        """Where the crops lie: the mask's centroid, or the middle of the fixed image."""
        mask = self.pair.fixed_mask
        return self.pair.fixed.lattice.center_mm() if mask is None else centroid_mm(mask)

    @cached_property
    def points_mm(self) -> Array:
        """Points (n, 3) over which distances are measured."""
        if self.pair.fixed_mask is not None:
            return surface_points(self.pair.fixed_mask)
        settings = self.model.networks[0].settings
        return crop_points(settings.crop_shape, settings.crop_spacing_mm) + self.center_mm

    @cached_property
    def expected_rotation(self) -> ExpectedRotation | None:
        """What the prior says of the rotation; None where it is not used."""
        if not self.pair.prior or self.model.run.match_variance_mm2 == 0:
            return None
        return expected_rotation(self.pair.moving.lattice, self.pair.initial, self.rotation)

    def crops(self, settings: StageSettings, initial: Motion) -> tuple[Array, Array]:
        """Cut both crops (z, y, x) of a network through a transform."""
        lattice = crop_lattice(settings.crop_shape, settings.crop_spacing_mm, self.center_mm, self.rotation)
        fixed = self._ready(settings.fixed_input, settings.working_spacing_mm)
        moving = self._ready("moving", settings.working_spacing_mm)
        return fixed.resampled(lattice).voxels, moving.resampled(lattice, initial).voxels

    def mask_crop(self, settings: StageSettings) -> Array:
        """Cut the fixed mask as a network's fixed crop shows it; there must be one."""
        lattice = crop_lattice(settings.crop_shape, settings.crop_spacing_mm, self.center_mm, self.rotation)
        return self._ready("label", settings.working_spacing_mm).resampled(lattice).voxels

    def answer(self, network: Network, initial: Motion, prior: bool = True) -> tuple[Motion, Answer]:
        """Run a network from a transform: where it leads, and what the network said."""
        attraction = None
        if prior and self.expected_rotation is not None:
            shared = self.model.run.match_variance_mm2 * self.expected_rotation.attraction()
            attraction = self.rotation @ (initial.rotation.T @ shared) @ self.rotation.T
        found = network.answer(*self.crops(network.settings, initial), attraction)
        return initial @ self.from_crop(Motion.from_parameters(found.parameters)), found

    def from_crop(self, correction: Motion) -> Motion:
        """Make a correction of the images' space of one about the crop's centre, along its axes."""
        rotation = self.rotation.T @ correction.rotation @ self.rotation
        shift = self.rotation.T @ correction.translation_mm
        return Motion(rotation, self.center_mm + shift - rotation @ self.center_mm)

    def to_crop(self, correction: Motion) -> Motion:
        """Undo `from_crop`."""
        shift = self.rotation @ (correction.apply(self.center_mm) - self.center_mm)
        return Motion(self.rotation @ correction.rotation @ self.rotation.T, shift)

    def _ready(self, which: str, spacing_mm: float) -> Scan:
        key = (which, spacing_mm)
        if key not in self._working:
            mask = self.pair.fixed_mask
            if which == "label" and mask is not None:
                scan = mask
            else:
                scan = scaled(self.pair.moving if which == "moving" else self.pair.fixed)
            self._working[key] = at_working_spacing(scan, spacing_mm)
        return self._working[key]


def _turned(scan: Scan, frame: Motion) -> Scan:
    moved = scan.lattice.moved(frame)
    return scan if np.array_equal(frame.rotation, np.eye(3)) else Scan(scan.voxels, moved, scan.name)
