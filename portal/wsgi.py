"""WSGI entry point of the web process."""

import gc
import os

from django.core.wsgi import get_wsgi_application
from django.urls import get_resolver

from portal import starting

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
application = get_wsgi_application()
starting.check_or_exit("The portal")
len(get_resolver().url_patterns)  # imports all pages now; otherwise the first person would wait for them
gc.collect()
gc.freeze()  # nothing of it goes away: a full collection, which holds up some page, takes 10 ms instead of 100
