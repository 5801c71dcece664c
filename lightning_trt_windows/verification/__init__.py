"""Whether an artifact is what it says and computes what the module does. No Lightning, no Torch-TensorRT."""
