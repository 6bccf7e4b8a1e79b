"""How we talk to Microsoft: clouds, identifiers, secrets, errors and HTTP.

Nothing in this package knows Django, a setting or a model; everything arrives by argument.
"""
