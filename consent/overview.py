"""What the first page of the admin counts: one statement for each function, whatever there is to count.

Each number is that of a list of the admin with the filters of the same names (``consent.admin.overview`` links them,
and a test compares them).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from django.db.models import (
    Case,
    CharField,
    Count,
    DateTimeField,
    Exists,
    F,
    IntegerField,
    Min,
    OuterRef,
    QuerySet,
    Value,
    When,
)
from django.utils import timezone

from consent.models import (
    ApplicationCredential,
    Campaign,
    CampaignPartner,
    ConsentLink,
    CustomerConsent,
    DailyFigures,
    PartnerConsent,
)
from consent.states import with_state, with_trouble
from tenants.models import CustomerTenant, PartnerTenant

ENDS_WITHIN = (7, 14, 30, 60)  # days
CHECKED_WITHIN = timedelta(days=1)
UNOPENED_AFTER = timedelta(days=7)
MANY_CUSTOMERS = 100_000
"""From so many on, customers are counted by the schedule and not for each page."""
MANY_PARTNERS = 5_000
"""From so many on, invitations are counted by the schedule as well."""
COUNTS_SERVE = timedelta(hours=1)
"""So long a page shows what the schedule counted; then the schedule stands still, and the page counts itself."""
_OF_EACH = 4  # ends of one kind in the timeline
_CAMPAIGNS = 3


def _text(value: str) -> Value:
    return Value(value, output_field=CharField())


_WORDS = [f"word_{position}" for position in range(5)]


def _branch(
    rows: QuerySet[Any], kind: str, *columns: Any, key: str = "", number: Any = None, at: Any = None
) -> QuerySet[Any]:
    """Return one part of a statement: its name, up to five words and a key to group by, their number, and a moment."""
    given = [F(column) if isinstance(column, str) else column for column in columns]
    named: dict[str, Any] = dict(zip(_WORDS, [*given, *[_text("")] * (len(_WORDS) - len(given))], strict=True))
    named["row"] = F(key) if key else Value(0, output_field=IntegerField())
    grouped: QuerySet[Any] = rows.order_by().annotate(branch=_text(kind), **named).values("branch", *named)
    counted: QuerySet[Any] = grouped.annotate(
        number=Count("*") if number is None else number,
        at=Value(None, output_field=DateTimeField()) if at is None else at,
    )
    return counted.values_list("branch", *named, "number", "at")


@dataclass(frozen=True, slots=True)
class _Line:
    """One line of a statement of several parts."""

    words: tuple[str, ...]
    key: int
    number: int
    at: datetime | None


def _in_one(*branches: QuerySet[Any]) -> Mapping[str, Sequence[_Line]]:
    """Run the parts as one statement; return their lines by the part's name."""
    first, *others = branches
    found: dict[str, list[_Line]] = {}
    for kind, *words, key, number, at in first.union(*others, all=True).order_by():
        found.setdefault(kind, []).append(_Line(tuple(words), key, number, at))
    return found


type Numbers = Mapping[str, int]
type Split = Mapping[str, Numbers]


def _numbers(lines: Iterable[_Line], word: int = 0) -> dict[str, int]:
    counted: dict[str, int] = {}
    for line in lines:
        counted[line.words[word]] = counted.get(line.words[word], 0) + line.number
    return counted


def _split(lines: Iterable[_Line], word: int = 0, by: int = 1) -> dict[str, dict[str, int]]:
    counted: dict[str, list[_Line]] = {}
    for line in lines:
        counted.setdefault(line.words[word], []).append(line)
    return {key: _numbers(some, by) for key, some in counted.items()}


