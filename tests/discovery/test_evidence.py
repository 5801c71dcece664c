"""From calls to ranges: every rule, on calls that are written down."""

from __future__ import annotations

from typing import Any

import pytest

from lightning_trt_windows.artifact.shapes import DimRange, InputSpec
from lightning_trt_windows.discovery.evidence import Call, Derived, derive
from lightning_trt_windows.discovery.observations import SeenConstant, SeenObject, SeenTensor
from lightning_trt_windows.discovery.options import RangeOptions
from lightning_trt_windows.errors import ConfigurationError, ShapeDiscoveryError
from lightning_trt_windows.modules.varying import Varying


def tensor(*shape: int, dtype: str = "float32", values: tuple[int, int] | None = None) -> SeenTensor:
    """As seen in a call."""
    return SeenTensor(shape, dtype, values)


def train(*calls: dict[str, Any], stage: str = "train") -> list[Call]:
    """One call each, in order."""
    return [Call(stage, 1, number, arguments) for number, arguments in enumerate(calls, 1)]


def derived(calls: list[Call], **kwargs: Any) -> Derived:
    """What comes of it."""
    return derive(calls, method="forward", kind="observed", reason="seen", **kwargs)


def images(*sizes: int, batch: int = 8) -> list[Call]:
    """Square images of varying size."""
    return train(*[{"x": tensor(batch, 3, size, size)} for size in sizes])


def shape(result: Derived, name: str = "x") -> tuple[Any, ...]:
    """Of one input, ranges as (min, opt, max, name)."""
    sizes = result.inputs[name].shape
    return tuple((*s.bounds, s.name) if isinstance(s, DimRange) else s for s in sizes)


def test_batch_is_one_to_the_largest_tuned_for_the_usual() -> None:
    """A smaller last batch does not change it; the sentence says what was counted where."""
    calls = [
        Call("train", 22, 1, {"x": tensor(64, 3)}),
        Call("train", 1, 23, {"x": tensor(29, 3)}),
        Call("val", 6, 1, {"x": tensor(64, 3)}),
        Call("sanity", 2, 1, {"x": tensor(64, 3)}),
    ]
    result = derived(calls)
    assert shape(result) == ((1, 64, 64, "batch"), 3)
    assert result.sources["x"].dims == (
        "batch: 1 by rule, 64 usual (train 22x64, 1x29; val 6x64), 64 largest",
        "always 3",
    )


def test_whole_shapes_are_counted() -> None:
    """Of all stages but the sanity check's repetition, the most frequent first; a number has none."""
    calls = [
        Call("train", 3, 1, {"x": tensor(8, 3, 64, 48), "t": tensor()}),
        Call("train", 5, 2, {"x": tensor(8, 3, 32, 48), "t": tensor()}),
        Call("val", 1, 1, {"x": tensor(8, 3, 64, 48), "t": tensor()}),
        Call("sanity", 2, 1, {"x": tensor(8, 3, 64, 48), "t": tensor()}),
    ]
    sources = derived(calls).sources
    assert list(sources["x"].shapes.items()) == [("8x3x32x48", 5), ("8x3x64x48", 4)]
    assert sources["t"].shapes == {}


def test_validation_with_larger_batches_raises_the_largest_not_the_usual() -> None:
    """All loaders count."""
    calls = [Call("train", 9, 1, {"x": tensor(16, 3)}), Call("val", 2, 1, {"x": tensor(100, 3)})]
    assert shape(derived(calls))[0] == (1, 16, 100, "batch")


def test_equally_frequent_sizes_go_to_the_larger() -> None:
    """Ties are decided, not left to the order."""
    assert shape(derived(train({"x": tensor(8, 3)}, {"x": tensor(4, 3)})))[0] == (1, 8, 8, "batch")


