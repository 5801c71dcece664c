"""Full float32 for what is compared, and the user's settings afterwards, whichever way of PyTorch's two set them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from lightning_trt_windows import DimRange, InputSpec, export_module
from lightning_trt_windows._compat.precision import _OPERATORS, _settings, exact_float32

backends = torch.backends


WAYS = {
    "nothing": "pass",
    "older": "torch.set_float32_matmul_precision('medium')",
    "older_for_cudnn": "backends.cudnn.allow_tf32 = False",
    "newer": "backends.fp32_precision = 'tf32'",
    "newer_for_products": "backends.cuda.matmul.fp32_precision = 'tf32'",
    "newer_for_products_on_the_cpu": "backends.mkldnn.matmul.fp32_precision = 'bf16'",
    "newer_for_cudnn": "backends.cudnn.fp32_precision = 'ieee'",
    "newer_for_recurrent_nets": "backends.cudnn.rnn.fp32_precision = 'ieee'",
    "newer_then_older": "backends.cuda.matmul.fp32_precision = 'ieee'; torch.set_float32_matmul_precision('high')",
    "older_then_newer": "backends.cudnn.allow_tf32 = False; backends.cudnn.conv.fp32_precision = 'tf32'",
    "frozen": "backends.disable_global_flags()",
}


@pytest.fixture(autouse=True)
def settings_put_back() -> Iterator[None]:
    """What the other tests find."""
    matmul, cudnn, settings = torch.get_float32_matmul_precision(), backends.cudnn.allow_tf32, _settings()
    yield
    # nothing public undoes disable_global_flags
    backends.flags_frozen.__globals__["__allow_nonbracketed_mutation_flag"] = True
    torch.set_float32_matmul_precision(matmul)
    backends.cudnn.allow_tf32 = cudnn
    for place, value in settings.items():
        torch._C._set_fp32_precision_setter(*place, value)


def set_by(way: str) -> None:
    """Set precision as a user would."""
    exec(WAYS[way])


def test_one_way_still_raises_after_the_other() -> None:
    """And the older one writes over what the newer one inherits; where neither is so, delete _compat/precision.py."""
    torch.set_float32_matmul_precision(torch.get_float32_matmul_precision())
    assert torch._C._get_fp32_precision_getter("cuda", "matmul") == "ieee", "it was 'none' before"
    set_by("newer_for_products")
    with pytest.raises(RuntimeError, match="mix of the legacy and new APIs"):
        torch.get_float32_matmul_precision()


@pytest.mark.parametrize("way", WAYS)
def test_settings_are_as_they_were(way: str) -> None:
    """Exact in the block, where both ways can be read; afterwards each is set or inherited as before."""
    set_by(way)
    settings, older = _settings(), [read(one) for one in OLDER]
    with pytest.raises(ZeroDivisionError), exact_float32():
        assert {torch._C._get_fp32_precision_getter(*place) for place in _OPERATORS} == {"ieee"}
        assert [one() for one in OLDER] == ["highest", False, False]
        raise ZeroDivisionError
    assert _settings() == settings
    assert [read(one) for one in OLDER] == older
    # what the older way says where the newer one agrees with it
    for place in settings:
        torch._C._set_fp32_precision_setter(*place, "ieee")
    assert torch.get_float32_matmul_precision() == {"older": "medium", "newer_then_older": "high"}.get(way, "highest")
    is_off = way in ("older_for_cudnn", "older_then_newer")
    torch._C._set_fp32_precision_setter("cuda", "conv", "ieee" if is_off else "tf32")
    torch._C._set_fp32_precision_setter("cuda", "rnn", "ieee" if is_off else "tf32")
    assert backends.cudnn.allow_tf32 is not is_off


def test_what_inherits_still_does() -> None:
    """A setting made after an export reaches what it would have reached without one."""
    with exact_float32():
        pass
    backends.fp32_precision = "tf32"
    assert backends.cuda.matmul.fp32_precision == "tf32"


@pytest.mark.parametrize("way", ["newer_for_products_on_the_cpu", "older", "frozen"])
def test_products_are_exact(way: str) -> None:
    """On a processor that multiplies in bfloat16 where it is let."""
    torch.manual_seed(0)
    x, y = torch.randn(256, 256), torch.randn(256, 256)
    set_by(way)
    with exact_float32():
        found = x @ y
    torch.testing.assert_close(found.double(), x.double() @ y.double(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("way", WAYS)
def test_an_export_takes_either_way(way: str, tmp_path: Path) -> None:
    """In the process of the training: torch.export failed for some, and numbers were not checked for others."""
    set_by(way)
    settings = _settings()
    inputs = {"input": InputSpec((DimRange(1, 2, 4, name="batch"), 4))}
    check = export_module(nn.Linear(4, 2).eval(), inputs, tmp_path / "m.windows.ep", golden=True).manifest.check
    assert check is not None
    assert check.compared
    assert not check.not_checked
    assert _settings() == settings


OLDER: tuple[Callable[[], object], ...] = (
    torch.get_float32_matmul_precision,
    lambda: backends.cudnn.allow_tf32,
    lambda: backends.cuda.matmul.allow_tf32,
)


def read(one: Callable[[], object]) -> object:
    """What it says, or that it contradicts the newer way."""
    try:
        return one()
    except RuntimeError as error:
        return type(error)
