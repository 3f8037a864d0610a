"""register(fixed, moving, method, initial, fixed_mask) -> RegistrationResult, and the methods."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
