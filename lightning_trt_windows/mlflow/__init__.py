"""Artifacts as MLflow models: a flavour of MLflow, called as its own are (``mlflow.pytorch``, ``mlflow.onnx``).

MLflow is imported when a function is called.
"""

from lightning_trt_windows.mlflow.flavor import FLAVOR_NAME, load_model, log_model, save_model
from lightning_trt_windows.mlflow.predictor import load_predictor as _load_pyfunc  # the name that MLflow looks for
from lightning_trt_windows.mlflow.signature import signature_of

__all__ = ["FLAVOR_NAME", "_load_pyfunc", "load_model", "log_model", "save_model", "signature_of"]
