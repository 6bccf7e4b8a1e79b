"""The exit codes of the consent commands. Scripts depend on them, so none ever gets another meaning (R-33)."""

EXIT_SOME_FAILED = 1
EXIT_USAGE = 2
EXIT_SYSTEMIC = 3
EXIT_CONTAINED = 4
