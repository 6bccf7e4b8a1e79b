"""The cards of the first page: who must act comes first, and each number leads to the list that it counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from consent import overview
from consent.admin.asking import LINK_TONES, PARTNER_TONES
from consent.admin.panels import CUSTOMER_TONES, OWNER_TONES, STATE_TONES
from consent.models import (
    ApplicationCredential,
    CampaignPartner,
    ConsentLink,
    CustomerConsent,
    DailyFigures,
    PartnerConsent,
)
from consent.overview import Kind, Numbers
from consent.states import Trouble
from consent.tokens.next_steps import SOON
from consent.words import PROBLEMS, Problem
from portal.incidents.panels import open_for
from portal.microsoft.diagnosis import Owner
from portal.site.charts import Chart
from portal.site.dashboard import Figure, Group, Line, Panel, Row
from portal.site.display import Tone, distance
from portal.text import number_of
from tenants.models import PartnerTenant
from tenants.panels import READINESS_TONES

_ALWAYS_COUNTED = (PartnerTenant.State.CONNECTED, PartnerTenant.State.ATTENTION, PartnerTenant.State.INVITED)
_ENDS_WITHIN = timedelta(days=60)
_MFA_TONES = {
    PartnerConsent.Mfa.PROVEN: Tone.GOOD,
    PartnerConsent.Mfa.MISSING: Tone.BAD,
    PartnerConsent.Mfa.UNPROVEN: Tone.WARN,
}
_VIEW = {
    Kind.CREDENTIAL: "consent.view_applicationcredential",
    Kind.GDAP: "tenants.view_customertenant",
    Kind.LINK: "consent.view_consentlink",
    Kind.TOKEN: "consent.view_partnerconsent",
}


def _list(model: str, **filters: Any) -> str:
    """Return the address of a list, filtered; a double underscore is part of a filter's name."""
    query = "&".join(f"{name}={value}" for name, value in filters.items())
    address = reverse(f"admin:{model}_changelist")
    return f"{address}?{query}" if query else address


def _customers(**filters: Any) -> str:
    return _list("tenants_customertenant", missing_since__isempty=1, **filters)


def _consents(**filters: Any) -> str:
    return _list("consent_customerconsent", customer__missing_since__isempty=1, **filters)


def _tokens(**filters: Any) -> str:
    return _list("consent_partnerconsent", **filters)


def _once[V](request: HttpRequest, count: Callable[[], V]) -> V:
    """Count once for all cards of a page."""
    name = f"counted_{count.__name__}"
    if not hasattr(request, name):
        setattr(request, name, count())
    counted: V = getattr(request, name)
    return counted


def _may(request: HttpRequest, *permissions: str) -> bool:
    return request.user.has_perms(permissions)


def _token_figures(request: HttpRequest) -> overview.Tokens | None:
    """Return what is counted of tokens to who may see both them and their partners."""
    if _may(request, "consent.view_partnerconsent", "tenants.view_partnertenant"):
        return _once(request, overview.tokens)
    return None


def _customer_figures(request: HttpRequest) -> overview.Customers | None:
    if not _may(request, "consent.view_customerconsent", "tenants.view_customertenant"):
        return None
    days = _once(request, overview.trend)

    def customers() -> overview.Customers:
        return overview.customers(days)

    return _once(request, customers)


def _age(what: str, at: datetime | None) -> str:
    """Say how old numbers are, where they were not counted just now."""
    return "" if at is None else f"{what} were counted {distance(at - timezone.now())}."


def _largest_first(numbers: Numbers) -> list[tuple[str, int]]:
    return sorted(numbers.items(), key=lambda each: (-each[1], each[0]))


def _figure(number: int, noun: str, link: str, tone: Tone = Tone.QUIET) -> Figure:
    return Figure(label=number_of(number, noun).partition(" ")[2], value=f"{number:,}", link=link, tone=tone)


# --- who must act -------------------------------------------------------------------------------------------------


def acting_panel(request: HttpRequest) -> Panel | None:
    """Say who must act, for how many partners and customers, why, and what fits all of them."""
    tokens, customers = _token_figures(request), _customer_figures(request)
    if tokens is None and customers is None:
        return None
    tokens, customers = tokens or overview.Tokens(), customers or overview.Customers()
    lines = [line for owner in Owner if (line := _acting(request, owner, tokens, customers)) is not None]
    news = [] if lines else [f"Nobody must act: {_well(tokens)}."]
    return Panel(
        title="Who must act", order=0, wide=True, lines=lines, news=news, note=_age("Customers", customers.counted_at)
    )


