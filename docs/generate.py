"""The reference pages, written from the code itself: errors, settings, machines, rows.

`write` is called by conf.py before each build, and by the tests. What a page says stands in
docstrings, tables and two data files (rows.toml, errors.toml), so that it can't go stale.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import diagram

import castile.protocol
from castile import config, errors
from castile.explaining.causes import CAUSES
from castile.explaining.rules import RULES

DOCS = Path(__file__).resolve().parent
PROJECT = DOCS.parent


def write(folder: Path) -> None:
    """Writes every generated page into `folder`; leaves alone what is right already."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = {
        "errors": errors_page,
        "defaults": defaults_page,
        "explain": explain_page,
        "machines": machines_page,
        "specs": specs_page,
    }
    for name, page in pages.items():
        path, text = folder / f"{name}.md", page()
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")


# ---------------------------------------------------------------- errors


Kind = type[errors.CastileError]


def error_classes(root: Kind = errors.CastileError) -> Iterator[Kind]:
    """Every error of castile, parents first, in the order of definition."""
    yield root
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from error_classes(child)


def advice() -> dict[str, dict[str, str]]:
    """errors.toml: for each code what brings it about and what to do."""
    return tomllib.loads((DOCS / "errors.toml").read_text("utf-8"))


def errors_page() -> str:
    texts = advice()
    lines = [
        "# Errors by code",
        "",
        "Every error that castile raises on purpose has a stable `code`. Its `exchange` names the action,",
        "the identifiers and numbers it was about. No error text holds a key, a password or content.",
        "",
        "| code | class | raised when |",
        "|---|---|---|",
    ]
    for kind in error_classes():
        lines.append(f"| [`{kind.code}`](#{kind.code}) | `{kind.__name__}` | {_first_paragraph(kind)} |")
    for kind in error_classes():
        text = texts.get(kind.code, {})
        parents = [parent.__name__ for parent in kind.__mro__[1:] if issubclass(parent, errors.CastileError)]
        lines += ["", f"## {kind.code}", ""]
        lines.append(f"`castile.errors.{kind.__name__}`" + (f", a `{parents[0]}`." if parents else "."))
        lines += ["", _first_paragraph(kind)]
        lines += ["", f"*What brings it about.* {text['cause']}"] if "cause" in text else []
        lines += ["", f"*What to do.* {text['do']}"] if "do" in text else []
    return "\n".join(lines) + "\n"


def _first_paragraph(thing: object) -> str:
    return " ".join((thing.__doc__ or "").split("\n\n")[0].split()).replace("|", "\\|")


# ---------------------------------------------------------------- settings


@dataclass(frozen=True, slots=True)
class Setting:
    """One field of a class in castile.config."""

    name: str
    default: str
    reason: str


def settings() -> dict[str, tuple[str, list[Setting]]]:
    """The classes of castile.config: docstring and fields, read from the source."""
    tree = ast.parse(Path(str(config.__file__)).read_text("utf-8"))
    found: dict[str, tuple[str, list[Setting]]] = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            fields = []
            for item, after in zip(node.body, [*node.body[1:], None], strict=True):
                if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and item.value:
                    default = _shown(item.target.id, item.value)
                    fields.append(Setting(item.target.id, default, _text_of(after)))
            found[node.name] = (ast.get_docstring(node) or "", fields)
    return found


def defaults_page() -> str:
    lines = [
        "# Settings and limits",
        "",
        "Every limit, timer and switch, with its default and its reason. They are the fields of the frozen",
        "classes in `castile.config`; a limit is checked before the work that it bounds.",
    ]
    for name, (text, fields) in settings().items():
        lines += ["", f"## {name}", "", text, "", "| setting | default | why |", "|---|---|---|"]
        lines += [f"| `{entry.name}` | {entry.default} | {entry.reason} |" for entry in fields]
    return "\n".join(lines) + "\n"


def _text_of(node: ast.stmt | None) -> str:
    match node:
        case ast.Expr(value=ast.Constant(value=str(text))):
            return " ".join(text.split()).replace("|", "\\|")
    return ""


def _shown(name: str, value: ast.expr) -> str:
    source = ast.unparse(value)
    if isinstance(value, ast.Call):
        return "see above"
    number = eval(source, {"__builtins__": {}})  # noqa: S307  (a default of our own source)
    if isinstance(number, bool) or not isinstance(number, int | float):
        return f"`{number}`"
    if isinstance(number, float):
        return _seconds(number) if number >= 1 or name.endswith(("_interval", "_seconds")) else f"{number:g}"
    if number == (1 << 63) - 1:
        return "2⁶³ − 1"
    for unit, size in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if name.endswith("bytes") and number % size == 0:
            return f"{number // size} {unit}"
    return f"{number:,}"


