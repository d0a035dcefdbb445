"""What design.md promises about the tree: imports go one way, files stay short, nothing foreign is executed."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import resolve_name
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "nrccr"

# Who may import what of ours, by the longest matching module name; a name covers everything below it.
BOTTOM = tuple(
    f"nrccr.{name}"
    for name in ("errors", "files", "config", "limits", "distributed", "safeload", "standins", "yamlfile")
)
COMPUTE = (*BOTTOM, "nrccr.data", "nrccr.models", "nrccr.losses", "nrccr.objectives")
MAY_IMPORT = {
    **dict.fromkeys(BOTTOM, BOTTOM),
    "nrccr.data": (*BOTTOM, "nrccr.data"),
    "nrccr.losses": (*BOTTOM, "nrccr.losses"),
    "nrccr.models": (*BOTTOM, "nrccr.data.batch", "nrccr.models"),
    "nrccr.objectives": (*BOTTOM, "nrccr.data.batch", "nrccr.losses", "nrccr.models", "nrccr.objectives"),
    "nrccr.evaluation": (*COMPUTE, "nrccr.evaluation", "nrccr"),
    "nrccr.training": (*COMPUTE, "nrccr.evaluation", "nrccr.training", "nrccr"),
    "nrccr.cli": ("nrccr.*",),
    "nrccr.cli_studies": ("nrccr.*",),
    "nrccr.options": BOTTOM,
    "nrccr.commands": ("nrccr.*",),
    "nrccr.comparisons": ("nrccr.*",),
    "nrccr.systems": ("nrccr.*",),
    "nrccr.__main__": ("nrccr.*",),
}
# Everything else (nrccr/__init__.py, search, ...): all but training and the command line.
OTHERS_MAY_NOT = (
    "nrccr.training",
    "nrccr.cli",
    "nrccr.cli_studies",
    "nrccr.options",
    "nrccr.commands",
    "nrccr.comparisons",
    "nrccr.systems",
    "nrccr.__main__",
)

LONGEST_FILE = 350
VAGUE_NAMES = {"utils", "util", "common", "misc", "helpers"}
UNSAFE_IMPORTS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
UNSAFE_CALLS = {"eval", "exec", "__import__"}
THE_DOOR = "nrccr.safeload"  # the only module that calls torch.load or subclasses the unpickler
HEAVY = ("torch", "transformers", "accelerate", "omegaconf", "tensorboard", "safetensors", "numpy")


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


def within(name: str, places: tuple[str, ...]) -> bool:
    """Is `name` one of `places` or below one? The package's root covers itself only, `nrccr.*` everything."""
    return any(
        name == place or place == "nrccr.*" or (place != "nrccr" and name.startswith(place + ".")) for place in places
    )


def allowed(name: str, target: str) -> bool:
    rules = [place for place in MAY_IMPORT if within(name, (place,))]
    if not rules:
        return not within(target, OTHERS_MAY_NOT)
    return within(target, MAY_IMPORT[max(rules, key=len)])


def wrong_imports(root: Path) -> list[str]:
    known = modules(root)
    return [
        f"{name} imports {target}"
        for name, path in known.items()
        for target in sorted(imports(name, path, known))
        if not allowed(name, target)
    ]


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


@pytest.mark.parametrize("check", [wrong_imports, unsafe_files, long_files, vague_names, lonely_folders])
def test_package(check: Callable[[Path], list[str]]) -> None:
    assert check(PACKAGE) == []


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
        ("data/a.py", "import nrccr.losses.triplet", False),
        ("data/a.py", "from nrccr import losses", False),
        ("data/a.py", "from nrccr.data.batch import TextBatch", True),
        ("data/a.py", "from ..models import text", False),
        ("data/a.py", "from . import batch", True),
        ("data/a.py", "def late():\n    from nrccr.training import loop", False),
        ("losses/a.py", "from nrccr.safeload import load_weights", True),
        ("losses/a.py", "from nrccr.data import batch", False),
        ("config.py", "from nrccr.errors import UserError", True),
        ("config.py", "from nrccr.data import batch", False),
        ("models/a.py", "from nrccr.data.batch import TextBatch", True),
        ("models/a.py", "from nrccr.data import batch", True),
        ("models/a.py", "from nrccr.data.captions import read", False),
        ("models/a.py", "from nrccr.losses import triplet", False),
        ("objectives/a.py", "from nrccr.losses import triplet", True),
        ("objectives/a.py", "from nrccr.evaluation import metrics", False),
        ("evaluation/a.py", "from nrccr.objectives import nrccr", True),
        ("evaluation/a.py", "from nrccr.training import loop", False),
        ("training/a.py", "from nrccr.evaluation import metrics", True),
        ("training/a.py", "from nrccr.cli import main", False),
        ("training/a.py", "from nrccr import __version__", True),
        ("cli.py", "from nrccr.training import loop", True),
        ("__main__.py", "from nrccr.cli import main", True),
        ("__init__.py", "from nrccr.models import published", True),
        ("__init__.py", "from nrccr.training import loop", False),
        ("search/a.py", "from nrccr.evaluation import metrics", True),
        ("search/a.py", "import nrccr.training", False),
    ],
)
def test_import_check(file: str, line: str, good: bool, tmp_path: Path) -> None:
    folders = ("data", "losses", "models", "objectives", "training", "evaluation")
    root = tree(tmp_path, {**{f"{folder}/__init__.py": "" for folder in folders}, "data/batch.py": "", file: line})
    assert (wrong_imports(root) == []) is good


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
    assert unsafe_files(tree(tmp_path, {"safeload.py": text})) == []


@pytest.mark.parametrize("line", ["import dill", "pickle.load(file)", "pickle.loads(data)", "pickle.Unpickler(file)"])
def test_the_door_is_no_wider(line: str, tmp_path: Path) -> None:
    assert len(unsafe_files(tree(tmp_path, {"safeload.py": line}))) == 1


def test_size_name_and_folder_checks(tmp_path: Path) -> None:
    files = {"data/__init__.py": "", "data/utils.py": "x = 1\n" * 351, "models/__init__.py": "", "models/a.py": ""}
    root = tree(tmp_path, {**files, "models/b.py": "x = 1\n" * 350})
    assert long_files(root) == ["nrccr.data.utils"]
    assert vague_names(root) == ["nrccr.data.utils"]
    assert lonely_folders(root) == ["nrccr.data"]


def test_command_line_starts_without_heavy_imports() -> None:
    code = f"import sys, nrccr.cli; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=False)
    assert done.stderr == "" and done.stdout.strip() == "[]"
