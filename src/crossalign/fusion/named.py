"""Fusion methods by name, as the command line and the tables spell them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from crossalign.fusion.laplacian import LaplacianPyramid
from crossalign.fusion.method import FusionMethod
from crossalign.fusion.pointwise import Average, Maximum
from crossalign.fusion.wavelet import WaveletFusion

IN_PLANE = (1, 2)

# Methods that need no weights: a new one is one file and one line here.
PLAIN_FUSION_METHODS: Mapping[str, Callable[[], FusionMethod]] = {
    "average": Average,
    "maximum": Maximum,
    "laplacian": LaplacianPyramid,
    "wavelet": WaveletFusion,
    "laplacian-2d": lambda: LaplacianPyramid(axes=IN_PLANE),
    "wavelet-2d": lambda: WaveletFusion(axes=IN_PLANE),
}
