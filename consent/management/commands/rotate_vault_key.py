from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError

from consent.management.base import EXIT_SOME_FAILED, ConsentCommand, add_second_person_arguments
from consent.two_persons import RETIRE_KEY
from consent.vault.rotation import RetireRefused, RotationReport, retire, rotate
from portal.audit.trail import record
from portal.decisions.doing import carried_out
from portal.decisions.kinds import Result


class Command(ConsentCommand):
    name = "rotate_vault_key"
    help = (
        "Change the key of the embedded vault: add a new key to the key file, encrypt every stored version with it, "
        "verify each. The old key stays in the file until --retire. Killed or failed, it goes on where it was when "
        "run again; the portal may run meanwhile. Two persons decide about --retire: the first run asks, and the same "
        "command does it once a second person approved it in the admin. Exit codes: 0 everything needs the new key "
        "only, 1 damaged versions, an old key that is still needed, or a second person has to decide, 2 usage, 3 the "
        "vault or its key file cannot be used."
    )
    examples = (
        "rotate_vault_key",
        "rotate_vault_key --retire --why 'rotated a week ago'  # when nothing needs the old key",
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--retire", action="store_true", help="take the old key out of the file, if nothing needs it"
        )
        add_second_person_arguments(parser)
        parser.add_argument("--json", action="store_true", help="one JSON line")

    def work(self, options: dict[str, Any]) -> int:
        if settings.VAULT_URL.startswith("https://"):
            raise CommandError("Azure Key Vault keeps its own keys; there is nothing to rotate here.", returncode=2)
        directory, key_file = Path(settings.VAULT_URL), Path(settings.VAULT_KEY_FILE)
        try:
            if options["retire"]:
                report = self._retire(directory, key_file, options)
            else:
                report = rotate(directory, key_file, progress=self._progress)
        except RetireRefused as refused:
            raise CommandError(f"{refused}.", returncode=EXIT_SOME_FAILED) from None
        record(
            "vault.key_retired" if options["retire"] else "vault.key_rotated",
            actor=self.actor,
            subject={},
            details={
                "key": report.key,
                "older_keys": report.older_keys,
                "items": report.items,
                "encrypted": report.encrypted,
                "damaged": len(report.damaged),
            },
        )
        if options["json"]:
            self.say_json(
                {
                    "key": report.key,
                    "older_keys": report.older_keys,
                    "items": report.items,
                    "encrypted": report.encrypted,
                    "needing_older": report.needing_older,
                    "damaged": report.damaged,
                    "retired": options["retire"],
                }
            )
        else:
            self._tell(report, retired=options["retire"])
        return EXIT_SOME_FAILED if report.damaged or report.needing_older else 0

    def _retire(self, directory: Path, key_file: Path, options: dict[str, Any]) -> RotationReport:
        report = retire(directory, key_file, only_look=True)
        if not report.older_keys:
            return report
        approval = self.second_person(RETIRE_KEY, {}, options)
        with carried_out(approval) as deed:
            report = retire(directory, key_file)
            deed.result = Result(words=f"Key {report.key} alone is in the key file now.")
        return report

    def _progress(self, done: int, of: int) -> None:
        self.stderr.write(f"{done} of {of}")

    def _tell(self, report: RotationReport, *, retired: bool) -> None:
        for line in report.damaged:
            self.say(f"damaged  {line}")
        if report.damaged:
            self.say(
                f"{len(report.damaged)} of {report.items} versions cannot be read. Put their files back "
                "from a backup and run this again; vault_reconcile names the partners."
            )
        old = ", ".join(report.older_keys)
        if retired:
            self.say(
                f"Key {report.key} alone is in the key file now. Taken out: {old or 'none'}. Backups of the vault that "
                "were made before the rotation still need the old key: keep its copy as long as you keep them."
            )
        elif report.needing_older:
            self.say(f"{report.needing_older} of {report.items} versions still need an old key ({old}); it stays.")
        else:
            self.say(
                f"{report.encrypted} of {report.items} versions encrypted anew; all read with key {report.key}. Back "
                f"up the key file now. The old key ({old}) is in it still; rotate_vault_key --retire takes it out."
            )