def test_the_loaders_size_counts_where_no_batch_reached_it() -> None:
    """A data set smaller than one batch; but a size far beyond means everything at once."""
    calls = train({"x": tensor(50, 3)})
    result = derived(calls, loader_sizes={"train": {64}})
    assert shape(result)[0] == (1, 50, 64, "batch")
    assert "64 largest (batch_size of the train loader)" in result.sources["x"].dims[0]
    result = derived(calls, loader_sizes={"train": {10**6}})
    assert shape(result)[0] == (1, 50, 50, "batch")
    assert "left aside" in result.notes[0]


def test_a_batch_of_one_only_is_static_and_says_so() -> None:
    """There is no evidence for more, and the remedy is named; a loader that says more is evidence."""
    result = derived(train({"x": tensor(1, 3)}))
    assert shape(result) == (1, 3)
    assert "fixed at 1" in result.notes[0]
    assert "dynamic={'batch': [1, 8, 32]}" in result.notes[0]
    assert shape(derived(train({"x": tensor(1, 3)}), loader_sizes={"val": {4}}))[0] == (1, 1, 4, "batch")


def test_a_constant_axis_is_static_and_a_varying_one_is_as_seen() -> None:
    """Tuned for the median, which is a size that was seen."""
    result = derived(images(97, 120, 300, 101, 99))
    assert shape(result) == ((1, 8, 8, "batch"), 3, (97, 101, 300, "dim1"), (97, 101, 300, "dim2"))
    assert result.sources["x"].dims[2] == (
        "dim1: 97 to 300 seen, 101 typical (train 1x300, 1x120, 1x101 and 2 other sizes)"
    )


