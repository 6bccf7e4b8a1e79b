from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from django.core.management.base import CommandError

from consent.customers.export import csv_document, head, json_document, lines
from consent.customers.plans import PlanRefused, make_plan, make_undo
from consent.management.base import EXIT_SOME_FAILED, ConsentCommand
from consent.management.selection import (
    add_customers,
    add_partner_selection,
    partner_selection,
    tenant_ids,
    with_customers,
)
from consent.models import ApplicationRegistration, ConsentPlan, ConsentPlanItem
from consent.naming import active_registration

_CHOOSING = ("partner", "tag", "cloud", "state", "age", "customer", "registration")


class Command(ConsentCommand):
    name = "plan_consents"
    help = (
        "Say what applying the wanted grants would change for the chosen customers, and keep it as a plan. Compares "
        "with what was last read in each tenant; nothing is sent. Exit codes: 0 none is blocked, 1 some are blocked, "
        "2 usage or no plan can be made, 3 the cause is on our side."
    )
    examples = (
        "plan_consents --tag gold --registration $APPLICATION_ID",
        "plan_consents --show 12 --format csv > plan-12.csv",
        "plan_consents --undo 12",
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_partner_selection(
            parser,
            registration="whose wanted grants: the registration's application id or number; needed when several are "
            "active",
        )
        add_customers(parser)
        parser.add_argument("--show", type=int, metavar="PLAN", help="print a stored plan again instead")
        parser.add_argument(
            "--undo", type=int, metavar="PLAN", help="plan to bring back what this plan changed; --customer: only there"
        )
        parser.add_argument("--format", choices=["table", "json", "csv"], default="table", help="table by default")

    def work(self, options: dict[str, Any]) -> int:
        stored = [name for name in ("show", "undo") if options[name] is not None]
        choosing = [name for name in _CHOOSING if options[name] and not (stored == ["undo"] and name == "customer")]
        if stored and len(stored) + len(choosing) > 1:
            raise CommandError(f"--{stored[0]} takes no --{[*stored[1:], *choosing][0]}.", returncode=2)
        plan = self._stored(options["show"]) if options["show"] is not None else self._new(options)
        if options["format"] != "table":
            document = json_document(plan) if options["format"] == "json" else csv_document(plan)
            for piece in document:
                self.stdout.write(piece, ending="")
        else:
            self._tell(plan)
        return EXIT_SOME_FAILED if plan.items.filter(action=ConsentPlanItem.Action.BLOCKED).exists() else 0

    def _stored(self, number: int) -> ConsentPlan:
        plan = ConsentPlan.objects.select_related("registration", "wanted").filter(pk=number).first()
        if plan is None:
            raise CommandError(f"There is no plan {number}; the admin lists them all.", returncode=2)
        return plan

    def _new(self, options: Mapping[str, Any]) -> ConsentPlan:
        try:
            return self._made(options) if options["undo"] is None else self._undone(options)
        except PlanRefused as refused:
            raise CommandError(str(refused), returncode=2) from None

    def _undone(self, options: Mapping[str, Any]) -> ConsentPlan:
        plan, customers = self._stored(options["undo"]), None
        if options["customer"]:
            wanted = tenant_ids(options["customer"])
            customers = list(plan.items.filter(customer__tenant_id__in=wanted).values_list("customer", flat=True))
        return make_undo(plan, actor=self.actor, customers=customers)

    def _made(self, options: Mapping[str, Any]) -> ConsentPlan:
        registration = self._registration(options)
        chosen = partner_selection({**options, "registration": None})
        partners = chosen.partners(also_disabled=True)
        chosen = with_customers(chosen, partners, options["customer"], "The chosen partners have no")
        return make_plan(registration, chosen, actor=self.actor)

    def _registration(self, options: Mapping[str, Any]) -> ApplicationRegistration:
        return active_registration(options["registration"], cloud=options["cloud"] or "")

    def _tell(self, plan: ConsentPlan) -> None:
        about = head(plan)
        version = f", version {about['wanted_version']} of the wanted grants" if about["wanted_version"] else ""
        self.say(f"Plan {plan.pk} for {plan.registration}: {plan.get_purpose_display().lower()}{version}.")
        numbers = about["counts"]
        reset = numbers.pop("needs_reset")
        self.say("  " + ", ".join(f"{number:,} {action}" for action, number in numbers.items()))
        if reset:
            self.say(f"  {reset:,} of them need DELETE and POST, and are left alone unless that is chosen")
        if plan.state != ConsentPlan.State.SHOWN:
            came = ", ".join(f"{number:,} {result}" for result, number in about["results"].items())
            self.say(f"  {plan.get_state_display()}: {came}")
        self.say(f"{'ACTION':8} {'RESULT':9} {'CUSTOMER':30} {'PARTNER':24} WHAT AND WHY")
        for line in lines(plan):
            mark = "*" if line["needs_reset"] else ""
            why = " ".join(part for part in (line["reason"], line["message"]) if part)
            who = f" Who must act: {line['owner']}." if line["owner"] else ""
            self.say(
                f"{line['action'] + mark:8} {line['result'] or '-':9} {line['customer'][:30]:30} "
                f"{line['partner'][:24]:24} {why}{who}".rstrip()
            )
        if reset:
            self.say("* needs DELETE and POST")
        if plan.state == ConsentPlan.State.SHOWN:
            self.say(
                f"Nothing was sent. Apply it with apply_plan {plan.pk}; print it with plan_consents --show {plan.pk}."
            )
