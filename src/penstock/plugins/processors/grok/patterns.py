"""The library of named patterns: what users may write as `%{NAME}` without defining it.

Names and languages are those that Data Prepper knows, plus `SYSLOGBASE2` and `SYSLOGLINE`. The definitions are
written for a backtracking matcher: quoted texts and paths are unrolled, runs that nothing can shorten are possessive,
long alternatives stand behind a look-ahead that refuses most texts at once. References to other names are kept, as
`named_captures_only: false` makes them visible and users redefine them.
"""

from __future__ import annotations

_HEX16 = "[0-9A-Fa-f]{1,4}"
_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_DOTTED = rf"{_OCTET}(?:\.{_OCTET}){{3}}"
_LABEL = "[0-9A-Za-z][0-9A-Za-z-]{0,62}"
_OCTET_LOOSE = "(?:25[0-5]|2[0-4][0-9]|[01]?[0-9]{1,2})"


def _ipv6() -> str:
    """Eight forms, from all eight groups written out to `::` in front."""
    forms = [f"(?:{_HEX16}:){{7}}(?:{_HEX16}|:)", f"(?:{_HEX16}:){{6}}(?::{_HEX16}|{_DOTTED}|:)"]
    for groups in range(5, 0, -1):
        dotted = f"(?::{_HEX16}){{0,{5 - groups}}}:{_DOTTED}" if groups < 5 else f":{_DOTTED}"
        forms.append(f"(?:{_HEX16}:){{{groups}}}(?:(?::{_HEX16}){{1,{7 - groups}}}|{dotted}|:)")
    forms.append(f":(?:(?::{_HEX16}){{1,7}}|(?::{_HEX16}){{0,5}}:{_DOTTED}|:)")
    return f"(?=[0-9A-Fa-f]{{0,4}}:)(?:{'|'.join(forms)})(?:%.+)?"


def _quoted(quote: str) -> str:
    return rf"{quote}[^{quote}\\]*+(?:\\.[^{quote}\\]*+)*{quote}"


def _or_dash(pattern: str) -> str:
    return f"(?:-|{pattern})"


def _spaced(*fields: str) -> str:
    return r"\s".join(fields)


def _in_quotes(pattern: str) -> str:
    return f'"{pattern}"'


def _alb(request: str) -> str:
    return _spaced(
        "%{DATA:type}",
        "%{TIMESTAMP_ISO8601:time}",
        "%{DATA:elb}",
        "%{DATA:client}",
        "%{DATA:target}",
        "%{BASE10NUM:request_processing_time}",
        "%{DATA:target_processing_time}",
        "%{BASE10NUM:response_processing_time}",
        "%{BASE10NUM:elb_status_code}",
        "%{DATA:target_status_code}",
        _or_dash("%{BASE10NUM:received_bytes:int}"),
        _or_dash("%{BASE10NUM:sent_bytes:int}"),
        _in_quotes(request),
        _in_quotes("%{DATA:user_agent}"),
        "%{DATA:ssl_cipher}",
        "%{DATA:ssl_protocol}",
        "%{DATA:target_group_arn}",
        _in_quotes("%{DATA:trace_id}"),
    )


def _alb_with_rule(base: str) -> str:
    quoted = [
        "actions_executed",
        "redirect_url",
        "error_reason",
        "target_list",
        "target_status_code_list",
        "classification",
        "classification_reason",
    ]
    return _spaced(
        base,
        _in_quotes(_or_dash("%{DATA:domain_name}")),
        _in_quotes(_or_dash("%{DATA:chosen_cert_arn}")),
        _or_dash("%{INT:matched_rule_priority:int}"),
        "%{TIMESTAMP_ISO8601:request_creation_time}",
        *(_in_quotes(_or_dash(f"%{{DATA:{name}}}")) for name in quoted),
    )