@pytest.mark.parametrize(
    ("sizes", "factor"),
    [
        ((224, 256, 320), 32),
        ((96, 192, 288), 32),
        ((224, 238, 252), 14),
        ((8, 16, 24), 8),
        ((128, 256, 512), 128),
        ((256, 320), 1),
        ((100, 200, 300), 1),
        ((33, 64, 96), 1),
    ],
)
def test_a_factor_that_all_sizes_share_is_kept(sizes: tuple[int, ...], factor: int) -> None:
    """From three different sizes on; hundreds are chance, not design."""
    spec = derived(images(*sizes)).inputs["x"]
    assert spec.shape[2].multiple_of == factor
    assert spec.shape[2].bounds == (min(sizes), sorted(sizes)[(len(sizes) - 1) // 2], max(sizes))


def test_axes_that_agree_across_inputs_are_one_symbol() -> None:
    """Ids and mask; a length of its own gets its own."""
    calls = train(
        *[{"ids": tensor(8, n), "mask": tensor(8, n), "memory": tensor(8, m, 4)} for n, m in ((5, 3), (9, 3), (7, 6))]
    )
    result = derived(calls)
    assert shape(result, "ids") == shape(result, "mask") == ((1, 8, 8, "batch"), (5, 7, 9, "dim1"))
    assert shape(result, "memory") == ((1, 8, 8, "batch"), (3, 3, 6, "dim2"), 4)
    assert "equal in ids.1, mask.1" in result.sources["ids"].dims[1]


def test_two_axes_of_one_square_image_stay_two() -> None:
    """Unless another input shows that they belong together, or the user says so."""
    names = [size[3] for size in shape(derived(images(97, 120)))[2:]]
    assert names == ["dim1", "dim2"]
    calls = train(*[{"x": tensor(8, n, 2), "adjacency": tensor(8, n, n)} for n in (5, 7)])
    assert [size[3] for size in shape(derived(calls), "adjacency")] == ["batch", "dim1", "dim1"]
    options = RangeOptions(same=(("x.2", "x.3"),))
    assert [size[3] for size in shape(derived(images(97, 120), options=options))[2:]] == ["dim1", "dim1"]


def test_one_axis_of_a_tensor_is_the_batch() -> None:
    """Similarities of all samples with all: the second axis agrees with the first, and has a symbol of its own."""
    calls = train(*[{"x": tensor(n, n), "y": tensor(n)} for n in (8, 5)])
    assert [size[3] for size in shape(derived(calls))] == ["batch", "dim1"]


def test_reasons_count_three_sizes_and_say_how_many_more() -> None:
    """Three need no more."""
    assert derived(images(97, 120, 300)).sources["x"].dims[2].endswith("(train 1x300, 1x120, 1x97)")
    assert derived(images(97, 120, 300, 1)).sources["x"].dims[2].endswith("and 1 other sizes)")


def test_same_is_refused_where_the_calls_say_otherwise() -> None:
    """With the sizes that differ."""
    calls = train({"x": tensor(8, 3, 5, 6)})
    with pytest.raises(ConfigurationError, match=r"x\.2 and x\.3 had different sizes in one call, 5 and 6"):
        derived(calls, options=RangeOptions(same=(("x.2", "x.3"),)))
    with pytest.raises(ConfigurationError, match=r"no dimension 'x\.9'"):
        derived(calls, options=RangeOptions(same=(("x.2", "x.9"),)))


def test_a_vector_that_has_no_batch_stays_static() -> None:
    """Class weights of constant length beside samples."""
    calls = train({"weights": tensor(10), "x": tensor(8, 10)}, {"weights": tensor(10), "x": tensor(5, 10)})
    result = derived(calls)
    assert shape(result, "weights") == (10,)
    assert shape(result)[0] == (1, 8, 8, "batch")
    # without a smaller batch the loader tells
    result = derived(calls[:1], loader_sizes={"train": {8}})
    assert (shape(result, "weights"), shape(result)[0]) == ((10,), (1, 8, 8, "batch"))


def test_time_first_is_recognised_by_the_loaders_size() -> None:
    """Axis 1 follows the batch size where axis 0 never does, or agrees with another input's first axis."""
    calls = train({"x": tensor(50, 8, 3)}, {"x": tensor(50, 5, 3)})
    assert shape(derived(calls, loader_sizes={"train": {8}})) == (50, (1, 8, 8, "batch"), 3)
    calls = train(*[{"x": tensor(t, b, 3), "lengths": tensor(b)} for t, b in ((50, 8), (40, 8), (30, 5))])
    result = derived(calls)
    assert shape(result) == ((30, 40, 50, "dim1"), (1, 8, 8, "batch"), 3)
    assert shape(result, "lengths") == ((1, 8, 8, "batch"),)


def test_frames_in_a_row_are_a_batch_although_features_equal_the_loaders_size() -> None:
    """The first axis is a multiple of the batch size."""
    calls = train({"x": tensor(40, 8)})
    assert shape(derived(calls, loader_sizes={"train": {8}})) == ((1, 40, 40, "batch"), 8)


@pytest.mark.parametrize("loader_size", [2, 8])
def test_a_list_of_samples_has_no_batch(loader_size: int) -> None:
    """Detectors take one tensor for each image; channels are not a batch."""
    calls = train(*[{"x": [tensor(3, size, size + n) for n in range(loader_size)]} for size in (100, 120)])
    spec = derived(calls, loader_sizes={"train": {loader_size}}).inputs["x"][0]
    assert spec.shape[0] == 3
    assert all(size.name != "batch" for size in spec.shape[1:])


def test_one_tensor_larger_than_any_batch_has_none() -> None:
    """Three channels cannot be two samples."""
    result = derived(train({"x": tensor(3, 10, 10)}, {"x": tensor(3, 12, 10)}), loader_sizes={"train": {2}})
    assert shape(result) == (3, (10, 10, 12, "dim1"), 10)


@pytest.mark.parametrize("loader_sizes", [{}, {"train": {1}}, {"train": {4}}])
def test_nodes_of_a_graph_are_no_batch(loader_sizes: dict[str, set[int]]) -> None:
    """Edges that vary on their own tell: both have the sizes that were seen, and node features go with the nodes."""
    graphs = [
        {"x": tensor(n, 8), "edge_index": tensor(2, e, dtype="int64"), "weight": tensor(e)}
        for n, e in ((12, 30), (10, 22), (17, 41))
    ]
    result = derived(train(*graphs), loader_sizes=loader_sizes)
    assert shape(result) == ((10, 12, 17, "dim1"), 8)
    assert shape(result, "edge_index") == (2, (22, 30, 41, "dim2"))
    assert shape(result, "weight") == ((22, 30, 41, "dim2"),)


def test_one_cloud_of_points_per_call_is_no_batch_where_the_loader_says_so() -> None:
    """Sizes that the loader's batch size does not explain, more than a last smaller one."""
    clouds = train(*[{"x": tensor(n, 3)} for n in (1021, 873, 990)])
    assert shape(derived(clouds, loader_sizes={"train": {4}})) == ((873, 990, 1021, "dim1"), 3)
    assert shape(derived(clouds)) == ((1, 1021, 1021, "batch"), 3)


def test_a_caption_of_any_length_beside_a_batch_leaves_it_the_batch() -> None:
    """The loader's batch size is found in the first axis of the images."""
    calls = train(*[{"x": tensor(4, 3, 8, 8), "caption": tensor(n, dtype="int64")} for n in (7, 9, 12)])
    assert shape(derived(calls, loader_sizes={"train": {4}}))[0] == (1, 4, 4, "batch")


def test_a_scalar_and_an_empty_axis_are_no_trouble() -> None:
    """A range begins at 1 whatever was seen."""
    calls = train({"t": tensor(), "x": tensor(4, 0)}, {"t": tensor(), "x": tensor(4, 7)})
    result = derived(calls)
    assert shape(result, "t") == ()
    assert shape(result)[1] == (1, 1, 7, "dim1")


def test_margin_rounding_and_caps_shape_what_was_seen() -> None:
    """Outwards, the batch untouched by margin and rounding; the reason names them."""
    options = RangeOptions(margin=0.5, round_to=10, caps={"x.3": 150, "batch": 4})
    result = derived(images(97, 101, 200), options=options)
    assert shape(result) == ((1, 4, 4, "batch"), 3, (40, 101, 300, "dim1"), (40, 101, 150, "dim2"))
    assert result.sources["x"].dims[3].endswith("; margin 50%, rounded to 10, capped at 150")
    assert result.sources["x"].dims[0].endswith("4 largest (capped)")


def test_rounding_and_caps_keep_the_common_factor() -> None:
    """A range whose bounds are no multiples would be refused by itself."""
    options = RangeOptions(margin=0.3, round_to=5, caps={"x.3": 300})
    ranges = derived(images(224, 256, 320), options=options).inputs["x"].shape[2:]
    assert [r.bounds for r in ranges] == [(32, 256, 480), (32, 256, 288)]


def test_a_dimension_is_named_static_or_dynamic_outright() -> None:
    """By axis or by symbol; equal axes follow."""
    options = RangeOptions(static=("batch", "x.2"), dynamic={"dim3": [64, 128, 512], "x.1": DimRange(1, 3, 4)})
    result = derived(images(97, 101, 200), options=options)
    assert shape(result) == (8, (1, 3, 4, "dim1"), 101, (64, 128, 512, "dim3"))


def test_a_dimension_cannot_be_static_and_dynamic() -> None:
    """By whatever names."""
    with pytest.raises(ConfigurationError, match=r"x\.2 is static and dim1 dynamic"):
        derived(images(97, 101), options=RangeOptions(static=("x.2",), dynamic={"dim1": [1, 2, 3]}))


def test_options_for_a_dimension_that_is_not_there_are_refused() -> None:
    """The known ones are listed."""
    for options in (
        RangeOptions(static=("y.0",)),
        RangeOptions(caps={"y.0": 3}),
        RangeOptions(dynamic={"y.0": [1, 2, 3]}),
    ):
        with pytest.raises(ConfigurationError, match=r"no dimension 'y\.0'; known are batch, x\.0, x\.1"):
            derived(train({"x": tensor(8, 3)}), options=options)


@pytest.mark.parametrize(
    "wrong",
    [
        {"margin": 1.5},
        {"margin": "a"},
        {"round_to": 0},
        {"round_to": True},
        {"caps": {"x.0": 0}},
        {"static": "x.0"},
        {"dynamic": {"x.0": [1, 2]}},
    ],
)
def test_options_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    """At construction, with the name of the option."""
    with pytest.raises(ConfigurationError, match=rf"RangeOptions\.{next(iter(wrong))}"):
        RangeOptions(**wrong)


def test_options_are_one_type_inside() -> None:
    """Whatever YAML gives."""
    options = RangeOptions(static=["x.0"], dynamic={"x.1": {"min": 1, "opt": 2, "max": 3}}, same=[["x.1", "y.1"]])  # type: ignore[arg-type]
    assert options.static == ("x.0",)
    assert options.dynamic == {"x.1": DimRange(1, 2, 3)}
    assert options.same == (("x.1", "y.1"),)


def test_integers_keep_to_the_values_seen() -> None:
    """Over all stages; floats have none."""
    calls = [
        Call("train", 1, 1, {"ids": tensor(8, 4, dtype="int64", values=(5, 90))}),
        Call("val", 1, 1, {"ids": tensor(8, 4, dtype="int64", values=(0, 30))}),
        Call("val", 1, 2, {"ids": tensor(3, 4, dtype="int64")}),
    ]
    assert derived(calls).inputs["ids"].values == (0, 90)
    assert derived(train({"x": tensor(2, 2)})).inputs["x"].values is None


def test_float64_is_recorded_as_it_is() -> None:
    """What to do about it is the capture's business."""
    assert derived(train({"x": tensor(2, 2, dtype="float64")})).inputs["x"].dtype == "float64"


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (
            tensor(8, 3, 1),
            r"number of dimensions of x varies.*\n  - 2: train batch 1, train batch 2\n  - 3: val batch 7",
        ),
        (tensor(8, 3, dtype="float16"), r"dtype of x varies.*\n  - float32: train.*\n  - float16: val batch 7"),
    ],
)
def test_contradictory_calls_are_named(second: SeenTensor, message: str) -> None:
    """Stage and batch of both sides; given explicitly it does not matter."""
    calls = [*train({"x": tensor(8, 3)}, {"x": tensor(9, 3)}), Call("val", 1, 7, {"x": second})]
    with pytest.raises(ShapeDiscoveryError, match=message):
        derived(calls)
    assert derived(calls, given=["x"]).inputs == {"x": None}


