"""The manifest: one frozen sample, broken in one place at a time."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
import warnings
from typing import Any

import pytest
from support.paths import DATA

from lightning_trt_windows.artifact.manifest import FORMAT_VERSION, Manifest
from lightning_trt_windows.errors import ArtifactError, UnsupportedFormatError

FOLDER = DATA
SAMPLE = (FOLDER / "manifest_v1_3.json").read_text(encoding="utf-8")
OLDER = (FOLDER / "manifest_v1.json").read_text(encoding="utf-8")
"""Of version 1.0, frozen."""
DATA: dict[str, Any] = json.loads(SAMPLE)
RANKS = "min, opt, max, symbols, multiple_of and source's lists must have one entry per axis, all of them"


def broken(*path: str | int, value: Any) -> dict[str, Any]:
    """The sample with one value replaced, or one key added."""
    data = copy.deepcopy(DATA)
    target: Any = data
    for step in path[:-1]:
        target = target[step]
    target[path[-1]] = value
    return data


def issues_of(data: object) -> tuple[str, ...]:
    """What the reader says, which must be an ArtifactError and nothing else."""
    with pytest.raises(ArtifactError) as caught:
        Manifest.from_json(json.dumps(data), "m.windows.json")
    return caught.value.issues


def all_paths(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Every place in a JSON value, the top excluded."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, item in items for place in ((*path, key), *all_paths(item, (*path, key)))]


def is_free(path: tuple[str | int, ...]) -> bool:
    """Whether any JSON may stand there."""
    return len(path) > 1 and (path[0] in ("extra", "verification") or path[:2] == ("backend", "options"))


def dotted(path: tuple[str | int, ...]) -> str:
    """The path as messages have it."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")


def test_the_sample_is_read_and_written_back_byte_for_byte() -> None:
    """What today's package wrote, every later one of the same major version reads."""
    manifest = Manifest.from_json(SAMPLE, "m")
    assert manifest.to_json() == SAMPLE
    assert Manifest.from_json(manifest.to_json(), "m") == manifest
    assert manifest.inputs[0].symbols == ("batch", None)
    assert manifest.checkpoint is not None
    assert manifest.checkpoint.epoch == 3


