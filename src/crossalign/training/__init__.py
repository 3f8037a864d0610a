"""Training of networks from a manifest or from simulated pairs.

Loaded on first use: the command line reads the settings' modules of this room without waiting for torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
