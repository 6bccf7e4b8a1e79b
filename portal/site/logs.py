"""One event, one line, no secret.

The redaction here is a second net (S-32): code keeps secrets out of messages in the first place, with
``portal.microsoft.secret``. Text from outside cannot forge lines (S-59).
"""

from __future__ import annotations

import copy
import json
import logging
import re
import traceback
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from portal.microsoft.secret import Secret

REDACTED = "[redacted]"

# Names under which OAuth and OpenID Connect carry what must not be read.
_PARAMETERS = "access_token|refresh_token|id_token|client_secret|client_assertion|code_verifier|session_state|nonce"
# "state=connected" and "code=AADSTS50076" are words of ours and of Microsoft: a whole value of letters, then digits.
_WORD = r"(?:=|%3D|[\"']\s*:\s*[\"']?)(?=\w)[A-Za-z_]{0,32}\d{0,8}[.:!?]?(?![^&\s\"',;)}\]])"
_NAMED = rf"(?:{_PARAMETERS}|(?:code|state)(?!{_WORD}))"
_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    # A JSON Web Token: base64url parts, the first always begins with '{"'. It may be cut.
    (re.compile(r"\beyJ[A-Za-z0-9_-]{6,}(?:\.[A-Za-z0-9_-]*){1,4}"), REDACTED),
    # Entra's authorization codes and refresh tokens.
    (re.compile(r"(?<![\w.-])[01]\.A[\w-]{30,}(?:\.[\w-]+)*"), REDACTED),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), rf"\1 {REDACTED}"),
    # name=value as in a URL or a form.
    (re.compile(rf"(?i)(?<![A-Za-z0-9_])({_NAMED})(=|%3D)[^&\s\"',;)}}\]]+"), rf"\1\2{REDACTED}"),
    # "name": "value" as in JSON, 'name': 'value' as in a Python repr; the value may be cut.
    (
        re.compile(rf"(?i)([\"'])({_NAMED})\1(\s*:\s*)(\"(?:[^\"\\]|\\.)*\"?|'(?:[^'\\]|\\.)*'?)"),
        rf"\1\2\1\3\1{REDACTED}\1",
    ),
    # A long random part of a path is a consent link. Tenant ids have no capitals.
    (re.compile(r"(?<=/)(?=[\w-]*[a-z])(?=[\w-]*[A-Z])[\w-]{32,}(?![\w.-])"), REDACTED),
)
# What a LogRecord has anyway; everything else came through ``extra=``.
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_MARK = "_cleaned"
_HIDDEN = _STANDARD | {_MARK, "request", "server_time"}
_SECRET_NAME = re.compile(rf"(?i)^(?:{_PARAMETERS}|.*(?:password|secret|token|authorization|cookie))$")


def redact(text: str) -> str:
    """Replace tokens, bearer headers and values of known parameters."""
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


def one_line(text: str) -> str:
    """Show each control character, ANSI escape, line or paragraph separator and bidi control as ``\\uXXXX``."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}:
        return f"\\u{ord(character):04x}"
    return character


def _clean(text: str) -> str:
    # Redact on both sides: a secret may be cut by a control character, and escaping may complete a pattern.
    return redact(one_line(redact(text)))


class RedactionFilter(logging.Filter):
    """Hand the handler a clean copy of each record; other handlers, such as a test's, still see the original."""

    def filter(self, record: logging.LogRecord) -> logging.LogRecord:
        return cleaned(record)


def cleaned(record: logging.LogRecord) -> logging.LogRecord:
    """Return a copy whose message, arguments, extras and traceback are clean text."""
    if hasattr(record, _MARK):
        return record
    record = copy.copy(record)
    try:
        message = record.getMessage()
    except (TypeError, ValueError, KeyError):
        message = f"{record.msg!s} (its arguments do not fit)"
    record.msg, record.args = _clean(message), None
    if _is_refusal(record):
        record.exc_info = record.exc_text = record.stack_info = None
    if record.exc_info and record.exc_info[0] is not None:
        record.exc_text = "".join(traceback.format_exception(*record.exc_info))
    record.exc_info = None
    if record.exc_text:
        record.exc_text = _clean(record.exc_text)
    if record.stack_info:
        record.stack_info = _clean(record.stack_info)
    for name, value in _extras(record).items():
        setattr(record, name, _extra(name, value))
    setattr(record, _MARK, True)
    return record


