"""The jobs of the schedule that concern consents: what starts by itself, and how often."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

from django.utils import timezone

from consent import clients, unread
from consent.applications import posture
from consent.applications.seen import NotReadable
from consent.figures import count_today
from consent.models import ApplicationRegistration, Containment, Erasure, Offboarding
from consent.offboarding import partner_erasure
from consent.offboarding.steps import advance
from consent.runs import resuming
from consent.runs.customer_sync import CUSTOMER_SYNC
from consent.runs.token_check import TOKEN_CHECK, units
from consent.runs.verify import CONSENT_VERIFY
from consent.selection import WEEK_HOURS, Selection
from consent.settling import settle_what_is_over
from consent.tokens import health
from consent.tokens.reconcile import Reconciler, TooManyChanges
from consent.upkeep import clean_up
from consent.uses import unusual
from portal.audit.trail import Actor
from portal.microsoft.errors import RemoteError, WrongSetup
from portal.rights import SERVER
from portal.runs import service, tasks
from portal.runs.kinds import Kind
from portal.runs.registry import Job
from portal.runs.schedule import stop_point

log = logging.getLogger(__name__)
_BY_CLOCK = Actor.system(  # what the jobs below need, and nothing more
    SERVER,
    "consent.change_applicationregistration",
    "consent.check_partnerconsent",
    "consent.erase_partner",
    "consent.offboard_partner",
    "consent.retire_applicationcredential",
    "consent.verify_customerconsent",
    "tenants.sync_partnertenant",
)
_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)
_CONCURRENCY = 16  # by day and by night, beside people who wait for a page


def _keep_alive(times: Sequence[datetime] = ()) -> str:
    """Check the tokens whose next try has come; their times are spread by jitter. Then report those that grow old."""
    try:
        due = Selection(due=True)
        return _start(TOKEN_CHECK, due) if units(due.to_json(), after=0, limit=1) else "nothing due"
    finally:
        health.watch(between=stop_point)


def _sync(times: Sequence[datetime]) -> str:
    """Start the lists of the hours that came due: each partner has its hour, so a day's work is spread over the day."""
    return "; ".join([*_go_on(CUSTOMER_SYNC), *(_start(CUSTOMER_SYNC, Selection(hour=time.hour)) for time in times)])


