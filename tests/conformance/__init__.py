"""PyTorch's operator and module databases through the compile path."""
