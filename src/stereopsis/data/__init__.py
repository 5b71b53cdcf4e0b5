"""Data sets: sources list files, one class opens pixels."""
