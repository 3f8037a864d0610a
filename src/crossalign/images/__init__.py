"""Images and label maps in physical space, their files, intensities, masks and surfaces."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
