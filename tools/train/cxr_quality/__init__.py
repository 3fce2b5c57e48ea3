"""How ``engines/models/cxr-quality`` is made: ``python tools/train/cxr_quality --data FOLDER``."""
