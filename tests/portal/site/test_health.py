"""What a monitor is told: whether the process lives and can work, and nothing else (R-46)."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client
from pytest_django.fixtures import Settings

from portal.site import health

pytestmark = pytest.mark.req("R-46")
MONITOR: dict[str, Any] = {"HTTP_HOST": "10.0.0.7:8000", "secure": False}  # an address, without https


@pytest.fixture(autouse=True)
def _nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "readiness", health.Readiness())


def asked(path: str, **more: Any) -> tuple[int, str]:
    answer = Client().get(path, **{**MONITOR, **more})
    assert (answer["Content-Type"], answer["Cache-Control"].partition(",")[0]) == (
        "text/plain; charset=utf-8",
        "max-age=0",
    )
    assert not answer.cookies
    return answer.status_code, answer.content.decode()


def refused(*arguments: Any, **more: Any) -> Any:
    raise OperationalError("connection to db.internal.example failed, password canary")


def test_a_process_that_lives_says_so_without_a_database() -> None:
    assert asked("/livez") == (200, "alive\n")  # here a test that opens the database fails


@pytest.mark.django_db
def test_a_process_with_its_database_is_ready_whatever_vault_and_sign_in_service_do(settings: Settings) -> None:
    settings.VAULT_URL, settings.TEST_ENDPOINTS = "https://gone.vault.example", 1
    assert asked("/readyz") == (200, "ready\n")
    assert asked("/readyz", HTTP_HOST="portal.localhost", secure=True) == (200, "ready\n")


@pytest.mark.django_db
def test_without_its_database_it_is_not_ready_and_only_the_log_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(health, "_KEPT_SECONDS", 0.0)
    with monkeypatch.context() as away, caplog.at_level(logging.WARNING, "portal.site.health"):
        away.setattr(connection, "cursor", refused)
        assert [asked("/readyz") for _ in range(3)] == [(503, "not ready\n")] * 3
        assert asked("/livez") == (200, "alive\n")
    with caplog.at_level(logging.WARNING, "portal.site.health"):
        assert asked("/readyz") == (200, "ready\n")
    lines = [record.getMessage() for record in caplog.records if record.name == "portal.site.health"]
    assert len(lines) == 2, "once each"
    assert lines[0].startswith("Not ready: ")
    assert "canary" not in lines[0]
    assert lines[1] == "Ready again."


@pytest.mark.django_db
def test_a_database_that_lacks_a_migration_makes_it_not_ready(caplog: pytest.LogCaptureFixture) -> None:
    MigrationRecorder.Migration.objects.filter(app="consent").latest("pk").delete()
    assert asked("/readyz") == (503, "not ready\n")
    assert "run migrate" in caplog.text


@pytest.mark.django_db
def test_the_database_is_asked_once_a_second_however_often_somebody_asks(
    monkeypatch: pytest.MonkeyPatch, django_assert_num_queries: Any
) -> None:
    monkeypatch.setattr(health, "_KEPT_SECONDS", 60.0)
    asked("/readyz")
    with django_assert_num_queries(0):
        assert {asked("/readyz") for _ in range(20)} == {(200, "ready\n")}


def test_nothing_can_be_sent_there() -> None:
    for path in ("/livez", "/readyz"):
        assert Client(enforce_csrf_checks=True).post(path, {"a": "b"}, **MONITOR).status_code == 405
