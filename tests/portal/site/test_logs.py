from __future__ import annotations

import copy
import json
import logging
import logging.config
import sys
from collections.abc import Iterator
from io import StringIO

import pytest

from portal.microsoft.secret import Secret
from portal.site.logs import CAPPED_LOGGERS, ConsoleFormatter, JsonFormatter, RedactionFilter, logging_config

CANARY = "CANARY0aB1cD2eF3gH4iJ5kL6mN7oP8qR9sT0uV1wX2yZ3"
TOKEN = f"eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.eyJ0aWQiOiIx{CANARY}.{CANARY}"


class Log:
    """A logger of our own that writes into memory."""

    def __init__(self, formatter: logging.Formatter) -> None:
        self._stream = StringIO()
        handler = logging.StreamHandler(self._stream)
        handler.setFormatter(formatter)
        handler.addFilter(RedactionFilter())
        # Outside the tree of loggers, so that nothing else hears it.
        self.logger = logging.Logger("tests.portal.site", logging.DEBUG)  # noqa: LOG001
        self.logger.addHandler(handler)

    def text(self) -> str:
        return self._stream.getvalue()


def fail(log: Log, message: str, **extra: str) -> None:
    def inner() -> None:
        raise RuntimeError(message)

    try:
        inner()
    except RuntimeError:
        log.logger.exception("failed", extra=extra)


@pytest.fixture(params=[JsonFormatter, ConsoleFormatter])
def log(request: pytest.FixtureRequest) -> Log:
    return Log(request.param())


def test_what_django_refuses_is_one_line_without_a_traceback() -> None:
    log = Log(ConsoleFormatter())
    log.logger.name = "django.security.DisallowedModelAdminLookup"

    fail(log, "not said")

    assert log.text().count("\n") == 1
    assert "failed" in log.text()
    assert "Traceback" not in log.text()


@pytest.mark.req("S-32")
@pytest.mark.parametrize(
    "message",
    [
        f"answer was {TOKEN}",
        f"Authorization: Bearer {CANARY}",
        *(
            f"POST /callback {name}={CANARY}&x=1"
            for name in (
                "code",
                "state",
                "nonce",
                "refresh_token",
                "id_token",
                "access_token",
                "client_secret",
                "client_assertion",
                "code_verifier",
                "session_state",
            )
        ),
        f'{{"refresh_token": "{CANARY}", "token_type": "Bearer"}}',
        f"{{'code': '{CANARY}'}}",
        f'{{"client_secret":"{CANARY}',
        f"state%3D{CANARY}%26",
        f"redeem 0.A{CANARY}.xyz",
        f"Not Found: /consent/{CANARY}/start",
        f"code=abc/{CANARY}",
        f"code=AADSTS50076.{CANARY}",
        f"state : 'x', 'state': 'connected+{CANARY}'",
    ],
)
def test_no_token_code_or_link_reaches_a_line(log: Log, message: str) -> None:
    log.logger.info(message)
    log.logger.info("%s", message)
    log.logger.info("see extra", extra={"detail": message})
    fail(log, message)
    assert CANARY not in log.text()


@pytest.mark.req("S-32")
def test_extras_with_secret_names_and_secrets_are_hidden(log: Log) -> None:
    log.logger.info("kept", extra={"password": CANARY, "new_token": CANARY, "value": Secret(CANARY), "partner": 7})
    assert CANARY not in log.text()
    assert "7" in log.text()


@pytest.mark.parametrize("text", ["state=connected.", "code=AADSTS50076", "code=invalid_grant", "'code': 'PC2004'"])
def test_words_of_ours_and_error_codes_stay_readable(log: Log, text: str) -> None:
    log.logger.info("partner 7: %s (correlation 7c8e4a66-0000-4000-8000-000000000001)", text)
    assert text in log.text()
    assert "7c8e4a66-0000-4000-8000-000000000001" in log.text()


@pytest.mark.req("S-59")
@pytest.mark.parametrize(
    "forgery",
    ["\r\n{}", "\n2026 ERROR forged", "\x1b[2K\x1b[1A", "\u2028forged", "\u202egnp.exe", "\x00", "\x85next", "\t"],
)
def test_text_from_outside_cannot_forge_or_recolour_a_line(log: Log, forgery: str) -> None:
    log.logger.warning("partner name is %s!", f"Contoso{forgery}", extra={"domain": forgery})
    text = log.text()
    assert len(text.splitlines()) == 1
    assert text.rstrip("\n").isprintable()


@pytest.mark.req("S-59")
def test_each_event_is_one_json_object(caplog: pytest.LogCaptureFixture) -> None:
    log = Log(JsonFormatter())
    log.logger.info("first\nsecond", extra={"partner": 7})
    log.logger.info("broken %d", "arguments")
    fail(log, "line\nbreak", code="AADSTS50076")
    events = [json.loads(line) for line in log.text().splitlines()]
    assert [event["level"] for event in events] == ["info", "info", "error"]
    assert events[0]["partner"] == 7
    assert "RuntimeError" in events[2]["exception"]
    assert events[2]["code"] == "AADSTS50076"
    assert events[0]["at"].endswith("+00:00")


def test_a_handler_beside_ours_still_sees_the_original_record() -> None:
    record = logging.LogRecord("x", logging.INFO, __file__, 1, "code=%s", (CANARY,), None)
    before = copy.copy(record.__dict__)
    assert CANARY not in JsonFormatter().format(record)
    assert record.__dict__ == before


@pytest.fixture
def _configured() -> Iterator[None]:
    loggers = {name: (logging.getLogger(name).level, logging.getLogger(name).handlers[:]) for name in _touched()}
    yield
    for name, (level, handlers) in loggers.items():
        logging.getLogger(name).setLevel(level)
        logging.getLogger(name).handlers[:] = handlers


def _touched() -> list[str]:
    return ["", "django", "django.server", *CAPPED_LOGGERS]


@pytest.mark.req("S-32")
@pytest.mark.usefixtures("_configured")
def test_http_msal_and_vault_libraries_stay_at_warning_whatever_the_level(capsys: pytest.CaptureFixture[str]) -> None:
    logging.config.dictConfig(logging_config(json=True, level="debug"))
    stream = logging.getLogger().handlers[-1]
    assert isinstance(stream, logging.StreamHandler)
    stream.setStream(sys.stderr)
    for name in ("azure.core.pipeline.policies.http_logging_policy", "msal.application", "urllib3.connectionpool"):
        logging.getLogger(name).info("body %s", CANARY)
        assert not logging.getLogger(name).isEnabledFor(logging.INFO)
    logging.getLogger("portal.anything").debug("ours")
    assert "ours" in capsys.readouterr().err


@pytest.mark.req("S-32")
@pytest.mark.usefixtures("_configured")
def test_microsofts_sdks_log_no_sentence_of_a_service_and_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    logging.config.dictConfig(logging_config(json=True, level="debug"))
    stream = logging.getLogger().handlers[-1]
    assert isinstance(stream, logging.StreamHandler)
    stream.setStream(sys.stderr)
    for name in ("azure.identity._internal.get_token_mixin", "azure.keyvault.secrets._utils", "msal.token_cache"):
        logging.getLogger(name).warning("Ran into a deserialization error: %s", CANARY, exc_info=ValueError(CANARY))
        logging.getLogger(name).error("AADSTS7000215: %s", CANARY)
    assert capsys.readouterr().err == ""
