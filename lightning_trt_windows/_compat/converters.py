"""What Torch-TensorRT's converters and decompositions compute otherwise than PyTorch, and what stands in their place.

All of it was seen in the networks that engines are built from, and much of it with engines on a GPU. The rewrites
themselves are in ``backends/rewrites/``; the tests compile the same program with and without them.
"""

from __future__ import annotations

from lightning_trt_windows._compat.versions import Workaround

__all__ = [
    "ADAPTIVE_POOLING_OF_OTHER_WINDOWS",
    "ATAN2_HAS_NO_SIGNED_ZEROS",
    "BATCH_STATISTICS_ARE_NOT_COMPUTED",
    "CAUSAL_MASK_IS_LOWER_RIGHT",
    "COPY_KEEPS_THE_SHAPE_OF_ITS_SOURCE",
    "DEVIATIONS_FIX_THE_BATCH",
    "EMPTY_TENSORS_WANT_A_GPU",
    "FFTS_FAIL_TO_LOWER",
    "FLOAT64_BECOMES_FLOAT32",
    "INDEX_COPY_COUNTS_FROM_THE_FRONT",
    "INTEGERS_ARE_CHOSEN_IN_INT32",
    "INTEGERS_ARE_SUMMED_IN_FLOAT32",
    "INTEGERS_MEET_NUMBERS",
    "LAST_PART_IS_AN_EMPTY_SLICE",
    "LOG_SOFTMAX_UNDERFLOWS",
    "NEGATIVE_INDICES_ARE_FLATTENED",
    "NORMALISATIONS_HIDE_STATISTICS",
    "NUMBERS_HAVE_AN_AXIS",
    "REMAINDERS_OF_ROUNDED_QUOTIENTS",
    "SCATTERED_MEANS_ARE_TRUNCATED",
    "SIZES_DIVIDE_AS_INTEGERS",
    "SOFTPLUS_HAS_NO_THRESHOLD",
    "STRIDES_OF_THE_TRACE",
    "TRUNCATION_ROUNDS_HALVES",
]

_SOURCE = "https://github.com/pytorch/TensorRT/blob/v2.14.0/py/torch_tensorrt/dynamo/"
_TEST = "test_converters.py::test_upstream_still_computes_something_else"


def _wrong(reason: str, place: str, rewrite: str, since: str = "2.11") -> Workaround:
    return Workaround(
        upstream="torch-tensorrt",
        since=since,
        until=None,
        reason=reason,
        link=_SOURCE + place,
        test=_TEST,
        delete=f"The test passes without backends/{rewrite}.",
    )


