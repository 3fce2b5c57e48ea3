"""The house rules that an import or a line of code can break: floors, walls, broad excepts, state, foreign paths."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CODE = sorted(path for folder in ("appliance", "engines") for path in (ROOT / folder).rglob("*.py"))

#: From the ground up. A part imports from floors below its own; those of one floor do not import each other, except on
#: the ground floor, where errors need records and the configuration needs both. engines stands beside the ground floor.
FLOORS = (
    {"records", "errors", "config", "clock", "settings", "commands", "ports"},
    {"store", "dicom", "report", "stage"},
    {"web"},
    {"intake", "triage", "deliver", "screen", "fleet", "health", "simulate"},
    {"box_fleet"},
    {"box_tools"},
    {"box_acts"},
    {"daemon"},
    {"cli"},
)
FLOOR = {part: number for number, parts in enumerate(FLOORS) for part in parts}

#: Third-party (and sqlite3) module: where it may be imported.
WALLS = {
    "pynetdicom": ("appliance/intake/", "appliance/deliver/", "appliance/simulate/"),
    "highdicom": ("appliance/report/",),
    "sqlite3": ("appliance/store/",),
    "starlette": ("appliance/web/", "appliance/screen/", "appliance/fleet/server/"),
    "onnxruntime": ("engines/backends/onnxruntime.py",),
    "onnx": ("engines/",),
    "tensorrt": ("engines/backends/",),
    "cuda": ("engines/backends/",),
    "pycuda": ("engines/backends/",),
    "cryptography": ("engines/signing.py", "appliance/fleet/", "appliance/web/tls.py"),
    "argon2": ("appliance/web/passwords.py",),
    "authlib": ("appliance/web/oidc.py",),
    "joserfc": ("appliance/web/oidc.py",),
    "grpc": ("engines/backends/kserve_client.py",),
    "google": ("engines/backends/kserve_messages.py",),
    "paho": ("appliance/fleet/",),
    "sqlalchemy": ("appliance/fleet/server/",),
    "alembic": ("appliance/fleet/server/",),
    "psycopg": ("appliance/fleet/server/",),
    "tuf": ("appliance/fleet/",),
    "securesystemslib": ("appliance/fleet/",),
    "prometheus_client": ("appliance/fleet/", "appliance/screen/metrics.py"),
    "scipy": ("engines/", "appliance/triage/worker", "appliance/dicom/pixels.py", "appliance/simulate/"),
    "gdcm": ("appliance/dicom/pixels.py",),
    "openjpeg": ("appliance/dicom/pixels.py",),
    "jpeg_ls": ("appliance/dicom/pixels.py",),
    "pylibjpeg": ("appliance/dicom/pixels.py",),
    # A test extra: the simulator writes HTJ2K with it where it is installed.
    "imagecodecs": ("appliance/simulate/",),
}
#: Where these may stand, they stand inside functions: importing the module must not load them.
LAZY = {
    "scipy": ("appliance/",),
    "gdcm": ("appliance/",),
    "openjpeg": ("appliance/",),
    "jpeg_ls": ("appliance/",),
    "pylibjpeg": ("appliance/",),
    "imagecodecs": ("appliance/",),
}
#: What an ADR or the list of dependencies allows beyond the standard library, by the name that is imported.
DEPENDENCIES = {
    *("pydicom", "pynetdicom", "numpy", "scipy", "cv2", "onnxruntime", "onnx", "pydantic", "yaml", "highdicom"),
    *("starlette", "uvicorn", "jinja2", "babel", "click", "rich", "psutil"),
    *("gdcm", "openjpeg", "jpeg_ls", "pylibjpeg", "imagecodecs"),
    "cryptography",
    # Accounts (docs/adr/0033); joserfc comes with Authlib.
    *("argon2", "authlib", "joserfc"),
    # The fleet; the extra server has what only its server needs.
    *("paho", "tuf", "securesystemslib", "prometheus_client", "sqlalchemy", "alembic", "psycopg"),
    # The extra kserve.
    *("grpc", "google"),
}
#: Where foreign bytes or code enter, and nowhere else: "file function" and why.
BROAD_EXCEPTS = {
    "appliance/dicom/message.py read_data_set": "a data set of foreign bytes",
    "appliance/dicom/pixels.py _Image._library": "decoders raise what they like over foreign bytes",
    "appliance/fleet/server/mqtt.py IngestWorker._commit": "messages of strangers in one transaction: each alone then",
    "appliance/fleet/device/transport.py _Client.loop_forever": "last frame of paho's thread: loud; that line ends",
    "appliance/intake/receive.py StoreOperation._attempt": "one object's bug or bytes must not end the association",
    "appliance/intake/receive.py StoreOperation._read_header": "header of foreign bytes",
    "appliance/intake/scp.py _Connection.run": "last frame of an association's thread: loud, and only that one ends",
    "appliance/report/child.py _Analysis.build": "what the limited child answers for",
    "appliance/stage.py run_stage": "the loop of every stage: loud, counted, tried again",
    "appliance/triage/desk.py Desk._add": "the worker's request loop",
    "appliance/triage/desk.py Desk._compare": "the worker's request loop",
    "appliance/triage/desk.py Desk._finish": "the worker's request loop",
    "appliance/triage/desk.py Desk._load": "the worker's request loop",
    "appliance/triage/engine_desk.py EngineDesk._build": "the builder's thread: loud, and the worker goes on",
    "appliance/web/app.py _LastResort.__call__": "what a page raises is answered, and told to the log wordless",
    "appliance/web/app.py _LastResort._answer": "the page that tells of a bug may have one",
    "engines/backends/onnxruntime.py OnnxRuntimeSession.__init__": "ONNX Runtime raises its own unrelated types",
    "engines/backends/onnxruntime.py OnnxRuntimeSession.run": "ONNX Runtime raises its own unrelated types",
    "engines/child.py main": "whatever the module raises is the child's answer",
    "engines/gate.py parse_graph": "the parser of a foreign graph",
    "engines/graph_memory.py memory_needs": "shape inference over a foreign graph",
    "engines/ports.py handle": "the parser of a foreign graph, and of the file of its weights",
    "engines/lowering.py read_graph": "protobuf raises its own unrelated type over foreign bytes",
}


@dataclass(frozen=True)
class Import:
    path: str
    line: int
    module: str
    lazy: bool

    def __str__(self) -> str:
        return f"{self.path}:{self.line} imports {self.module}"


def imports(path: Path) -> Iterator[Import]:
    shown = path.relative_to(ROOT).as_posix()
    package = list(path.relative_to(ROOT).with_suffix("").parts[:-1])

    def walk(node: ast.AST, *, lazy: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            modules: list[str] = []
            if isinstance(child, ast.Import):
                modules = [alias.name for alias in child.names]
            elif isinstance(child, ast.ImportFrom):
                base = package[: len(package) - child.level + 1] if child.level else []
                stem = ".".join([*base, *([child.module] if child.module else [])])
                # `from appliance import daemon` imports appliance.daemon.
                modules = [f"{stem}.{alias.name}" for alias in child.names]
            elif isinstance(child, ast.Call) and ast.unparse(child.func) in {
                "importlib.import_module",
                "import_module",
            }:
                modules = [a.value for a in child.args[:1] if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            yield from (Import(shown, child.lineno, module, lazy) for module in modules)
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from walk(child, lazy=lazy or inside)

    yield from walk(ast.parse(path.read_text("utf-8")), lazy=False)


IMPORTS = [found for path in CODE for found in imports(path)]


def part_of(module: str) -> str:
    """The part of the appliance that a dotted module belongs to; "" for the bare package."""
    names = module.split(".")
    return names[1] if len(names) > 1 else ""


@pytest.mark.req("R-HOUSE-01")
def test_every_part_of_the_appliance_has_a_floor():
    own = [path.relative_to(ROOT / "appliance") for path in CODE if path.is_relative_to(ROOT / "appliance")]
    parts = {path.parts[0].removesuffix(".py") for path in own}
    assert parts - set(FLOOR) <= {"__init__", "__main__"}


@pytest.mark.req("R-HOUSE-01")
def test_imports_go_down_only_and_siblings_meet_in_the_store():
    wrong = []
    for found in IMPORTS:
        if not found.path.startswith("appliance/") or not found.module.startswith("appliance."):
            continue
        own = Path(found.path).parts[1].removesuffix(".py")
        other = part_of(found.module)
        if own == other or own in {"__init__", "__main__"} or other not in FLOOR:
            continue
        if FLOOR[other] > FLOOR[own] or (FLOOR[other] == FLOOR[own] > 0):
            wrong.append(str(found))
    assert not wrong


@pytest.mark.req("R-HOUSE-01")
def test_engines_import_nothing_of_the_appliance():
    wrong = [str(found) for found in IMPORTS if found.path.startswith("engines/") and is_module(found, "appliance")]
    assert not wrong


@pytest.mark.req("R-HOUSE-01")
def test_the_ground_floor_does_not_reach_into_engines():
    ground = tuple(f"appliance/{part}{end}" for part in FLOORS[0] for end in (".py", "/"))
    assert not [str(found) for found in IMPORTS if found.path.startswith(ground) and is_module(found, "engines")]


@pytest.mark.req("R-HOUSE-01")
@pytest.mark.parametrize("module", WALLS)
def test_libraries_stay_behind_their_walls(module):
    wrong = [str(f) for f in IMPORTS if is_module(f, module) and not f.path.startswith(WALLS[module])]
    assert not wrong


@pytest.mark.req("R-HOUSE-01")
@pytest.mark.parametrize("module", LAZY)
def test_heavy_libraries_load_only_when_used(module):
    wrong = [str(f) for f in IMPORTS if is_module(f, module) and not f.lazy and f.path.startswith(LAZY[module])]
    # A worker module is loaded in the worker alone.
    assert not [line for line in wrong if not line.startswith("appliance/triage/worker")]


@pytest.mark.req("R-HOUSE-01")
def test_the_daemon_loads_no_inference_and_no_image_library():
    """What the text of the imports cannot show: what really is in memory once the daemon's module is."""
    if not (ROOT / "appliance" / "daemon.py").exists():
        pytest.skip("appliance/daemon.py is not written yet")
    # Not the decoders: pydicom itself looks for its plug-ins when it is imported. Ours are walled above.
    heavy = ["scipy", "cv2", "onnxruntime", "onnx", "highdicom"]
    code = f"import sys, appliance.daemon; print([m for m in {heavy!r} if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert shown.stdout.strip() == "[]"


