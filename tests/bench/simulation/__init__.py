"""The portal's own schedule on a clock of its own, against a Microsoft that is a few lines; see ``ninety_days``."""
