"""The pieces of ``portal.site.display`` for templates: ``{% load shown %}``."""

from __future__ import annotations

from datetime import datetime

from django.template import Library
from django.urls import reverse

from portal.site import display
from portal.site.display import Tone

register = Library()


@register.filter
def moment(value: datetime | None, empty: str = display.EMPTY) -> str:
    """Show a time with its distance from now, or what stands for none."""
    return display.moment(value, empty=empty)


@register.filter
def ago(value: datetime | None, empty: str = display.EMPTY) -> str:
    """Show how long ago a time is, or what stands for none."""
    return display.ago(value, empty=empty)


@register.filter
def badge(text: object, tone: str) -> str:
    """Show a word with the colour and icon of a tone."""
    return display.badge(str(text), Tone(tone))


@register.filter
def guid(value: str | None, label: str = "id") -> str:
    """Show an identifier that can be copied."""
    return display.guid(value, label=label)


@register.filter
def page(place: tuple[str, int]) -> str:
    """Return the address of a row's page in the admin: the name of the page, and the key."""
    name, key = place
    return reverse(f"admin:{name}", args=[key])


@register.filter
def who(owner: str) -> str:
    """Show who must act, from a word of ``Owner``."""
    return display.who(owner)
