"""Shapes of tensors, as annotations (checked at run time in the tests only).

Axes: b batch, c channel, z y x voxels, n points. Points and vectors end in (x, y, z); physical coordinates are LPS, mm.
"""

from typing import TypeAlias

from jaxtyping import Bool, Float, Int
from torch import Tensor

Volume: TypeAlias = Float[Tensor, "b c z y x"]
# A volume whose axes are not those of the others at hand.
Map: TypeAlias = Float[Tensor, "_ _ _ _ _"]
Scan: TypeAlias = Float[Tensor, "z y x"]
Labels: TypeAlias = Int[Tensor, "z y x"]
Mask: TypeAlias = Bool[Tensor, "z y x"]
Points: TypeAlias = Float[Tensor, "*b n 3"]
PointGrid: TypeAlias = Float[Tensor, "*b z y x 3"]
Vectors: TypeAlias = Float[Tensor, "*b 3"]
Vector: TypeAlias = Float[Tensor, "3"]
Rotations: TypeAlias = Float[Tensor, "*b 3 3"]
Matrix4: TypeAlias = Float[Tensor, "*b 4 4"]
Parameters: TypeAlias = Float[Tensor, "*b 6"]
Distances: TypeAlias = Float[Tensor, "*b"]

Triple: TypeAlias = tuple[float, float, float]
Shape: TypeAlias = tuple[int, int, int]