# --- tokens -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """All that is counted of partners and their tokens in use.

    Attributes:
        living: how many work, as far as is known; the other figures but ``over`` and those who must act are of them.
        over: by state, those that only a new consent brings back.
        ends: by days, the causes of those that end within them.
        never_checked, not_checked: never, and not within ``CHECKED_WITHIN``.
        mfa: by verdict, and ``oldest`` the moment of the oldest verdict of each.
        partners: partners by state.
        acting: by who must act, the number of partners.
        troubles: by who must act, the number of tokens by what is wrong.
    """

    partners: Numbers = field(default_factory=dict)
    living: int = 0
    over: Numbers = field(default_factory=dict)
    ends: Mapping[int, Numbers] = field(default_factory=dict)
    never_checked: int = 0
    not_checked: int = 0
    mfa: Numbers = field(default_factory=dict)
    oldest: Mapping[str, datetime] = field(default_factory=dict)
    acting: Numbers = field(default_factory=dict)
    troubles: Split = field(default_factory=dict)


_LIVING = "living"
_NEVER, _LONG_AGO, _LATELY = "never", "long_ago", "lately"


def tokens() -> Tokens:
    """Count partners by state, and their tokens by end, check, verdict on MFA, and trouble."""
    now, consents = timezone.now(), PartnerConsent.objects.all()
    end = Case(
        *(When(forecast_at__lt=now + timedelta(days=days), then=_text(str(days))) for days in ENDS_WITHIN),
        default=_text(""),
    )
    checked = Case(
        When(last_try_at__isnull=True, then=_text(_NEVER)),
        When(last_try_at__lt=now - CHECKED_WITHIN, then=_text(_LONG_AGO)),
        default=_text(_LATELY),
    )
    state = Case(When(state__in=PartnerConsent.LIVING_STATES, then=_text(_LIVING)), default=F("state"))
    found = _in_one(
        _branch(consents.in_use(), "tokens", state, end, "forecast_cause", checked, "mfa", at=Min("mfa_checked_at")),
        _branch(with_state(PartnerTenant.objects.all()), "partners", "state"),
        _branch(with_trouble(consents.wanting_action()), "trouble", "who", "trouble", key="partner"),
    )
    living = [line for line in found.get("tokens", ()) if line.words[0] == _LIVING]
    over = [line for line in found.get("tokens", ()) if line.words[0] != _LIVING]
    by_end, check = _split(living, 1, 2), _numbers(living, 3)
    troubled = found.get("trouble", ())
    acting = Counter(who for who, _ in {(line.words[0], line.key) for line in troubled})
    oldest: dict[str, datetime] = {}
    for line in living:
        if line.at is not None:
            oldest[line.words[4]] = min(line.at, oldest.get(line.words[4], line.at))
    return Tokens(
        partners=_numbers(found.get("partners", ())),
        living=sum(check.values()),
        over=_numbers(over),
        ends={days: _within(by_end, days) for days in ENDS_WITHIN},
        never_checked=check.get(_NEVER, 0),
        not_checked=check.get(_LONG_AGO, 0),
        mfa=_numbers(living, 4),
        oldest=oldest,
        acting=acting,
        troubles=_split(troubled),
    )


def _within(by_end: Split, days: int) -> dict[str, int]:
    summed: dict[str, int] = {}
    for nearer in ENDS_WITHIN[: ENDS_WITHIN.index(days) + 1]:
        for cause, number in by_end.get(str(nearer), {}).items():
            summed[cause] = summed.get(cause, 0) + number
    return summed


# --- customers ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Customers:
    """All that is counted of customers that Partner Center lists.

    Attributes:
        readiness: customers by readiness.
        consents: consents by state, and ``never`` the customers of whom no consent was ever looked at.
        acting: by who must act, the number of customers.
        troubles: by who must act, the number of consents by state.
        unread: by who must act, the customers that are not ready and of whom no consent was ever looked at.
        counted_at: when the schedule counted this; None: just now.
    """

    readiness: Numbers = field(default_factory=dict)
    consents: Numbers = field(default_factory=dict)
    never: int = 0
    acting: Numbers = field(default_factory=dict)
    troubles: Split = field(default_factory=dict)
    unread: Numbers = field(default_factory=dict)
    counted_at: datetime | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what ``customers`` reads back."""
        return {name: value for name, value in asdict(self).items() if name != "counted_at"}


def customers(days: Sequence[DailyFigures] = ()) -> Customers:
    """Return the counts of customers and of our consents there.

    Args:
        days: the figures of the last days, the newest last. Of many customers they hold the counts; no statement then.
    """
    kept = _kept(days)
    if kept is not None and kept.customer_counts:
        return Customers(**kept.customer_counts, counted_at=kept.counted_at)
    return count_customers()


def _kept(days: Sequence[DailyFigures]) -> DailyFigures | None:
    """Return the figures of today, where the schedule counted them lately."""
    kept = days[-1] if days else None
    lately = kept is not None and timedelta(0) <= timezone.now() - kept.counted_at <= COUNTS_SERVE
    return kept if lately else None


