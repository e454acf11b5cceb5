"""What a reviewer would say twice is said here once; each rule is itself tried on a bad snippet."""

import ast
import io
import json
import re
import tokenize
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import pytest

from demo.process import ROOT

FILE_LINES_MAX: Final = 400
FUNCTION_LINES_MAX: Final = 60

NPM_FOLDERS: Final = (ROOT / "tests" / "interop", ROOT / "bench" / "peers")
ROOMS: Final = ("routstr", "tests", "demo", "bench", "migrations")
EXACT_ROOMS: Final = ("routstr/core", "routstr/ecash", "routstr/ledger")
PURE_ROOMS: Final = ("routstr/core", "routstr/ecash")
DIVIDING_FILE: Final = "routstr/core/money.py"
ENTRIES: Final = {"routstr.__main__"}

Rule = Callable[[str], Iterator[str]]


# ── the rules: text in, complaints out ────────────────────────────────────────────────────────


def long_file(text: str) -> Iterator[str]:
    """A file that does not fit a head."""
    if (lines := len(text.splitlines())) > FILE_LINES_MAX:
        yield f"1: {lines} lines, at most {FILE_LINES_MAX}"


def long_function(text: str) -> Iterator[str]:
    """A function that does not fit a head."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                yield f"{node.lineno}: {node.name} has {lines} lines, at most {FUNCTION_LINES_MAX}"


def inexact(text: str) -> Iterator[str]:
    """A float or a true division: money would be rounded. Seconds may be floats where a name in
    `_s` says so, paths are joined by `/ "name"`, and `# inexact: reason` excuses a line."""
    tree, lines = ast.parse(text), text.splitlines()
    times = {id(each) for node in ast.walk(tree) for each in values_in_seconds(node)}
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=float()) if id(node) not in times:
                complaint = f"the float {node.value!r}"
            case ast.BinOp(op=ast.Div(), right=right) if not is_text(right):
                complaint = "a true division"
            case ast.AugAssign(op=ast.Div()):
                complaint = "a true division"
            case ast.Call(func=ast.Name(id="float")):
                complaint = "a call of float"
            case _:
                continue
        if not re.search(r"# inexact: \S", lines[node.lineno - 1]):
            yield f"{node.lineno}: {complaint}"


def values_in_seconds(node: ast.AST) -> Iterator[ast.AST]:
    """The values that a name in `_s` is given: assigned, passed, or as a default."""
    match node:
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
            pairs = [(name, value)]
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            pairs = [(name, value)]
        case ast.keyword(arg=str(name), value=value):
            pairs = [(name, value)]
        case ast.arguments():
            positional = [*node.posonlyargs, *node.args]
            late = positional[len(positional) - len(node.defaults) :]
            named = zip([*late, *node.kwonlyargs], [*node.defaults, *node.kw_defaults], strict=True)
            pairs = [(each.arg, value) for each, value in named if value is not None]
        case _:
            return
    yield from (value for name, value in pairs if name.lower().endswith("_s"))


def is_text(node: ast.expr) -> bool:
    """Whether an operand is text on the face of it, so that `/` joins a path."""
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def waits(text: str) -> Iterator[str]:
    """Anything asynchronous: a pure rule is a plain function."""
    kinds = ast.Await | ast.AsyncFunctionDef | ast.AsyncFor | ast.AsyncWith
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, kinds):
            yield f"{node.lineno}: asynchronous"


def excused_without_reason(text: str) -> Iterator[str]:
    """A switched-off check that does not name the check and say why."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT:
            continue
        if "noqa" in token.string and not re.search(
            r"# noqa: [A-Z]+\d+(, [A-Z]+\d+)* - \S", token.string
        ):
            yield f"{token.start[0]}: want `# noqa: CODE - reason`"
        if "type: ignore" in token.string and not re.search(
            r"# type: ignore\[[a-z-]+(, ?[a-z-]+)*\] +# \S", token.string
        ):
            yield f"{token.start[0]}: want `# type: ignore[code]  # reason`"


