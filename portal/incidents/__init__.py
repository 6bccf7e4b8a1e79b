"""What staff must know about: one open row for a cause and what it concerns, and one mail, however often it happens."""