def _well(tokens: overview.Tokens) -> str:
    return f"all {tokens.living:,} tokens work" if tokens.living else "no partner is connected yet"


def _acting(request: HttpRequest, owner: Owner, tokens: overview.Tokens, customers: overview.Customers) -> Line | None:
    partners, tenants = tokens.acting.get(owner, 0), customers.acting.get(owner, 0)
    incidents = open_for(request, owner)
    if not (partners or tenants or incidents):
        return None
    figures = [
        *([_figure(partners, "partner", _list("tenants_partnertenant", who=owner))] if partners else []),
        *([_figure(tenants, "customer", _customers(who=owner))] if tenants else []),
        *([incidents] if incidents else []),
    ]
    return Line(
        title=owner.label,
        figures=figures,
        parts=list(_causes(owner, tokens, customers)),
        action=_action(owner, partners, tenants),
        tone=OWNER_TONES[owner],
    )


def _causes(owner: Owner, tokens: overview.Tokens, customers: overview.Customers) -> Iterator[Figure]:
    for word, number in _largest_first(tokens.troubles.get(owner, {})):
        yield Figure(label=str(Trouble(word).label), value=f"{number:,}", link=_tokens(who=owner, trouble=word))
    for word, number in _largest_first(customers.troubles.get(owner, {})):
        state = CustomerConsent.State(word)
        yield Figure(
            label=str(state.label),
            value=f"{number:,}",
            link=_consents(who=owner, state__exact=word),
        )
    if number := customers.unread.get(owner, 0):
        yield Figure(label="Not ready", value=f"{number:,}", link=_customers(who=owner, consent="none"))


def _action(owner: Owner, partners: int, tenants: int) -> Row | None:
    """Return the list from which all of them can be helped with one action."""
    if owner is Owner.NOBODY:
        return None
    if owner is Owner.PARTNER and partners:
        return Row(label="Invite these partners again", link=_list("tenants_partnertenant", who=owner))
    if partners:
        return Row(label="Check these tokens again", link=_tokens(who=owner))
    return Row(label="Read these customers again", link=_consents(who=owner)) if tenants else None


# --- how many stand how, today and on the days before ---------------------------------------------------------------


def _trend(request: HttpRequest, title: str, number: Callable[[DailyFigures], int]) -> list[Chart]:
    days = _once(request, overview.trend)
    return [Chart(title=title, points=[(day.day.isoformat(), number(day)) for day in days])] if days else []


def partners_panel(request: HttpRequest) -> Panel | None:
    """Partners by state, and how many were connected each day."""
    if (tokens := _token_figures(request)) is None:
        return None
    return Panel(
        title="Partners",
        link=_list("tenants_partnertenant"),
        order=10,
        figures=[
            Figure(
                label=str(state.label),
                value=f"{tokens.partners.get(state, 0):,}",
                tone=tone if tokens.partners.get(state) else Tone.QUIET,
                link=_list("tenants_partnertenant", state=state),
            )
            for state, tone in STATE_TONES.items()
            if tokens.partners.get(state) or state in _ALWAYS_COUNTED
        ],
        charts=_trend(request, "Connected partners", lambda day: day.connected_partners),
    )


def customers_panel(request: HttpRequest) -> Panel | None:
    """Consents in listed customers by state, those never looked at included, and customers by readiness."""
    if (counted := _customer_figures(request)) is None:
        return None
    consents = [
        Figure(
            label=str(state.label),
            value=f"{counted.consents[state]:,}",
            tone=tone,
            link=_consents(state__exact=state),
        )
        for state, tone in CUSTOMER_TONES.items()
        if counted.consents.get(state)
    ]
    if counted.never:
        consents.append(Figure(label="Never looked at", value=f"{counted.never:,}", link=_customers(consent="none")))
    ready = [
        Figure(
            label=str(readiness.label),
            value=f"{counted.readiness[readiness]:,}",
            tone=tone,
            link=_customers(readiness__exact=readiness),
        )
        for readiness, tone in READINESS_TONES.items()
        if counted.readiness.get(readiness)
    ]
    groups = [Group(title=title, figures=some) for title, some in (("Consent", consents), ("Readiness", ready)) if some]
    return Panel(
        title="Customers",
        link=_customers(),
        order=20,
        note=_age("Customers", counted.counted_at),
        groups=groups,
        charts=_trend(request, "Granted customers", lambda day: day.granted_customers) if groups else (),
        empty="No customers yet: they come with the first synchronisation of a connected partner.",
    )


