"""wansweep: decide how to run Wan2.2 video models, from measurements."""

__version__ = "0.1.0"
