"""What must work before a partner can be served: every setting and every dependency, tried in order.

``steps`` has the shape of a step and of what it finds, ``ground`` the steps on this machine, ``vaults`` those of the
vault, ``away`` those at Microsoft, ``examining`` the order in which they are tried. ``sample`` reads the configuration
of Microsoft's own sample. Nothing is changed but one entry of the vault that belongs to the doctor.
"""
