"""How ``engines/models/cxr-triage`` is made: ``python tools/train/cxr --data FOLDER``."""
