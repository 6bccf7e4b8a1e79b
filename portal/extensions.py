"""What each installed app adds to the portal: one declared object in a module of the app, found by the app's name.

The object is read when it is first asked for, not while Django starts. So an app on a higher floor adds to a page or to
the schedule of a lower one, no import has a side effect, and a command loads only what it needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

from django.apps import apps
from django.utils.module_loading import module_has_submodule


def declared[T](module: str, name: str, kind: type[T]) -> Iterator[T]:
    """Yield the object of that name from the module of each installed app that has one, in the order of the apps.

    Raises:
        TypeError: the module declares something else under that name.
    """
    for config in apps.get_app_configs():
        if config.module is None or not module_has_submodule(config.module, module):
            continue
        found = getattr(import_module(f"{config.name}.{module}"), name, None)
        if not isinstance(found, kind):
            raise TypeError(f"{config.name}.{module} declares no {name} of the type {kind.__name__}")
        yield found
