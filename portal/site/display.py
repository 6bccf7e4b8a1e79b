"""The few pieces of HTML that Python code may build for lists and detail pages (S-65).

Everything goes through ``format_html``, which escapes its arguments; no other module builds HTML.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from portal.microsoft.diagnosis import Owner

EMPTY = "–"


class Tone(StrEnum):
    """How a state feels. ``portal.css`` gives each a colour and an icon, so that colour never tells alone."""

    GOOD = "good"
    BUSY = "busy"
    WARN = "warn"
    BAD = "bad"
    QUIET = "quiet"


def badge(text: str, tone: Tone) -> SafeString:
    """Return a word with icon and colour."""
    return format_html('<span class="badge tone-{}">{}</span>', tone.value, text)


def who(owner: str) -> str:
    """Return who must act in words, from a word of ``Owner``."""
    return Owner(owner).label if owner else EMPTY


def moment(value: datetime | None, *, now: datetime | None = None, empty: str = EMPTY) -> SafeString:
    """Return an aware time in UTC with how long ago or ahead it is.

    Raises:
        ValueError: the time is naive.
    """
    if value is None:
        return format_html("{}", empty)
    if timezone.is_naive(value):
        raise ValueError("moment() takes an aware time")
    utc = value.astimezone(UTC)
    return format_html(
        '<time class="moment" datetime="{}"><span>{}</span> <small>{}</small></time>',
        utc.isoformat(timespec="seconds"),
        utc.strftime("%Y-%m-%d %H:%M UTC"),
        distance(value - (now or timezone.now())),
    )


def ago(value: datetime | None, *, empty: str = EMPTY) -> SafeString:
    """Return how long ago or ahead an aware time is; the time itself is its tooltip."""
    if value is None:
        return format_html("{}", empty)
    utc = value.astimezone(UTC)
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        utc.isoformat(timespec="seconds"),
        utc.strftime("%Y-%m-%d %H:%M UTC"),
        distance(value - timezone.now()),
    )


def distance(delta: timedelta) -> str:
    """Say a time span relative to now in one unit: ``3 minutes ago``, ``in 2 days``."""
    if words := span(delta):
        return f"{words} ago" if delta < timedelta() else f"in {words}"
    return "just now" if delta <= timedelta() else "in less than a minute"


def span(delta: timedelta) -> str:
    """Say how long a time span is, in one unit: ``3 minutes``; empty below a minute."""
    seconds = abs(delta.total_seconds())
    for unit, length in (("year", 31_557_600), ("month", 2_629_800), ("day", 86_400), ("hour", 3_600), ("minute", 60)):
        count = int(seconds // length)
        if count:
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return ""


def guid(value: str | None, *, label: str = "id") -> SafeString:
    """Return an identifier in monospace; ``site/admin.js`` adds a button that copies it."""
    if not value:
        return format_html("{}", EMPTY)
    return format_html(
        '<span class="guid" data-copy="{}" data-copy-label="{}"><code>{}</code></span>', value, label, value
    )


def tick(name: str, value: str, label: str) -> SafeString:
    """Return the box that chooses a row of a list for an action."""
    return format_html(
        '<input type="checkbox" name="{}" value="{}" class="action-select" aria-label="{}">', name, value, label
    )


def links(targets: Sequence[tuple[str, str]]) -> SafeString:
    """Return texts that lead to addresses of our own, one a line; an empty address leads nowhere."""
    return format_html_join(
        "",
        '<div class="links">{}</div>',
        ((format_html('<a href="{}">{}</a>', address, text) if address else text,) for text, address in targets),
    )


def with_link(before: str, address: str, text: str, after: str) -> SafeString:
    """Return a sentence in which some words lead to an address of our own."""
    return format_html('{} <a href="{}">{}</a> {}', before, address, text, after)


def words(values: Sequence[str]) -> SafeString:
    """Return short technical words, such as scopes, one a chip."""
    if not values:
        return format_html("{}", EMPTY)
    chips = format_html_join("", '<li class="chip"><code>{}</code></li>', ((value,) for value in values))
    return format_html('<ul class="chips">{}</ul>', chips)


def steps(texts: Sequence[str]) -> SafeString:
    """Return sentences as a numbered list of what to do."""
    return format_html('<ol class="to-do">{}</ol>', format_html_join("", "<li>{}</li>", ((text,) for text in texts)))


def lines(texts: Sequence[str]) -> SafeString:
    """Return sentences, one a line."""
    return links([(text, "") for text in texts])


def plain(text: str) -> SafeString:
    """Return a text of several lines as it is, to be copied."""
    return format_html('<pre class="copy">{}</pre>', text)


def described(head: Any, text: str) -> SafeString:
    """Return something short with a quieter explanation under it."""
    return format_html('<div class="described">{}<small>{}</small></div>', head, text)


def json_text(value: Any, encoder: type[json.JSONEncoder] | None = None) -> SafeString:
    """Return the value of a JSONField as indented text."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, cls=encoder)
    return format_html('<pre class="json">{}</pre>', text)
