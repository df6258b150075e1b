"""The architecture as a test: who imports whom, sizes, banned calls, words that stay out.

Each test collects every offence and names file, line and remedy. Where a rule stands in the way
of better code, change the rule here, with its reason, in the same commit.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final, TypeVar

import pytest

PROJECT: Final = Path(__file__).resolve().parent.parent
SOURCE: Final = PROJECT / "src" / "castile"

FILE_LINES: Final = 700
FUNCTION_LINES: Final = 70

# Imports point down: a module may import its own layer and every one below it.
LAYERS: Final = (
    ("errors",),
    ("versions", "config", "clock"),
    ("xml",),
    ("messages",),
    ("policy",),
    ("protocol", "security"),
    ("store",),
    ("endpoint",),
    (
        *("transport", "typed", "waiting", "callers", "pump", "conversations"),
        *("doubts", "plain", "retired", "siblings", "commands"),
    ),
    (
        *("front", "client", "async_client", "service", "ports", "reading", "target", "previewing"),
        *("configuration", "inspecting", "sts", "zeep", "explaining", "credentials", "testing"),
    ),
    ("cli", "console", "demo"),
    ("__init__", "__main__"),
)
RANK: Final = {room: rank for rank, layer in enumerate(LAYERS) for room in layer}
CORE: Final = frozenset(room for layer in LAYERS[:6] for room in layer)

# Beyond the order of the layers: a room or module, what it may not import, and why.
SEPARATE: Final = {
    "protocol": ({"xml", "security"}, "rules see dataclasses, never elements or keys"),
    "security": ({"protocol"}, "protection knows nothing of sequences: it asks a KeySource"),
    "store": ({"security", "xml"}, "the store keeps records; only endpoint/ knows keys and rules together"),
    "transport": ({"protocol", "security", "store"}, "transport carries bytes to endpoint/"),
    "policy.__init__": ({"xml", "messages"}, "a policy is data, readable without a parser"),
    "policy.suites": ({"xml", "messages"}, "suites are rows"),
}

# Below the edges time, chance and ids are arguments, and nothing runs beside the caller.
AMBIENT: Final = {"random", "secrets", "socket", "time", "uuid"}
SHELL: Final = {"asyncio", "concurrent", "logging", "multiprocessing", "os", "sqlite3", "threading"}
READINGS: Final = {"date.today", "datetime.now", "datetime.today", "datetime.utcnow"}

# Dataclasses of the core that change, and Any outside xml.py: each with its reason.
MUTABLE: Final = {"security.trace.Trace": "collects what explain shows, up to the failure"}
_ZEEP: Final = "zeep hands over objects without types"
LOOSE: Final = {
    "zeep.bindings": _ZEEP,
    "zeep.inner": _ZEEP,
    "zeep.transport": _ZEEP,
    "transport.asgi": "ASGI's own types are dictionaries of anything"}

Node = TypeVar("Node", bound=ast.AST)


@dataclass(frozen=True, slots=True)
class Import:
    """A module that a module of castile imports, wherever the import stands."""

    line: int
    target: str
    """Dotted; for castile's own without the leading ``castile.`` ("__init__": the package itself)."""
    own: bool

    @property
    def room(self) -> str:
        return self.target.split(".")[0]


@dataclass(frozen=True, slots=True)
class Module:
    """A source file and what it says."""

    path: Path
    name: str
    """Dotted, without the leading ``castile.``: "protocol.source", "policy.__init__", "xml"."""
    text: str = field(repr=False)
    tree: ast.Module = field(repr=False)

    @property
    def room(self) -> str:
        return self.name.split(".")[0]

    def at(self, node: ast.AST | int, what: str) -> str:
        line = node if isinstance(node, int) else getattr(node, "lineno", 1)
        return f"{self.path.relative_to(PROJECT)}:{line}: {what}"

    def nodes(self, kind: type[Node]) -> Iterator[Node]:
        return (node for node in ast.walk(self.tree) if isinstance(node, kind))

    def imports(self) -> Iterator[Import]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield _imported(node.lineno, alias.name)
            elif isinstance(node, ast.ImportFrom):
                source = self._absolute(node)
                yield from (_imported(node.lineno, f"{source}.{alias.name}") for alias in node.names)

    def _absolute(self, node: ast.ImportFrom) -> str:
        if node.level == 0:
            return node.module or ""
        package = ["castile", *self.name.split(".")][: -node.level]
        return ".".join([*package, *filter(None, [node.module])])


