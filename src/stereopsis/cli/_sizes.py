"""Sizes as users write them."""

from __future__ import annotations


def parse_size(text: str) -> tuple[int, int]:
    """(height, width) of WIDTHxHEIGHT; ValueError otherwise."""
    from stereopsis.io.headers import MAX_PIXELS

    width, x, height = text.lower().partition("x")
    if not (x and width.isdigit() and height.isdigit() and int(width) >= 16 and int(height) >= 16):
        raise ValueError(f"the size {text!r} is not WIDTHxHEIGHT of at least 16x16: write 640x480, say")
    if int(width) * int(height) > MAX_PIXELS:
        raise ValueError(f"the size {text} is absurd: images have at most {MAX_PIXELS // 10**6} megapixels")
    return int(height), int(width)
