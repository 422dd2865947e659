"""Date patterns: what `java.time` of JDK 17 makes of them. The tables were checked against it."""

import itertools
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core import dates
from penstock.core.dates import calendar

SECOND_NS = 1_000_000_000
NOON_OF_LEAP_DAY = 1_709_208_000 * SECOND_NS
ISO = "yyyy-MM-dd'T'HH:mm:ss.SSSXXX"


def parse(pattern, text, zone="UTC", locale=None):
    instant = dates.compile_parser(pattern, zone, locale, lambda: NOON_OF_LEAP_DAY)(text)
    return dates.compile_formatter("uuuu-MM-dd'T'HH:mm:ss.SSSSSSSSSXXX")(instant)


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("dd/MMM/yyyy:HH:mm:ss Z", "15/Jan/2024:10:20:30 +0100", "2024-01-15T09:20:30.000000000Z"),
        ("yyyyMMddHHmmssSSS", "20240115102030123", "2024-01-15T10:20:30.123000000Z"),
        ("yyMMdd", "240115", "2024-01-15T00:00:00.000000000Z"),
        ("yyyy-MM-dd'T'HH:mm:ss[.SSS][XXX]", "2024-01-15T10:20:30", "2024-01-15T10:20:30.000000000Z"),
        ("yyyy-MM-dd'T'HH:mm:ss[.SSS][XXX]", "2024-01-15T10:20:30.5-05:00", None),
        ("yyyy-MM-dd'T'HH:mm:ss[.SSS][XXX]", "2024-01-15T10:20:30.500-05:00", "2024-01-15T15:20:30.500000000Z"),
        ("EEE, d MMM yyyy h:mm a", "Mon, 15 Jan 2024 3:05 PM", "2024-01-15T15:05:00.000000000Z"),
        ("EEE, d MMM yyyy", "Tue, 15 Jan 2024", None),
        ("yyyy-MM-dd", "2023-02-31", "2023-02-28T00:00:00.000000000Z"),
        ("yyyy-MM-dd", "2023-02-32", None),
        ("yyyy-MM-dd HH:mm", "2023-12-31 24:00", "2024-01-01T00:00:00.000000000Z"),
        ("yyyy-MM-dd HH:mm", "2023-12-31 24:01", None),
        ("yyyy-MM-dd", "12024-01-15", None),
        ("yyyy-MM-dd", "+12024-01-15", "+12024-01-15T00:00:00.000000000Z"),
        ("uuuu-MM-dd", "-0001-01-15", "-0001-01-15T00:00:00.000000000Z"),
        ("yyyy-MM-dd G", "0002-01-15 BC", "-0001-01-15T00:00:00.000000000Z"),
        ("yyyyDDD", "2024366", "2024-12-31T00:00:00.000000000Z"),
        ("yyyyDDD", "2023366", None),
        ("YYYY-'W'ww-e", "2024-W03-2", "2024-01-15T00:00:00.000000000Z"),
        ("HH 'o''clock'", "07 o'clock", "2024-02-29T07:00:00.000000000Z"),
        ("MMM d HH:mm:ss", "Jan 5 01:02:03", "2024-01-05T01:02:03.000000000Z"),
        ("yyyy", "2023", "2023-02-28T00:00:00.000000000Z"),
        ("ppd/MM/yyyy", " 5/01/2024", "2024-01-05T00:00:00.000000000Z"),
        ("yyyy-MM-dd HH:mm VV", "2024-07-15 10:00 Europe/Paris", "2024-07-15T08:00:00.000000000Z"),
        ("yyyy-MM-dd HH:mm z", "2024-07-15 10:00 PDT", "2024-07-15T17:00:00.000000000Z"),
        ("yyyy-MM-dd HH:mm zzzz", "2024-07-15 10:00 Pacific Daylight Time", "2024-07-15T17:00:00.000000000Z"),
        ("yyyy-MM-dd HH:mm O", "2024-07-15 10:00 GMT+8", "2024-07-15T02:00:00.000000000Z"),
        ("yyyy-MM-dd h B", "2024-07-15 8 in the evening", "2024-07-15T20:00:00.000000000Z"),
        ("yyyy-MM-dd HH:mm:ss", "2024-01-15 10:20:60", None),
        ("yyyy-MMM-dd", "2024-jan-15", None),
        ("yyyy-MM-dd", "2024-01-15 ", None),
        ("yyyy-MM-dd", "٢٠٢٤-01-15", None),
        ("HH:mm:ss.n", "00:00:00.1000000000", None),
        ("epoch_milli", "1705314030123", "2024-01-15T10:20:30.123000000Z"),
        ("epoch_milli", "1705314030", None),
    ],
)
def test_texts_mean_what_java_says(pattern, text, expected):
    if expected is None:
        with pytest.raises(ValueError, match=r"."):
            parse(pattern, text)
    else:
        assert parse(pattern, text) == expected


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (ISO, "2024-01-05T05:06:07.089-05:00"),
        ("EEEE d MMMM y, h:mm a", "Friday 5 January 2024, 5:06 AM"),
        ("yy/M/d H:m:s.n", "24/1/5 5:6:7.89000000"),
        ("DDD D QQQ QQQQ w W e F G GGGG", "005 5 Q1 1st quarter 1 1 6 5 AD Anno Domini"),
        ("X XX XXX x Z ZZZZ ZZZZZ O VV z", "-05 -0500 -05:00 -05 -0500 GMT-05:00 -05:00 GMT-5 America/New_York EST"),
        ("zzzz", "Eastern Standard Time"),
        ("k K A N", "5 5 18367089 18367089000000"),
        ("ppppd'x'[ss]", "   5x07"),
    ],
)
def test_instants_are_written_as_java_does(pattern, expected):
    instant = 1_704_449_167_089_000_000
    assert dates.compile_formatter(pattern, "America/New_York")(instant) == expected


