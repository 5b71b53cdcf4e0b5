"""Pseudo-labels: any predictor as teacher, filters, and folders that any number of processes may fill."""