def count_customers() -> Customers:
    """Count customers and our consents there; two statements where customers hold consents to several applications."""
    consents, listed = CustomerConsent.objects.all(), CustomerTenant.objects.listed()
    wanting = consents.wanting_action().filter(customer__missing_since__isnull=True)
    unread = listed.filter(
        ~Exists(consents.filter(customer=OuterRef("pk"))),
        readiness_owner__gt="",
        partner__switch=PartnerTenant.Switch.ON,
    )
    found = _in_one(
        _branch(listed, "readiness", "readiness"),
        # Almost all are listed: those that are not are taken off, which reads an index and few rows.
        _branch(consents, "consents", "state", key="registration"),
        _branch(
            consents.filter(customer__in=CustomerTenant.objects.missing()), "unlisted", "state", key="registration"
        ),
        _branch(unread, "unread", "readiness_owner"),
        _branch(wanting, "trouble", "who", "state"),
    )
    readiness, unready = _numbers(found.get("readiness", ())), _numbers(found.get("unread", ()))
    all_of_them, unlisted = found.get("consents", ()), found.get("unlisted", ())
    by_registration: dict[int, int] = {}
    for line in all_of_them:
        by_registration[line.key] = by_registration.get(line.key, 0) + line.number
    for line in unlisted:
        by_registration[line.key] -= line.number
    acting, again = _numbers(found.get("trouble", ())), 0
    if len(by_registration) > 1:
        acting, again = _each_once(by_registration)
    return Customers(
        readiness=readiness,
        consents=_less(_numbers(all_of_them), _numbers(unlisted)),
        never=sum(readiness.values()) - sum(by_registration.values()) + again,
        acting={word: acting.get(word, 0) + unready.get(word, 0) for word in acting | unready},
        troubles=_split(found.get("trouble", ())),
        unread=unready,
    )


def _less(numbers: Numbers, taken_off: Numbers) -> dict[str, int]:
    return {word: number - taken_off.get(word, 0) for word, number in numbers.items()}


def _each_once(by_registration: Mapping[int, int]) -> tuple[dict[str, int], int]:
    """Return the customers by who must act, and how many consents are not the first one of their customer."""
    consents = CustomerConsent.objects.filter(customer__missing_since__isnull=True)
    same = CustomerConsent.objects.filter(customer=OuterRef("customer"))
    # The registration that most hold comes first: only the customers of the others are looked up.
    ranked = sorted(by_registration, key=lambda key: -by_registration[key])
    found = _in_one(
        _branch(consents.wanting_action(), "acting", "who", number=Count("customer", distinct=True)),
        *(
            _branch(consents.filter(Exists(same.filter(registration__in=ranked[:place])), registration=key), "again")
            for place, key in enumerate(ranked[1:], start=1)
        ),
    )
    return _numbers(found.get("acting", ())), sum(line.number for line in found.get("again", ()))


