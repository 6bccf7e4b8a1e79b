"""Tokens made to measure, for tests of the services behind the sign-in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from portal.microsoft.clouds import NationalCloud
from tests.sandbox import scenarios
from tests.sandbox.server import Sandbox
from tests.sandbox.tests.wire import Reply, Wire
from tests.sandbox.tokens import access_token
from tests.sandbox.world import GRAPH, Application, Relationship, Tenant, User, World, known_id


@dataclass(slots=True, kw_only=True)
class Caller:
    """The partner "northwind" of the minimal scenario and what its service account may hold."""

    sandbox: Sandbox
    wire: Wire
    cloud_key: str = "global"

    @property
    def world(self) -> World:
        return self.sandbox.world

    @property
    def cloud(self) -> NationalCloud:
        return self.sandbox.clouds[self.cloud_key]

    @property
    def application(self) -> Application:
        return self.world.applications[scenarios.application_id(self.cloud_key)]

    @property
    def partner(self) -> Tenant:
        return self.world.tenants[known_id("tenant", "northwind")]

    @property
    def customer(self) -> Tenant:
        return self.world.tenants[known_id("tenant", "northwind-customer-0")]

    @property
    def foreign_customer(self) -> Tenant:
        return self.world.tenants[known_id("tenant", "southridge-customer-0")]

    @property
    def relationship(self) -> Relationship:
        return next(one for one in self.world.relationships if one.customer == self.customer.tenant_id)

    def user(self, short: str = "service") -> User:
        return self.partner.users[known_id("user", "northwind", short)]

    def token(
        self,
        audience: str,
        *scopes: str,
        tenant: Tenant | None = None,
        user: User | None = None,
        application: Application | None = None,
        amr: tuple[str, ...] = ("pwd", "mfa"),
    ) -> str:
        """Return a delegated token of the partner, or of a customer for the partner's user."""
        return access_token(
            self.world,
            self.cloud,
            tenant=tenant or self.partner,
            audience=audience,
            application=application or self.application,
            credential="2",
            user=user or self.user(),
            home=self.partner,
            scopes=set(scopes),
            amr=list(amr),
        )

    def partner_center(self, method: str, path: str, **rest: Any) -> Reply:
        """Call Partner Center; by default with a good token."""
        if "token" not in rest:
            rest["token"] = self.token(self.cloud.partner_center, "user_impersonation")
        return self.wire.call(method, f"{self.cloud.partner_center}/v1{path}", **rest)

    def graph(self, method: str, path: str, *scopes: str, tenant: Tenant | None = None, **rest: Any) -> Reply:
        """Call Graph with a token that holds these scopes in this tenant."""
        if "token" not in rest:
            rest["token"] = self.token(self.cloud.graph, *scopes, tenant=tenant)
        return self.wire.call(method, f"{self.cloud.graph}/v1.0{path}", **rest)

    def consented(self, *scopes: str) -> None:
        """Put the application into the customer, as Partner Center does."""
        self.customer.add_principal(self.application.app_id, self.application.name)
        self.customer.grant(self.application.app_id, GRAPH, set(scopes or ("Directory.Read.All",)))

    def all_pages(self, path: str, *scopes: str) -> list[list[dict[str, Any]]]:
        """Follow Graph's next links to the end."""
        found, token = [], self.token(self.cloud.graph, *scopes)
        reply = self.graph("GET", path, token=token)
        while True:
            found.append(values(reply))
            link = reply.json().get("@odata.nextLink")
            if link is None:
                return found
            reply = self.wire.get(link, token=token)


def graph_error(reply: Reply) -> tuple[int, str]:
    return reply.status, reply.json()["error"]["code"]


def values(reply: Reply) -> list[dict[str, Any]]:
    assert reply.status == 200, reply.text
    found: list[dict[str, Any]] = reply.json()["value"]
    return found
