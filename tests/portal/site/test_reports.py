from __future__ import annotations

import sys
from typing import Any

import pytest
from django.test import RequestFactory
from django.urls import resolve

from portal.site.reports import SHOWN_SETTINGS, StrictReporter, StrictReporterFilter

pytestmark = pytest.mark.req("S-33")

CANARY = "CANARYaB1cD2eF3gH4iJ5kL6mN7oP8qR9sT0uV1wX"


class Reporter(StrictReporter):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.filter = StrictReporterFilter()


@pytest.fixture
def reports() -> list[str]:
    """A report of a failing callback whose every part holds the canary, as HTML and as text."""
    request = RequestFactory().post(
        f"/consent/{CANARY}/start?state={CANARY}", {"code": CANARY, "state": CANARY, "id_token": CANARY}
    )
    request.COOKIES["__Host-cpv-flow-token"] = CANARY
    request.COOKIES["harmless"] = CANARY
    request.META["HTTP_AUTHORIZATION"] = f"Bearer {CANARY}"
    request.META["HTTP_X_UNKNOWN"] = CANARY
    request.resolver_match = resolve("/admin/")

    def view(posted: Any, local: str, number: int) -> None:
        raise ValueError(f"code={local}")

    try:
        view(request.POST, CANARY, 42)
    except ValueError:
        reporter = Reporter(request, *sys.exc_info())
        return [reporter.get_traceback_html(), reporter.get_traceback_text()]
    raise AssertionError


def test_no_part_of_the_request_and_no_local_text_is_in_a_report(reports: list[str]) -> None:
    for report in reports:
        assert CANARY not in report


def test_a_report_still_says_where_it_broke(reports: list[str]) -> None:
    for report in reports:
        assert "ValueError" in report
        assert "test_reports.py" in report
    assert "42" in reports[0]


def test_settings_are_hidden_unless_listed(settings: Any) -> None:
    settings.HARMLESS_LOOKING = CANARY
    shown = StrictReporterFilter().get_safe_settings()
    assert CANARY not in repr(shown)
    assert settings.SECRET_KEY not in repr(shown)
    assert shown["ROOT_URLCONF"] == settings.ROOT_URLCONF
    hidden = {name for name, value in shown.items() if value == StrictReporterFilter.cleansed_substitute}
    assert set(shown) - hidden <= SHOWN_SETTINGS


def test_the_settings_use_both(settings: Any) -> None:
    assert settings.DEFAULT_EXCEPTION_REPORTER_FILTER == "portal.site.reports.StrictReporterFilter"
    assert settings.DEFAULT_EXCEPTION_REPORTER == "portal.site.reports.StrictReporter"
