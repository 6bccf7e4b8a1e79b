"""A step of the doctor as a value, what it finds, and the report of all. Knows neither Django nor settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any


class Result(StrEnum):
    """What came of a step, or of one thing that it looked at. The order is from good to bad."""

    WELL = "well"
    NOT_SEEN = "not_seen"
    """There was nothing to look at, or nothing that shows it; never taken for good."""
    NOTICE = "notice"
    """It works, and somebody should read this."""
    SKIPPED = "skipped"
    """Not looked at, because a step that it needs failed."""
    FAILED = "failed"

    @property
    def label(self) -> str:
        """What people read."""
        return _LABELS[self]


_LABELS = {
    Result.WELL: "Works",
    Result.NOT_SEEN: "Could not be verified",
    Result.NOTICE: "Works, but read this",
    Result.SKIPPED: "Not looked at",
    Result.FAILED: "Fails",
}
_WORST = list(Result)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        words: what was seen, in whole sentences and without any secret.
        remedy: who must act and what to do next; empty where nothing is to be done.
    """

    result: Result
    words: str
    remedy: str = ""


def well(words: str) -> Finding:
    return Finding(result=Result.WELL, words=words)


def not_seen(words: str, remedy: str = "") -> Finding:
    return Finding(result=Result.NOT_SEEN, words=words, remedy=remedy)


def notice(words: str, remedy: str) -> Finding:
    return Finding(result=Result.NOTICE, words=words, remedy=remedy)


def failed(words: str, remedy: str) -> Finding:
    return Finding(result=Result.FAILED, words=words, remedy=remedy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step[C]:
    """One thing that must work.

    Attributes:
        name: a word for programs; never changes.
        needs: names of earlier steps; when one of them fails or is not looked at, this one is not looked at.
        remedy: what to do when it fails and nothing better is known.
        look: yields what it finds. What it raises is a failure; ``examining`` puts it into words.
    """

    name: str
    title: str
    needs: tuple[str, ...] = ()
    remedy: str
    look: Callable[[C], Iterator[Finding]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """A step with what it found; ``seconds`` is how long that took."""

    name: str
    title: str
    findings: Sequence[Finding]
    seconds: float

    @property
    def result(self) -> Result:
        """The worst of the findings."""
        return max((one.result for one in self.findings), key=_WORST.index, default=Result.NOT_SEEN)

    @property
    def words(self) -> str:
        return " ".join(one.words for one in self.findings)

    @property
    def remedy(self) -> str:
        """What to do about the worst finding."""
        return next((one.remedy for one in self.findings if one.result is self.result and one.remedy), "")


def first_failure(report: Sequence[Looked]) -> Looked | None:
    """Return the step that is to be mended first."""
    return next((one for one in report if one.result is Result.FAILED), None)


def worst_of(report: Sequence[Looked]) -> Result:
    """Return the worst that came of the steps; an empty report is not looked at."""
    return max((one.result for one in report), key=_WORST.index, default=Result.NOT_SEEN)


def summary(report: Sequence[Looked]) -> str:
    """Return the last line: the first that fails and what to do, or that nothing fails."""
    if (first := first_failure(report)) is not None:
        worst = next(one for one in first.findings if one.result is Result.FAILED)
        return f"The first that fails: {first.title}. {worst.words} What to do: {worst.remedy}"
    unseen = sum(one.result is Result.NOT_SEEN for one in report)
    read = sum(one.result is Result.NOTICE for one in report)
    more = [
        f"{number} {words}" for number, words in ((unseen, "could not be verified"), (read, "to be read")) if number
    ]
    return f"Nothing fails{': ' if more else '.'}{', '.join(more)}{'.' if more else ''}"


def as_json(report: Sequence[Looked], at: datetime) -> dict[str, Any]:
    """Return the report for a program. ``ok`` is false when a step fails; what could not be verified is no failure."""
    first = first_failure(report)
    return {
        "ok": first is None,
        "first_failure": None if first is None else first.name,
        "at": at.isoformat(),
        "steps": [
            {
                "step": one.name,
                "title": one.title,
                "result": one.result.value,
                "seconds": round(one.seconds, 3),
                "findings": [
                    {"result": each.result.value, "words": each.words, "remedy": each.remedy} for each in one.findings
                ],
            }
            for one in report
        ],
    }


SETTINGS = ("settings", "Settings")
SETTINGS_REMEDY = "Correct the variable in the environment or in .env; .env.example says what each is for."


def unreadable_settings(why: str) -> list[Looked]:
    """Return the report of a portal whose settings cannot even be read; nothing else can be looked at then."""
    name, title = SETTINGS
    return [Looked(name=name, title=title, findings=[failed(f"{why}.", SETTINGS_REMEDY)], seconds=0.0)]
