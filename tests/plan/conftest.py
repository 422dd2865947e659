import importlib
import sys
import textwrap

import pytest

from penstock.config import parse_pipelines
from penstock.plan import make_plan

MODULES = {
    "sources/trickle": """
        '''Gives events now and then.'''
        from typing import Annotated, Literal
        from pydantic import Field, model_validator
        from penstock import sdk

        class Aws(sdk.PluginConfig):
            region: Annotated[str, Field(min_length=1)]
            '''Region.'''
            token: sdk.Secret | None = None
            '''Token.'''

        class Config(sdk.PluginConfig):
            port: Annotated[int, Field(ge=0, le=65535)] = 2021
            '''Port.'''
            path: str = "/"
            '''Path.'''
            mode: Literal["fast", "slow"] = "fast"
            '''Mode.'''
            timeout: sdk.Duration = 10.0
            '''Timeout.'''
            codec: Annotated[sdk.PluginUse | None, sdk.Nested("input_codec")] = None
            '''Codec.'''
            hosts: str | list[str] | None = None
            '''Hosts.'''
            aws: Aws | None = None
            '''Access.'''
            proxy: Annotated[str | None, sdk.NotYet()] = None
            '''Proxy.'''

            @model_validator(mode="after")
            def _path(self):
                if not self.path.startswith("/"):
                    raise ValueError("path should start with /")
                return self

        EXAMPLES = []
    """,
    "processors/shuffle": """
        '''Moves keys.'''
        from penstock import sdk

        class Entry(sdk.PluginConfig):
            from_key: sdk.Key
            '''From.'''
            to_key: sdk.Key
            '''To.'''
            shuffle_when: sdk.When = sdk.ALWAYS
            '''When.'''
            text: sdk.Template | None = None
            '''Text.'''

        class Config(sdk.PluginConfig):
            entries: sdk.NonEmpty[list[Entry]]
            '''Entries.'''

        EXAMPLES = []
    """,
    "sinks/bucket": """
        '''Keeps events.'''
        from penstock import sdk

        class Config(sdk.PluginConfig):
            size: sdk.ByteSize
            '''Size.'''
            note: str = ""
            '''Note.'''

        EXAMPLES = []
    """,
    "codecs/lines": """
        '''Lines.'''
        from penstock import sdk

        class InputConfig(sdk.PluginConfig):
            header: bool = False
            '''Header.'''

        EXAMPLES = []
    """,
}


@pytest.fixture(autouse=True)
def stub_plugins(tmp_path_factory):
    """Plugins that exist for these tests alone, so that they do not change with the real ones."""
    root = tmp_path_factory.mktemp("plugins")
    added, names = [], []
    for path, text in MODULES.items():
        package, _, name = path.partition("/")
        (root / package).mkdir(exist_ok=True)
        (root / package / f"{name}.py").write_text(textwrap.dedent(text))
        names.append(f"penstock.plugins.{package}.{name}")
    for package in {path.partition("/")[0] for path in MODULES}:
        places = importlib.import_module(f"penstock.plugins.{package}").__path__
        places.append(str(root / package))
        added.append((places, str(root / package)))
    importlib.invalidate_caches()
    yield
    for places, place in added:
        places.remove(place)
    for name in names:
        sys.modules.pop(name, None)
        package, _, last = name.rpartition(".")
        sys.modules[package].__dict__.pop(last, None)


@pytest.fixture
def plan():
    """Plan a text: `plan(yaml)`."""

    def make(text, **options):
        return make_plan(parse_pipelines([("pipelines.yaml", textwrap.dedent(text).encode())]), **options)

    return make
