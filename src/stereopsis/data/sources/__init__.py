"""One small function for each data set: (root, split) -> list of PairFiles."""
