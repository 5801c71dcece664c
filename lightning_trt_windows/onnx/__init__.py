"""Artifacts as models for ONNX Runtime and Windows ML: engines in EPContext nodes. Needs neither PyTorch nor a GPU."""
