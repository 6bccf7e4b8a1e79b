"""Where refresh tokens live.

``base`` holds the protocol, ``local`` the embedded encrypted vault with its ``keys``, ``azure`` Azure Key Vault.
"""
