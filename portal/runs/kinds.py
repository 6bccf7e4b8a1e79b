"""What one kind of bulk work consists of."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from portal.audit.trail import Actor
from portal.microsoft.diagnosis import Diagnosis, FailureClass
from portal.microsoft.errors import RemoteError
from portal.microsoft.waiting import about_to_wait

OK = "ok"
UNEXPECTED = "unexpected_error"  # an exception that the kind did not know
CRASHED = "crashed"  # every executor that took this unit died with it
GONE = "gone"  # the subject was removed or may no longer be worked when its turn came
CONTAINED = "contained"  # nothing is done for its subject until people let it go on
SKIPPED = "skipped"  # failed in the same unexpected way in three runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One unit of work, as it is listed.

    Attributes:
        key: id of the subject, unique within the run; units are listed in its order.
        group: who must not use more than a fair share: the partner's id.
        label: for people; shown and exported.
        rank: smaller is worked earlier, within the turns of all groups.
        wave: from 0; those of a later one wait until it is opened (``portal.runs.waves``).
    """

    key: int
    group: int
    label: str
    rank: int = 0
    wave: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Blame:
    """Who a failure is blamed on, other than us; the same for nearly all is a question to us (``systemic``).

    Attributes:
        cause: equal for failures that one fault of ours would explain.
        question: what staff look at first when nearly all share the cause; whole sentences.
        was_well: the subject was well when it was last looked at; of the others nothing is concluded.
    """

    cause: str
    question: str
    was_well: bool


@dataclass(frozen=True, slots=True)
class Contained:
    """Why nothing may be done for a subject just now; whole sentences.

    Attributes:
        goes_back: nothing may be done for any, or that is unknown: the unit waits with its run. Otherwise it comes
            again later, or in the next run of a kind that ``repeats``.
    """

    words: str
    goes_back: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one unit.

    Attributes:
        failure_class: ``ok``, a ``FailureClass`` or a word of the kind's own, at most 24 characters.
        message: cause and remedy in our words.
        owner: who must act, as in ``diagnosis.Owner``.
        systemic: the cause is on our side or the service's, so no partner's state may change (R-14).
        retry_after: seconds after which the unit should be tried again; 0 leaves the wait to the engine, None is final.
        throttled: a limit was met; costs nothing of the retry budget, and does not stop a run.
        pending: good so far and not over: the unit comes again after ``retry_after``, as often as it says so.
        blame: for a failure of somebody else that a fault of ours could explain; it is held back until that is known.
        fields: the columns of the ``--json`` line; ``write`` may add what it learns.
        result: whatever the kind's ``write`` needs.
    """

    failure_class: str = OK
    message: str = ""
    owner: str = ""
    code: str = ""
    systemic: bool = False
    retry_after: float | None = None
    throttled: bool = False
    pending: bool = False
    blame: Blame | None = None
    fields: dict[str, Any] = field(default_factory=dict)
    result: Any = None

    @classmethod
    def of(cls, diagnosis: Diagnosis, error: RemoteError, **more: Any) -> Outcome:
        """Return what came of a unit whose call failed in this way.

        Args:
            more: attributes beside those that follow from the failure, or instead of them.
        """
        known = diagnosis.failure_class
        of_failure = {
            "failure_class": known.value,
            "message": f"{diagnosis.cause} {diagnosis.remedy}",
            "owner": diagnosis.owner.value,
            "code": error.code,
            "systemic": known.systemic,
            "retry_after": (error.retry_after or 0.0) if error.retryable else None,
            "throttled": known is FailureClass.THROTTLED,
        }
        return cls(**of_failure | more)

    @property
    def ok(self) -> bool:
        return self.failure_class == OK


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a kind gets beside its units.

    Attributes:
        scope: the selection, as ``units`` got it.
        options: the kind's own options of this run.
        correlation_id: of one unit, by its key; stays the same when the unit is tried again.
        halted: tells whether the executor has to stop; long waits in ``work`` look at it.
    """

    run_id: int
    actor: Actor
    scope: Mapping[str, Any]
    options: Mapping[str, Any]
    correlation_id: Callable[[int], str]
    halted: Callable[[], bool]

    def sleep(self, seconds: float) -> None:
        """Wait so long, or until the executor has to stop."""
        about_to_wait()
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self.halted():
            time.sleep(min(left, 0.5))


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """One finished unit on its way into the database."""

    key: int
    subject: Any
    outcome: Outcome