def _imported(line: int, dotted: str) -> Import:
    """`dotted` may end in a name inside a module: castile's own are cut back to the module."""
    if dotted.split(".")[0] != "castile":
        return Import(line, dotted, own=False)
    parts = dotted.split(".")[1:]
    while parts:
        path = SOURCE.joinpath(*parts)
        if path.is_dir() or path.with_name(f"{path.name}.py").exists():
            break
        parts.pop()
    return Import(line, ".".join(parts) or "__init__", own=True)


@cache
def modules() -> tuple[Module, ...]:
    """Every module of the package."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        text = path.read_text("utf-8")
        name = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        found.append(Module(path, name, text, ast.parse(text, str(path))))
    return tuple(found)


@cache
def tracked() -> tuple[Path, ...]:
    """Every text file of the project that git knows or would add; without git, the folders of code."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=PROJECT, capture_output=True, check=True, text=True).stdout
        paths = [PROJECT / name for name in listed.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        folders = ("src", "tests", "docs", "examples", "bench", "tools")
        paths = [path for folder in folders for path in (PROJECT / folder).rglob("*")]
    kinds = {".cfg", ".css", ".js", ".json", ".md", ".py", ".sh", ".svg", ".toml", ".txt", ".yml", ""}
    return tuple(sorted(path for path in paths if path.suffix in kinds and path.is_file()))


def none_of(offences: Iterable[str], rule: str) -> None:
    """Fails with the rule and every offence."""
    listed = list(offences)
    if listed:
        pytest.fail(f"{rule}\n\n  " + "\n  ".join(listed) + "\n", pytrace=False)


# ---------------------------------------------------------------- architecture


def test_every_room_has_its_layer() -> None:
    strangers = [module for module in modules() if module.room not in RANK]
    none_of(
        (module.at(1, f"{module.room!r} has no place in LAYERS") for module in strangers),
        "A new room of castile takes its place in the order of layers (tests/test_tidy.py, LAYERS).",
    )


def test_imports_point_down() -> None:
    def offences() -> Iterator[str]:
        for module in modules():
            rank = RANK.get(module.room, len(LAYERS))
            for entry in module.imports():
                if entry.own and RANK.get(entry.room, -1) > rank:
                    yield module.at(entry.line, f"{module.room} imports {entry.target}, which lies above it")

    none_of(
        offences(),
        "Imports point down only: " + " -> ".join(" | ".join(layer) for layer in reversed(LAYERS)) + ".\n"
        "Move what is shared to the lower layer, or hand it in as an argument.",
    )


def test_siblings_stay_apart() -> None:
    def offences() -> Iterator[str]:
        for module in modules():
            for place in (module.room, module.name):
                barred, reason = SEPARATE.get(place, (frozenset[str](), ""))
                for entry in module.imports():
                    if entry.own and entry.room in barred:
                        yield module.at(entry.line, f"{place} imports {entry.target}: {reason}")

    none_of(offences(), "Some rooms don't know each other; endpoint/ brings them together.")


def test_core_takes_time_chance_and_ids_as_arguments() -> None:
    def offences() -> Iterator[str]:
        for module in modules():
            core, walks = module.room in CORE, module.room == "endpoint"
            banned = AMBIENT | SHELL if core else AMBIENT if walks else frozenset()
            if module.name == "clock":
                banned -= {"time"}
            for entry in module.imports():
                if not entry.own and entry.room in banned:
                    yield module.at(entry.line, f"imports {entry.room}")
            if not banned:
                continue
            for call in module.nodes(ast.Call):
                function = ast.unparse(call.func)
                if ".".join(function.split(".")[-2:]) in READINGS:
                    yield module.at(call, f"calls {function}()")

    none_of(
        offences(),
        "Below the edges there is no clock, randomness, thread, socket, database or log:\n"
        "`now: Now`, `random: Callable[[int], bytes]` and ids are arguments; what happened is an action\n"
        "or an error.",
    )


def test_only_xml_parses() -> None:
    parsers = {"XMLParser", "XMLPullParser", "HTMLParser", "fromstring", "iterparse", "XML", "HTML"}
    functions = parsers | {"parse", "fromstringlist", "C14NWriterTarget", "canonicalize"}
    options = {"resolve_entities", "huge_tree", "inclusive_ns_prefixes", "with_comments"}
    foreign = re.compile(r"^(xml\.|defusedxml|html5lib|bs4|lxml\.(html|objectify|sax))")

    def foreign_parser(entry: Import) -> bool:
        last = entry.target.split(".")[-1]
        return bool(foreign.match(entry.target + ".")) or (entry.room == "lxml" and last in parsers)

    def offences() -> Iterator[str]:
        for module in modules():
            if module.name == "xml":
                continue
            for entry in module.imports():
                if not entry.own and foreign_parser(entry):
                    yield module.at(entry.line, f"imports {entry.target}")
            for node in module.nodes(ast.Attribute):
                owner = ast.unparse(node.value)
                if owner in {"etree", "lxml.etree"} and node.attr in functions:
                    yield module.at(node, f"uses {owner}.{node.attr}")
            for call in module.nodes(ast.Call):
                if any(word.arg in options for word in call.keywords):
                    yield module.at(call, f"sets a parser or C14N option: {ast.unparse(call)[:60]}")

    none_of(
        offences(),
        "castile.xml owns every parser and its settings, and C14N:\n"
        "use xml.parse, xml.parse_fragment, xml.canonical.",
    )


def test_verified_is_built_by_the_pipeline_only() -> None:
    def offences() -> Iterator[str]:
        for module in modules():
            if module.name == "security.pipeline":
                continue
            for call in module.nodes(ast.Call):
                name = _last_name(call.func)
                if name == "Verified":
                    yield module.at(call, "builds a Verified")
                elif name == "replace" and call.args and "verified" in ast.unparse(call.args[0]).lower():
                    yield module.at(call, f"changes a Verified: {ast.unparse(call)[:60]}")
                elif name == "__new__" and "Verified" in ast.unparse(call):
                    yield module.at(call, "builds a Verified behind its back")
            for node in module.nodes(ast.ClassDef):
                if any(_last_name(base) == "Verified" for base in node.bases):
                    yield module.at(node, f"{node.name} inherits from Verified")

    none_of(offences(), "Verified is proof: only unprotect() in security/pipeline.py makes one.")


def test_every_module_is_used() -> None:
    entries = {"__init__", "__main__", "cli", "console", "testing", "zeep"}
    used = {entry.target for module in modules() for entry in module.imports() if entry.own}
    for module in modules():
        # `python -m castile.demo.proxy`, `castile.demo.service:app`: named in a string.
        for node in module.nodes(ast.Constant):
            if isinstance(node.value, str) and node.value.startswith("castile."):
                used.add(node.value.split(":")[0].removeprefix("castile."))
    used |= {name.rsplit(".", depth)[0] for name in used for depth in (1, 2)}
    names = {module: module.name.removesuffix(".__init__") for module in modules()}
    none_of(
        (
            module.at(1, "nothing imports it")
            for module, name in names.items()
            if name not in entries | used and not name.endswith("__main__")
        ),
        "Dead files go: import the module where it is needed, or delete it.",
    )


# ---------------------------------------------------------------- sizes


def test_files_are_short() -> None:
    lengths = {path: len(_lines(path)) for path in tracked() if path.suffix == ".py"}
    none_of(
        (f"{path.relative_to(PROJECT)}: {size} lines" for path, size in lengths.items() if size > FILE_LINES),
        f"No file over {FILE_LINES} lines: one that grows past it lacks a concept. Split by what it knows.",
    )


def test_functions_are_short() -> None:
    def offences() -> Iterator[str]:
        for module in modules():
            for node in ast.walk(module.tree):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    lines = (node.end_lineno or node.lineno) - node.lineno + 1
                    if lines > FUNCTION_LINES:
                        yield module.at(node, f"{node.name} has {lines} lines")

    none_of(offences(), f"No function over {FUNCTION_LINES} lines: ifs up, fors down, one thought each.")


# ---------------------------------------------------------------- safety


def test_checks_are_not_asserts() -> None:
    none_of(
        (module.at(node, "assert") for module in modules() for node in module.nodes(ast.Assert)),
        "python -O removes assert: raise one of castile's errors.",
    )


SECRET_OCTETS: Final = re.compile(
    r"^(\w+_)?(mac|hmac|digest|signature|secret|password|octets|entropy)(_(value|bytes|octets))?$"
)


def test_secrets_and_digests_are_compared_in_constant_time() -> None:
    def secret(node: ast.expr) -> bool:
        name = _last_name(node.func) if isinstance(node, ast.Call) else _last_name(node)
        return bool(SECRET_OCTETS.match(name))

    def constant(node: ast.expr) -> bool:
        """A word of the source is no secret: it names a kind of password."""
        return isinstance(node, ast.Constant) and (node.value in (None, b"") or isinstance(node.value, str))

    def offences() -> Iterator[str]:
        for module in modules():
            for node in module.nodes(ast.Compare):
                sides = [node.left, *node.comparators]
                equality = any(isinstance(operator, ast.Eq | ast.NotEq) for operator in node.ops)
                if equality and any(map(secret, sides)) and not any(map(constant, sides)):
                    yield module.at(node, ast.unparse(node))

    none_of(
        offences(),
        "A MAC, digest, signature, secret or password is compared by hmac.compare_digest, never by == or !=.",
    )


def test_secrets_stay_out_of_repr() -> None:
    secrets = {"body", "entropy", "octets", "password", "private_key", "proof_secret", "secret"}
    public = {"BinarySecurityToken", "Operation"}  # a certificate; the name of a body element

    def hides(value: ast.expr | None) -> bool:
        words = value.keywords if isinstance(value, ast.Call) else []
        return any(word.arg == "repr" and ast.unparse(word.value) == "False" for word in words)

    def offences() -> Iterator[str]:
        for module in modules():
            for node in module.nodes(ast.ClassDef):
                decorators = [d for d in node.decorator_list if _last_name(d) == "dataclass"]
                own = any(isinstance(item, ast.FunctionDef) and item.name == "__repr__" for item in node.body)
                if not decorators or own or any(map(hides, decorators)) or node.name in public:
                    continue
                for item in node.body:
                    if (
                        isinstance(item, ast.AnnAssign)
                        and _last_name(item.target) in secrets
                        and {"bytes", "str"} & set(re.findall(r"\w+", ast.unparse(item.annotation)))
                        and not hides(item.value)
                    ):
                        yield module.at(item, f"{node.name}.{_last_name(item.target)} shows in repr()")

    none_of(offences(), "Keys, passwords and bodies never reach a log by way of repr: field(repr=False).")


def test_core_values_are_frozen() -> None:
    def offences() -> Iterator[str]:
        for module in modules():
            if module.room not in CORE:
                continue
            for node in module.nodes(ast.ClassDef):
                for decorator in node.decorator_list:
                    if _last_name(decorator) != "dataclass" or "Exception" in map(_last_name, node.bases):
                        continue
                    if f"{module.name}.{node.name}" in MUTABLE:
                        continue
                    words = decorator.keywords if isinstance(decorator, ast.Call) else []
                    if {w.arg for w in words if ast.unparse(w.value) == "True"} < {"frozen", "slots"}:
                        yield module.at(node, f"{node.name}: @dataclass(frozen=True, slots=True)")

    none_of(offences(), "Values of the core are frozen and slotted, complete when built.")


# ---------------------------------------------------------------- words


def test_names() -> None:
    drawers = re.compile(r"(Manager|Helper|Utils?|Processor)$|^(utils?|helpers?|manager|misc|common)$")
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)

    def offences() -> Iterator[str]:
        for module in modules():
            if drawers.search(module.path.stem):
                yield module.at(1, f"the file is called {module.path.stem}")
            for node in ast.walk(module.tree):
                if isinstance(node, ast.ClassDef) and drawers.search(node.name):
                    yield module.at(node, f"class {node.name}")
                elif isinstance(node, functions) and node.name.startswith("get_"):
                    yield module.at(node, f"{node.name}()")

    none_of(offences(), "Nouns come from the specifications; nothing needs a get_; no drawer called Util.")


