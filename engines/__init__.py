"""Packages and engines: numpy in, numpy out; knows nothing of the appliance."""
