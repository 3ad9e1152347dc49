"""The import rules between the rooms, checked on the source and in fresh interpreters."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "flowmbpo"
ROOMS = sorted(entry.name for entry in PACKAGE.iterdir() if (entry / "__init__.py").is_file())

# What a room may import from other rooms. `errors` is open to all.
MAY_IMPORT = {
    "spec": set(),
    "physics": set(),
    "models": set(),
    "runs": set(),
    "tracking": {"spec", "runs"},
    "reports": {"spec", "runs", "tracking"},
    "envs": {"spec", "physics"},
    "algorithms": {"spec", "models"},
    "training": {"spec", "runs", "envs", "models", "algorithms", "tracking"},
    "cluster": {"spec", "runs", "tracking"},
    "cli": {"spec", "runs", "tracking", "reports"},  # at the top of a module; inside functions anything
}
# Third-party packages that only the named rooms may import, anywhere in a module.
HEAVY = {
    "warp": {"physics", "envs"},
    "torch": {"envs", "models", "algorithms", "runs", "training", "cli"},
    "mlflow": {"tracking"},
    "submitit": {"cluster"},
}
# And these nowhere at the top of a module that the command line loads.
LAZY = {"torch", "warp", "mlflow", "pandas", "matplotlib", "scipy", "submitit", "gymnasium"}


def modules(room: str) -> list[Path]:
    return sorted((PACKAGE / room).rglob("*.py"))


def imports(path: Path) -> list[tuple[str, bool]]:
    """(module, at the top level?) of every import; type-checking blocks do not count, they never run."""
    found: list[tuple[str, bool]] = []

    def visit(node: ast.AST, top: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            if isinstance(child, ast.Import):
                found.extend((alias.name, top) for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.level == 0 and child.module:
                if child.module == "flowmbpo":
                    found.extend((f"flowmbpo.{alias.name}", top) for alias in child.names)
                else:
                    found.append((child.module, top))
            inner = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            visit(child, top and not inner)

    visit(ast.parse(path.read_text(encoding="utf-8")), True)
    return found


def test_every_room_has_a_rule():
    assert set(ROOMS) == set(MAY_IMPORT)


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_only_what_they_may(room):
    wrong = []
    for path in modules(room):
        for module, top in imports(path):
            parts = module.split(".")
            if parts[0] != "flowmbpo" or len(parts) < 2 or parts[1] not in ROOMS or parts[1] == room:
                continue
            if parts[1] in MAY_IMPORT[room] or (room == "cli" and not top):
                continue
            wrong.append(f"{path.relative_to(PACKAGE)} imports {module}")
    assert not wrong


@pytest.mark.parametrize("room", ROOMS)
def test_heavy_packages_stay_in_their_rooms(room):
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {module}"
        for path in modules(room)
        for module, _ in imports(path)
        if room not in HEAVY.get(module.split(".")[0], {room})
    ]
    assert not wrong


def test_mlflow_is_imported_by_few_files():
    users = {
        path.name
        for path in modules("tracking")
        if any(module.split(".")[0] == "mlflow" for module, _ in imports(path))
    }
    assert users
    assert all(name.startswith("mlflow_") for name in users), users


# Files of `runs` that hold tensors; the others import these inside functions.
TENSOR_FILES = {"tensors.py", "state_tree.py"}


@pytest.mark.parametrize("room", ["cli", "spec", "runs", "tracking", "reports", "cluster"])
def test_no_heavy_import_at_the_top(room):
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {module}"
        for path in modules(room)
        if not (room == "runs" and path.name in TENSOR_FILES)
        for module, top in imports(path)
        if top and module.split(".")[0] in LAZY
    ]
    assert not wrong


def test_no_cycles_between_rooms():
    edges = {
        room: {
            module.split(".")[1]
            for path in modules(room)
            for module, _ in imports(path)
            if module.startswith("flowmbpo.") and module.split(".")[1] in ROOMS
        }
        - {room}
        for room in ROOMS
    }

    def reaches(start: str, goal: str, seen: frozenset[str] = frozenset()) -> bool:
        return any(nxt == goal or reaches(nxt, goal, seen | {nxt}) for nxt in edges[start] - seen if nxt not in seen)

    assert not [room for room in ROOMS if reaches(room, room)]


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["list"], ["validate"], ["run", "--help"]])
def test_light_commands_load_nothing_heavy(arguments):
    program = (
        "import sys\n"
        f"sys.argv = ['flowmbpo', *{arguments!r}]\n"
        "from flowmbpo.cli.app import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        f"loaded = {sorted(LAZY)!r}\n"
        "print('LOADED', [name for name in loaded if name in sys.modules])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=PACKAGE.parent
    )
    assert result.stdout.endswith("LOADED []\n"), result.stdout + result.stderr


def test_help_looks_for_no_extensions():
    """They are found with the schema, by reading what every installed package says of itself."""
    program = "import sys, flowmbpo.cli.app; print('flowmbpo.spec.schema' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_no_command_imports_another():
    from flowmbpo.cli.app import COMMANDS

    commands = {f"flowmbpo.cli.{function.split('.')[0]}" for function in COMMANDS.values()} | {"flowmbpo.cli.bench"}
    wrong = [
        f"{path.name} imports {module}"
        for path in modules("cli")
        if path.name != "app.py"
        for module, _ in imports(path)
        if module in commands
    ]
    assert not wrong


def test_looking_at_a_run_loads_nothing_heavy():
    program = "import sys, flowmbpo.runs.checkpoint, flowmbpo.runs.journal, flowmbpo.runs.lock; print(set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not LAZY & ast.literal_eval(result.stdout)


def test_physics_does_not_know_torch():
    program = "import sys, flowmbpo.physics.ant; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_training_never_imports_torchs_compiler():
    """`torch.optim` and a few other doors lead to it; it takes a second of every start, and nothing here compiles."""
    program = (
        "import sys\n"
        "from tiny import tiny\n"
        "from flowmbpo.training.builder import build\n"
        "algorithm = build(tiny(), 0, 'cpu').algorithm\n"
        "for epoch in range(2):\n"
        "    algorithm.begin_epoch(epoch)\n"
        "    for _, phase in algorithm.phases: phase()\n"
        "print(algorithm.model_learner.updates, 'torch._dynamo' in sys.modules)"
    )
    folder = Path(__file__).parent / "training"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=folder)
    updates, imported = found.stdout.split()
    assert int(updates) > 0
    assert imported == "False"


@pytest.mark.parametrize("room", ROOMS)
def test_text_is_read_and_written_in_utf8(room):
    """Whatever the user's locale is: every call that would ask it names an encoding (or bytes) instead."""
    for path in modules(room):
        for call in (
            node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)
        ):
            name = ast.unparse(call.func).rpartition(".")[2]
            words = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            where = f"{path}:{call.lineno}"
            if name in ("read_text", "write_text") or words.get("text") == "True":
                assert "encoding" in words, where
            elif ast.unparse(call.func) == "open" or (name == "open" and ast.unparse(call.func).startswith("path.")):
                modes = [arg.value for arg in call.args if isinstance(arg, ast.Constant)]
                assert "encoding" in words or any("b" in str(mode) for mode in modes), where
