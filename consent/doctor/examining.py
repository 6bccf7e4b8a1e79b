"""Try all steps in order. A step whose needs failed is not looked at; all others are."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

from django.core.exceptions import ImproperlyConfigured
from django.db import Error

from consent.doctor import away, ground, staff, trail, vaults
from consent.doctor.case import Case, said_no
from consent.doctor.steps import SETTINGS, SETTINGS_REMEDY, Finding, Looked, Result, Step, failed
from portal.audit.trail import Actor
from portal.databases import trouble
from portal.microsoft.errors import RemoteError, WrongSetup

log = logging.getLogger(__name__)

STEPS: tuple[Step[Case], ...] = (
    Step(name=SETTINGS[0], title=SETTINGS[1], look=ground.look_at_settings, remedy=SETTINGS_REMEDY),
    Step(
        name="production",
        title="Fit for production",
        look=ground.look_at_production,
        remedy="See docs/operations.md#deploy-checks.",
    ),
    Step(
        name="database",
        title="Database",
        needs=("settings",),
        look=ground.look_at_database,
        remedy="Check DATABASE_URL and the database server.",
    ),
    Step(
        name="migrations",
        title="Migrations",
        needs=("database",),
        look=ground.look_at_migrations,
        remedy="Run migrate, then start the portal anew.",
    ),
    Step(
        name="trail",
        title="Audit trail",
        needs=("migrations",),
        look=trail.look_at_trail,
        remedy="See docs/operations.md#the-audit-trail.",
    ),
    Step(
        name="time",
        title="Time",
        needs=("migrations",),
        look=away.look_at_time,
        remedy="Let the server keep its time by NTP.",
    ),
    Step(
        name="disk",
        title="Disk",
        needs=("settings",),
        look=ground.look_at_disk,
        remedy="Look at the disks of this server.",
    ),
    Step(
        name="vault",
        title="Vault: identity and reading",
        needs=("migrations",),
        look=vaults.look_at_vault,
        remedy="Check VAULT_URL and the variables beside it; see docs/operations.md#vault.",
    ),
    Step(
        name="vault_write",
        title="Vault: writing",
        needs=("vault",),
        look=vaults.look_at_writing,
        remedy="Give the portal's identity the right Set on secrets; see docs/operations.md#vault.",
    ),
    Step(
        name="hosts",
        title="Microsoft's hosts",
        needs=("migrations",),
        look=away.look_at_hosts,
        remedy="Check this server's network, DNS, firewall and proxy.",
    ),
    Step(
        name="address",
        title="Our address",
        needs=("vault", "hosts"),
        look=away.look_at_address,
        remedy="Correct OUTGOING_ADDRESSES.",
    ),
    Step(
        name="staff",
        title="Sign-in of staff",
        needs=("migrations",),
        look=staff.look_at_sign_in,
        remedy="Check STAFF_OIDC_ISSUER and the variables beside it; see docs/operations.md#staff-accounts.",
    ),
    Step(
        name="sign_in",
        title="Sign-in documents and keys",
        needs=("hosts",),
        look=away.look_at_sign_in,
        remedy="Look whether a proxy changes what the sign-in service answers.",
    ),
    Step(
        name="credential",
        title="Our credential",
        needs=("vault", "sign_in"),
        look=away.look_at_credential,
        remedy="Look at the registration's credentials under Applications.",
    ),
    Step(
        name="canary",
        title="A partner's token",
        needs=("credential",),
        look=away.look_at_canary,
        remedy="Look at the partner's page.",
    ),
    Step(
        name="partner_center",
        title="Partner Center",
        needs=("canary",),
        look=away.look_at_partner_center,
        remedy="Look at the partner's page.",
    ),
    Step(
        name="graph",
        title="Microsoft Graph",
        needs=("canary",),
        look=away.look_at_graph,
        remedy="Look at the partner's page.",
    ),
    Step(
        name="identities",
        title="Other identities",
        needs=("vault", "sign_in"),
        look=away.look_at_identities,
        remedy="Give each identity its rights: docs/operations.md#vault, and the set-up of the registration.",
    ),
    Step(
        name="mail",
        title="Mail",
        needs=("settings",),
        look=ground.look_at_mail,
        remedy="Check EMAIL_HOST and the variables beside it.",
    ),
    Step(
        name="worker",
        title="Worker",
        needs=("migrations",),
        look=ground.look_at_worker,
        remedy="See docs/operations.md#work-in-the-background.",
    ),
    Step(
        name="schedule",
        title="Schedule",
        needs=("migrations",),
        look=ground.look_at_schedule,
        remedy="See docs/operations.md#work-in-the-background.",
    ),
)


def examine(*, actor: Actor) -> Iterator[Looked]:
    """Try each step and yield what it found as soon as it is known. Nothing is raised."""
    case, failing = Case(actor=actor), dict[str, str]()
    for step in STEPS:
        began = time.monotonic()
        broken = next((failing[name] for name in step.needs if name in failing), "")
        if broken:
            failing[step.name] = broken  # so that what needs this step is not looked at either
            findings = [Finding(result=Result.SKIPPED, words=f"Not looked at, because this fails: {broken}.")]
        else:
            findings = list(_look(step, case))
        looked = Looked(name=step.name, title=step.title, findings=findings, seconds=time.monotonic() - began)
        if looked.result is Result.FAILED:
            failing[step.name] = step.title
        yield looked


def _look(step: Step[Case], case: Case) -> Iterator[Finding]:
    """Yield what a step finds; whatever it raises is a failure of it, in our own words."""
    try:
        yield from step.look(case)
    except RemoteError as error:
        yield said_no(error, "")
    except (WrongSetup, ImproperlyConfigured) as error:
        yield failed(f"{error}.", step.remedy)
    except (Error, OSError) as error:
        sentence = trouble(error) or f"It ended with {type(error).__name__}."
        yield failed(sentence, step.remedy)
    except Exception as error:  # the next steps are looked at all the same
        log.exception("the step %s of the doctor ended unexpectedly", step.name)
        yield failed(f"It ended unexpectedly ({type(error).__name__}); the log says where.", step.remedy)
