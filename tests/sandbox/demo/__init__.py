"""The demo: the portal and the sandbox with eight example partners, from nothing (``make demo``)."""
