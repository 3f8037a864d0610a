"""export_model(settings, output) -> files: trained networks as ONNX files, each checked before it is written."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
