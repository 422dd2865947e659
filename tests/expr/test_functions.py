import pytest

from penstock.core.batch import Meta
from penstock.core.errors import ExpressionError
from penstock.expr import compile_expression

META = Meta("TRACE", attributes={"n": {"a": 5}, "k": "v", "v": "w"}, tags=["t1", "t2"])
BODY = {
    "text": "a-b-c",
    "dash": "-",
    "ip": "10.1.2.3",
    "ip6": "2001:db8::1",
    "no_ip": "ten",
    "number": 7,
    "list": ["a", 1, True, None, 2.5],
    "map": {"x": [1, 2], "y": 3},
    "null": None,
    "time": 1_700_000_000_000,
    "iso": "2023-11-14T22:13:20Z",
}


def evaluate(statement):
    return compile_expression(statement).evaluate(BODY, META)


@pytest.mark.parametrize(
    ("statement", "value"),
    [
        ("length(/missing)", None),
        ("length(/null)", None),
        ("length(/map)", 2),
        ("length(\"/text\")", 5),
        ("contains(/text, substringBefore(/text, /dash))", True),
        ("startsWith(getMetadata(\"missing\"), \"x\")", False),
        ("contains(/missing, /map)", False),
        ("startsWith(/null, /map)", False),
        ("substringAfter(/text, /dash) + \"!\"", "b-c!"),
        ("substringBeforeLast(/text, \"-\")", "a-b"),
        ("substringBefore(/null, \"-\")", None),
        ("hasTags(\"t1\", \"t2\")", True),
        ("getMetadata(\" n/a \")", 5),
        ("getMetadata(getMetadata(\"k\"))", "w"),
        ("getMetadata(\"/k/\")", "v"),
        ("getEventType()", "TRACE"),
        ("cidrContains(/ip, \"10.0.0.0/8\")", True),
        ("cidrContains(/ip, \"10.1.2.3\")", True),
        ("cidrContains(/ip, \"2001:db8::/32\", \"10.1.2.99/24\")", True),
        ("cidrContains(/ip6, \"0.0.0.0/0\")", False),
        ("cidrContains(/no_ip, \"0.0.0.0/0\")", False),
        ("cidrContains(/number, \"0.0.0.0/0\")", False),
        ("cidrContains(/missing, \"0.0.0.0/0\")", False),
        ("join(/list)", "a,1,true,null,2.5"),
        ("join(\"\", /list)", "a1truenull2.5"),
        ("join(/dash, /map)", None),
        ("formatDateTime(/time, \"yyyy-MM-dd HH:mm\", \"Asia/Tokyo\")", "2023-11-15 07:13"),
        ("formatDateTime(/iso, \"yyyy\")", "2023"),
    ],
)  # fmt: skip
def test_results(statement, value):
    if statement == "join(/dash, /map)":
        with pytest.raises(ExpressionError, match="Unexpected argument type for delimiter: EventKey"):
            evaluate(statement)
    else:
        assert evaluate(statement) == value


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("length()", "length() takes only one argument"),
        ("length(5)", "Unexpected argument type: Integer"),
        ("length(/number)", "/number is not a supported type for length(). Supported: String, Map, List, Array"),
        ("contains(/text)", "contains() takes exactly two arguments"),
        ("contains(/number, \"a\")", 'containsSubstring() takes only string type arguments. "7" is not of type string'),
        ("contains(true, \"a\")", "Unexpected argument type: Boolean"),
        ("startsWith(/list, \"a\")", 'startsWith() takes only string type arguments. "[a, 1, true, null, 2.5]" is not'),
        ("substringAfter(/text)", "substringAfter() takes exactly two arguments"),
        ("substringAfterLast(/number, \"a\")", 'substringAfterLast() takes only string type arguments. "7"'),
        ("hasTags()", "hasTags() takes at least one argument"),
        ("hasTags(/text)", "Unexpected argument type. hasTags() takes only String type arguments"),
        ("hasTags(\" \")", "Unexpected argument value. hasTags() requires non-empty strings."),
        ("getMetadata()", "getMetadata() takes only one argument"),
        ("getMetadata(/text)", "Unexpected argument type: EventKey. getMetadata() takes only String type arguments"),
        ("getMetadata(1 + 1)", "Unexpected argument type: Integer. getMetadata() takes only String type arguments"),
        ("getEventType(1)", "getEventType() does not take any arguments"),
        ("cidrContains(/ip)", "cidrContains() takes at least two arguments"),
        ("cidrContains(\"10.0.0.1\", \"10.0.0.0/8\")", "Unexpected argument type for first argument: String"),
        ("cidrContains(/ip, \"10.0.0.0/33\")", "10.0.0.0/33 is no CIDR block"),
        ("join()", "join() takes one or two arguments"),
        ("join(1, /list)", "Unexpected argument type for delimiter: Integer. Expected String."),
        ("join(\"x\")", "Unexpected argument type for source key: String. Expected EventKey."),
        ("join(/text)", "Unable to perform join function on /text"),
        ("formatDateTime(/time)", "formatDateTime() takes at least 2 arguments"),
        ("formatDateTime(/time, \"y\", \"UTC\", \"UTC\", \"UTC\")", "formatDateTime() takes at most 4 arguments"),
        ("formatDateTime(/time, \"y\", \"Mars\")", "Destination time zone [Mars] is invalid"),
        ("formatDateTime(/time, \"y\", \"UTC\", \"Mars\")", "Source time zone [Mars] is invalid"),
        ("formatDateTime(/time, \"{\")", "Date pattern [{] is invalid"),
        ("formatDateTime(/list, \"y\")", "Unsupported type passed as function argument: ArrayList"),
        ("formatDateTime(/text, \"y\")", "/text holds no date-time"),
        ("formatDateTime(/missing, \"y\")", "/missing is missing"),
        ("now(1)", "now() does not take any arguments"),
        ("generateUuid(1)", "generateUuid() does not take any arguments"),
        ("toJsonString(1)", "toJsonString takes no arguments"),
        ("nothing()", "Unknown function in the expression"),
    ],
)  # fmt: skip
def test_messages(statement, message):
    with pytest.raises(ExpressionError) as failed:
        evaluate(statement)
    assert message in str(failed.value)
