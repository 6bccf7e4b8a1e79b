"""A local Microsoft: Entra, Partner Center, Microsoft Graph and Key Vault in one process on this machine.

It behaves as Microsoft documents, strict where that is confirmed, with switches where it is not. It imports nothing of
the portal but the list of clouds: an imitation that shared our code would share our mistakes. Only ``demo``, which runs
the portal beside it, is made of the portal.
"""
