"""Fusion of an MRI and a PET on one grid: `fuse(a, b, method) -> FusionResult`, and everything that it needs.

Nothing is imported before it is used: the networks, their training and the simulation run where no reader of images is.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
