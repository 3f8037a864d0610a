"""What MR and ultrasound show of a pelvis' tissues."""

from collections.abc import Mapping

import torch
from torch import Tensor

from crossalign.simulation.ellipsoids import EllipsoidModel
from crossalign.simulation.random_fields import uniform
from crossalign.simulation.settings import Range
from crossalign.simulation.tissues import Tissues

# Mean intensities in T2-weighted MR and in ultrasound; that of the capsule is added to what it covers.
MEANS: dict[str, tuple[Range, Range]] = {
    "background": ((0.36, 0.65), (0.4, 0.85)),
    "wall": ((0.05, 0.22), (0.15, 0.55)),
    "obturator": ((0.04, 0.2), (0.2, 0.5)),
    "levator": ((0.05, 0.25), (0.2, 0.5)),
    "sling": ((0.06, 0.25), (0.3, 0.65)),
    "fossa": ((0.6, 1.0), (0.35, 0.75)),
    "floor": ((0.08, 0.28), (0.15, 0.55)),
    "pubis": ((0.2, 0.5), (0.1, 0.5)),
    "veins": ((0.25, 0.6), (0.2, 0.7)),
    "loose": ((0.15, 0.75), (0.2, 0.9)),
    "bladder_wall": ((0.2, 0.5), (0.2, 0.6)),
    "urine": ((0.5, 1.2), (0, 0.2)),
    "vesicles": ((0.5, 0.95), (0.1, 0.5)),
    "behind": ((0.12, 0.4), (0.55, 0.95)),
    "rectum_wall": ((0.15, 0.4), (0.5, 0.95)),
    "rectum_content": ((0.0, 0.3), (0.5, 1.0)),
    "gland": ((0.27, 0.43), (0.42, 0.75)),
    "capsule": ((-0.12, 0.0), (-0.1, 0.2)),
    "transition": ((0.24, 0.4), (0.34, 0.68)),
    "central": ((0.2, 0.4), (0.2, 0.55)),
    "stroma": ((0.12, 0.26), (0.25, 0.55)),
    "coat": ((0.2, 0.42), (0.3, 0.8)),
    "neck": ((0.25, 0.5), (0.1, 0.5)),
    "urethra": ((0.26, 0.5), (0.15, 0.5)),
    "nodule": ((0.2, 0.48), (0.2, 0.5)),
    "lesion": ((0.15, 0.32), (0.15, 0.35)),
    "cyst": ((0.8, 1.0), (0.0, 0.08)),
    "calcification": ((0.02, 0.15), (0.85, 1.1)),
}
T2 = {name: mr for name, (mr, _) in MEANS.items()}
ECHO = {name: ultrasound for name, (_, ultrasound) in MEANS.items()}


def draw_tissues(
    means: Mapping[str, Range],
    anatomy: EllipsoidModel,
    jitter: Tensor,
    randomised: Tensor,
    zones: Range,
    generator: torch.Generator,
) -> Tissues:
    """Draw intensities: U(range) of the table plus N(0, jitter (b,)), or anything in 0..1 where `randomised` (b,).

    What lies inside the gland differs from it by a fraction U(zones) of the table's difference. Ellipsoids of one name
    have one intensity. `loose0..` and `nodule0..` fall back to the table's `loose` and `nodule`.
    """
    outer, inner = anatomy.outer_names, anatomy.inner_names
    drawn: dict[str, Tensor] = {}
    for name in ("background", "gland", *outer, *inner):
        if name not in drawn:
            table = means[name] if name in means else means[name.rstrip("0123456789")]
            usual = uniform(table, (len(jitter),), generator) + jitter * torch.randn(len(jitter), generator=generator)
            anything = uniform((0.08, 1.0), (len(jitter),), generator)
            drawn[name] = torch.where(randomised, anything, usual.clamp(0.0, 1.6))
    capsule = uniform(means["capsule"], (len(jitter),), generator)
    rows = [torch.stack([drawn[name] for name in names], -1) for names in (outer, inner)]
    gland, contrast = drawn["gland"], uniform(zones, (len(jitter), 1), generator)
    inner_rows = gland[:, None] + contrast * (rows[1] - gland[:, None])
    return Tissues(drawn["background"], rows[0], gland, capsule * contrast[:, 0], inner_rows)