def names_a_source(text: str) -> Iterator[str]:
    """A lock line that says where packages come from; whoever installs chooses that."""
    requirement = re.compile(r"[a-z0-9][a-z0-9._-]*==[A-Za-z0-9.!+_-]+( ; [^/:@]+)? \\")
    rest = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?|    #( .*)?")
    for number, line in enumerate(text.splitlines(), start=1):
        is_link = re.search(r"://| @ |index|find-links|\w\.(com|dev|io|net|org)\b", line)
        if is_link or not (requirement.fullmatch(line) or rest.fullmatch(line)):
            yield f"{number}: {line}"


def names_a_registry(text: str) -> Iterator[str]:
    """An npm package that says where it comes from, or whose content no hash is known of."""
    for name, package in json.loads(text)["packages"].items():
        is_itself = name == ""
        is_hashed = re.fullmatch(r"sha512-[A-Za-z0-9+/]{86}==", package.get("integrity", ""))
        if "resolved" in package or not (is_itself or is_hashed):
            yield f"1: {name}"


def names_a_machine(text: str) -> Iterator[str]:
    """A path that exists on its author's machine alone."""
    for number, line in enumerate(text.splitlines(), start=1):
        if re.search(r"(?<![\w.:/-])/(root|home|work|Users|opt)/\w", line):
            yield f"{number}: {line.strip()}"


def dead(modules: dict[str, str], readers: Iterable[str]) -> Iterator[str]:
    """A module, of `modules` by dotted name, that no reader and no other module imports."""
    imported = set(ENTRIES)
    for text in readers:
        imported |= imports(text)
    for name, text in modules.items():
        imported |= imports(text) - {name}
    yield from sorted(set(modules) - imported)


