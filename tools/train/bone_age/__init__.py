"""How ``engines/models/bone-age`` is made, and a network of your own: ``python tools/train/bone_age --help``."""
