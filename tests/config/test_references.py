import pytest

from penstock.config.nodes import ScalarNode
from penstock.config.references import BadReference, Reference, References, Unresolved, parse_reference, read_local


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("${{env:HOST}}", Reference("env", "HOST")),
        ("${{ env:HOST }}", Reference("env", "HOST")),
        ("${{file:/run/secrets/a b}}", Reference("file", "/run/secrets/a b")),
        ("${{aws_secrets:my/id_1.2}}", Reference("aws_secrets", "my/id_1.2")),
        ("${{aws_secrets:id:some key}}", Reference("aws_secrets", "id", "some key")),
        ("plain", None),
        ('${a}-${getMetadata("x")}', None),
        ("100% ${{", None),
    ],
)
def test_what_is_a_reference(text, reference):
    assert parse_reference(text) == reference


@pytest.mark.parametrize(
    "text",
    [
        "https://${{env:HOST}}:9200",
        "${{env:A}}${{env:B}}",
        "${{env:}}",
        "${{vault:x}}",
        "${{aws_secrets:a b}}",
        "${{aws_secrets:id:}}",
    ],
)
def test_what_only_looks_like_one_is_refused(text):
    with pytest.raises(BadReference):
        parse_reference(text)


def test_values_come_from_the_environment_and_from_files():
    files = {"/run/a": b"s3cret\r\n", "/run/b": b"\xff", "/run/c": b"x" * (1024 * 1024 + 1)}

    def read_file(path):
        try:
            return files[str(path)]
        except KeyError:
            raise FileNotFoundError(2, "No such file or directory") from None

    def read(text):
        return read_local(parse_reference(text), {"HOST": "h"}, read_file)

    assert read("${{env:HOST}}") == "h"
    assert read("${{file:/run/a}}") == "s3cret"
    for text, reason in [
        ("${{env:PORT}}", "PORT is not set"),
        ("${{file:/run/b}}", "not UTF-8"),
        ("${{file:/run/c}}", "larger"),
        ("${{file:/none}}", "No such file"),
    ]:
        with pytest.raises(BadReference, match=reason):
            read(text)


def test_a_value_is_put_in_and_never_shown():
    known, unknown = Reference("env", "A"), Reference("env", "B")
    references = References({known: "s3cret"}, offline=False)
    assert references.read(ScalarNode(str(known), False, 1)) == "s3cret"
    open_value = references.read(ScalarNode(str(unknown), False, 1))
    assert isinstance(open_value, Unresolved)
    assert references.problem(unknown) == "${{env:B}} has no value."
    assert References().problem(unknown) is None
    assert references.mask("it is s3cret, s3cret") == "it is ******, ******"


def test_numbers_stay_numbers():
    assert References().read(ScalarNode("5", True, 1)) == 5
