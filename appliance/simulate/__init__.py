"""Stand-ins for the neighbours of the box: phantoms with known truth, a scanner, a PACS.

Used by the demo, the set-up wizard, the self-test and the tests. Nothing here is a patient.
"""
