"""Delegated permissions by resource, as one value: compared in one way, wherever they were read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True, slots=True, eq=False)
class Grants(Mapping[str, tuple[str, ...]]):
    """Names of delegated permissions by the application id of their resource; a resource without a name is left out.

    Neither order nor the case of a name makes a difference. It equals each mapping of the same meaning, so also what a
    row keeps.
    """

    given: Mapping[str, Iterable[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kept = {resource: names for resource, scopes in self.given.items() if (names := tuple(scopes))}
        object.__setattr__(self, "given", MappingProxyType(kept))

    def __getitem__(self, resource: str) -> tuple[str, ...]:
        return tuple(self.given[resource])

    def __iter__(self) -> Iterator[str]:
        return iter(self.given)

    def __len__(self) -> int:
        return len(self.given)

    def __sub__(self, other: Mapping[str, Iterable[str]]) -> Grants:
        """Return what only this one holds."""
        known = {resource: {scope.lower() for scope in scopes} for resource, scopes in other.items()}
        return Grants(
            {
                resource: [scope for scope in scopes if scope.lower() not in known.get(resource, ())]
                for resource, scopes in self.items()
            }
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mapping) and self.digest == Grants(other).digest

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def digest(self) -> str:
        """One SHA-256, as versions of wanted grants and rows of consents keep it."""
        canonical = {resource: sorted(scope.lower() for scope in scopes) for resource, scopes in self.items()}
        return hashlib.sha256(json.dumps(canonical, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, list[str]]:
        """Return what rows, lines and the audit trail keep."""
        return {resource: list(scopes) for resource, scopes in self.items()}

    def lines(self) -> list[str]:
        """Return ``resource: scope, scope`` for each resource."""
        return [f"{resource}: {', '.join(scopes)}" for resource, scopes in self.items()]

    def words(self) -> str:
        """Return the names of all permissions, without their resources."""
        return ", ".join(scope for scopes in self.values() for scope in scopes)
