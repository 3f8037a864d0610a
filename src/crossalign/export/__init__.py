"""Trained networks as ONNX files, each checked with onnxruntime before it is written."""