def _is_refusal(record: logging.LogRecord) -> bool:
    """Whether Django logs a request that it answered with anything but 500: who asks could fill a disk with traces."""
    if record.name.startswith("django.security."):
        return True
    return record.name == "django.request" and getattr(record, "status_code", 500) != 500


def _extra(name: str, value: Any) -> Any:
    """Return a value that JSON has, with clean text; records and lists keep their shape."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Secret) or _SECRET_NAME.match(name):
        return REDACTED
    if isinstance(value, Mapping):
        return {_clean(str(key)): _extra(str(key), each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_extra(name, each) for each in value]
    return _clean(str(value))


def _extras(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in record.__dict__.items() if name not in _HIDDEN}


class JsonFormatter(logging.Formatter):
    """One JSON object a line, for machines. Times are UTC in ISO 8601 with milliseconds."""

    def format(self, record: logging.LogRecord) -> str:
        record = cleaned(record)  # also when somebody attaches this formatter without the filter
        event: dict[str, Any] = {
            "at": _iso(record),
            "level": record.levelname.lower(),
            "logger": one_line(record.name),
            "message": record.msg,
            **{one_line(name): value for name, value in _extras(record).items()},
        }
        if record.exc_text:
            event["exception"] = record.exc_text
        if record.stack_info:
            event["stack"] = record.stack_info
        return json.dumps(event, ensure_ascii=True, allow_nan=False, default=str)


class ConsoleFormatter(logging.Formatter):
    """One line an event, for people; only our own traceback lines follow it, indented."""

    def format(self, record: logging.LogRecord) -> str:
        record = cleaned(record)
        extras = " ".join(f"{name}={value}" for name, value in _extras(record).items())
        line = f"{_iso(record)[11:19]} {record.levelname:<8} {one_line(record.name)}: {record.msg}"
        if extras:
            line += f"  ({extras})"
        for text in (record.exc_text, record.stack_info):
            if text:
                line += "\n    " + text.replace("\\u000a", "\n    ").rstrip()
        return line


def _iso(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


# These print requests, answers or codes below WARNING; the queue three lines for each message, of which ours say more.
CAPPED_LOGGERS = (
    *("azure", "msal", "requests", "urllib3", "http.client", "asyncio"),
    *("django.db.backends", "psycopg.pool", "dj_queue"),
)
# These also warn, with a service's own sentences and whole tracebacks, of what they raise: our code tells that itself.
SILENT_LOGGERS = ("azure", "msal")


def logging_config(*, json: bool, level: str) -> dict[str, Any]:
    """Return ``LOGGING``: everything to standard error, cleaned, as JSON or for people.

    Args:
        json: one JSON object a line; otherwise text for a console.
        level: lowest level of our own loggers; the capped libraries stay at WARNING whatever it says, and
            Microsoft's SDKs say nothing.
    """
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"redaction": {"()": "portal.site.logs.RedactionFilter"}},
        "formatters": {
            "json": {"()": "portal.site.logs.JsonFormatter"},
            "console": {"()": "portal.site.logs.ConsoleFormatter"},
        },
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "filters": ["redaction"],
                "formatter": "json" if json else "console",
            },
        },
        "root": {"handlers": ["stderr"], "level": level.upper()},
        "loggers": {
            # Django brings handlers of its own; one line an event means ours only.
            "django": {"handlers": [], "level": "INFO", "propagate": True},
            "django.server": {"handlers": [], "level": "WARNING", "propagate": True},
            **{name: {"level": "WARNING"} for name in CAPPED_LOGGERS},
            **{name: {"level": "CRITICAL"} for name in SILENT_LOGGERS},
        },
    }