def test_nothing_is_left_for_later() -> None:
    reminders = ["TO" + "DO", "FIX" + "ME", "X" * 3, "HA" + "CK", "NotImplemented" + "Error"]
    words = re.compile(r"\b(" + "|".join(reminders) + r")\b")

    def offences() -> Iterator[str]:
        for path in tracked():
            for number, line in enumerate(_lines(path), 1):
                if words.search(line):
                    yield f"{path.relative_to(PROJECT)}:{number}: {line.strip()[:80]}"
        for module in modules():
            for node in _stubs(module):
                yield module.at(node, f"{node.name} does nothing")

    none_of(offences(), "What isn't done isn't there: no reminders, no stubs. An issue holds what is left.")


def test_no_path_of_a_machine() -> None:
    places = re.compile(r"/(?:work|root|home/\w+|opt/\w+)/|[.]py[e]nv\b")

    def offences() -> Iterator[str]:
        for path in tracked():
            for number, line in enumerate(_lines(path), 1):
                if places.search(line):
                    yield f"{path.relative_to(PROJECT)}:{number}: {line.strip()[:80]}"

    none_of(offences(), "Paths are relative to the project, or tmp_path in a test.")


def test_only_the_command_line_prints() -> None:
    none_of(
        (
            module.at(call, "print()")
            for module in modules()
            if module.room not in {"cli", "demo"}
            for call in module.nodes(ast.Call)
            if isinstance(call.func, ast.Name) and call.func.id == "print"
        ),
        "A library doesn't print: return it, raise it, or log it at the edges.",
    )