@pytest.mark.parametrize(
    "pattern",
    [
        "invalid[pattern]format",
        "dddd",
        "yyyy-MM-dd'T",
        "HHH",
        "]",
        "b",
        "{",
        "p",
        "V",
        "SSSSSSSSSS",
        "cc",
        "aa",
        "zzzzz",
    ],
)
def test_what_java_refuses_is_refused(pattern):
    with pytest.raises(ValueError, match=r"."):
        dates.validate_pattern(pattern)


def test_wall_clocks_of_a_zone():
    at = "yyyy-MM-dd HH:mm"
    assert parse(at, "2024-03-10 02:30", "America/New_York").startswith("2024-03-10T07:30"), "skipped: moves later"
    assert parse(at, "2024-11-03 01:30", "America/New_York").startswith("2024-11-03T05:30"), "twice: the earlier one"
    assert parse(at, "12345-01-01 00:00".replace("12345", "9999"), "+05:30").startswith("9998-12-31T18:30")
    for zone in ("invalidZone", "PST9", "+25:00", "UTC+99", "../etc/passwd"):
        with pytest.raises(ValueError, match="Unknown time-zone ID"):
            dates.validate_zone(zone)


def test_other_languages_and_java_locale_texts():
    assert parse("d MMMM yyyy", "1 März 2024", locale="de_DE").startswith("2024-03-01")
    assert parse("d MMM yyyy", "3 Feb 2024", locale="root") == parse("d MMM yyyy", "3 Feb 2024")
    assert parse("yyyy-MMM-dd", "2024-gen-15", locale="it-IT").startswith("2024-01-15")
    assert parse("d MMM yyyy", "3 févr. 2024", locale="fr").startswith("2024-02-03")
    assert dates.compile_formatter("LLLL", locale="tr")(NOON_OF_LEAP_DAY) == "Şubat", "languages do not mix"
    assert dates.compile_formatter("LLLL", locale="zh-CN")(NOON_OF_LEAP_DAY) == "二月"
    with pytest.raises(ValueError, match="invalidLocale"):
        dates.validate_locale("invalidLocale")


@pytest.mark.parametrize(
    ("text", "expected_s"),
    [
        ("2024-01-15T10:20:30", 1705310430),
        ("2024-01-15T10:20", 1705310400),
        ("2024-01-15t10:20:30z", 1705314030),
        ("2024-01-15T10:20:30+01:00[Europe/Paris]", 1705310430),
        ("2024-01-15T10:20:30+0100", None),
        ("2024-01-15T24:00:00", None),
        ("2024-01-15T10:20:30[Europe/Paris]", None),
        ("2024-02-30T10:00", None),
        ("2024-01-15", None),
    ],
)
def test_iso_date_times(text, expected_s):
    if expected_s is None:
        with pytest.raises(ValueError, match=r"."):
            dates.parse_iso(text, "Europe/Paris")
    else:
        assert dates.parse_iso(text, "Europe/Paris") == expected_s * SECOND_NS