INTEGERS_MEET_NUMBERS = _wrong(
    "A number that meets a tensor of integers is cut to an integer, and a quotient of two integers is one: "
    "'arange(n) + 0.5' adds 0, 't / 1000' is 0. Casts stand in the lowered graph.",
    "conversion/impl/elementwise/base.py#L129",
    "rewrites/types.py",
)
SIZES_DIVIDE_AS_INTEGERS = _wrong(
    "A floating number made of sizes, as in 'x * (1 / x.shape[1])', is computed in integers, or crosses into an "
    "engine, which takes tensors only. It becomes a tensor.",
    "conversion/converter_utils.py#L201",
    "rewrites/sizes.py",
)
ADAPTIVE_POOLING_OF_OTHER_WINDOWS = _wrong(
    "Adaptive average pooling whose input is no multiple of its output takes other windows than PyTorch. It "
    "becomes averages by a matrix.",
    "conversion/impl/pool.py#L269",
    "rewrites/windows.py",
)
CAUSAL_MASK_IS_LOWER_RIGHT = _wrong(
    "With another number of queries than keys the causal mask is aligned with the last ones. It becomes a mask.",
    "conversion/impl/attention.py#L314",
    "rewrites/attention.py",
    since="2.14",  # 2.12 is right, or refused for another reason; 2.13 was not tried
)
NEGATIVE_INDICES_ARE_FLATTENED = _wrong(
    "Indices of several axes are flattened into one, so that -1 at run time is the last row of the element "
    "before. They are counted from the start.",
    "conversion/impl/select.py",
    "rewrites/indices.py",
)
COPY_KEEPS_THE_SHAPE_OF_ITS_SOURCE = _wrong(
    "'x[:, 0] = 0.' and 'x.copy_(row)' give the shape of what is assigned. It is expanded.",
    "conversion/aten_ops_converters.py#L3956",
    "rewrites/assignment.py",
)
LAST_PART_IS_AN_EMPTY_SLICE = _wrong(
    "'x[:, -1] = v' becomes a slice from -1 to 0, which is empty, and slices with a varying batch build no "
    "engine. Parts are chosen or put together.",
    "lowering/_decompositions.py#L249",
    "rewrites/assignment.py",
)
BATCH_STATISTICS_ARE_NOT_COMPUTED = _wrong(
    "BatchNorm without running statistics divides by the wrong numbers (off by a factor of ten). It is computed "
    "step by step.",
    "conversion/aten_ops_converters.py#L148",
    "rewrites/normalization.py",
)
INDEX_COPY_COUNTS_FROM_THE_FRONT = _wrong(
    "'index_copy' and 'index_fill' with a negative axis write elsewhere, and a cache of four axes is refused as "
    "if it were written in place. They become 'index_put' and a choice.",
    "conversion/impl/index_copy.py#L144",
    "rewrites/assignment.py",
    since="2.14",  # 2.12 is right, or refused for another reason; 2.13 was not tried
)
LOG_SOFTMAX_UNDERFLOWS = _wrong(
    "The logarithm of a softmax is -inf from -104 on. It is computed of differences.",
    "lowering/_decompositions.py#L412",
    "rewrites/normalization.py",
)
SCATTERED_MEANS_ARE_TRUNCATED = _wrong(
    "'scatter_reduce(\"mean\")' truncates, refuses include_self=False, and unrolls a loop over the source. It stays "
    "in PyTorch.",
    "lowering/_decompositions.py#L404",
    "rewrites/assignment.py",
)
INTEGERS_ARE_CHOSEN_IN_INT32 = _wrong(
    "'where' of two int64 tensors gives int32, so that what is past 2**31 is cut. A converter of our own keeps "
    "the type.",
    "conversion/converter_utils.py#L1202",
    "rewrites/converters.py",
)
INTEGERS_ARE_SUMMED_IN_FLOAT32 = _wrong(
    "'cumsum' of integers adds in float32, and any is a loop, which cannot run over nothing. A converter of our own "
    "has a layer for it.",
    "conversion/impl/slice/ops.py#L407",
    "rewrites/converters.py",
)
REMAINDERS_OF_ROUNDED_QUOTIENTS = _wrong(
    "'remainder' in bfloat16 rounds the quotient, often to a whole number, which leaves 0. It is computed in float32.",
    "conversion/impl/elementwise/ops.py",
    "rewrites/pointwise.py",
)
TRUNCATION_ROUNDS_HALVES = _wrong(
    "'trunc' divides by 1 and rounds in bfloat16: -8.5 stays -8.5. It becomes ceil and floor.",
    "conversion/impl/unary/ops.py",
    "rewrites/pointwise.py",
)
SOFTPLUS_HAS_NO_THRESHOLD = _wrong(
    "The threshold of softplus is left out. It is computed step by step.",
    "conversion/impl/activation/ops.py",
    "rewrites/pointwise.py",
)
NUMBERS_HAVE_AN_AXIS = _wrong(
    "What is computed of a number without axes and a constant has the shape (1,). Its axis is taken away.",
    "conversion/converter_utils.py#L420",
    "rewrites/results.py",
)
STRIDES_OF_THE_TRACE = _wrong(
    "'unfold' becomes strides, those of the trace, which read a contiguous tensor wrongly where it was permuted. "
    "Views become lookups.",
    "conversion/impl/slice/ops.py#L636",
    "rewrites/windows.py",
)
ATAN2_HAS_NO_SIGNED_ZEROS = _wrong(
    "atan2(-0., -1.) is +pi in place of -pi. It is computed from the octant.",
    "conversion/impl/elementwise/ops.py",
    "rewrites/pointwise.py",
)
EMPTY_TENSORS_WANT_A_GPU = _wrong(
    "'empty_like' and its kin are made on the default device, which is a GPU, and fail where there is none. They "
    "become zeros.",
    "lowering/_decompositions.py#L183",
    "rewrites/factories.py",
)
DEVIATIONS_FIX_THE_BATCH = _wrong(
    "'std' and 'var' over a varying axis turn its size into a number. The size stays one.",
    "lowering/_decompositions.py#L141",
    "rewrites/reductions.py",
)
NORMALISATIONS_HIDE_STATISTICS = _wrong(
    "Mean and inverse deviation of layer and group normalisation come back as None. They are computed of the "
    "input where they are used.",
    "conversion/impl/normalization/ops.py",
    "rewrites/statistics.py",
)
FFTS_FAIL_TO_LOWER = _wrong(
    "The pass that makes real numbers of complex ones fails on chains of FFTs. They fall back to PyTorch.",
    "lowering/passes/complex_decomposition_adapter.py#L102",
    "rewrites/in_torch.py",
    since="2.14",  # 2.12 is right, or refused for another reason; 2.13 was not tried
)
FLOAT64_BECOMES_FLOAT32 = _wrong(
    "Parts in float64 are computed in float32, and outputs come back as float32. They fall back to PyTorch unless "
    "truncate_double asks for it.",
    "conversion/_conversion.py",
    "rewrites/in_torch.py",
)