def _verify(times: Sequence[datetime]) -> str:
    """Read the consents of the hours of the week that came due: each has its hour, so the work is spread over it."""
    hours = [Selection(week_hour=int(time.timestamp()) // 3600 % WEEK_HOURS) for time in times]
    begun = [_start(CONSENT_VERIFY, hour) for hour in hours if hour.customer_consents().exists()]
    return "; ".join([*_go_on(CONSENT_VERIFY), *begun]) or "nothing due"


def _offboard(times: Sequence[datetime] = ()) -> str:
    """Go on with offboardings whose customers are done, or whose closing was cut off."""
    found = list(Offboarding.objects.to_advance())
    done = 0
    for one in found:
        stop_point()
        done += advance(one, actor=_BY_CLOCK).state == Offboarding.State.DONE
    return f"{done} of {len(found)} done"


def _unusual(times: Sequence[datetime]) -> str:
    """Look at the time since the last look, and at those that were missed."""
    found = [one for time in times for one in unusual.look(time)]
    return f"{len(found)} unusual" if found else "nothing unusual"


def _resume(times: Sequence[datetime] = ()) -> str:
    """Take the next step of each emergency stop that is being resumed."""
    return "; ".join(resuming.advance(one) for one in Containment.objects.filter(state=Containment.State.RESUMING))


def _erase(times: Sequence[datetime] = ()) -> str:
    """Do what two persons decided, and go on with erasures that were cut off or that the vault did not let end."""
    found = list(Erasure.objects.open().order_by("pk"))
    done = 0
    for one in found:
        stop_point()
        try:
            done += partner_erasure.advance(one, actor=_BY_CLOCK).state == Erasure.State.DONE
        except partner_erasure.FAILURES as error:  # staff are told by an incident
            log.warning("an erasure is not finished, it is tried again: %s", error, extra={"partner": one.partner_id})
    return f"{done} of {len(found)} done"


def _go_on(kind: Kind) -> list[str]:
    """Go on with what was cut off: its hour comes again only tomorrow, or next week."""
    resumed = [run for run in service.left_behind(kind) if service.resume(run, actor=_BY_CLOCK, deadline=_deadline())]
    for run in resumed:
        tasks.enqueue(run)
    return [f"run {run.pk} goes on" for run in resumed]


def _deadline() -> datetime:
    return timezone.now() + timedelta(hours=3)


def _start(kind: Kind, chosen: Selection) -> str:
    run, new = service.start(
        kind,
        scope=chosen.to_json(),
        actor=_BY_CLOCK,
        concurrency=_CONCURRENCY,
        deadline=_deadline(),
    )
    if run.state == run.State.PAUSED and run.reason == service.DEADLINE:
        service.resume(run, actor=_BY_CLOCK, deadline=_deadline())
    tasks.enqueue(run)
    return f"run {run.pk} {'started' if new else 'goes on'}"


def _clean_up(times: Sequence[datetime] = ()) -> str:
    return clean_up(
        vault=clients.vault(),
        keys=clients.vault_keys,
        actor=_BY_CLOCK,
        pruner=clients.pruner(),
        between=stop_point,
    ).words


def _settle(times: Sequence[datetime] = ()) -> str:
    return f"{settle_what_is_over()} settled"


def _look(times: Sequence[datetime] = ()) -> str:
    """Compare the registrations with what Microsoft holds of them, where this deployment may read that."""
    living = ApplicationRegistration.objects.exclude(state=ApplicationRegistration.State.RETIRED).order_by("pk")
    found = [one for one in living.select_related("credential") if clients.reads_registration(one)]
    different, unread = 0, 0
    for registration in found:
        stop_point()
        try:
            different += bool(posture.look(registration, clients.read_registration, actor=_BY_CLOCK))
        except (RemoteError, WrongSetup, NotReadable):
            unread += 1
        except Exception:  # a row that is not as it should be hides no other one
            log.exception("registration %s cannot be compared", registration.pk)
            unread += 1
    return f"{len(found)} looked at, {different} with differences, {unread} could not be read" if found else "no reader"


def _count(times: Sequence[datetime] = ()) -> str:
    """Count often: a day has its figures also when the portal stood still at midnight, and the first page's are new."""
    counted = count_today().customers
    return f"{counted:,} customers counted, {unread.renew(stop_point):,} never read"


def _reconcile(times: Sequence[datetime] = ()) -> str:
    """Look at what changed since the last time, and what is known to differ."""
    first = times[0] if times else timezone.now()
    return _compare(since=first - _DAY - _HOUR)


def _reconcile_all(times: Sequence[datetime] = ()) -> str:
    return _compare(since=None)


def _compare(since: datetime | None) -> str:
    """Never more than is safe and little; what needs a person is an incident (R-02, R-41)."""
    try:
        report = Reconciler(
            vault=clients.vault(),
            inventory=clients.inventory(),
            key_inventory=clients.key_inventory(),
            keys=clients.vault_keys,
            actor=_BY_CLOCK,
            since=since,
            between=stop_point,
        ).run()
    except TooManyChanges:
        return "too many differences; nothing was changed"
    return f"{report.looked_at} looked at, {len(report.differences)} differences, {report.open} left"


JOBS = (
    Job(name="keep_alive", label="Checking and renewing tokens", every=_HOUR, work=_keep_alive),
    Job(name="customer_sync", label="Customer sync", every=_HOUR, work=_sync),
    Job(name="consent_verify", label="Check of customer consents", every=_HOUR, work=_verify),
    Job(name="offboarding", label="Offboarding of partners", every=timedelta(minutes=1), work=_offboard),
    Job(name="resuming", label="Resuming in waves", every=timedelta(minutes=1), work=_resume),
    Job(name="unusual_uses", label="Search for unusual uses of tokens", every=unusual.EVERY, work=_unusual),
    Job(name="erasure", label="Erasure of partners", every=timedelta(minutes=10), work=_erase),
    Job(name="incidents", label="Settling of incidents", every=_HOUR, work=_settle),
    Job(name="figures", label="Figures of the day", every=timedelta(minutes=10), work=_count),
    Job(name="registrations", label="Comparison of registrations with Microsoft", every=_DAY, work=_look),
    Job(name="clean_up", label="Clean-up", every=_DAY, work=_clean_up),
    Job(name="vault_reconcile", label="Comparison of vault and database", every=_DAY, work=_reconcile),
    Job(name="vault_reconcile_all", label="Comparison of the whole vault", every=7 * _DAY, work=_reconcile_all),
)
