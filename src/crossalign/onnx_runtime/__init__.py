"""Registration by exported networks with onnxruntime, numpy and SimpleITK: nothing here imports torch."""
