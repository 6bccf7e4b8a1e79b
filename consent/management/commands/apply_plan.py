from argparse import ArgumentParser, ArgumentTypeError
from datetime import timedelta
from functools import partial
from typing import Any

from django.core.management.base import CommandError
from django.utils import timezone

from consent.customers.plans import PlanRefused
from consent.management.base import ConsentCommand, add_second_person_arguments
from consent.models import ConsentPlan
from consent.runs.apply_plan import (
    APPLY_PLAN,
    CONCURRENCY,
    RESUMABLE,
    STOP_SHARE,
    WAVES,
    removes_from,
    start_apply,
)
from consent.two_persons import APPLY, applying_of
from portal.decisions.doing import carried_out
from portal.decisions.kinds import Result
from portal.runs import tasks
from portal.runs.arguments import EXIT_CODES, add_run_arguments
from portal.runs.console import dry_run, foreground, refuse_if_busy, words_of
from portal.runs.models import Run


def _waves(text: str) -> tuple[int, ...]:
    """Return the numbers of ``1,5,25``; an empty text is one wave for all."""
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise ArgumentTypeError("write numbers of customers with commas between them, such as 1,5,25") from None


class Command(ConsentCommand):
    name = "apply_plan"
    help = (
        "Apply a plan as it was shown, in waves, and read each customer back; on a plan that stopped, go on. What has "
        "changed since the plan was made is held back and said. About a plan that removes our consent from more than "
        "one customer two persons decide: this asks, and when a second person approves it in the admin, the workers "
        f"apply it. {EXIT_CODES}"
    )
    examples = (
        "apply_plan 12",
        "apply_plan 12 --waves 1,5,25 --stop-share 0.1 --background",
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("plan", type=int, metavar="PLAN", help="number of the plan, as plan_consents printed it")
        parser.add_argument(
            "--reset",
            action="store_true",
            help="also do what only DELETE followed by POST can do; those customers are without consent in between",
        )
        parser.add_argument(
            "--waves",
            type=_waves,
            default=WAVES,
            metavar="N,N",
            help="customers of the first waves, the rest is the last one (default: 1,5,25; '' for one wave)",
        )
        parser.add_argument(
            "--stop-share",
            type=float,
            default=STOP_SHARE,
            metavar="SHARE",
            help="when more than this share of a wave fails, wait for a decision (default: 0.2)",
        )
        add_second_person_arguments(parser)
        add_run_arguments(parser, concurrency=CONCURRENCY, skips=False)

    def work(self, options: dict[str, Any]) -> int:
        if not 1 <= options["concurrency"] <= 512 or options["rate"] < 0:
            raise CommandError("--concurrency goes from 1 to 512, and --rate is not negative.", returncode=2)
        plan = ConsentPlan.objects.select_related("run").filter(pk=options["plan"]).first()
        if plan is None:
            raise CommandError(f"There is no plan {options['plan']}; make one with plan_consents.", returncode=2)
        if options["dry_run"]:
            scope = {"plan": plan.pk, "reset": options["reset"]}
            return dry_run(partial(APPLY_PLAN.units, scope), self.stdout, as_json=options["json"])
        if plan.run is not None and plan.run.state == Run.State.OPEN:
            refuse_if_busy(plan.run)
        minutes = options["deadline"]
        start = partial(
            start_apply,
            plan,
            actor=self.actor,
            reset=options["reset"],
            waves=options["waves"],
            stop_share=options["stop_share"],
            concurrency=options["concurrency"],
            rate=options["rate"],
            deadline=None if minutes is None else timezone.now() + timedelta(minutes=minutes),
        )
        goes_on = plan.run is not None and plan.run.state in RESUMABLE
        try:
            if goes_on or removes_from(plan) <= 1:
                run, _ = start()
            else:
                how = {name: options[name] for name in ("reset", "waves", "stop_share")}
                approval = self.second_person(APPLY, applying_of(plan, **how), options)
                with carried_out(approval) as deed:
                    run, _ = start(approved=approval)
                    deed.result = Result(words="A run applies it, in waves.", subject={"run": run.pk})
        except PlanRefused as refused:
            raise CommandError(str(refused), returncode=2) from None
        if options["background"]:
            tasks.enqueue(run)
            self.say(f"Run {run.pk} is left to the workers; watch it with run_status {run.pk}.")
            return 0
        return foreground(
            run,
            out=self.stdout,
            err=self.stderr,
            as_json=options["json"],
            words=words_of,
            concurrency=options["concurrency"],
            processes=options["processes"],
        )