def test_the_frozen_manifest_of_the_first_version_is_read() -> None:
    """With the same keys as in its file, and defaults for what came later; it is written anew in today's version."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        manifest = Manifest.from_json(OLDER, "m")
    assert manifest.format_version == "1.0"
    assert manifest.to_dict() == json.loads(OLDER)
    assert (manifest.golden, manifest.inputs[0].multiple_of) == (None, ())
    again = Manifest.from_json(manifest.to_json(), "m")
    assert again == dataclasses.replace(manifest, format_version=FORMAT_VERSION)


def test_keys_that_came_later_are_unknown_to_an_older_version() -> None:
    """A file that says 1.0 was not written with a key of 1.1; one that says 1.1 was written with all of them."""
    data = {**json.loads(OLDER), "golden": None}
    assert issues_of(data) == ("unknown key 'golden'",)
    data = {**json.loads(OLDER), "format_version": "1.1"}
    missing = [issue for issue in issues_of(data) if "missing" in issue]
    assert len(missing) == len(issues_of(data))
    assert any(issue.startswith("golden: missing, expected") for issue in missing)


@pytest.mark.parametrize(
    ("steps", "issue"),
    [
        ([3, 4], "axis 0: expected multiples of multiple_of, which is 3, got 1, 4, 8"),
        ([0, 4], "axis 0: expected multiples of multiple_of, which is 0, got 1, 4, 8"),
        ([1], RANKS),
    ],
)
def test_sizes_are_multiples_of_their_steps(steps: list[int], issue: str) -> None:
    """All three of them, on every axis."""
    assert issues_of(broken("inputs", 0, "multiple_of", value=steps)) == (f"inputs[0]: {issue}",)


def test_a_manifest_can_be_a_key() -> None:
    """It is frozen, so it has a hash although dicts are in it."""
    assert {Manifest.from_json(SAMPLE, "a"): 1}[Manifest.from_json(SAMPLE, "b")] == 1


@pytest.mark.parametrize("path", [p for p in all_paths(DATA) if isinstance(p[-1], str) and not is_free(p)], ids=dotted)
def test_every_key_is_required(path: tuple[str | int, ...]) -> None:
    """All but those the user or a distribution chose, and the sizes that happened to be seen."""
    if (path[0] == "versions" and len(path) > 1) or {"sizes", "shapes"} & set(path[:-1]):
        return
    data = copy.deepcopy(DATA)
    target: Any = data
    for step in path[:-1]:
        target = target[step]
    del target[path[-1]]
    assert any(issue.startswith(f"{dotted(path)}: missing, expected") for issue in issues_of(data))


NULLABLE = {
    ("checkpoint",),
    ("checkpoint", "epoch"),
    ("checkpoint", "global_step"),
    ("verification",),
    ("golden",),
    ("operators",),
    ("check",),
}
WRONG: list[Any] = [None, True, 3, -1, 0.5, 10**400, "", "x", "\ud800", [], [[]], {}, {"a": 1}]


@pytest.mark.parametrize("path", all_paths(DATA), ids=dotted)
def test_any_value_anywhere_is_read_or_refused_at_its_place(path: tuple[str | int, ...]) -> None:
    """Never another exception than ours, and the message has the path."""
    # what is wrong across fields is said at the object around them
    place = dotted(path[:2] if len(path) > 1 and isinstance(path[1], int) else path[:1])
    for value in WRONG:
        data = broken(*path, value=value)
        try:
            Manifest.from_json(json.dumps(data), "m")
        except ArtifactError as error:
            assert all(issue.startswith((place, "inputs:", "outputs:", "engines:")) for issue in error.issues)
        else:
            assert value is not None or path in NULLABLE or is_free(path) or data == DATA


def test_all_issues_come_at_once_with_their_paths() -> None:
    """Nobody repairs a file one message at a time."""
    data = broken("inputs", 0, "min", value="1")
    data["engines"][0]["location"]["offset"] = True
    data["surplus"] = 1
    del data["timings"]
    assert issues_of(data) == (
        "unknown key 'surplus'",
        "inputs[0].min: expected a list, got '1'",
        "engines[0].location.offset: expected a whole number from 0 to 2^63-1, got True",
        "timings: missing, expected an object",
    )


@pytest.mark.parametrize("path", [(), ("ep",), ("inputs", 0), ("inputs", 0, "source"), ("engines", 0, "location")])
def test_unknown_keys_are_issues(path: tuple[str | int, ...]) -> None:
    """A key that this version does not know was not written by this version."""
    assert issues_of(broken(*path, "more", value=1)) == (f"{dotted(path)}: unknown key 'more'".removeprefix(": "),)


@pytest.mark.parametrize(
    "name",
    [
        "../m.ep",
        "/m.ep",
        "a/m.ep",
        "a\\m.ep",
        "..",
        ".",
        "",
        "C:m.ep",
        "C:\\m.ep",
        "m.ep.",
        "m.ep ",
        "m\n.ep",
        "m\0.ep",
        "CON",
        "con.ep",
        "Aux .ep",
        "COM1.windows.ep",
        "lpt9",
        "COM¹.ep",
        "m?.ep",
        "m*.ep",
        "a:b.ep",
        'm".ep',
        "m|.ep",
        "x" * 253 + ".ep",
        "\\\\server\\m.ep",
    ],
)
@pytest.mark.parametrize("key", ["ep", "checkpoint", "golden"])
def test_a_file_name_cannot_leave_the_directory(key: str, name: str) -> None:
    """Nor name a device or anything else that Windows does not take for a file."""
    (issue,) = issues_of(broken(key, "file", value=name))
    assert issue.startswith(f"{key}.file: expected the name of a file without directory, legal on Windows;")


@pytest.mark.parametrize(
    "name", ["console.ep", "COM10.ep", "epoch=3-val_loss=0.25.ckpt", ".hidden", "Modell-für-Ölpumpe.ep"]
)
def test_ordinary_names_are_names(name: str) -> None:
    """The rule refuses no more than it must."""
    assert Manifest.from_dict(broken("ep", "file", value=name), "m").ep.file == name


@pytest.mark.parametrize(
    ("key", "value", "issue"),
    [
        ("min", [5, 4], "axis 0: expected min <= opt <= max, got 5, 4, 8"),
        ("max", [3, 4], "axis 0: expected min <= opt <= max, got 1, 4, 3"),
        ("min", [1, 3], "axis 1: is static (its symbol is null), but ranges from 3 to 4"),
        ("opt", [4], RANKS),
        ("symbols", ["batch"], RANKS),
    ],
)
def test_ranges_fit_together(key: str, value: Any, issue: str) -> None:
    """Equal ranks, and min <= opt <= max on every axis."""
    assert issues_of(broken("inputs", 0, key, value=value)) == (f"inputs[0]: {issue}",)


def test_one_symbol_has_one_range() -> None:
    """Equal names are equal sizes."""
    other = {**DATA["inputs"][0], "name": "mask", "max": [16, 4]}
    (issue,) = issues_of(broken("inputs", value=[DATA["inputs"][0], other]))
    assert issue == "inputs: symbol 'batch' is (1, 4, 8) in axis 0 of input but (1, 4, 16) in axis 0 of mask"


@pytest.mark.parametrize("key", ["inputs", "outputs", "engines"])
def test_names_are_unique(key: str) -> None:
    """A name says which one is meant."""
    (issue,) = issues_of(broken(key, value=DATA[key] * 2))
    assert re.fullmatch(rf"{key}: '.+' is listed twice", issue)


def test_the_length_of_base64_follows_from_the_size() -> None:
    """Of the two, one is wrong."""
    size = DATA["engines"][0]["size"]
    (issue,) = issues_of(broken("engines", 0, "size", value=size + 3))
    assert issue.startswith(f"engines[0]: {size + 3} bytes are ")


def test_bindings_are_unique() -> None:
    """TensorRT finds a binding by its name."""
    assert issues_of(broken("engines", 0, "outputs", value=["input_1"])) == (
        "engines[0]: binding 'input_1' is listed twice",
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{",
        '{"a": NaN}',
        "[-Infinity]",
        "9" * 5000,
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"format_version": "1.0", "format_version": "1.0"}',
        '{"format_version": 1.0}',
        '{"format_version": "1"}',
        '{"format_version": "1.0 "}',
        '{"format_version": "\N{ARABIC-INDIC DIGIT ONE}.0"}',
        '{"format_version": "' + "9" * 9999 + '.0"}',
    ],
    ids=lambda text: text[:24],
)
def test_what_is_not_a_manifest_is_refused(text: str) -> None:
    """By one kind of error, whatever it is."""
    with pytest.raises(ArtifactError, match=r"m\.windows\.json"):
        Manifest.from_json(text, "m.windows.json")


def test_repeated_keys_are_refused() -> None:
    """Two readers would take different ones."""
    text = SAMPLE.replace('"status"', '"notes": [], "status"', 1)
    with pytest.raises(ArtifactError, match="key 'notes' stands more than once"):
        Manifest.from_json(text, "m")


@pytest.mark.parametrize("number", ["1e999", "-1", "NaN", "true", '"1"'])
def test_a_duration_is_finite(number: str) -> None:
    """Infinity can be spelled without its name."""
    with pytest.raises(ArtifactError):
        Manifest.from_json(re.sub(r'"compile": [0-9.]+', f'"compile": {number}', SAMPLE), "m")


def nested(levels: int) -> Any:
    """A list in a list in a list."""
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "expected a finite number"),
        (2**65, "expected a number of at most 64 bits, got a number of 66 bits"),
        (10**5000, "expected a number of at most 64 bits"),
        (object(), "expected text, a number, a flag, null, a list or an object"),
        ({1: 2}, "expected a name, got 1"),
        ({"a": b"bytes"}, r"extra.x.a: expected text, a number"),
        ("\ud800", "expected text"),
        (nested(40), "nested more than 32 levels deep"),
    ],
    ids=lambda value: str(type(value)),
)
def test_what_could_not_be_read_back_is_not_written(value: Any, message: str) -> None:
    """The user's own values meet the reader's rules before the file exists."""
    manifest = dataclasses.replace(Manifest.from_json(SAMPLE, "m"), extra={"x": value})
    with pytest.raises(ArtifactError, match=message):
        manifest.to_json()


def test_a_value_that_contains_itself_is_not_written() -> None:
    """JSON would have no end."""
    endless: dict[str, Any] = {}
    endless["self"] = endless
    manifest = dataclasses.replace(Manifest.from_json(SAMPLE, "m"), extra=endless)
    with pytest.raises(ArtifactError, match="nested without end"):
        manifest.to_json()


def test_the_writers_own_mistakes_are_not_written() -> None:
    """Constructors check nothing, writing does."""
    manifest = Manifest.from_json(SAMPLE, "m")
    wrong = dataclasses.replace(manifest, ep=dataclasses.replace(manifest.ep, file="/home/me/m.ep"))
    with pytest.raises(ArtifactError, match=r"ep\.file"):
        wrong.to_json()


def test_another_major_version_is_refused_before_anything_else() -> None:
    """With what to do about it, and without complaints about the rest."""
    with pytest.raises(UnsupportedFormatError, match=r"is 2\.0, this lightning-trt-windows reads 1\.x: upgrade"):
        Manifest.from_dict({"format_version": "2.0"}, "m")
    with pytest.raises(UnsupportedFormatError, match="export the checkpoint again"):
        Manifest.from_dict({"format_version": "0.9"}, "m")


def test_a_newer_minor_version_warns_and_is_read() -> None:
    """New keys and new choices are ignored, everything else is checked as before."""
    data = broken("format_version", value="1.7")
    data["more"] = 1
    data["inputs"][0]["source"]["kind"] = "telepathy"
    data["inputs"][0]["dtype"] = "float4"
    with pytest.warns(UserWarning, match=r"1\.7 is newer than 1\.[0-9]"):
        assert Manifest.from_dict(data, "m").inputs[0].dtype == "float4"
    data["ep"]["size"] = -1
    with pytest.warns(UserWarning, match="newer"), pytest.raises(ArtifactError, match=r"ep\.size"):
        Manifest.from_dict(data, "m")


def test_the_known_version_does_not_warn() -> None:
    """Nothing to say."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Manifest.from_json(SAMPLE, "m").format_version == FORMAT_VERSION