def test_types_are_named() -> None:
    none_of(
        (
            module.at(entry.line, "imports typing.Any")
            for module in modules()
            if module.name != "xml" and module.name not in LOOSE
            for entry in module.imports()
            if entry.target == "typing.Any"
        ),
        "Any stays at the lxml border in xml.py: name the type, or take object and look.",
    )


def test_public_names_have_docstrings() -> None:
    def offences() -> Iterator[str]:
        for module in modules():
            if module.text.strip() and not ast.get_docstring(module.tree):
                yield module.at(1, "the module has no docstring")
            for node in module.tree.body:
                if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                    continue
                if not node.name.startswith("_") and not ast.get_docstring(node):
                    yield module.at(node, f"{node.name} has no docstring")

    none_of(offences(), "Modules and public names say what they are: types, units, errors; one line may do.")


def test_annotations_are_lazy() -> None:
    def offences() -> Iterator[str]:
        for module in modules():
            statements = [node for node in module.tree.body if not _says_nothing(node)]
            if statements and "from __future__ import annotations" not in module.text:
                yield module.at(1, "no `from __future__ import annotations`")

    none_of(offences(), "Every module starts alike.")


def _last_name(node: ast.expr) -> str:
    """The name that an expression ends in: ``b`` for ``a.b``, for ``a.b(...)`` too, else empty."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Call(func=function):
            return _last_name(function)
    return ""


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8").splitlines()
    except UnicodeDecodeError:
        return []


def _stubs(module: Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Functions whose body is a docstring, ``...`` or ``pass``, outside a Protocol and no overload."""
    declared: set[ast.AST] = set()
    for node in module.nodes(ast.ClassDef):
        if any(ast.unparse(base).split("[")[0].endswith("Protocol") for base in node.bases):
            declared.update(ast.walk(node))
    for function in ast.walk(module.tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) or function in declared:
            continue
        if {"overload", "abstractmethod", "group"} & set(map(_last_name, function.decorator_list)):
            continue
        if all(map(_says_nothing, function.body)):
            yield function


def _says_nothing(item: ast.stmt) -> bool:
    return isinstance(item, ast.Pass) or (isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant))