def test_a_dtype_that_no_engine_takes_is_refused() -> None:
    """With those that are known."""
    with pytest.raises(ShapeDiscoveryError, match="x is complex128, which no engine takes; known are bfloat16"):
        derived(train({"x": tensor(2, dtype="complex128")}))


def test_constants_are_baked_in_and_said_so() -> None:
    """``None`` goes without saying."""
    call = {"x": tensor(2, 2), "flag": SeenConstant((True,)), "mask": SeenConstant((None,))}
    result = derived(train(call, call))
    assert result.inputs == {"x": result.inputs["x"], "flag": True, "mask": None}
    assert result.notes == ("flag was True in every call and is baked in",)


def test_a_value_that_varies_is_left_to_the_capture() -> None:
    """Only there it shows whether anything reads it; what to write then is known here."""
    calls = train({"x": tensor(2, 2), "t": SeenConstant((1, 2))}, {"x": tensor(2, 2), "t": SeenConstant((2, 3, 4))})
    way_on = "Pass a tensor instead, or choose: inputs={'t': 1}"
    assert derived(calls).inputs["t"] == Varying("t", "1, 2, 3, ...", way_on)
    assert derived(calls, given=["t"]).inputs["t"] is None


@pytest.mark.parametrize(("values", "choice"), [((True, False), "True"), ((None, 3), "3")])
def test_what_is_compared_by_identity_may_not_vary(values: tuple[Any, ...], choice: str) -> None:
    """``is None`` and ``is True`` cannot be noticed: the values, and what to write."""
    with pytest.raises(ShapeDiscoveryError, match=rf"t is not a tensor and varies .*inputs=\{{'t': {choice}\}}"):
        derived(train({"x": tensor(2, 2), "t": SeenConstant(values)}))


