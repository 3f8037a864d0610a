"""Seeded anatomies and how two modalities show them: pairs with a known answer, fast enough to train from."""

from .pairs import SimulatedPairs as SimulatedPairs
from .pelvis.pairs import simulate_pairs as simulate_pairs
from .settings import (
    AnatomySettings as AnatomySettings,
)
from .settings import (
    DeformationSettings as DeformationSettings,
)
from .settings import (
    MRSettings as MRSettings,
)
from .settings import (
    PoseSettings as PoseSettings,
)
from .settings import (
    ShapeSettings as ShapeSettings,
)
from .settings import (
    SimulationSettings as SimulationSettings,
)
from .settings import (
    UltrasoundSettings as UltrasoundSettings,
)
from .shapes.pairs import simulate_shapes as simulate_shapes
