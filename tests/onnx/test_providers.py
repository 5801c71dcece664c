"""Which provider goes with which TensorRT-RTX."""

from __future__ import annotations

from lightning_trt_windows.onnx.providers import provider_versions


def test_a_version_finds_the_providers_of_its_minor() -> None:
    """Patches of one minor are one; what is not known has none."""
    assert provider_versions("1.6.1.120") == ("0.4.0",)
    assert provider_versions("1.6.0") == ("0.4.0",)
    assert provider_versions("1.5.0.114") == ("0.3.0",)
    assert provider_versions("9.9") == ()
    assert provider_versions("") == ()
