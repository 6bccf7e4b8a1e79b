"""The emergency stop: from the second on in which somebody contains, no process hands out, renews or uses a token.

``gate`` is what every process asks before a token is used; ``service`` turns the stop on and off.
"""
