"""Who did what: append only, chained, never with a secret in it (S-55 to S-58)."""
