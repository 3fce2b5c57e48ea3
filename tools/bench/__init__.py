"""The figures that the design must reach, measured on the whole box over real associations: ``make bench``.

Each row is a file with one function ``measure(bench) -> list[Row]``; what rows share is in ``box.py`` (a box as its own
processes), ``watch.py`` (when rows were committed, seen from outside), ``images.py``, ``send.py`` and ``bare.py``.
"""
