"""Settings of the measured portal: production's, with ceilings so high that only the work itself takes time.

A throttled measurement names its own ``CALL_RATE`` in the environment.
"""

from portal.settings import *  # noqa: F403

AUDIT_ANCHOR_FILE = ""  # the database is gone with its folder
VAULT_RATE = 100_000  # the portal takes at most 400 a second, which Key Vault documents; the sandbox has no such limit
