"""Procedural scenes rendered to stereo pairs with exact truth."""
