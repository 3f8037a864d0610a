"""What "any two modalities" are drawn from: scenes of smooth random shapes, and two unrelated views of them."""

from dataclasses import dataclass, field, fields

from crossalign.errors import InputError
from crossalign.simulate.settings import DeformationSettings, PoseSettings, Range


@dataclass(frozen=True)
class ShapeSettings:
    """Scenes and views. The defaults are wide; set a range to (0, 0) or a share to 0 to leave that part out.

    `radius_mm` is the main body's mean half axis, `crowd` the share of the bodies around and inside it that are there,
    and `turn_deg` how far a scene is turned off its axis orientation. `related_share` of the pairs show one hidden
    property through two maps; in the others each body has a property of its own in each view. `monotone_share` of the
    maps rise or fall throughout. `unseen_share` of the bodies are missing in a view. `texture` is what both views see
    of the property's waves, `grain` and `speckle` are each view's own, and `partial_share` of the views show a part.
    """

    radius_mm: Range = (14.0, 34.0)
    asymmetry_mm: Range = (0.3, 3.5)
    crowd: Range = (0.3, 1.0)
    turn_deg: Range = (0.0, 25.0)
    related_share: float = 0.5
    monotone_share: float = 0.4
    unseen_share: float = 0.15
    texture: Range = (0.0, 0.12)
    grain: Range = (0.02, 0.25)
    speckle: Range = (0.0, 0.4)
    noise: Range = (0.002, 0.04)
    bias: Range = (0.0, 0.4)
    slice_mm: Range = (1.5, 4.0)
    blur_mm: Range = (0.6, 4.0)
    partial_share: float = 0.6
    edge_mm: Range = (0.5, 10.0)
    pose: PoseSettings = field(default_factory=lambda: PoseSettings(turned_share=0.0))
    deformation: DeformationSettings = field(default_factory=DeformationSettings)

    def __post_init__(self) -> None:
        for item in fields(self):
            value, where = getattr(self, item.name), f"ShapeSettings.{item.name}"
            if isinstance(value, tuple) and not (len(value) == 2 and 0 <= value[0] <= value[1] < 1e3):
                raise InputError(f"{where} must be a range (low, high) from 0 upwards, got {value}")
            if item.name.endswith("_share") and not 0 <= value <= 1:
                raise InputError(f"{where} must lie in 0..1, got {value}")
        if self.radius_mm[0] < 5 or self.edge_mm[0] <= 0 or self.crowd[1] > 1:
            raise InputError(
                "ShapeSettings needs radius_mm of 5 or more, edge_mm over 0 and crowd in 0..1, "
                f"got {self.radius_mm}, {self.edge_mm} and {self.crowd}"
            )
        if self.pose.turned_share:
            raise InputError(
                "ShapeSettings.pose.turned_share must be 0, since all axis orientations occur anyway, "
                f"got {self.pose.turned_share}"
            )
