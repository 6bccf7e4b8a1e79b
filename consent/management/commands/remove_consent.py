from argparse import ArgumentParser
from dataclasses import replace
from functools import partial
from typing import Any

from django.core.management.base import CommandError

from consent import clients
from consent.management.base import BulkCommand, add_second_person_arguments
from consent.management.selection import add_customer_selection, customer_selection
from consent.models import ApplicationRegistration, ConsentPlan
from consent.naming import SeveralRegistrations, listed
from consent.runs.apply_plan import APPLY_PLAN, start_direct, unfinished_direct
from consent.runs.verify import units
from consent.selection import EVERYTHING, Selection, counted
from consent.two_persons import REMOVE, chosen_for_removal, removal_of
from portal.decisions.doing import carried_out
from portal.decisions.kinds import Result
from portal.runs.arguments import EXIT_CODES, add_run_arguments
from portal.runs.console import begin_with, dry_run
from portal.runs.models import Run
from portal.text import number_of


class Command(BulkCommand):
    name = "remove_consent"
    kind = APPLY_PLAN.name
    help = (
        "Remove one of our applications with all its grants from the chosen customer tenants, and read each back. "
        "Customers must be chosen, also the registration where they hold several, and --yes must say that it is "
        "meant. About more than one customer two persons decide: this asks, and when a second person approves it in "
        f"the admin, the workers do it. {EXIT_CODES}"
    )
    examples = (
        "remove_consent --customer $CUSTOMER --registration $APPLICATION_ID  # only says what it would remove",
        "remove_consent --customer $CUSTOMER --registration $APPLICATION_ID --yes",
        "remove_consent --partner $PARTNER --yes --why 'contract ended'  # asks a second person",
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_customer_selection(parser)
        parser.add_argument("--yes", action="store_true", help="remove, not only say what would be removed")
        parser.add_argument(
            "--wait", type=float, default=60.0, metavar="SECONDS", help="how long to wait for the proof"
        )
        add_second_person_arguments(parser)
        add_run_arguments(parser, concurrency=16, skips=False)

    def work(self, options: dict[str, Any]) -> int:
        selection = customer_selection(options)
        if replace(selection, registration=None) == EVERYTHING:
            raise CommandError("Choose customers: --partner, --customer, --tag, --cloud, --state.", returncode=2)
        tenants, by_registration = counted(selection.customer_consents())
        chosen = list(ApplicationRegistration.objects.filter(pk__in=by_registration))
        if len(chosen) > 1:
            raise SeveralRegistrations(
                f"These customers hold consents to {len(chosen)} of our applications; name one (--registration): "
                f"{listed(chosen)}. Nothing was sent."
            )
        if chosen and not options["yes"] and not options["dry_run"]:
            raise CommandError(
                f"{number_of(tenants, 'customer tenant')} would lose our application {listed(chosen)} "
                "and all its grants. Nothing was sent; --dry-run lists them, --yes removes it.",
                returncode=2,
            )
        clients.vault()  # before the run exists: another vault than the database's stops the command
        if options["dry_run"]:
            return dry_run(partial(units, selection.to_json()), self.stdout, as_json=options["json"])
        run = self._begin(selection, options) if tenants <= 1 else self._begin_for_many(selection, options)
        return self.follow(run, options, nothing=not chosen)

    def _begin(self, selection: Selection, options: dict[str, Any], **more: Any) -> Run:
        start = partial(start_direct, ConsentPlan.Purpose.REMOVE, selection, wait=options["wait"], **more)
        return begin_with(start, options=options, actor=self.actor)

    def _begin_for_many(self, selection: Selection, options: dict[str, Any]) -> Run:
        """Begin once two persons decided about exactly these consents, or go on with their run (S-50)."""
        keys = selection.customer_consents().values_list("pk", flat=True)
        parameters = removal_of(keys, wait=options["wait"])
        chosen = chosen_for_removal(parameters)
        if unfinished_direct(ConsentPlan.Purpose.REMOVE, chosen) is not None:
            return self._begin(chosen, options)
        approval = self.second_person(REMOVE, parameters, options)
        with carried_out(approval) as deed:
            run = self._begin(chosen, options, approved=approval)
            deed.result = Result(words="A run removes it, customer by customer.", subject={"run": run.pk})
        return run
