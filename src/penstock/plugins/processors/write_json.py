"""Writes a value as JSON text. Events where the value is absent or null are left alone.

Integers and decimals keep all their digits. NaN and Infinity, for which JSON has no number, become null.
"""

from penstock import sdk


class Config(sdk.PluginConfig):
    source: sdk.ReadKey
    """Key of the value; an empty text is the whole event."""
    target: sdk.Key | None = None
    """Key that receives the text; the value itself is replaced when left out."""


def build(config: Config, ctx: sdk.Context) -> sdk.BatchFn:
    source, target = config.source, config.target or config.source
    get, put = source.get, target.put

    def write(body: sdk.Body) -> None:
        value = get(body)
        if value is not None and value is not sdk.MISSING:
            put(body, sdk.encode(value).decode())

    quick = None
    if source.top is not None and target.top is not None:
        quick = sdk.Inline(_WRITE, source=source.top, target=target.top, write=write, **sdk.INLINE_ENCODE.names)
    return ctx.each(quick or write, failures="writeJsonFailedCounter")


_WRITE = f"""
value = body.get(source)
if value is not None:
    try:
        text = {sdk.INLINE_ENCODE.source}.decode()
    except TypeError:
        write(body)
        continue
    body[target] = text
"""


EXAMPLES = [
    sdk.Example(
        "An object as text",
        config="{source: request, target: text}",
        before=[{"request": {"path": "/a", "size": 10}}, {"request": None}],
        after=[{"request": {"path": "/a", "size": 10}, "text": '{"path":"/a","size":10}'}, {"request": None}],
    ),
]
