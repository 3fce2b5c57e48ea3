"""In a limited child: thousands of broken graphs through the gate's rules; says which raised what they must not."""

from __future__ import annotations

import random
from pathlib import Path

from engines.errors import PackageError
from engines.gate import check_graph, parse_graph


def handle(request, progress):
    good = Path(request["graph"]).read_bytes()
    rng = random.Random(request["seed"])
    passed, odd = 0, []
    for number in range(request["count"]):
        data = bytearray(good)
        for _ in range(rng.randint(1, 6)):
            at = rng.randrange(len(data))
            data[at : at + rng.choice((0, 1, 1, 1, 3))] = rng.randbytes(rng.choice((0, 1, 1, 1, 2)))
        try:
            check_graph(parse_graph(bytes(data)), memory_mb=256)
            passed += 1
        except PackageError:
            pass
        except Exception as error:  # noqa: BLE001 - what is looked for
            odd.append(f"{number}: {type(error).__name__}: {error}")
    return {"passed": passed, "odd": odd}
