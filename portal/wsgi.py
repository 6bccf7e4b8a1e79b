"""WSGI entry point of the web process."""

import os
import sys

from django.core.wsgi import get_wsgi_application

from portal import starting

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
application = get_wsgi_application()
try:
    starting.check()
except starting.StartRefused as refused:
    sys.stderr.write(f"The portal does not start: {refused}.\n")
    sys.exit(3)  # which gunicorn takes for a start that is not worth repeating