_REQUEST_LINE = r"(?:%{WORD:verb} %{NOTSPACE:request}(?: HTTP/%{NUMBER:httpversion})?|%{DATA:rawrequest})"

PATTERNS: dict[str, str] = {
    # names, numbers, words
    "USERNAME": "[a-zA-Z0-9._-]+",
    "USER": "%{USERNAME:UNWANTED}",
    "INT": "[+-]?[0-9]+",
    "BASE10NUM": r"(?<![0-9.+-])[+-]?+(?>[0-9]++(?:\.[0-9]++)?|\.[0-9]++)",
    "NUMBER": "%{BASE10NUM:UNWANTED}",
    "BASE16NUM": "(?<![0-9A-Fa-f])[+-]?(?:0x)?[0-9A-Fa-f]+",
    "BASE16FLOAT": r"\b(?<![0-9A-Fa-f.])[+-]?(?:0x)?(?:[0-9A-Fa-f]+(?:\.[0-9A-Fa-f]*)?|\.[0-9A-Fa-f]+)\b",
    "POSINT": r"\b[1-9][0-9]*+\b",
    "NONNEGINT": r"\b[0-9]++\b",
    "WORD": r"\b\w++\b",
    "NOTSPACE": r"\S+",
    "SPACE": r"\s*",
    "DATA": ".*?",
    "GREEDYDATA": ".*",
    "QUOTEDSTRING": rf"(?<!\\)(?:{_quoted(chr(34))}|{_quoted(chr(39))}|{_quoted(chr(96))})",
    "QS": "%{QUOTEDSTRING:UNWANTED}",
    "UUID": "[A-Fa-f0-9]{8}-[A-Fa-f0-9]{4}-[A-Fa-f0-9]{4}-[A-Fa-f0-9]{4}-[A-Fa-f0-9]{12}",
    # networking
    "MAC": "(?:%{CISCOMAC:UNWANTED}|%{WINDOWSMAC:UNWANTED}|%{COMMONMAC:UNWANTED})",
    "CISCOMAC": r"[A-Fa-f0-9]{4}\.[A-Fa-f0-9]{4}\.[A-Fa-f0-9]{4}",
    "WINDOWSMAC": "(?:[A-Fa-f0-9]{2}-){5}[A-Fa-f0-9]{2}",
    "COMMONMAC": "(?:[A-Fa-f0-9]{2}:){5}[A-Fa-f0-9]{2}",
    "IPV6": _ipv6(),
    "IPV4": rf"(?<![0-9]){_OCTET_LOOSE}\.{_OCTET_LOOSE}\.{_OCTET_LOOSE}\.{_OCTET_LOOSE}(?![0-9])",
    "IP": "(?:%{IPV6:UNWANTED}|%{IPV4:UNWANTED})",
    "HOSTNAME": rf"\b{_LABEL}(?:\.{_LABEL})*\.?",
    "HOST": "%{HOSTNAME:UNWANTED}",
    "IPORHOST": "(?:%{HOSTNAME:UNWANTED}|%{IP:UNWANTED})",
    "HOSTPORT": "%{IPORHOST}:%{POSINT:PORT}",
    # paths and addresses
    "PATH": "(?:%{UNIXPATH}|%{WINPATH})",
    "UNIXPATH": r"(?>/(?:[\w%!$@:.,~-]++|\\.)*)+",
    "TTY": r"/dev/(?:pts|tty[pq]?)(?:\w+)?/?[0-9]+",
    "WINPATH": r"(?>[A-Za-z]++:|\\)\\[^?*]*",
    "URIPROTO": r"[A-Za-z]+(?:\+[A-Za-z+]+)?",
    "URIHOST": "%{IPORHOST}(?::%{POSINT:port})?",
    "URIPATH": r"/[A-Za-z0-9$.+!*'(){},~:;=@#%_/\-]*",
    "URIPARAM": r"\?[A-Za-z0-9$.+!*'|(){},~@#%&/=:;_?\-\[\]]*",
    "URIPATHPARAM": "%{URIPATH}(?:%{URIPARAM})?",
    "URI": "%{URIPROTO}://(?:%{USER}(?::[^@]*)?@)?(?:%{URIHOST})?(?:%{URIPATHPARAM})?",
    # dates and times
    "MONTH": (
        r"\b(?:J(?:an(?:uary)?|u(?:ne?|ly?))|Feb(?:ruary)?|Ma(?:r(?:ch)?|y)|A(?:pr(?:il)?|ug(?:ust)?)"
        r"|Sep(?:tember)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)\b"
    ),
    "MONTHNUM": "(?:0?[1-9]|1[0-2])",
    "MONTHNUM2": "(?:0[1-9]|1[0-2])",
    "MONTHDAY": "(?:0[1-9]|[12][0-9]|3[01]|[1-9])",
    "DAY": "(?:Mon(?:day)?|T(?:ue(?:sday)?|hu(?:rsday)?)|Wed(?:nesday)?|Fri(?:day)?|S(?:at(?:urday)?|un(?:day)?))",
    "YEAR": "(?:[0-9]{4}|[0-9]{2})",
    "HOUR": "(?:2[0-3]|[01]?[0-9])",
    "MINUTE": "[0-5][0-9]",
    "SECOND": "(?:[0-5]?[0-9]|60)(?:[:.,][0-9]+)?",
    "TIME": "%{HOUR}:%{MINUTE}(?::%{SECOND})(?![0-9])",
    "DATE_US": "%{MONTHNUM}[/-]%{MONTHDAY}[/-]%{YEAR}",
    "DATE_EU": "%{MONTHDAY}[./-]%{MONTHNUM}[./-]%{YEAR}",
    "ISO8601_TIMEZONE": "(?:Z|[+-]%{HOUR}(?::?%{MINUTE}))",
    "ISO8601_SECOND": "(?:%{SECOND}|60)",
    "TIMESTAMP_ISO8601": ("%{YEAR}-%{MONTHNUM}-%{MONTHDAY}[T ]%{HOUR}:?%{MINUTE}(?::?%{SECOND})?%{ISO8601_TIMEZONE}?"),
    "DATE": "%{DATE_US}|%{DATE_EU}",
    "DATESTAMP": "%{DATE}[- ]%{TIME}",
    "TZ": "(?:[PMCE][SD]T|UTC)",
    "DATESTAMP_RFC822": "%{DAY} %{MONTH} %{MONTHDAY} %{YEAR} %{TIME} %{TZ}",
    "DATESTAMP_RFC2822": "%{DAY}, %{MONTHDAY} %{MONTH} %{YEAR} %{TIME} %{ISO8601_TIMEZONE}",
    "DATESTAMP_OTHER": "%{DAY} %{MONTH} %{MONTHDAY} %{TIME} %{TZ} %{YEAR}",
    "DATESTAMP_EVENTLOG": "%{YEAR}%{MONTHNUM2}%{MONTHDAY}%{HOUR}%{MINUTE}%{SECOND}",
    "HTTPDATE": "%{MONTHDAY}/%{MONTH}/%{YEAR}:%{TIME} %{INT}",
    # syslog
    "SYSLOGTIMESTAMP": "%{MONTH} +%{MONTHDAY} %{TIME}",
    "PROG": r"[\w._/%-]+",
    "SYSLOGPROG": r"%{PROG:program}(?:\[%{POSINT:pid}\])?",
    "SYSLOGHOST": "%{IPORHOST}",
    "SYSLOGFACILITY": "<%{NONNEGINT:facility}.%{NONNEGINT:priority}>",
    "SYSLOGBASE": "%{SYSLOGTIMESTAMP:timestamp} (?:%{SYSLOGFACILITY} )?%{SYSLOGHOST:logsource} %{SYSLOGPROG}:",
    "SYSLOGBASE2": (
        "(?:%{SYSLOGTIMESTAMP:timestamp}|%{TIMESTAMP_ISO8601:timestamp8601}) "
        "(?:%{SYSLOGFACILITY} )?%{SYSLOGHOST:logsource} %{SYSLOGPROG}:"
    ),
    "SYSLOGLINE": "%{SYSLOGBASE2} %{GREEDYDATA:message}",
    "MESSAGESLOG": "%{SYSLOGBASE} %{DATA}",
    # web servers
    "COMMONAPACHELOG": (
        r"%{IPORHOST:clientip} %{USER:ident} %{USER:auth} \[%{HTTPDATE:timestamp}\] "
        + _in_quotes(_REQUEST_LINE)
        + " %{NUMBER:response} (?:%{NUMBER:bytes}|-)"
    ),
    "COMBINEDAPACHELOG": "%{COMMONAPACHELOG} %{QS:referrer} %{QS:agent}",
    "COMMONAPACHELOG_DATATYPED": (
        r"%{IPORHOST:clientip} %{USER:ident;boolean} %{USER:auth}"
        r" \[%{HTTPDATE:timestamp;date;dd/MMM/yyyy:HH:mm:ss Z}\]"
        r' "(?:%{WORD:verb;string} %{NOTSPACE:request}(?: HTTP/%{NUMBER:httpversion;float})?|%{DATA:rawrequest})"'
        r" %{NUMBER:response;int} (?:%{NUMBER:bytes;long}|-)"
    ),
    # levels: the bar is part of the language; no two alternatives can begin alike, so the frequent ones come first
    "LOGLEVEL": (
        "(?:INFO|[Ii|]nfo|WARN?(?:ING)?|[Ww|]arn?(?:ing)?|ERR?(?:OR)?|[Ee|]rr?(?:or)?|DEBUG|[Dd|]ebug|TRACE|[Tt|]race"
        "|NOTICE|[Nn|]otice|CRIT?(?:ICAL)?|[Cc|]rit?(?:ical)?|FATAL|[Ff|]atal|SEVERE|[Ss|]evere|ALERT|[Aa|]lert"
        "|EMERG(?:ENCY)?|[Ee]merg(?:ency)?)"
    ),
    # load balancers and other services of AWS
    "ALB_URI": (
        "(?:%{WORD:protocol})?(?:://)?(?:%{IPORHOST:domain})?:?(?:%{INT:http_port})?(?:%{GREEDYDATA:request_uri})?"
    ),
    "ALB_HTTP_REQUEST_WITH_GENERAL_URI": (
        "(?:%{NOTSPACE:http_method})? (?:%{NOTSPACE:http_uri})? (?:%{NOTSPACE:http_version})?"
    ),
    "ALB_HTTP_REQUEST": "(?:%{NOTSPACE:http_method})? (?:%{ALB_URI})? (?:%{NOTSPACE:http_version})?",
    "BASE_ALB_ACCESS_LOG_GENERAL_URI": _alb("%{ALB_HTTP_REQUEST_WITH_GENERAL_URI}"),
    "BASE_ALB_ACCESS_LOG": _alb("%{ALB_HTTP_REQUEST}"),
    "ALB_ACCESS_LOG_GENERAL_URI": _alb_with_rule("%{BASE_ALB_ACCESS_LOG_GENERAL_URI}"),
    "ALB_ACCESS_LOG": _alb_with_rule("%{BASE_ALB_ACCESS_LOG}"),
    "ELB_URIPATHPARAM": "%{URIPATH:path}(?:%{URIPARAM:params})?",
    "ELB_URI": "%{URIPROTO:proto}://(?:%{USER}(?::[^@]*)?@)?(?:%{URIHOST:urihost})?(?:%{ELB_URIPATHPARAM})?",
    "ELB_REQUEST_LINE": "(?:%{WORD:verb} %{ELB_URI:request}(?: HTTP/%{NUMBER:httpversion})?|%{DATA:rawrequest})",
    "ELB_ACCESS_LOG": _spaced(
        "%{TIMESTAMP_ISO8601:timestamp}",
        "%{NOTSPACE:elb}",
        "%{IP:clientip}:%{INT:clientport:int}",
        _or_dash("%{IP:backendip}:?:%{INT:backendport:int}"),
        _or_dash("%{NUMBER:request_processing_time:float}"),
        _or_dash("%{NUMBER:backend_processing_time:float}"),
        _or_dash("%{NUMBER:response_processing_time:float}"),
        _or_dash("%{INT:response:int}"),
        _or_dash("%{INT:backend_response:int}"),
        _or_dash("%{INT:received_bytes:int}"),
        _or_dash("%{INT:bytes:int}"),
        _in_quotes("%{ELB_REQUEST_LINE}"),
    ),
    "S3_HTTP_REQUEST": (
        r"(?:(?:%{WORD:verb}\s%{NOTSPACE:request}\s(?:HTTP/%{NUMBER:httpversion}))?|%{DATA:rawrequest})"
    ),
    "S3_ACCESS_LOG": _spaced(
        "%{WORD:owner}",
        "%{NOTSPACE:bucket}",
        r"\[%{HTTPDATE:timestamp}\]",
        "%{IP:clientip}",
        "%{NOTSPACE:requester}",
        "%{NOTSPACE:request_id}",
        "%{NOTSPACE:operation}",
        "%{NOTSPACE:key}",
        _or_dash(_in_quotes("%{S3_HTTP_REQUEST}")),
        _or_dash("%{INT:response:int}"),
        _or_dash("%{NOTSPACE:error_code}"),
        _or_dash("%{INT:bytes_sent:int}"),
        _or_dash("%{INT:object_size:int}"),
        _or_dash("%{INT:request_time_ms:int}"),
        _or_dash("%{INT:turnaround_time_ms:int}"),
        "%{QS:referrer}",
        _or_dash('"?%{QS:agent}"?'),
        _or_dash("%{NOTSPACE:version_id}"),
    ),
    "CLOUDFRONT_ACCESS_LOG": _spaced(
        r"(?<timestamp>%{YEAR}-%{MONTHNUM}-%{MONTHDAY}\s%{TIME})",
        "%{NOTSPACE:x_edge_location}",
        _or_dash("%{NUMBER:sc_bytes:int}"),
        "%{IPORHOST:clientip}",
        "%{WORD:cs_method}",
        "%{HOSTNAME:cs_host}",
        "%{NOTSPACE:cs_uri_stem}",
        _or_dash("%{NUMBER:sc_status:int}"),
        *(f"%{{GREEDYDATA:{name}}}" for name in ("referrer", "agent", "cs_uri_query", "cookies")),
        "%{WORD:x_edge_result_type}",
        "%{NOTSPACE:x_edge_request_id}",
        "%{HOSTNAME:x_host_header}",
        "%{URIPROTO:cs_protocol}",
        _or_dash("%{INT:cs_bytes:int}"),
        _or_dash("%{GREEDYDATA:time_taken:float}"),
        *(
            f"%{{GREEDYDATA:{name}}}"
            for name in ("x_forwarded_for", "ssl_protocol", "ssl_cipher", "x_edge_response_result_type")
        ),
    ),
    "VPC_FLOW_LOG": _spaced(
        "%{NUMBER:version}",
        "%{NUMBER:account-id}",
        *(f"%{{NOTSPACE:{name}}}" for name in ("interface-id", "srcaddr", "dstaddr")),
        *(_or_dash(f"%{{NOTSPACE:{name}:int}}") for name in ("srcport", "dstport", "protocol", "packets", "bytes")),
        *(_or_dash(f"%{{NUMBER:{name}:int}}") for name in ("start", "end")),
        "%{NOTSPACE:action}",
        "%{NOTSPACE:log-status}",
    ),
}
