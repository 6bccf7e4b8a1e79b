from typing import Any

from django.core.management.base import CommandError

from portal.audit.trail import Actor
from portal.commands import PortalCommand
from portal.incidents.watch import watch_audit_trail


class Command(PortalCommand):
    help = (
        "Walk the whole audit trail from its first entry and check that each fits to the one before, under "
        "INTEGRITY_KEY. The daily clean-up checks only what is new since the last check. "
        "Exit codes: 0 it does, 1 it does not: the number of the first entry that does not fit is printed, and an "
        "incident is opened."
    )
    examples = ("verify_audit_trail",)

    def handle(self, *args: Any, **options: Any) -> None:
        broken = watch_audit_trail(whole=True, actor=Actor.command("verify_audit_trail"))
        if broken is not None:
            raise CommandError(
                f"The audit trail does not fit together from entry {broken} on; see the incident in the admin.",
                returncode=1,
            )
        self.stdout.write("The audit trail fits together.")
