"""Seeded anatomies and how two modalities show them: pairs with a known answer, fast enough to train from."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
