"""What two persons decide about: each app declares its kinds as ``TWO_PERSONS`` in its module ``two_persons``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

from django.db.models import QuerySet

from portal.audit.seals import canonical, digest
from portal.audit.trail import Actor
from portal.extensions import declared

type Parameters = Mapping[str, Any]
"""JSON values: ids, flags, numbers. Never a secret: they stand in the database and on the page."""


class CannotBeDone(ValueError):
    """What was asked for makes no sense as things are now; the text says why, for the person who asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One line of what will change: how it is, and how it will be."""

    label: str
    now: str
    then: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What would happen, as the person who decides reads it.

    An approval holds for exactly this, so it names nothing that changes by itself, such as an age.

    Attributes:
        what: the deed in a few words, such as ``Offboard Northwind``.
        whom: for whom: names of partners, customers, registrations.
        subject: ids for the trail and for links, such as ``{"partner": 7}``.
        cannot_be_undone: what no later action brings back, in a sentence.
    """

    what: str
    whom: str
    subject: Mapping[str, str | int]
    changes: Sequence[Change]
    cannot_be_undone: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as the row keeps it."""
        return {**asdict(self), "subject": dict(self.subject), "changes": [asdict(one) for one in self.changes]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """The proof that this may be done now. Made by ``portal.decisions.service`` only, once for a request.

    Attributes:
        decision: key of the request.
        actor: who asked: in whose name it is done.
        approved_by: the other person; empty in an emergency.
        way: word of ``Decision.Way``.
    """

    decision: int
    kind: str
    actor: Actor
    approved_by: str
    way: str

    def noted(self) -> dict[str, str | int]:
        """Return what the audit events of the deed say about the decision, for their details."""
        return {"decision": self.decision, "approved_by": self.approved_by, "way": self.way}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of it, in a sentence, with ids that lead to it."""

    words: str
    subject: Mapping[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Something that needs two persons.

    Attributes:
        key: a word that rows keep, at most 40 characters.
        title: what it is called in lists, such as ``Offboard a partner``.
        permission: what both persons need, the one who asks and the one who decides.
        preview: works out what would happen now; a constant number of queries, no network. Raises CannotBeDone.
        rows: returns the rows that it is about; who asks and who decides must see each of them. None where it concerns
            all partners, so that no member of a team takes part.
        execute: does it, in a moment: it changes rows and leaves long work to the workers. None where somebody does it
            after the approval, as ``then`` says: the process of the pages has not the right to, or what comes of it is
            for the eyes of who asked.
        then: who does what was approved, and where, for a kind without ``execute``.
        on_server: a second user of the operating system may approve it by the command that asks. For what must work
            when no page does.
        refusals: exceptions of ``execute`` whose text is written for people.
        may_repeat: a deed that failed may be done again until the request expires, without asking anew. For what goes
            on where it stopped.
    """

    key: str
    title: str
    permission: str
    preview: Callable[[Parameters], Preview]
    rows: Callable[[Parameters], QuerySet[Any]] | None = None
    execute: Callable[[Parameters, Approval], Result] | None = None
    then: str = "Who asked does it now, by the same command on the server, before the request ends."
    on_server: bool = False
    refusals: tuple[type[Exception], ...] = ()
    may_repeat: bool = False

    def digest(self, parameters: Parameters, seen: Preview) -> str:
        """Return the hash that an approval is bound to."""
        return digest(canonical({"kind": self.key, "parameters": dict(parameters), "preview": seen.to_json()}))


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoPersons:
    """The kinds of one app."""

    kinds: Sequence[Kind]


@cache
def kinds() -> Mapping[str, Kind]:
    """Return the kinds of all apps by their keys."""
    return {kind.key: kind for one in declared("two_persons", "TWO_PERSONS", TwoPersons) for kind in one.kinds}
