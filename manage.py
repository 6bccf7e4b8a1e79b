#!/usr/bin/env python
"""Management commands of the portal; ``manage.py help`` lists them."""

import gc
import os
import sys
from importlib import import_module

from django.core.exceptions import ImproperlyConfigured
from django.db import Error

from portal.commands import Utility
from portal.databases import trouble


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
    gc.disable()  # what is imported stays, and looking for garbage in it is a tenth of the start; see ``Utility``
    # One clear line instead of forty of traceback: it names the variable or the place and what to do.
    try:
        Utility(sys.argv).execute()
    except ImproperlyConfigured as error:
        if sys.argv[1:2] == ["doctor"]:  # it answers all the same
            unset = import_module("consent.doctor.unset")  # by name: needed only here
            sys.exit(unset.answer(sys.argv[2:], str(error)))
        sys.exit(f"Configuration: {error}")
    except (Error, OSError) as error:
        if (sentence := trouble(error)) is None:
            raise
        sys.stderr.write(f"{sentence}\n")
        sys.exit(3)


if __name__ == "__main__":
    main()
