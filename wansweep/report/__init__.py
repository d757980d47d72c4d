"""Frames to documents. Reads nothing, writes nothing but what it returns."""
