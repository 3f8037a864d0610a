"""How good a registration is: SRE, TRE, Dice, and the papers' protocol with its tables and statistics."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
