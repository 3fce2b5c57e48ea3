"""``python -m appliance.cli``: the same as ``scanside``."""

from appliance.cli import main

main()
