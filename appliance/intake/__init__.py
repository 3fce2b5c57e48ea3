"""Receiving: the C-STORE SCP and when a series is complete."""
