"""What every Microsoft Graph client shares: error mapping and paging by ``@odata.nextLink``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from requests import Response

from portal.microsoft.diagnosis import diagnose_api_error
from portal.microsoft.errors import RemoteError
from portal.microsoft.http import ApiClient, JsonResponse, retry_after_seconds


class GraphApi(ApiClient):
    """Microsoft Graph v1.0. ``base_url`` is the cloud's Graph origin."""

    service = "graph"
    correlation_id_header = "client-request-id"
    request_id_response_header = "request-id"

    def error_for(self, response: Response, body: Any, operation: str) -> RemoteError:
        code = self.error_code(body)
        diagnosis = diagnose_api_error(service=self.service, status=response.status_code, code=code)
        return diagnosis.error(
            self.service,
            operation,
            status=response.status_code,
            code=code,
            correlation_id=self.correlation_id,
            request_id=response.headers.get(self.request_id_response_header, ""),
            retry_after=retry_after_seconds(response.headers.get("Retry-After")),
            detail=diagnosis.cause,
        )

    def collection(self, path: str, *, operation: str, params: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
        """Yield the items of all pages; finishes or raises.

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
            yield from self.records(self.record(page.body, operation).get("value"), operation)
