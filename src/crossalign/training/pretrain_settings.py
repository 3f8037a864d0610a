"""Settings of contrastive pre-training; they validate themselves and are saved beside the weights."""

import math
from dataclasses import dataclass, field

from crossalign.errors import InputError
from crossalign.models import StageSettings
from crossalign.training.settings import PRECISIONS, Augmentation, check_most

HEADS = ("linear", "mlp", "none")
MOST = {"steps": 10**8, "width": 65_536, "val_every": 10**8, "batch": 65_536, "places": 10**6}


@dataclass(frozen=True)
class PretrainSettings:
    """One pre-training of a network's two extractors. docs/pretraining.md says why each default is what it is.

    The crops start `start_sre_mm` off: at 0 the same place has the same index in both maps, and whatever the start the
    positive is the true place. Of each crop `places` places are contrasted, at a `temperature`; those within
    `margin_mm` of the positive are left out. `head` stands between features and contrast in each modality (`linear`,
    `mlp`, `none`), with `width` outputs. `seen_only` keeps to places where the moving image is not empty. Retrieval
    counts a match within `radius_mm`. `patients` is the share of the training patients that is used.
    """

    stage: StageSettings = field(default_factory=StageSettings)
    steps: int = 1000
    batch: int = 16
    rate: float = 1e-3
    weight_decay: float = 1e-2
    start_sre_mm: tuple[float, float] = (0.0, 0.0)
    temperature: float = 0.1
    places: int = 128
    margin_mm: float = 10.0
    head: str = "linear"
    width: int = 32
    seen_only: bool = True
    radius_mm: float = 10.0
    val_every: int = 100
    average: float = 0.995
    precision: str = "auto"
    seed: int = 0
    patients: float = 1.0
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        low, high = self.start_sre_mm
        if not 0 <= low <= high < math.inf:
            raise InputError(f"the starts' SRE runs from 0 or more upwards and is finite, got {self.start_sre_mm} mm")
        for name, least in (("steps", 1), ("width", 1), ("val_every", 1), ("batch", 2), ("places", 2)):
            if getattr(self, name) < least:
                raise InputError(f"'{name}' must be {least} or more, got {getattr(self, name)}")
        check_most(self, MOST)
        for name in ("rate", "temperature"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"'{name}' must be over 0 and finite, got {getattr(self, name)}")
        for name in ("weight_decay", "margin_mm", "radius_mm"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"'{name}' must be 0 or more and finite, got {getattr(self, name)}")
        self._check_shares_and_choices()

    def _check_shares_and_choices(self) -> None:
        if not 0 <= self.average < 1 or not 0 <= self.seed < 2**31 or not 0 < self.patients <= 1:
            raise InputError(
                "'average' must be in [0, 1), 'seed' in [0, 2^31) and 'patients' in (0, 1], "
                f"got {self.average}, {self.seed} and {self.patients}"
            )
        for name, allowed in (("head", HEADS), ("precision", PRECISIONS)):
            if getattr(self, name) not in allowed:
                raise InputError(f"'{name}' must be one of {', '.join(allowed)}, got '{getattr(self, name)}'")
