"""What every Microsoft Graph client shares: error mapping and paging by ``@odata.nextLink``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from requests import Response

from portal.microsoft.api import ApiClient, JsonResponse

BATCH = 20  # the most requests that one $batch may hold
_CHALLENGE = re.compile(r'\berror\s*=\s*"insufficient_claims"', re.IGNORECASE)


class GraphApi(ApiClient):
    """Microsoft Graph v1.0. ``base_url`` is the cloud's Graph origin."""

    service = "graph"
    correlation_id_header = "client-request-id"
    request_id_response_header = "request-id"

    def error_code(self, body: Any, response: Response) -> str:
        """Return Graph's code; a claims challenge stands in the header only (RFC 6750 section 3)."""
        challenge = response.headers.get("WWW-Authenticate", "")[:4000]
        if response.status_code == 401 and _CHALLENGE.search(challenge):
            return "insufficient_claims"
        return super().error_code(body, response)

    def batch(self, urls: Mapping[str, str], *, operation: str) -> dict[str, Mapping[str, Any]]:
        """Return the bodies of several reads that one call made, under their names; only those that are whole.

        POST /v1.0/$batch, which every cloud has. All parts run with the token of the whole call, so they are of one
        tenant: reads of different customers never share a batch, because each needs a token of its own. A part that was
        refused, throttled or cut into pages is left out: the caller asks for it by a call of its own, and learns why.
        Each part counts for Graph's limits as a call of its own would.

        Source: Microsoft Graph v1.0, "Combine multiple requests in one HTTP call using JSON batching".

        Args:
            urls: up to :data:`BATCH`, relative to the version, with their encoded queries.
        """
        parts = [{"id": name, "method": "GET", "url": url} for name, url in urls.items()]
        answer = self.request("POST", "/v1.0/$batch", operation=operation, payload={"requests": parts}, repeatable=True)
        found: dict[str, Mapping[str, Any]] = {}
        for part in self.records(self.record(answer.body, operation).get("responses"), operation):
            body = part.get("body")
            if part.get("status") == 200 and isinstance(body, dict) and "@odata.nextLink" not in body:
                found[self.text(part, "id", operation)] = body
        return found

    def collection(self, path: str, *, operation: str, params: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
        """Yield the items of all pages; finishes or raises."""
        for items in self.pages(path, operation=operation, params=params):
            yield from self.records(items, operation)

    def pages(self, path: str, *, operation: str, params: Mapping[str, str]) -> Iterator[Any]:
        """Yield what each page calls its items; finishes or raises.

        ``@odata.nextLink`` is followed verbatim, after checking that it stays on this host: a token never goes to a
        foreign one.
        """
        seen: set[str] = set()

        def first() -> JsonResponse:
            return self.request("GET", path, operation=operation, params=params)

        def after(page: JsonResponse) -> Callable[[], JsonResponse] | None:
            link = self.record(page.body, operation).get("@odata.nextLink")
            if link is None:
                return None
            if not isinstance(link, str) or not link.startswith(f"{self._base_url}/v1.0/") or link in seen:
                raise self._unexpected(operation, None, "the next page is elsewhere or repeats")
            seen.add(link)
            return lambda: self.request("GET", link.removeprefix(self._base_url), operation=operation)

        for page in self.follow(first, after):
            yield self.record(page.body, operation).get("value")
