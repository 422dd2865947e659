"""Names of months, days, eras and zones, and where the week begins, by language.

English is built in. Other languages come from the CLDR data of `babel`, which is only imported when one is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from penstock.core.dates.pattern import Style, Text
from penstock.core.dates.zones import Zone, find_zone

if TYPE_CHECKING:
    from babel import Locale

DEFAULT_LOCALE = "en-US"

_MONTHS = "January February March April May June July August September October November December"
_ENGLISH = {
    "month": _MONTHS.split(),
    "day_of_week": ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"],
    "quarter": ["1st quarter", "2nd quarter", "3rd quarter", "4th quarter"],
    "era": ["Before Christ", "Anno Domini"],
    "half_day": ["AM", "PM"],
}
_ENGLISH_SHORT = {"quarter": ["Q1", "Q2", "Q3", "Q4"], "era": ["BC", "AD"]}
_FIRST_VALUE = {"month": 1, "day_of_week": 1, "quarter": 1, "era": 0, "half_day": 0}
_LENGTHS = {"month": 12, "day_of_week": 7, "quarter": 4, "era": 2, "half_day": 2}
_WIDTHS = {"short": "abbreviated", "full": "wide", "narrow": "narrow"}


@dataclass(frozen=True, slots=True)
class Names:
    """What one language calls things. `find_names` makes it."""

    tag: str
    locale: Locale | None
    """None for the English that is built in."""
    week_first_day: int = 7
    """1 for Monday."""
    week_days_min: int = 1
    """Days of a new year that make a week its first one."""

    def of(self, text: Text) -> dict[int, str]:
        """The name of each value of a field."""
        names = self._english(text) if self.locale is None else _from_cldr(self.locale, text)
        first = _FIRST_VALUE[text.field]
        return {first + index: name for index, name in enumerate(names)}

    def values_of(self, text: Text) -> dict[str, int]:
        """The value of each name that may stand in a text.

        Versions of the CLDR differ in the dot behind an abbreviation and in the kind of space, so that all are
        understood.
        """
        values: dict[str, int] = {}
        for value, name in self.of(text).items():
            values.setdefault(name, value)
            if self.locale is not None and text.style == "short":
                stem = name.removesuffix(".")
                for form in (stem, f"{stem}.", name.replace("\u202f", " "), name.replace("\u202f", "\xa0")):
                    values.setdefault(form, value)
        return values

    def day_period(self, nano_of_day: int, style: Style) -> str:
        """`in the morning`, in the words of the language."""
        from babel.dates import get_period_id

        minutes = nano_of_day // 60_000_000_000
        locale = self._cldr()
        period = get_period_id(time(minutes // 60, minutes % 60), locale=locale)
        return _period_names(locale, style)[period]

    def hours_of_periods(self, style: Style) -> dict[str, tuple[int, ...]]:
        """The hours that each period of the day covers."""
        from babel.dates import get_period_id

        locale = self._cldr()
        names = _period_names(locale, style)
        hours: dict[str, tuple[int, ...]] = {}
        for hour in range(24):
            for minute in (0, 30):
                name = names[get_period_id(time(hour, minute), locale=locale)]
                if hour not in hours.get(name, ()):
                    hours[name] = (*hours.get(name, ()), hour)
        return hours

    def zone_name(self, zone: Zone, epoch_s: int, *, full: bool, generic: bool) -> str:
        """What people call a zone: `PST`, `Pacific Standard Time`; its offset from GMT where it has no name."""
        if zone.rules is None:
            return "Coordinated Universal Time" if full and zone.id in ("UTC", "UT") else zone.id
        if not full and not generic:
            name = zone.abbreviation(epoch_s)
            return name or _NUMBERED.get(zone.id) or gmt_offset(zone.offset_s(epoch_s), full=True)
        from babel.dates import get_timezone_name

        moment = datetime.fromtimestamp(epoch_s, UTC).astimezone(zone.rules)
        return get_timezone_name(
            moment, width="long" if full else "short", locale=self._cldr(), zone_variant="generic" if generic else None
        )

    def zones_by_name(self, *, full: bool) -> Mapping[str, str]:
        """Zone id by name, for texts."""
        return _long_zone_names(self.tag) if full else _ZONES

    def _english(self, text: Text) -> list[str]:
        names = _ENGLISH[text.field]
        if text.style == "full" or text.field == "half_day":
            return names
        if text.style == "narrow":
            return [str(index + 1) if text.field == "quarter" else name[0] for index, name in enumerate(names)]
        return _ENGLISH_SHORT.get(text.field) or [name[:3] for name in names]

    def _cldr(self) -> Locale:
        if self.locale is not None:
            return self.locale
        from babel import Locale

        return Locale.parse(self.tag, sep="-")


ENGLISH = Names(DEFAULT_LOCALE, None)


@lru_cache(maxsize=64)
def find_names(tag: str | None = None) -> Names:
    """Names for a language tag (`de-DE`) or the text of a Java locale (`de_DE`), or `ROOT`, which is as good as none.

    Raises ValueError for no language.
    """
    if tag is not None and tag.upper() == "ROOT":
        tag = None
    parts = (tag or DEFAULT_LOCALE).replace("_", "-").split("-")
    if [part.lower() for part in parts[:2]] in (["en"], ["en", "us"]):
        return Names("-".join(["en", *parts[1:2]]), None)
    from babel import Locale, UnknownLocaleError

    while parts:
        try:
            locale = Locale.parse("-".join(parts), sep="-")
        except (UnknownLocaleError, ValueError):
            parts.pop()  # an unknown region or variant still leaves a language
        else:
            tag = "-".join(parts)
            if locale.territory is None:  # the week is a matter of the country
                return Names(tag, locale)
            return Names(tag, locale, locale.first_week_day + 1, locale.min_week_days)
    raise ValueError(f"Unknown locale: {tag}")


def gmt_offset(offset_s: int, *, full: bool) -> str:
    """`GMT+08:00`, or `GMT+8` when not full."""
    if offset_s == 0:
        return "GMT"
    sign = "-" if offset_s < 0 else "+"
    minutes, second = divmod(abs(offset_s), 60)
    hour, minute = divmod(minutes, 60)
    text = f"GMT{sign}{hour:02d}:{minute:02d}" if full else f"GMT{sign}{hour}"
    if not full and (minute or second):
        text += f":{minute:02d}"
    return f"{text}:{second:02d}" if second else text


def _from_cldr(locale: Locale, text: Text) -> list[str]:
    width = _WIDTHS[text.style]
    context = "stand-alone" if text.standalone else "format"
    if text.field == "half_day":
        periods = _period_names(locale, "full")
        return [periods["am"], periods["pm"]]
    if text.field == "era":
        table = _table(locale, "eras", width)
    else:
        table = _table(locale, {"month": "months", "quarter": "quarters"}.get(text.field, "days"), context, width)
    return [table[min(table) + index] for index in range(_LENGTHS[text.field])]


def _period_names(locale: Locale, style: Style) -> Mapping[str, str]:
    widths = "abbreviated", "wide", _WIDTHS[style]
    return {period: name for width in widths for period, name in _table(locale, "day_periods", "format", width).items()}


def _table(locale: Locale, *path: str) -> dict[Any, str]:
    """A table of the CLDR data with its references followed.

    The properties of a `Locale` follow them too, but keep what they find in data that all languages share, where the
    next language finds it.
    """
    from babel import localedata

    data = localedata.load(str(locale))

    def follow(value: Any) -> Any:
        if isinstance(value, localedata.Alias):
            return walk(*value.keys)
        if isinstance(value, tuple):
            alias, own = value
            return {**walk(*alias.keys), **own}
        return value

    def walk(*keys: str) -> Any:
        value: Any = data
        for key in keys:
            value = follow(value[key])
        return value

    return {key: follow(value) for key, value in walk(*path).items()}


@lru_cache(maxsize=8)
def _long_zone_names(tag: str) -> Mapping[str, str]:
    from babel import Locale
    from babel.dates import get_timezone_name

    locale = Locale.parse(tag, sep="-")
    found: dict[str, str] = {}
    for zone_id in dict.fromkeys(_ZONES.values()):
        rules = find_zone(zone_id).rules
        for month in (1, 7):
            if rules is not None:
                moment = datetime(2024, month, 15, tzinfo=UTC).astimezone(rules)
                for variant in (None, "generic"):
                    name = get_timezone_name(moment, width="long", locale=locale, zone_variant=variant)
                    found.setdefault(name, zone_id)
    found.setdefault("Coordinated Universal Time", "UTC")
    return found


def _read_zones(lines: str) -> dict[str, str]:
    return {name: zone for zone, *names in (line.split() for line in lines.strip().splitlines()) for name in names}


_ZONES = _read_zones(
    """
    UTC UTC UT
    GMT GMT
    America/New_York EST EDT ET
    America/Chicago CST CDT CT
    America/Denver MST MDT MT
    America/Los_Angeles PST PDT PT
    America/Anchorage AKST AKDT AKT
    Pacific/Honolulu HST HDT HAST HADT
    America/Halifax AST ADT
    America/St_Johns NST NDT
    America/Sao_Paulo BRT BRST
    America/Argentina/Buenos_Aires ART ARST
    America/Santiago CLT CLST
    America/Bogota COT COST
    America/Lima PET PEST
    America/Caracas VET VEST
    America/La_Paz BOT BOST
    America/Asuncion PYT PYST
    America/Montevideo UYT UYST
    America/Guayaquil ECT ECST
    America/Guyana GYT GYST
    America/Cayenne GFT GFST
    America/Paramaribo SRT SRST
    America/Nuuk WGT WGST
    Atlantic/Azores AZOT AZOST
    Atlantic/Cape_Verde CVT CVST
    Atlantic/Canary WET WEST
    Europe/London BST
    Europe/Paris CET CEST MET MEST
    Europe/Bucharest EET EEST
    Europe/Moscow MSK MSD
    Europe/Istanbul TRT TRST
    Europe/Samara SAMT SAMST
    Africa/Lagos WAT WAST
    Africa/Maputo CAT CAST
    Africa/Nairobi EAT
    Africa/Johannesburg SAST
    Asia/Tehran IRST IRDT
    Asia/Dubai GST
    Asia/Baku AZT AZST
    Asia/Tbilisi GET GEST
    Asia/Yerevan AMT AMST
    Asia/Kabul AFT AFST
    Asia/Karachi PKT PKST
    Asia/Tashkent UZT UZST
    Asia/Yekaterinburg YEKT YEKST
    Asia/Kolkata IST
    Asia/Kathmandu NPT NPST
    Asia/Dhaka BDT BDST
    Asia/Almaty ALMT ALMST
    Asia/Omsk OMST OMSST
    Asia/Novosibirsk NOVT NOVST
    Asia/Krasnoyarsk KRAT KRAST
    Asia/Yangon MMT MMST
    Asia/Bangkok ICT ICST
    Asia/Jakarta WIB
    Asia/Makassar WITA
    Asia/Jayapura WIT
    Asia/Singapore SGT SGST
    Asia/Kuala_Lumpur MYT MYST
    Asia/Hong_Kong HKT HKST
    Asia/Manila PHT PHST
    Asia/Irkutsk IRKT IRKST
    Asia/Ulaanbaatar ULAT ULAST
    Asia/Seoul KST KDT
    Asia/Tokyo JST JDT
    Asia/Yakutsk YAKT YAKST
    Asia/Vladivostok VLAT VLAST
    Asia/Sakhalin SAKT SAKST
    Asia/Magadan MAGT MAGST
    Asia/Kamchatka PETT PETST
    Australia/Perth AWST AWDT
    Australia/Adelaide ACST ACDT
    Australia/Sydney AEST AEDT
    Australia/Lord_Howe LHST LHDT
    Pacific/Guam ChST
    Pacific/Noumea NCT NCST
    Pacific/Auckland NZST NZDT
    Pacific/Chatham CHAST CHADT
    Pacific/Fiji FJT FJST
    Pacific/Tongatapu TOT TOST
    Pacific/Apia WSST WSDT
    Pacific/Pago_Pago SST
    Pacific/Tahiti TAHT TAHST
    """
)
"""What an abbreviation in a text means. Where several zones share one, it is the one with the most people."""

_NUMBERED = {zone: name for name, zone in reversed(_ZONES.items())}
"""Abbreviations of zones for which the time zone data has only a number."""
