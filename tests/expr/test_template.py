from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.batch import Meta
from penstock.core.errors import EventError, ExpressionSyntaxError
from penstock.core.key import Key
from penstock.expr import compile_template, dynamic_expressions, dynamic_keys, valid_format

META = Meta(attributes={"k": "attribute"})
BODY = {
    "a": "x",
    "n": 5,
    "d": Decimal("1E+3"),
    "f": 1e7,
    "o": {"b": [1, None], "c": True},
    "null": None,
    "a b": "blank",
}


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("plain $ {a} }", "plain $ {a} }"),
        ("${a}", "x"),
        ("<${/a/}|${a b}>", "<x|blank>"),
        ("${n}-${d}-${f}", "5-1000-1.0E7"),
        ("${o}", "{b=[1, null], c=true}"),
        ("${o/b/0}${o/c}", "1true"),
        ("${/missing}|${/null}", "|"),
        ('${getMetadata("k")}/${length(/a) + 1}', "attribute/2"),
        ("${/n - 1}", "4"),
        ("${a}$", "x$"),
        ("}${a}{", "}x{"),
    ],
)
def test_rendering(text, rendered):
    template = compile_template(text)
    assert template.render(BODY, META) == rendered
    assert template.render_or(BODY, META, "?") == rendered


@pytest.mark.parametrize("name", ["missing", "no,key", 'lenght("x")'])
def test_what_cannot_be_found_fails_or_gets_the_default(name):
    template = compile_template(f"<${{{name}}}>")
    with pytest.raises(EventError) as failed:
        template.render(BODY, META)
    if "(" in name:
        assert "Unknown function" in str(failed.value)
        return
    assert str(failed.value) == f"The key {name} could not be found in the Event when formatting"
    assert template.render_or(BODY, META, "D") == "<D>"


def test_without_expressions_only_keys_count():
    template = compile_template("${/missing}", with_expressions=False)
    with pytest.raises(EventError, match="The key /missing could not be found"):
        template.render(BODY, META)
    assert compile_template("${/a}", with_expressions=False).render(BODY, META) == "x"


@pytest.mark.parametrize("text", ["${", "a${b", "${a}${b"])
def test_a_part_must_be_closed(text):
    with pytest.raises(ExpressionSyntaxError, match="Format string is not properly formed"):
        compile_template(text)
    assert not valid_format(text)
    assert dynamic_keys(text) == dynamic_expressions(text) == []


def test_what_a_template_reads():
    template = compile_template('${a}-${length(/o/b)}-${getMetadata("k")}')
    assert template.keys >= {Key.parse("a"), Key.parse("o/b")}
    assert template.needs_meta
    assert not template.is_constant
    assert compile_template("x").is_constant
    assert dynamic_keys('${a}-${/b}-${length("x")}') == ["/a", "/b"]
    assert dynamic_expressions('${a}-${/b}-${length("x")}') == ['length("x")']
    assert not valid_format("${no,key}")


@given(st.lists(st.sampled_from(["lit", "$", "{", "${a}", "${n}", "${o/b/0}"]), max_size=6))
def test_each_part_is_rendered_on_its_own(pieces):
    values = {"${a}": "x", "${n}": "5", "${o/b/0}": "1"}
    text = " ".join(pieces)
    assert compile_template(text).render(BODY, META) == " ".join(values.get(piece, piece) for piece in pieces)


@given(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.lists(st.integers())),
    st.sampled_from(["", "x", "ü-"]),
)
def test_an_attribute_alone_reads_like_any_expression(value, around):
    meta = Meta(attributes={} if value is None else {"k": value})
    quick = compile_template(f'{around}${{getMetadata("k")}}{around}')
    general = compile_template(f'{around}${{getMetadata(" k ")}}{around}${{/none}}')
    assert quick.render({"k": "not this"}, meta) == general.render({"k": "not this"}, meta)
    two = compile_template('${getMetadata("k")}|${getMetadata("k")}')
    assert two.render({}, meta) == "|".join([compile_template('${getMetadata("k")}').render({}, meta)] * 2)