@pytest.mark.req("R-HOUSE-17")
def test_nothing_is_imported_that_is_no_declared_dependency():
    wrong = []
    for found in IMPORTS:
        top = found.module.split(".")[0]
        if top in {"appliance", "engines"} or top in sys.stdlib_module_names:
            continue
        if top not in DEPENDENCIES:
            wrong.append(str(found))
    assert not wrong


def is_module(found: Import, module: str) -> bool:
    return found.module == module or found.module.startswith(module + ".")


def broad_excepts(path: Path) -> Iterator[str]:
    shown = path.relative_to(ROOT).as_posix()

    def walk(node: ast.AST, where: str) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            name = where
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                name = f"{where}.{child.name}".strip(".")
            if isinstance(child, ast.ExceptHandler):
                caught = child.type.elts if isinstance(child.type, ast.Tuple) else [child.type]
                is_broad = any(c is None or ast.unparse(c) in {"Exception", "BaseException"} for c in caught)
                # One that tidies up and raises again hides nothing.
                if is_broad and ast.unparse(child.body[-1]) != "raise":
                    yield f"{shown} {where}"
            yield from walk(child, name)

    yield from walk(ast.parse(path.read_text("utf-8")), "")


@pytest.mark.req("R-HOUSE-18")
def test_broad_excepts_stand_only_where_foreign_bytes_or_code_enter():
    """A new one is either made narrow or entered above with its reason; one that is gone is taken out."""
    found = {where for path in CODE for where in broad_excepts(path)}
    assert found - set(BROAD_EXCEPTS) == set()
    assert set(BROAD_EXCEPTS) - found == set()


