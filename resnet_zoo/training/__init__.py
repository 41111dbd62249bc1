"""Training: from a row's published recipe to weights."""
