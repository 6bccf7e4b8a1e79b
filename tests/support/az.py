"""A stand-in for Azure CLI, as far as our scripts need it: calls the sandbox's Graph, whose place ``AZ_PLACE`` holds.

What it does not know is refused, as a typing error is by the real one. A script calls it often, and each time is a
process of its own: so it is run as a file and imports little, and nothing of ours.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import sys
from typing import Any
from urllib.parse import urlsplit


def main(arguments: list[str]) -> int:
    place = json.loads(os.environ["AZ_PLACE"])
    with open(place["log"], "a", encoding="utf-8") as log:
        log.write(f"{' '.join(arguments)}\n")
    match arguments:
        case ["cloud", "set", "--name", _]:
            return 0
        case ["login", "--tenant", _, "--allow-no-subscriptions", "--output", "none"]:
            return 0
        case ["ad", "sp", "show", "--id", app_id, "--output", "none"]:
            return _call(place, "GET", f"{place['graph']}/v1.0/servicePrincipals(appId='{app_id}')", None, {})
        case ["ad", "sp", "create", "--id", app_id, "--output", "none"]:
            return _call(place, "POST", f"{place['graph']}/v1.0/servicePrincipals", {"appId": app_id}, {})
        case ["ad", "app", "owner", "add", "--id", app_id, "--owner-object-id", object_id]:
            owners = f"{place['graph']}/v1.0/applications(appId='{app_id}')/owners"
            known = json.loads(_ask(place, "GET", owners, None)[1])["value"]
            if any(one["id"] == object_id for one in known):
                return 0
            reference = {"@odata.id": f"{place['graph']}/v1.0/directoryObjects/{object_id}"}
            return _call(place, "POST", f"{owners}/$ref", reference, {})
        case ["rest", *rest]:
            options = dict(zip(rest[::2], rest[1::2], strict=True))
            assert options.keys() <= {"--method", "--url", "--headers", "--body", "--query", "--output"}, options
            body = json.loads(_text_of(options["--body"])) if "--body" in options else None
            return _call(place, options.get("--method", "GET"), options["--url"], body, options)
    print(f"unknown command: {arguments}", file=sys.stderr)  # noqa: T201
    return 2


def _text_of(option: str) -> str:
    if not option.startswith("@"):
        return option
    with open(option[1:], encoding="utf-8") as file:
        return file.read()


class _Connection(http.client.HTTPSConnection):
    """Names need no resolver; certificates are checked."""

    def __init__(self, netloc: str, ca_file: str) -> None:
        self._trusted = ssl.create_default_context(cafile=ca_file)
        super().__init__(netloc, context=self._trusted, timeout=10)

    def connect(self) -> None:
        plain = socket.create_connection(("127.0.0.1", self.port), self.timeout)
        self.sock = self._trusted.wrap_socket(plain, server_hostname=self.host)


def _ask(place: dict[str, Any], method: str, url: str, body: Any) -> tuple[int, str]:
    parts = urlsplit(url)
    connection = _Connection(parts.netloc, place["ca_file"])
    headers = {"Authorization": f"Bearer {place['token']}", "Content-Type": "application/json"}
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    connection.request(method, path, body=None if body is None else json.dumps(body), headers=headers)
    reply = connection.getresponse()
    text = reply.read().decode()
    connection.close()
    return reply.status, text


def _call(place: dict[str, Any], method: str, url: str, body: Any, options: dict[str, str]) -> int:
    status, text = _ask(place, method, url, body)
    if status >= 300:
        print(text, file=sys.stderr)  # noqa: T201
        return 1
    if options.get("--output") != "none" and text:
        answer = json.loads(text)
        print(answer[options["--query"]] if "--query" in options else json.dumps(answer))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
