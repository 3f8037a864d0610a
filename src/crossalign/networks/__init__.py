"""Registration networks, by name: crops in, six parameters or matches out. Loaded on first use."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