def test_messages_stay_short() -> None:
    """Whatever stands in the file."""
    issues = issues_of(broken("ep", "size", value="x" * 10**6))
    assert max(map(len, issues)) < 200


def test_no_secrets_of_the_machine() -> None:
    """The frozen sample, made by the real writer, has no path and no user in it."""
    texts = re.findall(r'"((?:[^"\\]|\\.)*)"', SAMPLE)
    assert not [text for text in texts if re.search(r"(^|\s)[/~]\w|\w:\\|@", text)]


def test_sizes_that_were_seen_are_numbers() -> None:
    """JSON's keys are texts; another writer's may be any."""
    found = issues_of(broken("inputs", 0, "source", "sizes", value=[{"4": 1, "four": 2}, {}]))
    assert found == ("inputs[0].source: sizes: 'four' is not a size",)


def test_shapes_that_were_seen_have_the_axes_of_their_input() -> None:
    """``4x4``; neither words nor another number of sizes."""
    found = issues_of(broken("inputs", 0, "source", "shapes", value={"4x4": 1, "4xfour": 2}))
    assert found == ("inputs[0].source: shapes: '4xfour' is not a shape",)
    found = issues_of(broken("inputs", 0, "source", "shapes", value={"4x4x4": 1}))
    assert found == ("inputs[0]: source.shapes: '4x4x4' has another number of axes than min",)


@pytest.mark.parametrize("value", [float("1e309"), "0.5", None, True])
def test_scores_are_finite(value: object) -> None:
    """Of either sign, but nothing that cannot be compared; JSON's 1e309 is infinite to Python."""
    text = json.dumps(broken("checkpoint", "scores", 0, "value", value=value)).replace("Infinity", "1e309")
    with pytest.raises(ArtifactError, match=r"checkpoint\.scores\[0\]\.value: expected a finite number"):
        Manifest.from_json(text, "m")
