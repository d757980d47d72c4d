"""The seed format: the Markdown report that wansweep grew from, read and written byte for byte, with its own arithmetic."""