def test_conversion_tries_patterns_in_order_and_gives_none():
    convert = dates.compile_conversion(["yyyy-MM-dd", "epoch_second", "MM/dd/yyyy"], ISO, "UTC", "Asia/Tokyo")
    assert convert("2024-01-15") == "2024-01-15T09:00:00.000+09:00"
    assert convert("1705314030") == "2024-01-15T19:20:30.000+09:00"
    assert convert("01/15/2024") == "2024-01-15T09:00:00.000+09:00"
    assert convert("15.1.2024") is None
    assert convert("1" * 100_000) is None


def test_today_follows_the_clock():
    now = NOON_OF_LEAP_DAY
    convert = dates.compile_conversion(["HH:mm:ss"], "yyyy-MM-dd HH:mm:ss", now=lambda: now)
    assert convert("01:02:03") == "2024-02-29 01:02:03"
    now += 86_400 * SECOND_NS
    assert convert("01:02:03") == "2024-03-01 01:02:03"


PATTERNS = [
    "dd/MMM/yyyy:HH:mm:ss Z",
    "yyyy-MM-dd HH:mm:ss",
    "yyyy-MM-dd'T'HH:mm:ss.SSSSSSXXX",
    "EEEE, d MMMM uuuu HH:mm:ss,SSS VV",
    "EEE MMM d HH:mm:ss yyyy",
    "yyyyMMddHHmmss",
    "ss:mm:HH d.M.yyyy",
]
ZONES = [
    "UTC",
    "Europe/Paris",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kolkata",
    "+01:00:30",
    "Africa/Monrovia",
]
years_of_our_era = st.integers(-62_000_000_000 * SECOND_NS, 10**21) | st.integers(-(10**18), 4 * 10**18)
instants = st.integers(-(10**20), 10**21) | st.integers(-(10**18), 4 * 10**18)


@given(years_of_our_era, st.sampled_from(PATTERNS), st.sampled_from(ZONES), st.sampled_from(ZONES))
def test_caches_never_change_a_result(instant, pattern, zone, other_zone):
    """Seconds around one instant through warm functions and through fresh ones."""
    write, read = dates.compile_formatter(pattern, zone), dates.compile_parser(pattern, zone)
    convert = dates.compile_conversion([pattern], ISO, zone, other_zone)
    for step in (0, 1, 59, 60, 61, 0):
        moment = instant + step * SECOND_NS
        text = dates.compile_formatter(pattern, zone)(moment)
        assert write(moment) == text
        assert read(text) == dates.compile_parser(pattern, zone)(text)
        fresh = dates.compile_conversion([pattern], ISO, zone, other_zone)(text)
        assert convert(text) == fresh == dates.compile_formatter(ISO, other_zone)(read(text))


@given(instants)
def test_what_is_written_is_read_again(instant):
    write = dates.compile_formatter("uuuu-MM-dd'T'HH:mm:ss.SSSSSSSSSXXXXX", "Europe/Paris")
    assert dates.compile_parser("uuuu-MM-dd'T'HH:mm:ss.SSSSSSSSSXXXXX")(write(instant)) == instant
    year = calendar.date_of(instant // (86_400 * SECOND_NS))[0]
    if 0 < year < 9999:
        assert dates.parse_iso(write(instant)) == instant


@given(st.text(alphabet="yuMLdDEecahHkKmsSnANXxZzVOQqwWYGBpg'[]{}#- :.,T", max_size=30), st.text(max_size=30))
def test_any_pattern_and_any_text_end_in_a_value_or_a_value_error(pattern, text):
    try:
        read = dates.compile_parser(pattern, "Europe/Paris", now=lambda: NOON_OF_LEAP_DAY)
    except ValueError:
        return
    with suppress(ValueError):
        assert isinstance(read(text), int)
    try:
        written = dates.compile_formatter(pattern, "Europe/Paris")(NOON_OF_LEAP_DAY)
    except ValueError:
        return
    with suppress(ValueError):
        assert isinstance(read(written), int)


@given(st.integers(-3_000_000, 5_000_000))
def test_days_and_dates_are_inverse(days):
    assert calendar.days_of(*calendar.date_of(days)) == days
    assert calendar.weekday_of(days + 7) == calendar.weekday_of(days) != calendar.weekday_of(days + 1)


def test_every_second_text_is_checked():
    convert = dates.compile_conversion(["HH:mm:ss yyyy-MM-dd"], ISO)
    assert convert("10:20:30 2024-01-15") == "2024-01-15T10:20:30.000Z"
    for first, second in itertools.product("0123456789 ²٣", repeat=2):
        expected = f"2024-01-15T10:20:{first}{second}.000Z" if first in "012345" and second in "0123456789" else None
        assert convert(f"10:20:{first}{second} 2024-01-15") == expected
