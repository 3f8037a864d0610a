from .exporting import ExportChoice as ExportChoice
from .exporting import Exported as Exported
from .exporting import export_model as export_model
from .onnx_file import Agreement as Agreement
