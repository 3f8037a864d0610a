"""crossalign: register and fuse 3-D medical images of different modalities. Research software, not a medical device.

What a script needs is here, as in `import crossalign as ca`: `ca.read_image`, `ca.register`, `ca.fuse`, `ca.evaluate`,
`ca.explain`, `ca.load_model`. Everything else is in the rooms: `crossalign.training`, `crossalign.simulation`, ...
"""

import lazy_loader

_lazy, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    if name == "__version__":  # takes 20 ms, which `crossalign --help` should not wait for
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("crossalign")
        except PackageNotFoundError:
            return "not installed"
    return _lazy(name)
