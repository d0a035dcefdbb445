"""What design.md promises about the tree: imports go one way, files stay short, nothing foreign is executed."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import resolve_name
from pathlib import Path
from typing import Any

import pytest

from nrccr.systems.table import SYSTEMS

PACKAGE = Path(__file__).resolve().parents[1] / "nrccr"

# Rooms from the top down: a room imports those below it alone. A room is a folder or a module right under nrccr/.
ORDER = (
    *("__main__", "cli", "search", "report", "integrations", "__init__", "systems"),
    *("translation", "features", "evaluation", "training", "models", "losses", "data"),
    *("distributed", "safeload", "processes", "config", "files", "terminal", "extras", "errors", "sizes", "exchange"),
)
FLOORS = 9
LONGEST_SIGNATURE = 8
PUBLISHED_SIGNATURES = ("nrccr.evaluation.normalise.normalise",)  # arguments that users know it by
LONGEST_FILE = 350
VAGUE_NAMES = {"utils", "util", "common", "misc", "helpers"}
UNSAFE_IMPORTS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
UNSAFE_CALLS = {"eval", "exec", "__import__"}
THE_DOOR = "nrccr.safeload.unpickle"  # the only module that calls torch.load or subclasses the unpickler
HEAVY = ("torch", "transformers", "accelerate", "pydantic", "tensorboard", "safetensors", "numpy")


def module_name(path: Path, root: Path) -> str:
    """`nrccr/data/batch.py` -> `nrccr.data.batch`; a package's `__init__.py` has the package's name."""
    parts = path.relative_to(root.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules(root: Path) -> dict[str, Path]:
    return {module_name(path, root): path for path in sorted(root.rglob("*.py"))}


def imports(name: str, path: Path, known: dict[str, Path]) -> set[str]:
    """Modules of ours that a file imports, at its top, in a function or for types only."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = resolve_name("." * node.level + (node.module or ""), package)
            inner = [f"{source}.{alias.name}" for alias in node.names]
            found.update(name if name in known else source for name in inner)
    return {target for target in found if target.split(".")[0] == "nrccr"}


def graph(root: Path) -> dict[str, set[str]]:
    """Module -> modules of ours that it imports."""
    known = modules(root)
    return {name: {target for target in imports(name, path, known) if target in known} for name, path in known.items()}


def room_of(name: str) -> str:
    """The room of a module; `__init__` is the package's own file."""
    return name.split(".")[1] if "." in name else "__init__"


