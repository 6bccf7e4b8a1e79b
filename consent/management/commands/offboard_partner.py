from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

from consent.management.base import EXIT_SOME_FAILED, BulkCommand, add_second_person_arguments, write_new
from consent.management.selection import one_tenant_id
from consent.models import Offboarding
from consent.offboarding.report import to_file
from consent.offboarding.steps import (
    OffboardingRefused,
    advance,
    finish_anyway,
    reach,
    remaining,
    start,
    try_again,
)
from consent.runs.apply_plan import APPLY_PLAN
from consent.two_persons import FINISH, OFFBOARD, finish_of, offboarding_of
from portal.decisions.doing import carried_out
from portal.decisions.kinds import Result
from portal.microsoft.diagnosis import Owner
from portal.runs import service, tasks
from portal.runs.arguments import EXIT_CODES
from portal.runs.console import foreground, refuse_if_busy
from portal.runs.models import Run
from portal.text import number_of
from tenants.models import PartnerTenant

State = Offboarding.State


class Command(BulkCommand):
    name = "offboard_partner"
    kind = APPLY_PLAN.name
    help = (
        "Offboard one partner: remove our consent in each of its customers and read it back, close its links, switch "
        "its tokens off and erase them as far as the identities may, and seal a report. Run it again to go on after a "
        "crash, or to try customers again that remain. Two persons decide: this asks, and when a second person "
        f"approves it in the admin, the workers begin. {EXIT_CODES}"
    )
    examples = (
        "offboard_partner $PARTNER  # only says what it would touch",
        "offboard_partner $PARTNER --yes --why 'contract ended'  # asks a second person",
        "offboard_partner $PARTNER --yes --report northwind.json  # goes on with what was approved",
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("partner", metavar="TENANT", help="the partner's tenant id")
        parser.add_argument("--yes", action="store_true", help="do it, not only say what it would touch")
        add_second_person_arguments(parser)
        parser.add_argument(
            "--finish",
            action="store_true",
            help="finish although customers remain, and report them; asks a second person again",
        )
        parser.add_argument("--report", type=Path, metavar="FILE", help="write the sealed report to a new file")
        parser.add_argument("--wait", type=float, default=60.0, metavar="SECONDS", help="wait so long for each proof")
        parser.add_argument("--concurrency", type=int, default=16, metavar="N", help="customers at once")
        parser.add_argument("--background", action="store_true", help="leave the work to the workers and return")
        parser.add_argument("--json", action="store_true", help="JSON lines instead of text")

    def work(self, options: dict[str, Any]) -> int:
        partner = PartnerTenant.objects.filter(tenant_id=one_tenant_id(options["partner"])).first()
        if partner is None:
            raise CommandError("No partner with this tenant id.", returncode=2)
        if not 1 <= options["concurrency"] <= 512:
            raise CommandError("--concurrency goes from 1 to 512.", returncode=2)
        done = Offboarding.objects.filter(partner=partner, state=State.DONE).first()
        if done is not None:
            return self._tell(done, options)
        if not options["yes"]:
            raise CommandError(self._what(partner), returncode=2)
        offboarding = Offboarding.objects.open().filter(partner=partner).first()
        if offboarding is not None and offboarding.state == State.WAITING and options["finish"]:
            return self._finish(offboarding, options)
        how = {"wait_seconds": options["wait"], "concurrency": options["concurrency"]}
        if offboarding is not None:
            offboarding = try_again(offboarding, actor=self.actor, **how)
        else:
            approval = self.second_person(OFFBOARD, offboarding_of(partner, wait=options["wait"]), options)
            try:
                with carried_out(approval) as deed:
                    offboarding = start(partner, approved=approval, **how)
                    deed.result = Result(words="The offboarding has begun.", subject={"offboarding": offboarding.pk})
            except OffboardingRefused as refused:
                raise CommandError(str(refused), returncode=2) from None
        run = offboarding.run
        code = 0
        if offboarding.state == State.REMOVING and run is not None:
            if options["background"]:
                tasks.enqueue(run)
                self.say(f"Run {run.pk} is left to the workers; the schedule does the rest.")
                return 0
            code = self._work_run(run, options)
        offboarding = advance(offboarding, actor=self.actor)
        if offboarding.state == State.WAITING and options["finish"]:
            return self._finish(offboarding, options)
        return self._tell(offboarding, options) if offboarding.state != State.REMOVING else code or EXIT_SOME_FAILED

    def _finish(self, offboarding: Offboarding, options: dict[str, Any]) -> int:
        """Ask a second person, who lets the schedule close it; in an emergency close it here."""
        approval = self.second_person(FINISH, finish_of(offboarding), options)
        try:
            with carried_out(approval) as deed:
                finish_anyway(offboarding, approved=approval)
                deed.result = Result(words="It is being closed.", subject={"offboarding": offboarding.pk})
        except OffboardingRefused as refused:
            raise CommandError(str(refused), returncode=2) from None
        return self._tell(advance(offboarding, actor=self.actor), options)

    def _work_run(self, run: Run, options: dict[str, Any]) -> int:
        if run.state == Run.State.OPEN:
            refuse_if_busy(run)
        elif run.state == Run.State.PAUSED:
            service.resume(run, actor=self.actor)
        return foreground(
            run,
            out=self.stdout,
            err=self.stderr,
            as_json=options["json"],
            words=self.words,
            concurrency=options["concurrency"],
        )

    def _what(self, partner: PartnerTenant) -> str:
        found = reach(partner)
        never_read = number_of(found.customers_never_read, "customer")
        return (
            f"{partner.name}: our consent ({found.registrations or 'none is known'}) in "
            f"{number_of(found.customers, 'customer tenant')} would be removed and read back, "
            f"{number_of(found.open_links, 'link')} closed, {number_of(found.tokens, 'token')} switched off and "
            f"erased; the partner would be offboarded for good. Never read: {never_read} (verify_consents --new). "
            "Nothing was done; --yes does it."
        )

    def _tell(self, offboarding: Offboarding, options: dict[str, Any]) -> int:
        done = offboarding.state == State.DONE
        if options["json"]:
            partner = offboarding.partner
            columns = {
                "partner": partner.name,
                "tenant_id": partner.tenant_id,
                "state": offboarding.state,
                "remaining": offboarding.remaining,
                "seal": offboarding.seal,
            }
            self.say_json({"offboarding": offboarding.pk, **columns})
        elif done:
            self.say(f"Offboarded; {offboarding.remaining} customers remain. --report FILE writes the sealed report.")
        elif offboarding.state == State.WAITING:
            rows: Any = remaining(offboarding).with_words().select_related("customer", "registration")
            for row in rows[:20]:
                state = row.get_state_display().lower()
                who = row.who or Owner.US
                self.say(f"remains  {row.customer} ({row.registration}): {state}. {row.why} Who must act: {who}.")
            self.stderr.write(
                f"{offboarding.remaining} customers remain, so the partner's token lives. Run this again to try them "
                "again, or with --finish to finish all the same."
            )
        else:
            self.stderr.write("The vault did not do its part; run this again, or leave it to the schedule.")
        if done and options["report"]:
            write_new(options["report"], to_file(offboarding))
            self.say(f"Report written to {options['report']}.")
        return 0 if done and not offboarding.remaining else EXIT_SOME_FAILED
