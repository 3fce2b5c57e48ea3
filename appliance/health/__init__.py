"""Is the box doing its work? Checks raise and clear coded issues; the watchdog is fed only by progress."""