def rooms(root: Path) -> dict[str, set[str]]:
    """Room -> rooms that it imports."""
    found: dict[str, set[str]] = {}
    for name, targets in graph(root).items():
        own = found.setdefault(room_of(name), set())
        own |= {room_of(target) for target in targets} - {room_of(name)}
    return found


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Groups of nodes that reach one another."""
    reach = {node: set(targets) for node, targets in arrows.items()}
    for middle in arrows:
        for reached in reach.values():
            if middle in reached:
                reached |= reach.get(middle, set())
    tied = {node: sorted(other for other in reached if node in reach.get(other, ())) for node, reached in reach.items()}
    return sorted({tuple(found): found for found in tied.values() if found}.values())


def floor_of(room: str, arrows: dict[str, set[str]]) -> int:
    """The length of the longest chain of rooms from this one down; arrows without circles."""
    return 1 + max((floor_of(target, arrows) for target in arrows.get(room, ())), default=0)


def room_circles(root: Path) -> list[list[str]]:
    return circles(rooms(root))


def module_circles(root: Path) -> list[list[str]]:
    return circles(graph(root))


def wrong_imports(root: Path) -> list[str]:
    """Imports that go up, and papers that import one another."""
    wrong = []
    for name, targets in graph(root).items():
        paper = name.split(".")[2] if name.startswith("nrccr.systems.") and name.count(".") > 2 else None
        for target in sorted(targets):
            up = room_of(name) != room_of(target) and ORDER.index(room_of(name)) >= ORDER.index(room_of(target))
            parts = target.split(".")
            other = paper and parts[:2] == ["nrccr", "systems"] and len(parts) > 3 and parts[2] != paper
            if up or other:
                wrong.append(f"{name} imports {target}")
    return wrong


def asks_for_systems(root: Path) -> list[str]:
    """Decisions on a system's name outside `systems`: comparisons, choices by a dict's key or a pattern."""
    found = []
    for name, path in modules(root).items():
        if room_of(name) == "systems":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            parts: list[ast.AST | None] = []
            if isinstance(node, ast.Compare):
                parts = [node.left, *node.comparators]
            elif isinstance(node, ast.Dict):
                parts = [*node.keys]
            elif isinstance(node, ast.MatchValue):
                parts = [node.value]
            inner = (leaf for part in parts if part is not None for leaf in ast.walk(part))
            if any(isinstance(leaf, ast.Constant) and leaf.value in SYSTEMS for leaf in inner):
                found.append(f"{name}:{node.lineno}")
    return found


def long_signatures(root: Path) -> list[str]:
    """Functions with more parameters than a reader can keep in mind; commands, with published options, are exempt."""
    found = []
    for name, path in modules(root).items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef):
                continue
            command = room_of(name) == "cli" and node.name == name.rpartition(".")[2]
            every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            count = len([argument for argument in every if argument.arg not in ("self", "cls")])
            if count > LONGEST_SIGNATURE and not command and f"{name}.{node.name}" not in PUBLISHED_SIGNATURES:
                found.append(f"{name}.{node.name}: {count}")
    return found


def unsafe_code(name: str, tree: ast.AST) -> Iterator[str]:
    """Ways to run what was read, to leave the door, or to tie code to one device."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if name != THE_DOOR or alias.name != "pickle"]
            yield from (imported for imported in names if imported.split(".")[0] in UNSAFE_IMPORTS)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in UNSAFE_IMPORTS:
            yield str(node.module)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in UNSAFE_CALLS or called.endswith(".cuda"):
                yield f"{called}("
            if called == "torch.load" and name != THE_DOOR:
                yield "torch.load("
            if called in ("pickle.load", "pickle.loads", "pickle.Unpickler"):  # unrestricted ones, in any module
                yield f"{called}("
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if options.get("allow_pickle", "False") != "False":
                yield "allow_pickle"
            if called == "print":
                yield "print("


def unsafe_files(root: Path) -> list[str]:
    return [
        f"{name}: {what}"
        for name, path in modules(root).items()
        for what in unsafe_code(name, ast.parse(path.read_text(encoding="utf-8")))
    ]


def long_files(root: Path) -> list[str]:
    return [name for name, path in modules(root).items() if len(path.read_text("utf-8").splitlines()) > LONGEST_FILE]


def vague_names(root: Path) -> list[str]:
    return [name for name in modules(root) if VAGUE_NAMES & set(name.split("."))]


def lonely_folders(root: Path) -> list[str]:
    """Folders that hold one module beside `__init__.py` and nothing else: they should be a file."""
    folders = {module_name(path, root): path.parent for path in root.glob("*/**/__init__.py")}
    return [name for name, folder in folders.items() if len([*folder.glob("*.py"), *folder.glob("*/__init__.py")]) <= 2]


