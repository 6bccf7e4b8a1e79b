"""Read by gunicorn when it starts here. Its first process never loads the portal, but its environment may hold keys."""

from portal.dumps import forbid_core_files

forbid_core_files()
