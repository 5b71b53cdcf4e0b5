"""How long predictors take and how much memory, side by side on this machine."""
