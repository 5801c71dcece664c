"""The Windows half: an artifact to something that can be called. Needs torch and the TensorRT bindings only."""
