from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from consent import clients
from consent.management.base import EXIT_SOME_FAILED, EXIT_SYSTEMIC, ConsentCommand
from consent.tokens.differences import Difference, ReconcileReport
from consent.tokens.reconcile import Reconciler, TooManyChanges
from consent.words.failures import explain
from portal.microsoft.errors import RemoteError


class Command(ConsentCommand):
    name = "vault_reconcile"
    help = (
        "List every difference between database and vault, and repair what is safe: use a newer token, switch old ones "
        "off. Nothing is deleted, and only --adopt-older goes back to an older token. Run it daily and after every "
        "restore. Exit "
        "codes: 0 no difference is left, 1 some are left for a person, 2 usage, 3 the vault does not answer, or more "
        "differs than --max-share allows and nothing was changed."
    )
    examples = (
        "vault_reconcile --dry-run",
        "vault_reconcile --disable-orphans --json",
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="list only; change nothing")
        parser.add_argument(
            "--disable-orphans",
            action="store_true",
            help="switch off entries and keys that no row names, if they carry our tag and are a day old",
        )
        parser.add_argument(
            "--adopt-older",
            action="store_true",
            help="after a restore of an older vault: where a newer token is missing, redeem the older one, and use it "
            "again if Microsoft honours it for the same tenant and account",
        )
        parser.add_argument(
            "--max-share",
            type=int,
            default=20,
            metavar="PERCENT",
            help="stop before the first change when more than this share differs (default 20; ten are always allowed)",
        )
        parser.add_argument(
            "--new-vault",
            action="store_true",
            help="the former vault is lost for good: first take the one that VAULT_URL names for this database's own",
        )
        parser.add_argument("--json", action="store_true", help="one JSON line per difference, and one at the end")

    def work(self, options: dict[str, Any]) -> int:
        if not 0 <= options["max_share"] <= 100:
            raise CommandError("--max-share is a percentage: 0 to 100.", returncode=2)
        if options["new_vault"]:
            if options["dry_run"]:
                raise CommandError("--new-vault changes something, so it does not go with --dry-run.", returncode=2)
            clients.take_new_vault(self.actor)
        reconciler = Reconciler(
            vault=clients.vault(),
            inventory=clients.inventory(),
            key_inventory=clients.key_inventory(),
            keys=clients.vault_keys,
            actor=self.actor,
            dry_run=options["dry_run"],
            disable_orphans=options["disable_orphans"],
            adopt_older=clients.tokens() if options["adopt_older"] else None,
            max_share=options["max_share"],
            progress=lambda done: self.stderr.write(f"{done} looked at"),
        )
        try:
            report = reconciler.run()
        except TooManyChanges as refused:
            raise CommandError(f"{refused}.", returncode=EXIT_SYSTEMIC) from None
        except RemoteError as error:
            raise CommandError(explain(error), returncode=EXIT_SYSTEMIC) from None
        for difference in report.differences:
            if options["json"]:
                self.say_json(_line(difference))
            else:
                self._tell(difference, report)
        if options["json"]:
            self.say_json(
                {
                    "looked_at": report.looked_at,
                    "differences": report.counts,
                    "open": report.open,
                    "older_taken_up": report.taken_up,
                    "busy": report.busy,
                    "stopped": report.stopped,
                    "not_looked_at": report.not_looked_at,
                    "dry_run": report.dry_run,
                }
            )
        else:
            self._sum_up(report)
        return EXIT_SOME_FAILED if report.open else 0

    def _tell(self, difference: Difference, report: ReconcileReport) -> None:
        meaning = difference.meaning
        where = ", ".join(f"{label} {number}" for label, number in difference.subject.items()) or "no row"
        done = difference.outcome or (f"would {meaning.repair}" if report.dry_run and meaning.repair else "left")
        self.say(f"{difference.kind.value}  {where}, entry {difference.name} {difference.version}: {difference.words}")
        next_step = f" Who must act: you. {meaning.remedy}" if meaning.remedy and not difference.is_over else ""
        how = f" ({meaning.option})" if next_step and meaning.option else ""
        self.say(f"    {done}.{next_step}{how}")

    def _sum_up(self, report: ReconcileReport) -> None:
        for line in report.not_looked_at:
            self.say(f"not looked at: {line}")
        if report.taken_up:
            self.say(f"{report.taken_up} older token(s) were taken up; see with check_tokens how these partners are.")
        if report.stopped:
            self.say(f"{report.stopped} stopped partner(s) were left alone.")
        if report.busy:
            self.say(f"{report.busy} partner(s) are being renewed right now; the next run looks at them.")
        self.say(f"{report.looked_at} looked at, {len(report.differences)} differences, {report.open} left.")


def _line(difference: Difference) -> dict[str, Any]:
    meaning = difference.meaning
    return {
        "kind": difference.kind.value,
        "subject": difference.subject,
        "entry": difference.name,
        "version": difference.version,
        "what": difference.words,
        "repair": meaning.repair,
        "owner": meaning.owner.value,
        "remedy": meaning.remedy,
        "outcome": difference.outcome,
    }
