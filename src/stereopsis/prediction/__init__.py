"""Predictors: networks, classical matching, exported files, and what wraps them."""