def test_lists_of_values_that_vary_are_one_value() -> None:
    """Sizes of images, ids: as many as the batch is large."""
    calls = train(*[{"batch": {"x": tensor(n, 2), "sizes": [SeenConstant((n,))] * n}} for n in (2, 3)])
    sizes = derived(calls).inputs["batch"]["sizes"]
    assert isinstance(sizes, Varying)
    assert sizes.found == "containers of int"


def test_text_in_a_dict_is_left_out() -> None:
    """File names differ in every batch and can be no input; constants of other kinds stay."""
    calls = train(
        *[
            {
                "batch": {
                    "x": tensor(2, 2),
                    "file": [SeenConstant((f"{n}",))] * n,
                    "id": SeenConstant((str(n),)),
                    "k": SeenConstant((3,)),
                }
            }
            for n in (2, 1)
        ]
    )
    result = derived(calls)
    assert list(result.inputs["batch"]) == ["x", "k"]
    assert {note.split()[0] for note in result.notes} == {"batch.file", "batch.id", "batch.k"}


def test_evaluation_decides_where_training_calls_differently() -> None:
    """Targets are given while training only; sizes of training still count."""
    calls = [
        *train({"x": tensor(8, 3), "targets": tensor(8)}, {"x": tensor(5, 3), "targets": tensor(5)}),
        Call("val", 4, 1, {"x": tensor(4, 3)}),
    ]
    result = derived(calls)
    assert list(result.inputs) == ["x"]
    assert shape(result)[0] == (1, 4, 8, "batch")
    assert result.notes == (
        "training and evaluation call forward differently (targets); evaluation is what is exported",
    )


