"""The box beside the scanner: receives, triages, tells, delivers."""

__version__ = "0.1.0"
