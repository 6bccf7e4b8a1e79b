"""Moving in: what a vendor brings along, which is partners in a file and refresh tokens that they gave before."""
