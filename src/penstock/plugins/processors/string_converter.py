"""Turns all texts at the top of events into upper or lower case. Other values, null among them, are left alone."""

from penstock import sdk


class Config(sdk.PluginConfig):
    upper_case: bool = True
    """Upper case; `false`: lower case."""


def build(config: Config, ctx: sdk.Context) -> sdk.BatchFn:
    change = "value.upper()" if config.upper_case else "value.lower()"
    return ctx.each(sdk.Inline(_CONVERT.format(change=change)))


_CONVERT = """
for name, value in body.items():
    if type(value) is str:
        body[name] = {change}  # replacing values while iterating is fine: no key comes or goes
"""


EXAMPLES = [
    sdk.Example(
        "Upper case, but not below the top",
        config="{}",
        before=[{"level": "warn", "user": {"name": "ada"}, "n": 1}],
        after=[{"level": "WARN", "user": {"name": "ada"}, "n": 1}],
    ),
    sdk.Example("Lower case", config="upper_case: false", before=[{"level": "WARN"}], after=[{"level": "warn"}]),
]
