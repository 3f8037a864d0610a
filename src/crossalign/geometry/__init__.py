"""Where things are in the patient: grids, rigid transforms, closed-form fits, resampling. LPS, mm."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