def test_calls_of_differing_structure_are_named() -> None:
    """What each has beyond the others, and in which batches."""
    calls = train({"x": tensor(8, 3), "mask": tensor(8, 3)}, {"x": tensor(8, 3)}, {"x": tensor(8, 3)})
    with pytest.raises(ShapeDiscoveryError, match="differ in structure") as caught:
        derived(calls)
    assert "- train batch 1: mask (tensor)" in str(caught.value)
    assert "- train batch 2, train batch 3: nothing" in str(caught.value)
    calls = train({"x": [tensor(3, 5)] * 2}, {"x": [tensor(3, 5)]})
    with pytest.raises(ShapeDiscoveryError, match=r"train batch 1: x\.1 \(tensor\)"):
        derived(calls)


@pytest.mark.parametrize(
    ("seen", "message"),
    [
        (
            SeenObject(InputSpec, "a my.Graph"),
            "(?s)x is a my.Graph, a class that torch.export cannot take apart.*register",
        ),
        (SeenObject(list, "a list of 900 values of int"), "x is a list of 900 values of int"),
    ],
)
def test_what_cannot_be_an_input_says_what_to_do(seen: SeenObject, message: str) -> None:
    """Registration code for a class, conversion for data."""
    with pytest.raises(ShapeDiscoveryError, match=message):
        derived(train({"x": seen}))


def test_an_explicit_range_rules_the_axes_that_agree_with_it() -> None:
    """And says when what was seen lies outside."""
    calls = train(*[{"ids": tensor(8, n), "mask": tensor(8, n)} for n in (5, 9)])
    pinned = {("ids", 0): DimRange(1, 2, 4), ("ids", 1): 5}
    result = derived(calls, given=["ids"], pinned=pinned)
    assert shape(result, "mask") == ((1, 2, 4, "batch"), 5)
    assert result.sources["mask"].dims == ("1..2..4 as given for ids.0", "5 as given for ids.1")
    assert result.notes == (
        "ids.0: the sizes 8 were seen and lie outside the given 1..2..4",
        "ids.1: the sizes 9 were seen and lie outside the given 5",
    )
