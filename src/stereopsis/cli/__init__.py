"""One program; a file for each verb."""
