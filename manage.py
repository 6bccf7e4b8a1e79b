#!/usr/bin/env python
"""Management commands of the portal; ``manage.py help`` lists them."""

import os
import sys

from django.core.exceptions import ImproperlyConfigured
from django.db import Error

from consent.doctor import unset
from portal.commands import Utility
from portal.databases import trouble


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
    # One clear line instead of forty of traceback: it names the variable or the place and what to do.
    try:
        Utility(sys.argv).execute()
    except ImproperlyConfigured as error:
        if sys.argv[1:2] == ["doctor"]:  # it answers all the same
            sys.exit(unset.answer(sys.argv[2:], str(error)))
        sys.exit(f"Configuration: {error}")
    except (Error, OSError) as error:
        if (sentence := trouble(error)) is None:
            raise
        sys.stderr.write(f"{sentence}\n")
        sys.exit(3)


if __name__ == "__main__":
    main()