# --- tokens -------------------------------------------------------------------------------------------------------


def tokens_panel(request: HttpRequest) -> Panel | None:
    """How many tokens are over or end soon, and why."""
    if (tokens := _token_figures(request)) is None:
        return None
    over = sum(tokens.over.values())
    lines = []
    if over:
        lines.append(
            Line(
                title="Over",
                figures=[Figure(label="", value=f"{over:,}", link=_tokens(token="over"))],
                parts=[
                    Figure(
                        label=str(PartnerConsent.State(word).label),
                        value=f"{number:,}",
                        link=_tokens(token="over", state=word),
                    )
                    for word, number in _largest_first(tokens.over)
                ],
                tone=Tone.BAD,
            )
        )
    for days, causes in tokens.ends.items():
        if number := sum(causes.values()):
            lines.append(
                Line(
                    title=f"Within {days} days",
                    figures=[Figure(label="", value=f"{number:,}", link=_tokens(token="living", ends=days))],
                    parts=[
                        Figure(
                            label=str(PartnerConsent.ForecastCause(word).label),
                            value=f"{each:,}",
                            link=_tokens(token="living", ends=days, forecast_cause__exact=word),
                        )
                        for word, each in _largest_first(causes)
                    ],
                    tone=Tone.BAD
                    if days <= overview.ENDS_WITHIN[0]
                    else Tone.WARN
                    if days <= SOON.days
                    else Tone.QUIET,
                )
            )
    good = [] if not tokens.living or tokens.ends.get(SOON.days) else [_none_ends(tokens.living)]
    return Panel(
        title="When tokens end",
        link=_tokens(),
        order=30,
        news=good,
        lines=lines,
        empty="No token is stored yet: it comes when a partner follows its link.",
    )


def _none_ends(living: int) -> str:
    if living == 1:
        return f"The one token in use does not end within {SOON.days} days."
    return f"None of {living:,} tokens in use ends within {SOON.days} days."


def checks_panel(request: HttpRequest) -> Panel | None:
    """What checks proved: verdicts on MFA with their age, and what was not checked."""
    if (tokens := _token_figures(request)) is None or not tokens.living:
        return None
    now, news = timezone.now(), []
    late = tokens.never_checked + tokens.not_checked
    if not late:
        all_of_them = "The one token in use" if tokens.living == 1 else f"All {tokens.living:,} tokens in use"
        news.append(f"{all_of_them} {'was' if tokens.living == 1 else 'were'} checked in the last 24 hours.")
    oldest = min(tokens.oldest.values(), default=None)
    unchecked = (
        ("Never checked", tokens.never_checked, "never"),
        ("Not in the last 24 hours", tokens.not_checked, "old"),
        ("In the last 24 hours", tokens.living - late, "new"),
    )
    return Panel(
        title="MFA and checks",
        link=_tokens(token="living"),
        order=40,
        news=news,
        groups=[
            Group(
                title="MFA",
                note=f"oldest verdict {distance(oldest - now)}" if oldest else "no verdict yet",
                figures=[
                    Figure(
                        label=str(verdict.label),
                        value=f"{tokens.mfa.get(verdict, 0):,}",
                        tone=tone if tokens.mfa.get(verdict) else Tone.QUIET,
                        link=_tokens(token="living", mfa__exact=verdict),
                    )
                    for verdict, tone in _MFA_TONES.items()
                ],
            ),
            Group(
                title="Last check",
                figures=[
                    Figure(
                        label=label,
                        value=f"{number:,}",
                        tone=Tone.QUIET if not number else Tone.GOOD if word == "new" else Tone.WARN,
                        link=_tokens(token="living", checked=word),
                    )
                    for label, number, word in unchecked
                ],
            ),
        ],
    )


# --- invitations --------------------------------------------------------------------------------------------------


