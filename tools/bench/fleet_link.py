"""What the fleet link costs the box: memory that it adds to the daemon's process, and processor time at rest.

``link_cost(seconds)`` starts a mosquitto, enrols a box, and lets a child import the daemon, then all of the fleet's
part, and keep a connection over TLS with its five stages and nothing to tell but health. It needs mosquitto and the
tests' kit.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_MB = 1e6
_WARM_S = 5.0


def link_cost(seconds: float = 60.0) -> dict[str, float]:
    """Measure.

    Returns:
        ``memory_mb`` private to the process that importing, connecting and waiting have added; ``import_mb`` of it for
        the code alone; ``cpu_percent`` of one core over ``seconds``.
    """
    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]
    from fleet_kit import Mosquitto
    from fleet_link_kit import DEVICE, enrol_with

    from appliance.fleet.device.identity import Broker
    from appliance.fleet.keys import DeviceKey
    from engines import signing

    broker = Mosquitto().start()
    try:
        with tempfile.TemporaryDirectory() as name:
            folder, key = Path(name), DeviceKey.generate()
            chain = broker.ca.issue(DEVICE, key=key).pem.encode()
            ways = [Broker(host="localhost", port=broker.port)]
            given = (folder / "fleet", key, chain, broker.ca.path.read_bytes(), signing.generate("online"), ways)
            enrol_with(*given)
            code = f"from bench.fleet_link import child; child({name!r}, {seconds!r})"
            done = subprocess.run(
                [sys.executable, "-c", code], cwd=ROOT / "tools", capture_output=True, text=True, check=False
            )
    finally:
        broker.close()
    if done.returncode:
        raise RuntimeError(done.stderr)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def child(folder: str, seconds: float) -> None:
    """The process that is measured."""
    sys.path.insert(0, str(ROOT))
    import appliance.daemon
    from appliance.clock import SystemClock
    from appliance.config import Config
    from appliance.stage import Beat, run_stage

    config = Config.model_validate({"state_path": folder, "fleet": {}, "packages": []})
    clock = SystemClock()
    store = appliance.daemon.Store.open(config.state_path, clock, reserve_bytes=0)
    store.journal.last_seq()
    if [name for name in sys.modules if name.startswith("paho")]:
        raise RuntimeError("paho is loaded without a link; what it costs would be left out")
    before = _private_mb()

    from appliance.box_acts import BoxActs
    from appliance.fleet.device.parts import fleet_parts

    imported = _private_mb()
    stop, bells = threading.Event(), {}
    tools = appliance.daemon.BoxTools(config, store, clock, settings=None, ports=lambda: (0, 0), on_restart=None)
    acts = BoxActs(config, store, tools, stop)
    parts = fleet_parts(config, store, clock, acts, lambda name: bells[name].set(), first_within_s=0)
    if parts.link is None:
        raise RuntimeError("the box is not enrolled")
    bells = {stage.name: threading.Event() for stage in parts.stages}
    threads = [
        threading.Thread(target=run_stage, args=(stage, Beat(stage, clock), stop, bells[stage.name]))
        for stage in parts.stages
    ]
    for thread in threads:
        thread.start()
    begin = time.monotonic()
    while not parts.link.is_connected:
        if time.monotonic() - begin > 60:
            raise RuntimeError("no connection within a minute")
        time.sleep(0.01)
    time.sleep(_WARM_S)
    used, begin = _cpu_s(), time.monotonic()
    time.sleep(seconds)
    share = (_cpu_s() - used) / (time.monotonic() - begin)
    after = _private_mb()
    stop.set()
    for bell in bells.values():
        bell.set()
    for thread in threads:
        thread.join()
    parts.close()
    store.close()
    told = {"memory_mb": after - before, "import_mb": imported - before, "cpu_percent": 100 * share, "seconds": seconds}
    sys.stdout.write(json.dumps({name: round(value, 3) for name, value in told.items()}) + "\n")


def _private_mb() -> float:
    """What this process alone holds in memory."""
    text = Path("/proc/self/smaps_rollup").read_text(encoding="ascii")
    rows = {line.split(":")[0]: int(line.split()[1]) for line in text.splitlines()[1:]}
    return (rows["Private_Clean"] + rows["Private_Dirty"]) * 1024 / _MB


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
