"""What staff see of one partner and of one customer: values, worked out with a fixed number of queries."""
