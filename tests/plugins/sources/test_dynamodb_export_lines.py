"""Lines of exported files, many at once: texts of lines, and items read by what is known of those before them."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.plugins.sources.dynamodb import attributes, lines, shapes
from penstock.plugins.sources.dynamodb.export_items import ItemReader
from penstock.testing.dynamodb_export import json_line

# texts


@given(
    st.lists(st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"")), min_size=1),
    st.integers(1, 5),
    st.integers(1, 30),
)
def test_parts_are_the_text_and_keep_to_their_limits(found: list[bytes], lines_max: int, bytes_max: int) -> None:
    text = b"\n".join(found)
    parts = list(lines.parts(text, lines_max, bytes_max))
    assert b"\n".join(part for part, _ in parts) == text
    for part, count in parts:
        assert count == part.count(b"\n") + 1 <= lines_max
        assert len(part) <= bytes_max or count == 1
    assert sum(count for _, count in parts) == len(found)


@given(st.lists(st.sampled_from([b"", b"1", b"x", b'{"a":1}']), min_size=1))
def test_what_cannot_be_read_at_once_is_read_line_by_line(found: list[bytes]) -> None:
    def read_all(text: bytes) -> list[Any]:
        if b"x" in text:
            raise ValueError("one of them is bad")
        return text.split()

    told = lines.read(b"\n".join(found), len(found), read_all, lambda line: line)
    assert [bytes(line) for line in told] == [line for line in found if line]


# shapes

NAMES = ["a", "b", "c d", "größe", "S", "Item", ""]
values = st.sampled_from(
    [
        {"S": ""},
        {"S": "text"},
        {"N": "12345678901234567890123456789012345678"},
        {"N": "-0.25"},
        {"N": "1.5E+1"},
        {"BOOL": True},
        {"NULL": True},
        {"B": "AAH/"},
        {"SS": ["x", "y"]},
        {"NS": ["1", "2.50"]},
        {"BS": ["AA=="]},
        {"L": [{"N": "1"}, {"M": {"N": {"S": "x"}}}, {"L": []}, {"BOOL": False}, {"NULL": True}]},
        {"M": {"S": {"S": "x"}, "deep": {"M": {"N": {"N": "1"}}}}},
    ]
)
sparse = st.dictionaries(st.sampled_from([*NAMES, 'quo"te']), values, max_size=4)
alike = st.fixed_dictionaries(
    {"a": st.just({"S": "text"}), "b": st.sampled_from([{"N": "1"}, {"N": "-1.50"}, {"N": "2E+1"}])},
    optional={"c d": st.just({"BOOL": False}), "größe": st.just({"SS": ["x", ""]}), "": st.just({"NULL": True})},
)
images = st.lists(st.lists(st.one_of(sparse, alike, alike, alike), min_size=1, max_size=4), min_size=1, max_size=12)


def reader(sort_key: str | None = None) -> ItemReader:
    return ItemReader(
        table_name="orders",
        partition_key="id",
        sort_key=sort_key,
        form="DYNAMODB_JSON",
        incremental=False,
        at_ms=1_700_000_000_000,
        view_on_remove="NEW_IMAGE",
        log=logging.getLogger("test"),
    )


@given(images, st.sampled_from([{"N": "7"}, {"N": "3.937E+4"}, {"S": "x"}, {"B": "AAH/"}]))
def test_items_are_the_same_whatever_came_before_them(texts: list[list[dict[str, Any]]], key: dict[str, str]) -> None:
    convert = reader("range").compile()
    for images in texts:
        whole = [{**image, "id": key, "range": {"N": "1"}} for image in images]
        found = convert("\n".join(map(json_line, whole)).encode(), len(whole), 0)
        assert found.failed == 0
        assert found.batch.bodies == [attributes.item(image) for image in whole]
        for body, image in zip(found.batch.bodies, whole, strict=True):
            assert {name: type(value) for name, value in body.items()} == {
                name: type(value) for name, value in attributes.item(image).items()
            }
        told = attributes.key_text(key)
        for place in range(len(whole)):
            meta = found.batch.peek(place).attributes
            assert (meta["partition_key"], meta["sort_key"], meta["primary_key"]) == (told, "1", f"{told}|1")


@pytest.mark.parametrize(
    "bad",
    [
        '{"Item":{"id":{"N":"1"},"a":{"N":"x"}}}',
        '{"Item":{"id":{"N":"1"},"a":null}}',
        '{"Item":{"id":{"N":"1"},"a":{}}}',
        '{"Item":{"a":{"N":"1"}}}',
        '{"Item":{"id":{"BOOL":true},"a":{"N":"1"}}}',
        '{"Item":{"id":{"N":"1"},"a":{"N":"1"}}',
        '{"Items":{}}',
    ],
)
def test_a_bad_line_among_items_of_a_known_shape_is_left_out_alone(bad: str) -> None:
    good = [f'{{"Item":{{"id":{{"N":"{number}"}},"a":{{"N":"{number}.5"}}}}}}' for number in range(4)]
    convert = reader().compile()
    convert("\n".join(good).encode(), 4, 0)
    found = convert("\n".join([*good[:2], bad, *good[2:]]).encode(), 5, 0)
    assert [body["id"] for body in found.batch.bodies] == [0, 1, 2, 3]
    assert found.failed == 1
    assert len(convert("\n".join(good).encode(), 4, 0).batch) == 4


def known(**kinds: str) -> list[dict[str, attributes.Value]]:
    return [{name: attributes.Value(**{kind: "1"}) for name, kind in kinds.items()}]  # type: ignore[arg-type]


def rows(text: str, found: shapes.Shapes) -> list[dict[str, Any]] | None:
    told = found.read(text.encode(), text.count("\n") + 1)
    return None if told is None else told.bodies


def test_what_is_known_grows_until_too_much_does_not_fit() -> None:
    found = shapes.Shapes("id", None)
    other = '{"Item":{"id":{"N":"1"},"b":{"S":"1"}}}'
    assert rows(other, found) is None
    found.learn(known(id="N", a="S"))
    assert rows('{"Item":{"id":{"N":"2"},"a":{"S":"2"}}}', found) == [{"id": 2, "a": "2"}]
    assert rows(other, found) is None
    found.learn(known(id="N", b="S"))
    assert rows(other + '\n{"Item":{"id":{"N":"1"}}}', found) == [{"id": 1, "b": "1"}, {"id": 1}]
    for number in range(shapes.LEARN_MAX):
        found.learn(known(id="N", **{f"a{number}": "N"}))
    assert rows('{"Item":{"id":{"N":"1"},"a0":{"N":"1"}}}', found) == [{"id": 1, "a0": 1}]
    assert rows(f'{{"Item":{{"id":{{"N":"1"}},"a{shapes.LEARN_MAX - 1}":{{"N":"1"}}}}}}', found) is None
    for _ in range(10):
        assert rows('{"Item":{"id":{"N":"1"},"z":{"N":"1"}}}', found) is None
    assert rows(other, found) is None, "it is not tried any more"


def test_items_of_very_many_attributes_have_no_shape() -> None:
    found = shapes.Shapes("id", None)
    found.learn(known(id="N", **{f"a{number}": "S" for number in range(shapes.ATTRIBUTES_MAX)}))
    assert rows('{"Item":{"id":{"N":"1"}}}', found) is None