# --- invitations --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Funnel:
    """How far the partners of one open campaign came, by ``CampaignPartner.Progress``."""

    campaign: int
    name: str
    progress: Numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitations:
    """Links that wait for a partner.

    Attributes:
        progress: links by ``ConsentLink.Progress``.
        unopened: links on which Continue was not pressed for ``UNOPENED_AFTER``.
        refused: what partners read last, of links whose last attempt failed.
        campaigns: the latest ones that are not closed.
        counted_at: when the schedule counted this; None: just now.
    """

    progress: Numbers = field(default_factory=dict)
    unopened: int = 0
    refused: Numbers = field(default_factory=dict)
    campaigns: Sequence[Funnel] = ()
    counted_at: datetime | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what ``invitations`` reads back."""
        return {name: value for name, value in asdict(self).items() if name != "counted_at"}


def invitations(days: Sequence[DailyFigures] = ()) -> Invitations:
    """Return the counts of links that are not over, and of the partners of open campaigns.

    Args:
        days: the figures of the last days, the newest last. Of many partners they hold the counts; no statement then.
    """
    kept = _kept(days)
    if kept is not None and kept.invitation_counts:
        told = dict(kept.invitation_counts)
        campaigns = [Funnel(**one) for one in told.pop("campaigns")]
        return Invitations(**told, campaigns=campaigns, counted_at=kept.counted_at)
    return count_invitations()


def count_invitations() -> Invitations:
    """Count the links that are not over, and the partners of open campaigns."""
    links = ConsentLink.objects.unanswered().with_progress()
    age = Case(When(created_at__lt=timezone.now() - UNOPENED_AFTER, then=_text(_LONG_AGO)), default=_text(_LATELY))
    latest = Campaign.objects.filter(closed_at__isnull=True).order_by("-created_at", "-pk").values("pk")[:_CAMPAIGNS]
    invited = CampaignPartner.objects.filter(campaign__in=latest).with_progress()
    found = _in_one(
        _branch(links, "links", "progress", "last_problem", age),
        _branch(invited, "campaign", "progress", "campaign__name", key="campaign"),
    )
    campaigns: dict[tuple[int, str], list[_Line]] = {}
    by_progress = found.get("links", ())
    for line in found.get("campaign", ()):
        campaigns.setdefault((line.key, line.words[1]), []).append(line)
    return Invitations(
        progress=_numbers(by_progress),
        unopened=_split(by_progress, by=2).get(ConsentLink.Progress.OPEN, {}).get(_LONG_AGO, 0),
        refused=_split(by_progress).get(ConsentLink.Progress.FAILED, {}),
        campaigns=[
            Funnel(campaign=key, name=name, progress=_numbers(lines))
            for (key, name), lines in sorted(campaigns.items(), reverse=True)
        ],
    )


# --- what ends next -----------------------------------------------------------------------------------------------


class Kind(StrEnum):
    """What ends."""

    CREDENTIAL = "credential"
    GDAP = "gdap"
    LINK = "link"
    TOKEN = "token"


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """Something that ends if nothing is done.

    Attributes:
        key: of its row; of ``Kind.GDAP`` the customer's.
        name: what it is, and ``of`` whose.
        cause: why a token ends (``PartnerConsent.ForecastCause``), the kind of a credential; else empty.
    """

    kind: Kind
    key: int
    name: str
    of: str
    cause: str
    at: datetime


def _end(kind: Kind, rows: QuerySet[Any], columns: tuple[str, str, str, str]) -> QuerySet[Any]:
    moment, name, of, cause = columns
    # The first of a kind by their keys: SQLite takes no LIMIT within a UNION.
    first = rows.order_by(moment, "pk").values("pk")[:_OF_EACH]
    named = {
        "end_kind": _text(kind),
        "end_key": F("pk"),
        "end_name": F(name),
        "end_of": F(of),
        "end_cause": F(cause) if cause else _text(""),
        "end_at": F(moment),
    }
    plain: QuerySet[Any] = rows.model._default_manager.filter(pk__in=first).order_by()
    ended: QuerySet[Any] = plain.annotate(**named)
    return ended.values_list(*named)


def ends(kinds: Collection[Kind], *, within: timedelta) -> Sequence[End]:
    """Return what ends within this time, of these kinds, the first first; at most a few of each kind."""
    if not kinds:
        return []
    now = timezone.now()
    until = now + within
    customers = CustomerTenant.objects.listed().filter(partner__switch=PartnerTenant.Switch.ON)
    parts = {
        Kind.CREDENTIAL: _end(
            Kind.CREDENTIAL,
            ApplicationCredential.objects.current().filter(expires_at__lt=until),
            ("expires_at", "registration__name", "key_id", "kind"),
        ),
        Kind.GDAP: _end(
            Kind.GDAP,
            customers.filter(gdap_ends_at__gt=now, gdap_ends_at__lt=until),
            ("gdap_ends_at", "company_name", "partner__name", ""),
        ),
        Kind.LINK: _end(
            Kind.LINK,
            ConsentLink.objects.usable().filter(expires_at__lt=until),
            ("expires_at", "partner__name", "registration__name", ""),
        ),
        Kind.TOKEN: _end(
            Kind.TOKEN,
            PartnerConsent.objects.living().filter(forecast_at__lt=until),
            ("forecast_at", "partner__name", "registration__name", "forecast_cause"),
        ),
    }
    first, *others = [part for kind, part in parts.items() if kind in kinds]
    rows = [
        End(kind=Kind(kind), key=key, name=name, of=of, cause=cause, at=at)
        for kind, key, name, of, cause, at in first.union(*others, all=True).order_by()
    ]
    return sorted(rows, key=lambda one: (one.at, one.kind, one.key))


# --- trend --------------------------------------------------------------------------------------------------------


def trend() -> Sequence[DailyFigures]:
    """Return the figures of the last thirty days, the oldest first."""
    return list(DailyFigures.objects.last_days())