def _never() -> str:
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """How one kind of work is done; see the package's docstring for what each part must keep.

    Attributes:
        rights: who has any of these may start a run of this kind, or let one go on; without one, only a command may.
        purposes: words instead of ``label`` for runs whose scope names such a ``purpose``.
        words: what names of scope and options mean, with a place for the value; others stand as they are.
        seconds: time limit of one unit, with all its calls and waits (R-13).
        per_group: at most so many units of one group at once; 0 means a share of the pool (R-31).
        prepare: returns jobs that fetch what all units share, such as credentials and keys. Threads do them at the same
            time, beside the first few units. They run no query; a failure says nothing.
        place: names the application and cloud whose limits count for a subject: (application id, cloud key).
        book: called in each transaction that writes something of a run, also when units only go back.
        contained: why nothing may be done for this subject just now; None when it may. Asked in threads before each
            unit and after its failure, which says nothing then: no query.
        all_contained: why nothing at all may be done just now; empty when it may. The run is held until
            ``service.let_go``. No query.
        harmless: classes that do not count as failures when a wave is judged.
        of_group: classes of failures that all units of the group share. They stop that group, and a run only when they
            come from many groups.
        group_names: returns the groups' names for people, by their ids; for what staff read of a wave that was halted.
        unfinished: classes that leave a unit in a state in which it must not stay: the first one stops a run that
            has waves, and a resume works these units again.
        repeats: the schedule comes back to the same units by itself, so one incident tells of all its stopped runs.
        only_by: the command that alone has what the units need, such as an input; empty where each process has it. Its
            runs are neither resumed nor repeated by others, and it goes on with a paused one by itself.
        follow: called with the scope and the new state of a run in the transaction that changes it.
    """

    name: str
    label: str
    units: Callable[[Mapping[str, Any], int, int], Sequence[Unit]]
    load: Callable[[Sequence[int], Context], Mapping[int, Any]]
    work: Callable[[int, Any, Context], Outcome]
    write: Callable[[Sequence[Done], Context], None]
    after: Callable[[Any, Context], Callable[[], None] | None] = lambda subject, context: None
    settle: Callable[[Sequence[Any], Context], None] = lambda subjects, context: None
    release: Callable[[Sequence[Any], Context], None] = lambda subjects, context: None
    prepare: Callable[[], Sequence[Callable[[], object]]] = lambda: ()
    place: Callable[[Any], tuple[str, str]] = lambda subject: ("", "")
    book: Callable[[Context], None] = lambda context: None
    contained: Callable[[Any], Contained | None] = lambda subject: None
    all_contained: Callable[[], str] = _never
    harmless: frozenset[str] = frozenset({OK, GONE, SKIPPED, CONTAINED})
    of_group: frozenset[str] = frozenset()
    group_names: Callable[[Collection[int]], Mapping[int, str]] = lambda keys: {}
    unfinished: frozenset[str] = frozenset()
    follow: Callable[[Mapping[str, Any], str], None] = lambda scope, state: None
    seconds: float = 120.0
    per_group: int = 0
    uses_database: bool = False
    repeats: bool = False
    only_by: str = ""
    rights: Sequence[str] = ()
    purposes: Mapping[str, str] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_containable(self) -> bool:
        """Whether its runs are held while nothing may be done."""
        return self.all_contained is not _never
