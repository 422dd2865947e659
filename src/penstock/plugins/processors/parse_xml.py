"""Parses a text that holds an XML document and writes what it finds into the event.

The members of the root element become members of the object: attributes and elements by their local names, texts as
they are, elements that occur more than once as a list, text beside attributes or elements under an empty name, an
element with `xsi:nil="true"` as null. Everything stays text.

Documents that declare entities are refused, whatever the entities hold, and nothing outside the text is ever read.
"""

from __future__ import annotations

from typing import Any, NoReturn
from xml.parsers import expat

from penstock import sdk
from penstock.sdk.parsing import NESTING_MAX, NotParsed, ParseOptions, parse_processor

_SPACE = " \t\r\n"
_NAMESPACE_END = " "
_NIL = f"http://www.w3.org/2001/XMLSchema-instance{_NAMESPACE_END}nil"
_TEXT_NAME = ""
_BUFFER_BYTES = 65536
NAMESPACE_CHARACTERS_MAX = 2048
"""Longest name of a namespace: every element and attribute inside repeats it while the text is read."""


class Config(ParseOptions):
    """Options."""


def build(config: Config, ctx: sdk.Context) -> sdk.BatchFn:
    keeps_all = config.destination is not None or config.delete_source
    return parse_processor(config, ctx, read_xml if keeps_all else _read_for_the_top)


def _read_for_the_top(text: str) -> sdk.Body:
    """The members of the root element that have a name. Its text is still in the source; alone it is a failure."""
    members = read_xml(text)
    if len(members) > 1:
        members.pop(_TEXT_NAME, None)
    return members


def read_xml(text: str) -> sdk.Body:
    """The members of the root element. Raises `NotParsed`."""
    parser = expat.ParserCreate(namespace_separator=_NAMESPACE_END)
    parser.buffer_text = True
    parser.buffer_size = _BUFFER_BYTES
    parser.ordered_attributes = True
    parser.EntityDeclHandler = _refuse_entity
    parser.SkippedEntityHandler = _refuse_entity
    parser.StartNamespaceDeclHandler = _check_namespace
    document = _Document()
    parser.StartElementHandler = document.start
    parser.EndElementHandler = document.end
    parser.CharacterDataHandler = document.texts.append
    try:
        parser.Parse(text, True)
    except (expat.ExpatError, ValueError) as error:  # ValueError: half of a surrogate pair
        raise NotParsed(f"not valid XML: {error}") from None
    assert document.root is not None, "a document that ends well has a root"
    return document.root


def _refuse_entity(*_declaration: Any) -> NoReturn:
    raise NotParsed("XML with entities of its own is refused")


def _check_namespace(_prefix: str | None, name: str | None) -> None:
    if name is not None and len(name) > NAMESPACE_CHARACTERS_MAX:
        raise NotParsed(f"the name of an XML namespace is longer than {NAMESPACE_CHARACTERS_MAX} characters")


class _Document:
    """Builds the object while the parser goes through the document."""

    def __init__(self) -> None:
        self.root: sdk.Body | None = None
        self.texts: list[str] = []
        """Pieces of text since the last tag."""
        self._open: list[sdk.Body | None] = []
        """Members of the elements that are open; None for one that is null."""

    def start(self, name: str, attributes: list[str]) -> None:
        if self._open:
            self._end_text(self._open[-1])
            if len(self._open) == NESTING_MAX:
                raise NotParsed(f"XML elements are nested more than {NESTING_MAX} deep")
        is_null = attributes[:2] == [_NIL, "true"]
        first = 2 if attributes[:1] == [_NIL] else 0
        members: sdk.Body | None = None if is_null else {}
        if members is not None:
            for place in range(first, len(attributes), 2):
                _add(members, attributes[place], attributes[place + 1])
        self._open.append(members)

    def end(self, name: str) -> None:
        members = self._open.pop()
        value: Any = members
        if members is not None:
            if members or not self._open:
                self._end_text(members)
            else:
                value = "".join(self.texts)
        self.texts.clear()
        if not self._open:
            if members is None:
                raise NotParsed("the root element is null")
            self.root = members
        elif (parent := self._open[-1]) is not None:
            _add(parent, name, value)

    def _end_text(self, members: sdk.Body | None) -> None:
        """The text before a tag belongs to the element around it, unless it only indents."""
        if self.texts:
            text = "".join(self.texts)
            self.texts.clear()
            if members is not None and text.strip(_SPACE):
                _add(members, _TEXT_NAME, text)


def _add(members: sdk.Body, name: str, value: Any) -> None:
    if _NAMESPACE_END in name:
        name = name.rpartition(_NAMESPACE_END)[2]
    if name not in members:
        members[name] = value
        return
    known = members[name]
    if type(known) is list:
        known.append(value)
    else:
        members[name] = [known, value]


EXAMPLES = [
    sdk.Example(
        "Lift the elements of a document to the top of the event",
        config="""
            delete_source: true
            tags_on_failure: [no_xml]
        """,
        before=[
            {"message": "<person><name>Ada</name><skill>logic</skill><skill>lace</skill></person>"},
            {"message": "<person>"},
        ],
        after=[{"name": "Ada", "skill": ["logic", "lace"]}, {"message": "<person>"}],
        tags=[[], ["no_xml"]],
    ),
    sdk.Example(
        "Attributes and text beside them, in a field of their own",
        config="{source: xml, destination: order}",
        before=[{"xml": '<order id="7"><price currency="EUR">12.50</price></order>'}],
        after=[
            {
                "xml": '<order id="7"><price currency="EUR">12.50</price></order>',
                "order": {"id": "7", "price": {"currency": "EUR", "": "12.50"}},
            }
        ],
    ),
]
