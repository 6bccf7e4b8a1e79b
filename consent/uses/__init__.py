"""The ledger of uses: one row for each access token that is given out, and what can be read off it.

``book`` keeps it, ``touched`` answers "was I touched?", ``unusual`` looks for what never was before.
"""
