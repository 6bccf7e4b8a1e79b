#!/usr/bin/env python
"""Management commands of the portal; ``manage.py help`` lists them."""

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
    if sys.argv[1:2] == ["demo"]:
        from portal import demo

        demo.set_environment()
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line
    from django.db import OperationalError

    # One clear line instead of forty of traceback: it names the variable and what to do.
    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        sys.exit(f"Configuration: {error}")
    except OperationalError as error:
        sys.stderr.write(f"The database does not answer, check DATABASE_URL: {error}".splitlines()[0] + "\n")
        sys.exit(3)


if __name__ == "__main__":
    main()
