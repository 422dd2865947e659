from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from penstock import sdk
from penstock.config.options import Subject, check_options


class Entry(sdk.PluginConfig):
    key: str | None = None
    pattern: str | None = None
    limit: int = 1

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.key is None) == (self.pattern is None):
            raise ValueError("one of key or pattern")
        return self


class Config(sdk.PluginConfig):
    hosts: list[str]
    index: Annotated[str | None, Field(validation_alias="index_name")] = None
    user: str | None = None
    password: str | None = None
    size: int = 1
    entries: list[Entry] = Field(default_factory=list)
    either: Entry | list[str] | None = None

    @model_validator(mode="before")
    @classmethod
    def _hosts_given(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("hosts") is None:
            raise ValueError("hosts cannot be null")
        return values

    @field_validator("size")
    @classmethod
    def _small(cls, value: int) -> int:
        if value > 9:
            raise ValueError("size is too big")
        return value

    @property
    def secure(self) -> bool:
        return self.user is not None

    @model_validator(mode="after")
    def _login(self) -> Self:
        if self.secure != (self.password is not None):
            raise ValueError("user and password go together")
        return self

    @model_validator(mode="after")
    def _index_of_many(self) -> Self:
        if self.index is None and len(self.hosts) > 1:
            raise ValueError("an index is needed for many hosts")
        return self


def faults(values: Any) -> list[tuple[str, str]]:
    _, found = check_options(Config, values, Subject())
    return [(".".join(map(str, fault.path)), fault.message) for fault in found]


def messages(values: Any) -> list[str]:
    return [message.partition(" Available")[0] for _, message in faults(values)]


LOGIN = "user and password go together"


def test_a_rule_is_asked_although_another_option_is_wrong() -> None:
    assert messages({"hosts": [], "user": "a", "size": "x"})[1:] == [LOGIN]
    assert messages({"hosts": [], "user": "a", "size": 12}) == ["size is too big", LOGIN]
    assert messages({"hosts": [], "user": "a", "nonsense": 12})[1:] == [LOGIN]


def test_a_rule_that_needs_a_wrong_option_is_not_judged() -> None:
    assert len(faults({"hosts": [], "user": 5.5, "password": [1]})) == 1
    assert len(faults({"hosts": [], "user": [1]})) == 1, "through a property"
    assert len(faults({"hosts": ["a", "b"], "index_name": [1]})) == 1, "by its other name"


def test_a_slip_of_the_pen_counts_as_the_option_that_is_meant() -> None:
    assert len(faults({"hosts": [], "usr": "a", "password": "b"})) == 1
    assert messages({"hosts": [], "xyz": "a", "password": "b"})[1:] == [LOGIN]


def test_a_rule_before_the_options_hides_nothing() -> None:
    found = messages({"size": 12, "usr": "a", "entries": [{}]})
    assert found[0] == "hosts cannot be null"
    assert set(found[1:]) == {"size is too big", 'Parameter "usr" does not exist.', "one of key or pattern"}
    assert messages({"hosts": None, "user": "a"}) == ["hosts cannot be null", LOGIN]
    assert messages({}) == ["hosts cannot be null"]


def test_rules_of_models_inside_are_asked_at_their_place() -> None:
    entries = [{"limit": "x"}, {"limit": "x", "key": "a"}, {"key": [1], "limit": 2}, {"key": "a", "pattern": "b"}]
    found = faults({"hosts": [], "entries": entries, "user": "a"})
    assert ("entries.0", "one of key or pattern") in found
    assert ("entries.3", "one of key or pattern") in found
    assert ("", LOGIN) in found
    assert [path for path, _ in found if path.startswith("entries.1")] == ["entries.1.limit"]
    assert [path for path, _ in found if path.startswith("entries.2")] == ["entries.2.key"]


def test_thousands_of_mistakes_are_told_once_each() -> None:
    found = faults({"hosts": [], "entries": [{"limit": "x", "key": "a"}] * 2000})
    assert len(found) == 2000
    assert len(set(found)) == 2000


def test_what_has_no_shape_of_options_is_refused_as_ever() -> None:
    shapes: list[Any] = [[], 5, "text", {"hosts": [], "entries": [5, None]}, {"hosts": 5, "either": 5}]
    for values in shapes:
        assert faults(values)