#: Module names in lower case that are no state.
NO_STATE = {"log", "logger", "__all__", "__version__", "revision", "down_revision"}  # the last two: Alembic
CHANGES = {"append", "add", "update", "extend", "insert", "remove", "discard", "pop", "popitem", "clear", "setdefault"}


def module_state(path: Path) -> Iterator[str]:
    """Module-level names that are, or are used as, mutable state."""
    shown = path.relative_to(ROOT).as_posix()
    tree = ast.parse(path.read_text("utf-8"))
    names: set[str] = set()
    for node in tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        value = node.value if isinstance(node, ast.Assign) else None
        if isinstance(value, ast.Call) and ast.unparse(value.func) == "Table":
            continue  # of SQLAlchemy, by the name that it has in the database
        for name in (target.id for target in targets if isinstance(target, ast.Name)):
            names.add(name)
            if name.lstrip("_")[:1].islower() and name.lstrip("_") not in NO_STATE and not name.startswith("__"):
                yield f"{shown}:{node.lineno} {name}: a module-level variable; a constant is UPPER_CASE"
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            yield f"{shown}:{node.lineno} global {', '.join(node.names)}"
        owner = None
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CHANGES:
            owner = node.func.value
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
            owner = node.value
        if isinstance(owner, ast.Name) and owner.id in names and owner.id.isupper():
            yield f"{shown}:{node.lineno} changes the constant {owner.id}"