CHECKS = (
    *(wrong_imports, room_circles, module_circles, asks_for_systems, long_signatures),
    *(unsafe_files, long_files, vague_names, lonely_folders),
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_package(check: Callable[[Path], list[Any]]) -> None:
    assert check(PACKAGE) == []


def test_floors() -> None:
    arrows = rooms(PACKAGE)
    assert set(arrows) == set(ORDER)
    assert max(floor_of(room, arrows) for room in arrows) <= FLOORS


def tree(root: Path, files: dict[str, str]) -> Path:
    """A small package to prove a check on."""
    for name, text in files.items():
        path = root / "nrccr" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root / "nrccr"


@pytest.mark.parametrize(
    ("file", "line", "good"),
    [
        ("data/a.py", "from nrccr.models import b", False),
        ("data/a.py", "from ..models import b", False),
        ("data/a.py", "import nrccr.models.b", False),
        ("data/a.py", "def late():\n    from nrccr.models import b", False),
        ("data/a.py", "from . import b", True),
        ("data/a.py", "from nrccr.config import schema", True),
        ("models/a.py", "from nrccr.data import b", True),
        ("config/a.py", "from nrccr.data.b import c", False),
        ("systems/one/a.py", "from nrccr.systems.two import b", False),
        ("systems/one/a.py", "from nrccr.systems import base", True),
        ("systems/base.py", "from nrccr.systems.two import b", True),
        ("systems/one/a.py", "from nrccr.models import b", True),
        ("cli/a.py", "from nrccr.systems.two import b", True),
        ("__init__.py", "from nrccr.cli import a", False),
    ],
)
def test_import_check(file: str, line: str, good: bool, tmp_path: Path) -> None:
    names = ("data/b", "models/b", "config/schema", "systems/base", "systems/one/b", "systems/two/b", "cli/a")
    files = {f"{name}.py": "" for name in names} | {
        f"{folder}/__init__.py": ""
        for folder in ("data", "models", "config", "systems", "systems/one", "systems/two", "cli")
    }
    assert (wrong_imports(tree(tmp_path, {**files, file: line})) == []) is good


def test_circles_and_floors_by_hand(tmp_path: Path) -> None:
    files = {"a.py": "import nrccr.b", "b.py": "import nrccr.c", "c.py": "", "d.py": "import nrccr.b"}
    root = tree(tmp_path, {"__init__.py": "", **files})
    arrows = rooms(root)
    assert circles(arrows) == [] and [floor_of(room, arrows) for room in "abcd"] == [3, 2, 1, 3]
    (root / "c.py").write_text("def late():\n    import nrccr.a")
    assert room_circles(root) == [["a", "b", "c"]] and module_circles(root) == [["nrccr.a", "nrccr.b", "nrccr.c"]]


@pytest.mark.parametrize(
    ("line", "good"),
    [
        ("if model == 'mlcmr': pass", False),
        ("if config.model in ('nrccr', 'c2kd'): pass", False),
        ("make = {'nrccr': f, 'c2kd': g}[config.model]", False),
        ("match model:\n    case 'mlcmr': pass", False),
        ("row = {'model': 'mlcmr'}", True),
        ("if model == other: pass", True),
    ],
)
def test_name_check(line: str, good: bool, tmp_path: Path) -> None:
    assert (asks_for_systems(tree(tmp_path, {"a.py": line})) == []) is good
    assert asks_for_systems(tree(tmp_path / "inside", {"systems/a.py": line})) == []


def test_signature_check(tmp_path: Path) -> None:
    names = ", ".join(f"p{number}" for number in range(9))
    text = f"def many({names}): ...\nclass A:\n    def few(self, p0, *, {names.partition(', ')[2][:-4]}): ...\n"
    assert long_signatures(tree(tmp_path, {"a.py": text})) == ["nrccr.a.many: 9"]
    assert long_signatures(tree(tmp_path / "b", {"cli/many.py": text})) == []


@pytest.mark.parametrize(
    ("line", "good"),
    [
        ("model.eval()", True),
        ("eval('1')", False),
        ("exec('1')", False),
        ("import pickle", False),
        ("from pickle import load", False),
        ("x.cuda()", False),
        ("torch.cuda.is_available()", True),
        ("torch.load('x', weights_only=True)", False),
        ("np.load('x', allow_pickle=True)", False),
        ("np.load('x', allow_pickle=False)", True),
        ("print('x')", False),
    ],
)
def test_unsafe_code_check(line: str, good: bool, tmp_path: Path) -> None:
    assert (unsafe_files(tree(tmp_path, {"a.py": line})) == []) is good


def test_the_door_may_load(tmp_path: Path) -> None:
    text = "import pickle\ntorch.load('x', weights_only=True)\nclass Own(pickle.Unpickler): ...\nOwn(file).load()"
    assert unsafe_files(tree(tmp_path, {"safeload/unpickle.py": text})) == []


@pytest.mark.parametrize("line", ["import dill", "pickle.load(file)", "pickle.loads(data)", "pickle.Unpickler(file)"])
def test_the_door_is_no_wider(line: str, tmp_path: Path) -> None:
    assert len(unsafe_files(tree(tmp_path, {"safeload/unpickle.py": line}))) == 1


def test_size_name_and_folder_checks(tmp_path: Path) -> None:
    files = {"data/__init__.py": "", "data/utils.py": "x = 1\n" * 351, "models/__init__.py": "", "models/a.py": ""}
    root = tree(tmp_path, {**files, "models/b.py": "x = 1\n" * 350})
    assert long_files(root) == ["nrccr.data.utils"]
    assert vague_names(root) == ["nrccr.data.utils"]
    assert lonely_folders(root) == ["nrccr.data"]


def test_command_line_starts_without_heavy_imports() -> None:
    code = f"import sys, nrccr.cli.app; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=False)
    assert done.stderr == "" and done.stdout.strip() == "[]"
