"""The figures of the fleet: ``python tools/bench_fleet``."""
