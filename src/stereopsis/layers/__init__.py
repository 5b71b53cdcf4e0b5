"""What two or more networks share; nothing here knows a paper by name."""
