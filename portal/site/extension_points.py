"""What an app adds to the admin: ``EXTENSION`` in its module ``extension``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache

from django.http import HttpRequest, HttpResponseBase

from portal.extensions import declared
from portal.site.causes import CauseWords
from portal.site.dashboard import Figure, Panel, Row
from portal.site.limit_kinds import LimitKind, Sight
from portal.site.named import Fact, Named
from portal.site.searchable import Searchable

# Accounts of staff, and what they may do.
_OF_DJANGO = frozenset({"auth.add_user", "auth.change_user"})

AdminAction = Callable[..., HttpResponseBase | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminPage:
    """A page beside the list of a model: its route below the list, its name for ``reverse``, and the view."""

    route: str
    name: str
    view: Callable[..., HttpResponseBase]


@dataclass(frozen=True, slots=True, kw_only=True)
class ListEntry:
    """Where the list of a model stands in the navigation.

    Attributes:
        section: a word of ``portal.site.navigation.Section``.
        title: what the tab is called; empty if the list has no tab and its pages only belong to the section.
        model: ``app.model``.
        page: name for ``reverse`` of a page beside the list, if the tab leads there instead.
    """

    section: str
    title: str
    model: str
    page: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminExtension:
    """What one app adds to pages of the admin, its own and those of lower floors.

    Attributes:
        panels: functions of the first page. Each runs a constant number of queries, checks the permissions itself, and
            returns None when it has nothing for this person.
        lists: where the lists of the app stand in the navigation; the first of a section opens with its entry.
        running: functions that say in a line each what runs just now, for the top of every page. One query each,
            and a second one while something runs.
        banners: functions that say in a line each what all staff must know, above every page. No query.
        bells: functions that count what waits for the person, for the top of every page. One query each.
        subjects: which rows a name in the subject of an audit event, an incident or a run means.
        causes: title and remedy of each cause of incidents that the app reports.
        audit_words: what an event of the audit trail says, by action, and by ``action:outcome`` where an outcome needs
            a sentence of its own.
        trace: functions that lead from a correlation id, and a time at which it was used, to rows of the app, as a text
            and an address each. Few queries each, whatever there is.
        searchable: rows that the search in the header finds.
        dangerous: permissions for what does great harm in wrong hands. Each action that needs one asks for a fresh
            proof first (S-49), and so does each form that adds or changes rows by one; a test walks them all.
        limits: what a team can be limited to, by a word that stays for ever.
        sights: by ``app.model``, which rows a member of a team sees; of a model that is not declared none.
        partner_pages: pages beside the list of partners.
        partner_actions: actions on chosen partners, in the order in which they are offered.
        customer_actions: the same for customers.
    """

    panels: Sequence[Callable[[HttpRequest], Panel | None]] = ()
    lists: Sequence[ListEntry] = ()
    running: Sequence[Callable[[HttpRequest], Sequence[Row]]] = ()
    banners: Sequence[Callable[[HttpRequest], Sequence[Row]]] = ()
    bells: Sequence[Callable[[HttpRequest], Figure | None]] = ()
    subjects: Mapping[str, Named] = field(default_factory=dict)
    causes: Mapping[str, CauseWords] = field(default_factory=dict)
    audit_words: Mapping[str, str] = field(default_factory=dict)
    trace: Sequence[Callable[[str, datetime], Sequence[Fact]]] = ()
    searchable: Sequence[Searchable] = ()
    dangerous: frozenset[str] = frozenset()
    limits: Mapping[str, LimitKind] = field(default_factory=dict)
    sights: Mapping[str, Sight] = field(default_factory=dict)
    partner_pages: Sequence[AdminPage] = ()
    partner_actions: Sequence[AdminAction] = ()
    customer_actions: Sequence[AdminAction] = ()


@cache
def extensions() -> Sequence[AdminExtension]:
    """Return what the installed apps declare."""
    return tuple(declared("extension", "EXTENSION", AdminExtension))


@cache
def causes() -> Mapping[str, CauseWords]:
    """Return what the installed apps say about the causes of incidents."""
    return {cause: words for extension in extensions() for cause, words in extension.causes.items()}


@cache
def dangerous() -> frozenset[str]:
    """Return the permissions for what does great harm in wrong hands, of all apps and of Django's own."""
    return _OF_DJANGO.union(*(extension.dangerous for extension in extensions()))
