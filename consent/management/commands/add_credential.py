import base64
import stat
import sys
from argparse import ArgumentParser
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

from consent import clients
from consent.applications import key_pairs, rotation
from consent.management.base import ConsentCommand
from consent.microsoft.credentials import own_certificate
from consent.models import ApplicationCredential, ApplicationRegistration
from consent.naming import registration_named
from portal.microsoft.secret import Secret

Kind = ApplicationCredential.Kind


class Command(ConsentCommand):
    name = "add_credential"
    help = (
        "Add a credential to an application registration as a candidate; promote_credential proves it and puts it to "
        "use. --make makes the key here (certificate) or in the Key Vault, which signs with it (vault_key); --request "
        "makes a request for its certificate, and --answer takes the signed one. A client secret or a certificate "
        "(PEM or PKCS12 with key and certificate) is read from standard input or from a file with mode 0600, never "
        "from an argument, and lies in the vault afterwards. Exit codes: 0 added, 1 the vault did not take it, 2 "
        "usage, 3 the cause is on our side."
    )
    examples = (
        "add_credential $APPLICATION_ID certificate --make > app.cer  # the public part, to upload at Microsoft",
        "add_credential $APPLICATION_ID certificate --file app.pem",
        "add_credential $APPLICATION_ID secret --expires 2027-05-31 < secret.txt",
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "registration", metavar="REGISTRATION", help="the registration's application id, or its number"
        )
        parser.add_argument("kind", choices=Kind.values, help="what the application proves itself by")
        parser.add_argument("--file", type=Path, help="read from this file instead of standard input")
        parser.add_argument("--make", action="store_true", help="make the key, and print its public certificate")
        parser.add_argument(
            "--days",
            type=int,
            choices=key_pairs.DAYS,
            default=key_pairs.DAYS[1],
            help="life of the certificate of --make",
        )
        parser.add_argument("--request", action="store_true", help="make the key, and print a request to be signed")
        parser.add_argument("--answer", metavar="CREDENTIAL", type=int, help="this request's signed certificate")
        parser.add_argument("--vault-name", metavar="NAME", help="a certificate or key that is in the vault already")
        parser.add_argument("--vault-version", metavar="VERSION", help="its version")
        parser.add_argument("--send-chain", action="store_true", help="send the certificate chain (x5c) as well")
        parser.add_argument("--expires", metavar="DATE", help="end of a client secret, as 2027-05-31")
        parser.add_argument("--key-id", metavar="ID", default="", help="id of the client secret at Microsoft")
        parser.add_argument("--client-id", metavar="ID", help="client id of the user-assigned managed identity")

    def work(self, options: dict[str, Any]) -> int:
        registration = registration_named(options["registration"])
        try:
            credential = self._add(registration, options)
        except ValueError as error:
            raise CommandError(str(error), returncode=2) from None
        except rotation.RotationRefused as refused:
            raise CommandError(str(refused), returncode=1) from None
        say = self.stderr.write if options["make"] or options["request"] else self.say  # the output is a file then
        if options["request"]:
            self.stdout.write(credential.certificate_request, ending="")
            say(f"Request {credential.pk} of {registration.name}. Next: have it signed, then --answer {credential.pk}.")
            return 0
        if options["make"]:
            self.stdout.write(own_certificate(credential.public_certificate), ending="")
        say(f"Added to {registration.name} as candidate {credential.pk}: {credential}.")
        say(f"Next: make it known at Microsoft, then manage.py promote_credential {registration.pk}.")
        return 0

    def _add(self, registration: ApplicationRegistration, options: dict[str, Any]) -> ApplicationCredential:
        if options["answer"] is not None:
            return self._answer(registration, options)
        if options["make"] or options["request"]:
            return self._make(registration, options)
        if options["kind"] == Kind.VAULT_KEY:
            return key_pairs.add_vault_key(
                registration,
                options["vault_name"] or "",
                options["vault_version"] or "",
                _content(options["file"]),
                sends_chain=options["send_chain"],
                keys=clients.vault_keys(),
                actor=self.actor,
            )
        if options["kind"] == Kind.FEDERATED:
            if not options["client_id"]:
                raise CommandError("Name the managed identity: --client-id.", returncode=2)
            return rotation.add_managed_identity(registration, options["client_id"], actor=self.actor)
        if options["kind"] == Kind.SECRET:
            expires = options["expires"]
            return rotation.add_secret(
                registration,
                _read(options["file"]),
                key_id=options["key_id"],
                expires_at=datetime.fromisoformat(expires).replace(tzinfo=UTC) if expires else None,
                vault=clients.vault(),
                actor=self.actor,
            )
        if options["vault_name"] or options["vault_version"]:
            return rotation.add_certificate_of_vault(
                registration,
                options["vault_name"] or "",
                options["vault_version"] or "",
                sends_chain=options["send_chain"],
                vault=clients.vault(),
                actor=self.actor,
            )
        return rotation.add_certificate(
            registration,
            _read(options["file"]),
            sends_chain=options["send_chain"],
            vault=clients.vault(),
            actor=self.actor,
        )

    def _make(self, registration: ApplicationRegistration, options: dict[str, Any]) -> ApplicationCredential:
        days, actor = options["days"], self.actor
        if options["kind"] == Kind.VAULT_KEY:
            if options["request"]:
                return key_pairs.request_for_vault_key(registration, keys=clients.vault_keys(), actor=actor)
            return key_pairs.make_vault_key(registration, days=days, keys=clients.vault_keys(), actor=actor)
        if options["kind"] != Kind.CERTIFICATE:
            raise CommandError("Only a certificate or a vault_key is made.", returncode=2)
        if options["request"]:
            return key_pairs.request_certificate(registration, vault=clients.vault(), actor=actor)
        return key_pairs.make_pair(registration, days=days, vault=clients.vault(), actor=actor)

    def _answer(self, registration: ApplicationRegistration, options: dict[str, Any]) -> ApplicationCredential:
        asked = registration.credentials.filter(pk=options["answer"]).first()
        if asked is None:
            raise CommandError("The registration has no such request.", returncode=2)
        key_pairs.answer(
            asked,
            _content(options["file"]),
            sends_chain=options["send_chain"],
            vault=clients.vault(),
            actor=self.actor,
        )
        asked.refresh_from_db()
        return asked


def _content(path: Path | None) -> bytes:
    """Return a public certificate, which anyone may read."""
    if path is None:
        return sys.stdin.read().encode()
    try:
        return path.read_bytes()
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}", returncode=2) from None


def _read(path: Path | None) -> Secret:
    """Return the text, or the base64 of a file that is none: PKCS12."""
    if path is None:
        if sys.stdin.isatty():
            raise CommandError("Pipe the credential into this command, or use --file.", returncode=2)
        return Secret(sys.stdin.read().strip())
    try:
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise CommandError(f"{path} is readable by others; run chmod 600 on it first.", returncode=2)
        content = path.read_bytes()
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}", returncode=2) from None
    try:
        return Secret(content.decode().strip())
    except UnicodeDecodeError:
        return Secret(base64.b64encode(content).decode())
