"""Why the answer of networks is not to be trusted, in words, each with what to try next. Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from crossalign.models.calibration import Calibration

WEIGHTY_MM = 0.5  # what evidence must add to the expected SRE to be given as a reason
MOST_REASONS = 3
OTHER_METHODS = "--method mind-best or mi"
TRY_NEXT = (
    "begin closer (--initial), search for an initialisation (--search), check the headers (--orientation-correction), "
    f"or try {OTHER_METHODS}"
)


@dataclass(frozen=True)
class Cause:
    """Why evidence is bad: the names of the evidence, what it says in words, and what to try next."""

    names: tuple[str, ...]
    words: Callable[[Mapping[str, float]], str]
    try_next: str


CAUSES = (
    Cause(
        ("fixed_dice",),
        lambda of: (
            f"what the network takes for the structure in the fixed image overlaps its mask by {of['fixed_dice']:.0%}"
        ),
        "check the mask and its orientation; the networks know the prostate in MR and in transrectal ultrasound: for "
        f"another organ or modality use {OTHER_METHODS}",
    ),
    Cause(
        ("moving_dice", "center_gap_mm", "volume_ratio", "blur"),
        lambda of: (
            "what the network takes for the structure in the moving image overlaps the answer by "
            f"{of['moving_dice']:.0%}"
        ),
        "check that the moving image is a transrectal ultrasound of the prostate and how it is oriented; for another "
        f"organ or modality use {OTHER_METHODS}",
    ),
    Cause(
        ("moving_rough", "fixed_rough", "moving_sd", "information"),
        lambda _: "the grey levels are unlike those of a prostate MR with a transrectal ultrasound",
        f"look at both images; for another organ or modality use {OTHER_METHODS}",
    ),
    Cause(
        ("prior_deg",),
        lambda of: (
            f"its rotation is {of['prior_deg']:.0f} degrees from what is usual between a prostate MR and a transrectal "
            "ultrasound"
        ),
        "check how the headers name the axes, and the initial transform (--initial)",
    ),
    Cause(
        ("unlikely",),
        lambda of: (
            "the moving image does not look as it does where the initial transform is right (probability "
            f"{10 ** -of['unlikely']:.0%})"
        ),
        "check the transform, or begin at --initial mask-center",
    ),
    Cause(
        ("start_mm", "start_deg"),
        lambda of: f"it lies {of['start_mm']:.0f} mm and {of['start_deg']:.0f} degrees from the initial transform",
        "begin closer (--initial), or register again from this answer",
    ),
    Cause(
        ("outside", "moving_empty", "centre_empty"),
        lambda of: f"{of['outside']:.0%} of the structure lies outside the moving image, or where it shows nothing",
        "begin closer (--initial), or give a moving image that shows the whole structure",
    ),
    Cause(
        ("return_mm", "parted_mm", "check_sre_mm", "fit_residual_mm"),
        lambda of: f"run again from 6 mm beside it, the networks end {of['return_mm']:.1f} mm away",
        "begin closer (--initial), average several initialisations (--initialisations 8), or try another --method",
    ),
)


def reasons_against(calibration: Calibration, expected_mm: float, evidence: Mapping[str, float]) -> tuple[str, ...]:
    """Say why an answer with this expected SRE is not to be trusted; () where it is within the threshold."""
    if expected_mm <= calibration.threshold_mm:
        return ()
    first = f"its expected SRE is {expected_mm:.1f} mm, over the limit of {calibration.threshold_mm:.1f} mm"
    causes = _causes(calibration, evidence)
    if not causes:
        return (f"{first}; {TRY_NEXT}",)
    reasons = [f"{cause.words(evidence)}; {cause.try_next}" for cause in causes]
    return (f"{first}: {reasons[0]}", *reasons[1:])


def _causes(calibration: Calibration, evidence: Mapping[str, float]) -> list[Cause]:
    """Choose the causes of a large expected SRE, that which adds most to it first."""
    found: list[Cause] = []
    for name in calibration.weightiest(evidence, WEIGHTY_MM):
        found += [cause for cause in CAUSES if name in cause.names and cause not in found]
    return found[:MOST_REASONS]
