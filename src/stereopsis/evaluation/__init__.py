"""Named protocols, runs that resume, reports and submissions."""
