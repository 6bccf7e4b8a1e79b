"""What the server notes on a request before a service answers it."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from portal.microsoft.clouds import NationalCloud

CLOUD: web.RequestKey[NationalCloud] = web.RequestKey("cloud", NationalCloud)
CLOUDS: web.RequestKey[Mapping[str, NationalCloud]] = web.RequestKey("clouds")
VAULT: web.RequestKey[str] = web.RequestKey("vault", str)
CORRELATION: web.RequestKey[str] = web.RequestKey("correlation", str)
