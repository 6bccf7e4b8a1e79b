from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from consent import clients
from consent.applications.deactivation import activate
from consent.containment import service
from consent.containment.service import ResumeRefused
from consent.management.base import EXIT_SOME_FAILED, ConsentCommand, add_second_person_arguments
from consent.models import Containment
from consent.runs import resuming
from consent.two_persons import RESUME, resume_of
from portal.decisions import service as decisions
from portal.decisions.doing import carried_out
from portal.decisions.kinds import CannotBeDone, Result
from portal.decisions.records import DecisionRefused
from portal.text import number_of

State = Containment.State


class Command(ConsentCommand):
    name = "resume"
    help = (
        "Let an emergency stop go again. Two persons decide: the first one asks, another one approves it, in the admin "
        "or by the same command as another user of the operating system. Then partners are released in waves, and a "
        "check shows that the tokens of each wave work before the next one comes; the schedule takes the steps. "
        "Without a number it lists what is stopped. Exit codes: 0 done, 1 it waits for a second person or the waves "
        "were halted, 2 usage or refused."
    )
    examples = (
        "resume  # lists what is stopped, and how far it was let go",
        "resume 1 --why 'the credential is rotated'  # asks to resume",
        "resume 1  # approves what somebody else asked for, or takes the next step",
        "resume 1 --go-on  # lets the waves go on although one ended badly",
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("number", type=int, nargs="?", help="of the emergency stop")
        parser.add_argument(
            "--go-on",
            action="store_true",
            help="the latest wave was halted, or a registration was activated by hand; you looked into it",
        )
        add_second_person_arguments(parser)

    def work(self, options: dict[str, Any]) -> int:
        open_ones = Containment.objects.open().select_related("registration", "partner").order_by("pk")
        if options["number"] is None:
            for one in open_ones:
                self.say(f"{one.pk}  {one}: {one.get_state_display()}. {one.reason}")
            if not open_ones:
                self.say("Nothing is stopped.")
            return 0
        found = open_ones.filter(pk=options["number"]).first()
        if found is None:
            raise CommandError("No emergency stop with this number is on; resume lists them.", returncode=2)
        try:
            return self._resume(found, options)
        except (CannotBeDone, DecisionRefused, ResumeRefused) as refused:
            raise CommandError(str(refused), returncode=2) from None

    def _resume(self, one: Containment, options: dict[str, Any]) -> int:
        if options["go_on"]:
            service.go_on(one, actor=self.actor)
        elif one.state == State.ON:
            self._warn(one)
            self._decide(one, options)
            one.refresh_from_db()
        if one.deactivated:
            self._activate(one)
        self.say(f"{resuming.advance(one)}.")
        one.refresh_from_db()
        return EXIT_SOME_FAILED if one.halted else 0

    def _decide(self, one: Containment, options: dict[str, Any]) -> None:
        """Approve what another person asked for, or ask; with an emergency go on alone."""
        parameters = resume_of(one)
        asked = None if options["emergency"] else decisions.waiting(RESUME, parameters)
        if asked is None:
            approval = self.second_person(RESUME, parameters, options)
            with carried_out(approval) as deed:
                service.resume(one, approved=approval)
                deed.result = Result(words="It is let go in waves.", subject={"containment": one.pk})
            return
        self.say(f"{asked.requested_by} asked for it: {asked.why}")
        done = decisions.approve_on_server(asked, actor=self.actor)
        if done.state != done.State.DONE:
            raise ResumeRefused(done.outcome)

    def _activate(self, one: Containment) -> None:
        for switched in activate(
            one,
            may_switch=clients.reads_registration,
            switch=clients.switch_registration,
            clouds=clients.cloud,
            actor=self.actor,
        ):
            self.say(switched.words)

    def _warn(self, one: Containment) -> None:
        if older := service.older_credentials(one):
            names = ", ".join(f"{each.registration}: {each.get_kind_display().lower()}" for each in older)
            self.stderr.write(
                f"{number_of(len(older), 'credential')} in use from before the stop ({names}). Whoever had it then has "
                "it still: rotate it first (add_credential, promote_credential)."
            )
