"""Requests to the callback that somebody bent, for the tables of hostile callbacks and answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from django.http import HttpResponse

from consent.models import ConsentFlow
from portal.audit.models import AuditEvent
from tests.sandbox.entra import Answer
from tests.support.portal import Browser, Portal

FORM = "application/x-www-form-urlencoded"
MARK = "zzhostilezz"
CALLBACK = "/consent/callback/global"


@dataclass(slots=True, kw_only=True)
class Sent:
    """One request to the callback, honest until a case bends it."""

    fields: list[tuple[str, str]]
    headers: dict[str, str]
    method: str = "POST"
    path: str = CALLBACK
    query: str = ""
    content_type: str = FORM
    body: bytes | None = None
    environ: dict[str, str] = field(default_factory=dict)

    def by(self, who: Browser) -> HttpResponse:
        """Send it."""
        response: HttpResponse = who.generic(
            self.method,
            self.path,
            urlencode(self.fields).encode() if self.body is None else self.body,
            self.content_type,
            headers=self.headers,
            QUERY_STRING=self.query,
            **self.environ,
        )
        return response

    def value(self, name: str) -> str:
        return dict(self.fields)[name]

    def replace(self, name: str, value: str) -> None:
        self.fields = [(key, value if key == name else old) for key, old in self.fields]

    def drop(self, name: str) -> None:
        self.fields = [pair for pair in self.fields if pair[0] != name]


Bend = Callable[[Sent, Portal], None]


def honest(portal: Portal, answer: Answer) -> Sent:
    """Return what the sign-in page's own form would send."""
    return Sent(
        fields=list(answer.fields.items()),
        headers={"origin": portal.sandbox.clouds["global"].sign_in, "sec-fetch-dest": "document"},
    )


def with_method(method: str) -> Bend:
    def bend(sent: Sent, portal: Portal) -> None:
        sent.method = method

    return bend


def with_header(name: str, value: str) -> Bend:
    def bend(sent: Sent, portal: Portal) -> None:
        sent.headers[name] = value

    return bend


def with_more(*pairs: tuple[str, str]) -> Bend:
    def bend(sent: Sent, portal: Portal) -> None:
        sent.fields += pairs

    return bend


def with_value(name: str, value: str) -> Bend:
    def bend(sent: Sent, portal: Portal) -> None:
        sent.replace(name, value)

    return bend


def with_repeated(name: str) -> Bend:
    def bend(sent: Sent, portal: Portal) -> None:
        sent.fields.append((name, sent.value(name)))

    return bend


def without(*names: str) -> Bend:
    def bend(sent: Sent, portal: Portal) -> None:
        for name in names:
            sent.drop(name)

    return bend


def with_body(content_type: str, body: bytes) -> Bend:
    def bend(sent: Sent, portal: Portal) -> None:
        sent.content_type, sent.body = content_type, body

    return bend


def with_query(query: str) -> Bend:
    def bend(sent: Sent, portal: Portal) -> None:
        sent.query = query

    return bend


def with_environ(**values: str) -> Bend:
    def bend(sent: Sent, portal: Portal) -> None:
        sent.environ |= values

    return bend


def one_answer(portal: Portal) -> tuple[Browser, Answer]:
    who = Browser()
    return who, portal.at_microsoft(portal.press_continue(who, portal.link()))


def everything_seen(response: Any, logged: str) -> str:
    rows = repr(list(AuditEvent.objects.values_list())) + repr(list(ConsentFlow.objects.values_list()))
    return "\n".join([response.content.decode(), repr(dict(response.headers)), logged, rows])
