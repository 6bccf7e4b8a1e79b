from argparse import ArgumentParser
from collections import Counter
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

from consent.management.base import EXIT_SOME_FAILED, EXIT_USAGE, ConsentCommand
from consent.models import PartnerImport, PartnerImportRow
from consent.moving_in.files import MOST_BYTES, FileRefused
from consent.moving_in.partners import COLUMNS, apply, read, results
from consent.runs.find_tenants import start_finding
from portal.runs.console import foreground, words_of
from portal.text import number_of

Result = PartnerImportRow.Result
_BAD = (Result.REFUSED, Result.TO_FIND, Result.TO_CONFIRM)


class Command(ConsentCommand):
    name = "import_partners"
    help = (
        "Read partners from a CSV or XLSX file and say of each row what it would do: new, same, changed, or refused "
        "and why. Without --apply no partner is added or changed. Where a row names a domain only, the sign-in service "
        "is asked for its tenant, which a person confirms on the page of the import. "
        f"Columns: {', '.join(COLUMNS)}. "
        "Exit codes: 0 every row is new, same or changed, 1 some are refused or wait, 2 usage, 3 the database or the "
        "sign-in service is away."
    )
    examples = (
        "import_partners partners.csv  # a dry run",
        "import_partners partners.xlsx --apply",
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, metavar="FILE", help="CSV in UTF-8, or XLSX")
        parser.add_argument("--apply", action="store_true", help="add and change the partners")
        parser.add_argument("--json", action="store_true", help="JSON lines instead of text")

    def work(self, options: dict[str, Any]) -> int:
        path: Path = options["file"]
        try:
            with path.open("rb") as file:
                content = file.read(MOST_BYTES + 1)
            imported = read(content, file_name=path.name, actor=self.actor)
        except OSError as error:
            raise CommandError(f"{path} cannot be read: {error.strerror}", returncode=EXIT_USAGE) from None
        except FileRefused as refused:
            raise CommandError(str(refused), returncode=EXIT_USAGE) from None
        code = self._find(imported) if imported.rows.to_find().exists() else 0
        counts = apply(imported, actor=self.actor) if options["apply"] else results(imported)
        for row in imported.rows.order_by("number"):
            self._tell(row, options)
        self._sum_up(imported, counts, options)
        return code or (EXIT_SOME_FAILED if any(counts[result] for result in _BAD) else 0)

    def _find(self, imported: PartnerImport) -> int:
        """Ask for the tenants of domains; what is not found stands with its row, so only a cause of ours counts."""
        run, _ = start_finding(imported, actor=self.actor)
        code = foreground(run, out=self.stderr, err=self.stderr, as_json=False, words=words_of)
        return 0 if code == EXIT_SOME_FAILED else code

    def _tell(self, row: PartnerImportRow, options: dict[str, Any]) -> None:
        if options["json"]:
            names = ("number", "result", "name", "tenant_id", "domain", "found_tenant_id", "why")
            self.say_json({name: getattr(row, name) for name in names})
        else:
            what = row.name or row.tenant_id or row.domain or "no name"
            self.say(f"{row.result}  row {row.number}, {what}{': ' + row.why if row.why else ''}")

    def _sum_up(self, imported: PartnerImport, counts: Counter[str], options: dict[str, Any]) -> None:
        if options["json"]:
            self.say_json({"import": imported.pk, "results": dict(counts), "applied": options["apply"]})
            return
        said = ", ".join(f"{number:,} {Result(result).label.lower()}" for result, number in counts.most_common())
        done = "" if options["apply"] else " Nothing was applied; --apply does it."
        self.say(f"Import {imported.pk}, {number_of(sum(counts.values()), 'row')}: {said}.{done}")
        if counts[Result.TO_CONFIRM]:
            self.stderr.write("Confirm the found tenants in the admin, under Partners, Imports; then apply there.")