def _seconds(number: float) -> str:
    for unit, size in (("h", 3600), ("min", 60)):
        if number >= 2 * size and number % size == 0:
            return f"{number:,.0f} s ({number / size:g} {unit})"
    return f"{number:g} s"


# ---------------------------------------------------------------- machines


def machines() -> Iterator[ModuleType]:
    """The modules of castile.protocol that hold a transition table, in the order of their names."""
    for found in sorted(pkgutil.iter_modules(castile.protocol.__path__), key=lambda found: found.name):
        module = importlib.import_module(f"castile.protocol.{found.name}")
        if hasattr(module, "TRANSITIONS"):
            yield module


def machines_page() -> str:
    lines = [
        "# State machines",
        "",
        "Each machine of `castile.protocol` has one table of what may happen when. This page is drawn from",
        "those tables at each build. An event that has no cell in a phase is refused: as a `Violation` where",
        "a peer sent it, as a `UsageError` where the caller asked for it.",
    ]
    for module in machines():
        name = module.__name__.removeprefix("castile.protocol.")
        table: Mapping[tuple[object, type], object] = module.TRANSITIONS
        lines += ["", f"## {name}", "", _first_paragraph(module), ""]
        lines += ["```{raw} html", diagram.draw(module.Phase, table), "```", ""]
        lines += _transitions(list(module.Phase), table)
    return "\n".join(lines) + "\n"


def _transitions(phases: list[object], table: Mapping[tuple[object, type], object]) -> Iterator[str]:
    events = list(dict.fromkeys(event for _, event in table))
    yield "| event | " + " | ".join(diagram.name_of(phase) for phase in phases) + " |"
    yield "|---" * (len(phases) + 1) + "|"
    for event in events:
        cells = []
        for phase in phases:
            after = table.get((phase, event))
            cells.append("" if after is None else "stays" if after is phase else diagram.name_of(after))
        yield f"| `{event.__name__}` | " + " | ".join(cells) + " |"


# ---------------------------------------------------------------- explain


def explain_page() -> str:
    lines = [
        "# What explain finds",
        "",
        "`castile explain` checks a captured message as the product does. Where a digest or the value of",
        "a signature doesn't fit, it tries the causes below one by one, in this order, and names the first",
        "that makes it fit exactly. If none alone does, it says that the cause is unknown, and never what",
        "comes near. A try is no proof: the verdict stays `failed` and the exit status 1, whatever is found.",
        "Trying ends at a limit, which is told. A line `compare` gives both digests and the number of",
        "canonical octets, to be held against the sender's log.",
        "",
        "| cause | of | what is said |",
        "|---|---|---|",
    ]
    for cause in CAUSES:
        lines.append(f"| {cause.name} | {cause.of or 'both'} | {cause.text.replace('{}', '…')} |")
    lines += ["", "Also wrong, though every digest fits:", "", "| rule | what it finds |", "|---|---|"]
    lines += [f"| {rule.name} | {rule.what} |" for rule in RULES]
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------- rows


def rows() -> dict[str, dict[str, str]]:
    """rows.toml: the rows of the feature list that are claimed or planned."""
    table: dict[str, dict[str, str]] = tomllib.loads((DOCS / "rows.toml").read_text("utf-8"))["rows"]
    return table


def markers() -> dict[str, list[str]]:
    """Which tests carry ``@pytest.mark.row(ID)``: test files by row, read without importing them."""
    found: dict[str, list[str]] = {}
    for path in sorted((PROJECT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("mark.row"):
                for argument in node.args:
                    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                        names = found.setdefault(argument.value, [])
                        name = path.relative_to(PROJECT).as_posix()
                        names += [] if name in names else [name]
    return found


STATES = {"whole": "works", "part": "in part", "planned": "planned"}


def specs_page() -> str:
    shown, claimed = markers(), rows()
    counts = {state: sum(row["state"] == state for row in claimed.values()) for state in STATES}
    lines = [
        "# What works, row by row",
        "",
        "castile is built from a list of promises, each with an id that its tests carry. A row counts as",
        "working only while a test shows it. Rows that aren't listed aren't begun.",
        "",
        ", ".join(f"{counts[state]} {word}" for state, word in STATES.items()) + ".",
        "",
        "| row | promise | from | today | shown by |",
        "|---|---|---|---|---|",
    ]
    for name, row in claimed.items():
        today = STATES[row["state"]] + (f": {row['missing']}" if row.get("missing") else "")
        tests = ", ".join(f"`{path.removeprefix('tests/')}`" for path in shown.get(name, []))
        lines.append(f"| {name} | {row['what']} | {row['from']} | {today} | {tests} |")
    return "\n".join(lines) + "\n"