def invitations_panel(request: HttpRequest) -> Panel | None:
    """Links that wait, that were not opened, that failed and why; how far the latest campaigns came."""
    if not _may(request, "consent.view_consentlink", "consent.view_campaign", "consent.view_campaignpartner"):
        return None
    counted = overview.invitations(_once(request, overview.trend))
    progress = ConsentLink.Progress
    shown = (progress.OPEN, progress.STARTED, progress.FAILED, progress.MFA_MISSING, progress.WAITING)
    figures = [
        Figure(
            label=str(one.label),
            value=f"{counted.progress[one]:,}",
            tone=LINK_TONES[one],
            link=_list("consent_consentlink", progress=one),
        )
        for one in shown
        if counted.progress.get(one)
    ]
    if counted.unopened:
        figures.append(
            Figure(
                label=f"Not opened for {overview.UNOPENED_AFTER.days} days",
                value=f"{counted.unopened:,}",
                tone=Tone.WARN,
                link=_list("consent_consentlink", progress=progress.OPEN, made="old"),
            )
        )
    lines = []
    if counted.refused:
        lines.append(
            Line(
                title="Failed, the partner read",
                parts=[
                    Figure(
                        label=f"“{PROBLEMS[Problem(word)].heading}”" if word else "an unknown answer",
                        value=f"{number:,}",
                        link=_list("consent_consentlink", progress=progress.FAILED, problem=word),
                    )
                    for word, number in _largest_first(counted.refused)
                ],
                tone=Tone.BAD,
            )
        )
    lines += [_funnel(funnel) for funnel in counted.campaigns]
    return Panel(
        title="Invitations",
        link=_list("consent_consentlink"),
        order=60,
        note=_age("Invitations", counted.counted_at),
        news=[] if figures else ["No link waits for a partner."],
        figures=figures,
        lines=lines,
    )


def _funnel(funnel: overview.Funnel) -> Line:
    counted = CampaignPartner.Progress
    return Line(
        title=funnel.name,
        link=reverse("admin:consent_campaign_change", args=[funnel.campaign]),
        figures=[
            _figure(
                sum(funnel.progress.values()),
                "partner",
                _list("consent_campaignpartner", campaign__id__exact=funnel.campaign),
            )
        ],
        parts=[
            Figure(
                label=str(one.label),
                value=f"{funnel.progress[one]:,}",
                link=_list("consent_campaignpartner", campaign__id__exact=funnel.campaign, progress=one),
                tone=PARTNER_TONES[one],
            )
            for one in reversed(counted)
            if funnel.progress.get(one)
        ],
        tone=Tone.BUSY,
    )


# --- what ends next -------------------------------------------------------------------------------------------------


def ends_panel(request: HttpRequest) -> Panel | None:
    """What ends next, of all kinds in one line of time."""
    kinds = [kind for kind, permission in _VIEW.items() if request.user.has_perm(permission)]
    if not kinds:
        return None
    now = timezone.now()
    return Panel(
        title="What ends next",
        order=70,
        wide=True,
        empty=f"Nothing ends within {_ENDS_WITHIN.days} days.",
        rows=[
            Row(
                label=f"{_NAMES[end.kind]} {end.name}",
                detail=f"{end.at:%Y-%m-%d}, {distance(end.at - now)}. {_detail(end)}".strip(),
                link=reverse(f"admin:{_PAGES[end.kind]}_change", args=[end.key]),
                tone=_end_tone(end.at - now),
            )
            for end in overview.ends(kinds, within=_ENDS_WITHIN)
        ],
    )


_PAGES = {
    Kind.CREDENTIAL: "consent_applicationcredential",
    Kind.GDAP: "tenants_customertenant",
    Kind.LINK: "consent_consentlink",
    Kind.TOKEN: "consent_partnerconsent",
}
_NAMES = {
    Kind.CREDENTIAL: "Credential of",
    Kind.GDAP: "GDAP with",
    Kind.LINK: "Link for",
    Kind.TOKEN: "Token of",
}


def _detail(end: overview.End) -> str:
    match end.kind:
        case Kind.CREDENTIAL:
            return f"{ApplicationCredential.Kind(end.cause).label} {end.of[:12]}".strip()
        case Kind.TOKEN:
            return f"{PartnerConsent.ForecastCause(end.cause).label}; {end.of}"
        case Kind.GDAP:
            return f"Customer of {end.of}"
    return end.of


def _end_tone(left: timedelta) -> Tone:
    if left <= timedelta(days=overview.ENDS_WITHIN[0]):
        return Tone.BAD
    return Tone.WARN if left <= SOON else Tone.QUIET
