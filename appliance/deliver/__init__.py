"""Sending what destinations are owed: originals untouched, results as built, retried for ever."""
