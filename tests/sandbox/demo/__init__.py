"""The demo: the portal and the sandbox with six example partners, from nothing (``make demo``)."""
