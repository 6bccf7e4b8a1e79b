"""Core files hold everything that a process knows, so there are none (S-38). Knows no Django."""

from __future__ import annotations

import resource


def forbid_core_files() -> None:
    """Forbid core files to this process and all that it starts; neither can allow them again."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
