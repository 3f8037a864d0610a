"""explain(problem, method, points) -> Explanation: what each application of a network attended to."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
