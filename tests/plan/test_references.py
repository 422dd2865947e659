import pytest

from penstock.config import parse_pipelines, parse_server_config
from penstock.core.errors import Permanent
from penstock.plan import make_plan, resolve_references
from penstock.plugins.extensions.aws import value_in

TEXT = """
extension:
  aws:
    secrets:
      login: {secret_id: '${{env:SECRET_NAME}}'}
      unused: {secret_id: never-read}
p:
  source: {trickle: {hosts: ['${{aws_secrets:login:host}}', '${{aws_secrets:login}}'], path: '${{env:NONE}}'}}
  sink:
    - bucket: {size: 1b, note: '${{file:/run/note}}'}
"""
SECRET = '{"host": "https://h:9200", "port": 9200}'


class Secrets:
    def __init__(self, config):
        self.config = config
        self.read_ids = []

    async def __aenter__(self):
        return self

    async def __aexit__(self, *error):
        self.closed = True

    async def read(self, name, key=None):
        self.read_ids.append(self.config.secrets[name].secret_id)
        return SECRET if key is None else value_in(SECRET, name, key)


def resolve(text, environ):
    import asyncio

    made = []

    def build(module, config):
        made.append(Secrets(config))
        return made[-1]

    documents = parse_pipelines([("f", text.encode())])
    files = {"/run/note": b"from file\n"}
    references = asyncio.run(
        resolve_references(
            documents,
            parse_server_config(b"authentication: {http_basic: {username: u, password: '${{env:PASSWORD}}'}}", "s"),
            environ=environ,
            read_file=lambda path: files[str(path)],
            build=build,
        )
    )
    return documents, references, made


def test_values_come_from_all_providers_and_only_wanted_secrets_are_read():
    documents, references, made = resolve(TEXT, {"SECRET_NAME": "prod/login", "NONE": "/x", "PASSWORD": "pw"})
    assert {str(reference): value for reference, value in references.values.items()} == {
        "${{env:SECRET_NAME}}": "prod/login",
        "${{env:PASSWORD}}": "pw",
        "${{env:NONE}}": "/x",
        "${{aws_secrets:login:host}}": "https://h:9200",
        "${{aws_secrets:login}}": SECRET,
        "${{file:/run/note}}": "from file",
    }
    assert made[0].read_ids == ["prod/login", "prod/login"]
    assert made[0].closed
    plan = make_plan(documents, references=references)
    assert not plan.problems
    assert plan.pipelines[0].source.config.hosts == ["https://h:9200", SECRET]
    assert plan.pipelines[0].sinks[0].plugin.config.note == "from file"


def test_what_cannot_be_had_is_a_problem_at_its_place():
    text = TEXT.replace("login:host", "login:nothing")
    documents, references, _ = resolve(text, {"SECRET_NAME": "prod/login"})
    plan = make_plan(documents, references=references)
    assert [(problem.path, problem.message) for problem in plan.problems] == [
        (
            "p > source trickle > hosts.0",
            "Unable to find the value of key: nothing under secretId: login",
        ),
        ("p > source trickle > path", "The environment variable NONE is not set."),
    ]


@pytest.mark.parametrize(
    ("text", "key", "result"),
    [
        ('{"a": "b"}', "a", "b"),
        ('{"a": 5}', "a", "5"),
        ('{"a": true}', "a", "true"),
        ("no json", "a", "The value under secretId: x is not a valid json."),
        ("[1]", "a", "The value under secretId: x is not a valid json."),
        ("{}", "a", "Unable to find the value of key: a under secretId: x"),
    ],
)
def test_one_value_of_a_secret(text, key, result):
    if " " in result:
        with pytest.raises(Permanent) as error:
            value_in(text, "x", key)
        assert str(error.value) == result
    else:
        assert value_in(text, "x", key) == result
