"""The networks: one file each, found by their names through the registry."""