@pytest.mark.req("R-HOUSE-19")
def test_no_module_holds_mutable_state():
    assert not [line for path in CODE for line in module_state(path)]


@pytest.mark.req("R-HOUSE-19")
def test_only_the_command_line_prints():
    wrong = []
    for path in CODE:
        shown = path.relative_to(ROOT).as_posix()
        if shown.startswith("appliance/cli/"):
            continue
        calls = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]
        wrong += [f"{shown}:{call.lineno}" for call in calls if ast.unparse(call.func) == "print"]
    assert not wrong


def kept_files() -> list[Path]:
    """What git tracks or would track."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("this tree is no git checkout")
    return [ROOT / name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.req("R-HOUSE-19")
def test_no_tracked_file_names_a_machine_path_or_a_package_index():
    # In parts, so that this file does not find itself.
    foreign = [
        "/" + "work/",
        "/" + "root/",
        "/opt/" + "pypi",
        "/opt/" + "wheels",
        "pypi" + ".org",
        "python" + "hosted.org",
    ]
    wrong = []
    for path in kept_files():
        content = path.read_bytes()
        wrong += [f"{path.relative_to(ROOT)}: {text}" for text in foreign if text.encode() in content]
    assert not wrong


@pytest.mark.req("R-HOUSE-24", "R-HOUSE-07")
def test_onnx_runtime_reports_to_nobody_and_leaves_nothing_in_the_home_folder(tmp_path):
    """Official builds since 1.29 keep a device id below ~/.cache and send events over HTTPS, on by default."""
    code = (
        "import onnx, sys, time\n"
        "from onnx import helper as h, TensorProto as T\n"
        "value = lambda name: h.make_tensor_value_info(name, T.FLOAT, [2])\n"
        "graph = h.make_graph([h.make_node('Relu', ['x'], ['y'])], 'g', [value('x')], [value('y')])\n"
        "model = h.make_model(graph, opset_imports=[h.make_opsetid('', 17)], ir_version=8)\n"
        "from engines.backends.onnxruntime import OnnxRuntimeSession\n"
        "session = OnnxRuntimeSession(model.SerializeToString(), name='g')\n"
        "session.warmup()\n"
    )
    env = {key: value for key, value in os.environ.items() if key not in {"ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"}}
    home = tmp_path / "home"
    home.mkdir()
    subprocess.run([sys.executable, "-c", code], env={**env, "HOME": str(home)}, cwd=ROOT, check=True)
    assert list(home.rglob("*")) == []
