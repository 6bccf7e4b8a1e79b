from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from consent import clients
from consent.applications.deactivation import activate
from consent.containment import service
from consent.containment.service import ResumeRefused
from consent.management.base import EXIT_SOME_FAILED, ConsentCommand
from consent.models import Containment
from consent.runs import resuming
from portal.text import number_of

State = Containment.State


class Command(ConsentCommand):
    name = "resume"
    help = (
        "Let an emergency stop go again. The first person asks, another one confirms: here as another user of the "
        "operating system, or in the admin. Then partners are released in waves, and a check shows that the tokens of "
        "each wave work before the next one comes; the schedule takes the steps. Without a number it lists what is "
        "stopped. Exit codes: 0 done, 1 the waves were halted, 2 usage or refused."
    )
    examples = (
        "resume  # lists what is stopped, and how far it was let go",
        "resume 1  # asks to resume, or confirms what somebody else asked for",
        "resume 1 --go-on  # lets the waves go on although one ended badly",
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("number", type=int, nargs="?", help="of the emergency stop")
        parser.add_argument("--go-on", action="store_true", help="the latest wave was halted; you looked into it")

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
            return self._resume(found, go_on=options["go_on"])
        except ResumeRefused as refused:
            raise CommandError(str(refused), returncode=2) from None

    def _resume(self, one: Containment, *, go_on: bool) -> int:
        if go_on:
            service.go_on(one, actor=self.actor)
        elif one.state == State.ON:
            self._warn(one)
            if not one.resume_asked_by and not service.is_single_person():
                service.ask_to_resume(one, actor=self.actor)
                self.say(f"You asked to resume {one}. Now another member of staff confirms it: resume {one.pk}.")
                return 0
            service.check_two_persons(one.resume_asked_by, self.actor.name)
            self._activate(one)
            if service.is_single_person():
                service.resume(one, asked_by=self.actor.name, actor=self.actor)
            else:
                service.confirm_resume(one, actor=self.actor)
        self.say(f"{resuming.advance(one)}.")
        one.refresh_from_db()
        return EXIT_SOME_FAILED if one.halted else 0

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
