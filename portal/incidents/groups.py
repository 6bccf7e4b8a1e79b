"""Open incidents as staff work on them: those of one cause and one owner together, with whom they concern."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from portal.incidents.models import Incident, IncidentQuerySet, cause_in_words
from portal.microsoft.diagnosis import Owner
from portal.site.named import Fact
from portal.site.subjects import names_of

AFFECTED = ("partner", "customer")  # names of a subject, as the apps declare them (``AdminExtension.subjects``)
_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Affected:
    """Whom a group concerns: their keys, and the first of them by name, each with its page."""

    keys: Sequence[int] = ()
    shown: Sequence[Fact] = ()

    @property
    def count(self) -> int:
        return len(self.keys)

    @property
    def hidden(self) -> int:
        return self.count - len(self.shown)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Incidents with one cause and one owner.

    Attributes:
        words: what happened and what to do, as the latest of them says.
        since: when the first of them was seen first; ``last`` when one was seen last.
        taken_up: how many somebody looks into; ``asleep`` how many are put off; ``wakes`` when the first comes back.
        affected: by each name of ``AFFECTED``.
        others: what the first ones concern that concern neither; with the key of the incident.
        incidents: keys, the latest first.
    """

    cause: str
    owner: Owner
    words: str
    since: datetime
    last: datetime
    taken_up: int
    asleep: int
    wakes: datetime | None
    affected: Mapping[str, Affected]
    others: Sequence[tuple[str, int]]
    incidents: Sequence[int]

    @property
    def title(self) -> str:
        return cause_in_words(self.cause)


def groups(incidents: IncidentQuerySet, now: datetime) -> list[Group]:
    """Return these incidents in groups: what waits for us first, then the largest.

    The same three queries for any number of incidents.
    """
    rows: dict[tuple[str, str], list[Incident]] = {}
    for one in incidents.order_by("-last_seen_at", "-pk"):
        rows.setdefault((one.cause, one.owner), []).append(one)
    keys = {group: {name: _keys(some, name) for name in AFFECTED} for group, some in rows.items()}
    found = {
        name: names_of(name, {key for of_group in keys.values() for key in of_group[name][:_SHOWN]})
        for name in AFFECTED
    }
    made = [
        Group(
            cause=cause,
            owner=Owner(owner),
            words=some[0].words,
            since=min(one.first_seen_at for one in some),
            last=some[0].last_seen_at,
            taken_up=sum(one.seen_at is not None for one in some),
            asleep=sum(one.snoozed_until is not None and one.snoozed_until > now for one in some),
            wakes=min(
                (one.snoozed_until for one in some if one.snoozed_until and one.snoozed_until > now), default=None
            ),
            affected={
                name: Affected(
                    keys=keys[cause, owner][name],
                    shown=[found[name][key] for key in keys[cause, owner][name][:_SHOWN] if key in found[name]],
                )
                for name in AFFECTED
            },
            others=[(one.name, one.pk) for one in some if one.name and not one.subject.keys() & set(AFFECTED)][:_SHOWN],
            incidents=[one.pk for one in some],
        )
        for (cause, owner), some in rows.items()
    ]
    return sorted(made, key=lambda one: (one.owner is not Owner.US, -len(one.incidents), one.cause))


def _keys(incidents: Sequence[Incident], name: str) -> list[int]:
    """Return the keys that stand under a name, each once, in the order of the incidents."""
    return list(dict.fromkeys(key for one in incidents if isinstance(key := one.subject.get(name), int) and key))