def imports(text: str) -> set[str]:
    """Every dotted name that a module's imports could mean."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Import():
                found |= {alias.name for alias in node.names}
            case ast.ImportFrom(module=str(module)):
                found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found


# ── on the tree ───────────────────────────────────────────────────────────────────────────────


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def complaints(rule: Rule, paths: Iterable[Path]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{complaint}"
        for path in paths
        for complaint in rule(path.read_text(encoding="utf-8"))
    ]


def test_files_fit_a_head() -> None:
    assert complaints(long_file, python_files(*ROOMS)) == []


def test_scripts_and_templates_fit_a_head() -> None:
    pages = ROOT / "routstr" / "web" / "pages"
    written = [*(pages / "static").glob("*.js"), *(pages / "templates").rglob("*.html")]
    paths = [path for path in written if not path.name.endswith(".min.js")]
    assert complaints(long_file, sorted(paths)) == []


def test_functions_fit_a_head() -> None:
    flat_lists = ROOT / "migrations" / "versions"  # a migration is a list of columns, read once
    paths = [path for path in python_files(*ROOMS) if path.parent != flat_lists]
    assert complaints(long_function, paths) == []


def test_money_is_exact() -> None:
    paths = [path for path in python_files(*EXACT_ROOMS) if path != ROOT / DIVIDING_FILE]
    assert complaints(inexact, paths) == []


def test_pure_rooms_never_wait() -> None:
    assert complaints(waits, python_files(*PURE_ROOMS)) == []


def test_every_excuse_has_a_reason() -> None:
    assert complaints(excused_without_reason, python_files(*ROOMS)) == []


def test_locks_name_packages_and_hashes_only() -> None:
    locks = sorted(ROOT.glob("requirements*.lock"))
    assert len(locks) == 6
    assert complaints(names_a_source, locks) == []


@pytest.mark.parametrize("folder", NPM_FOLDERS, ids=lambda folder: folder.name)
def test_an_npm_lock_names_packages_and_hashes_only(folder: Path) -> None:
    assert complaints(names_a_registry, [folder / "package-lock.json"]) == []
    settings = (folder / ".npmrc").read_text(encoding="utf-8")
    assert "omit-lockfile-registry-resolved=true" in settings.splitlines()
    assert "registry=" not in settings


@pytest.mark.parametrize("folder", NPM_FOLDERS, ids=lambda folder: folder.name)
def test_npm_packages_are_pinned(folder: Path) -> None:
    package = json.loads((folder / "package.json").read_text(encoding="utf-8"))
    versions = package["dependencies"].values()
    assert [each for each in versions if not re.fullmatch(r"\d+\.\d+\.\d+", each)] == []


def test_prose_names_no_machine() -> None:
    prose = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    assert complaints(names_a_machine, prose) == []


def test_every_module_is_used() -> None:
    paths = [path for path in python_files("routstr") if path.name != "__init__.py"]
    modules = {dotted(path): path.read_text(encoding="utf-8") for path in paths}
    users = [*python_files("migrations"), *(ROOT / "routstr").rglob("__init__.py")]
    unused = set(dead(modules, [path.read_text() for path in users]))
    assert unused == set()


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


# ── on bad snippets ───────────────────────────────────────────────────────────────────────────

HASH: Final = f"    --hash=sha256:{'0' * 64}"
NPM_HASH: Final = f"sha512-{'A' * 86}=="
LONG_FUNCTION: Final = "def f():\n" + "    x = 1\n" * FUNCTION_LINES_MAX


def npm_lock(**package: str) -> str:
    return json.dumps({"packages": {"": {"name": "tests"}, "node_modules/base": package}})


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (long_file, "x = 1\n" * (FILE_LINES_MAX + 1)),
        (long_function, LONG_FUNCTION),
        (long_function, "async " + LONG_FUNCTION),
        (inexact, "fee = 0.01"),
        (inexact, "fee = amount_msat / 100"),
        (inexact, "amount_msat /= 2"),
        (inexact, "fee = float(amount_msat)"),
        (inexact, "quote(fee=0.5)"),
        (inexact, "def f(wait_s=1.5, fee=0.5): ..."),
        (inexact, "fee: float = 0.5  # inexact:"),
        (waits, "async def f(): ..."),
        (waits, "async def f():\n    await g()"),
        (excused_without_reason, "import os  # noqa"),
        (excused_without_reason, "import os  # noqa: F401"),
        (excused_without_reason, "x = 1  # type: ignore"),
        (excused_without_reason, "x = 1  # type: ignore[misc]"),
        (names_a_source, "--index-url https://packages.example/simple"),
        (names_a_source, "# from packages.example.org"),
        (names_a_source, f"six @ https://files.example/six.whl \\\n{HASH}"),
        (names_a_source, "six==1.17.0"),
        (names_a_registry, npm_lock(version="2.4.0")),
        (names_a_registry, npm_lock(integrity=NPM_HASH, resolved="packages.example/base.tgz")),
        (names_a_machine, "It lies in /home/me/routstr."),
        (names_a_machine, "See `/work/notes.md`."),
    ],
)
def test_a_bad_snippet_is_found(rule: Rule, text: str) -> None:
    assert list(rule(text))


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (long_file, "x = 1\n" * FILE_LINES_MAX),
        (inexact, "fee = (amount_msat + 99) // 100"),
        (inexact, "wait_s = 0.5\nWAIT_S: Final = 0.5\ncall(timeout_s=0.5)"),
        (inexact, "def f(a, wait_s=1.5, *, late_s=0.5, fee=1): ..."),
        (inexact, "path = directory / 'lock' / f'{name}.db'"),
        (inexact, "number = float(text)  # inexact: JSON has such numbers; none of them is money"),
        (waits, "def f(): ..."),
        (excused_without_reason, "import os  # noqa: F401, E402 - it completes the tables"),
        (excused_without_reason, "x = 1  # type: ignore[misc]  # the library has no types"),
        (excused_without_reason, "x = 'a # noqa in a string'"),
        (names_a_source, f"six==1.17.0 \\\n{HASH} \\\n{HASH}\n    # via routstr (pyproject.toml)"),
        (names_a_source, f"uvloop==0.23.0 ; sys_platform != 'win32' \\\n{HASH}"),
        (names_a_registry, npm_lock(integrity=NPM_HASH)),
        (names_a_machine, "GET /home and http://example.com/work/1"),
    ],
)
def test_a_good_snippet_is_left_alone(rule: Rule, text: str) -> None:
    assert list(rule(text)) == []


def test_a_dead_module_is_found() -> None:
    modules = {
        "routstr.__main__": "from routstr.core import money",
        "routstr.core.money": "",
        "routstr.core.forgotten": "import routstr.core.forgotten",
        "routstr.ledger.tables": "",
    }
    readers = ["import routstr.ledger.tables"]
    assert list(dead(modules, readers)) == ["routstr.core.forgotten"]
