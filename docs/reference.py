"""Pages of reference from the exported modules: signatures, and tables of the docments (the comment beside each parameter)."""

import ast
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from house import PACKAGE, REPO, Room

from spectramind_nb.core.docments import Docment, comments, fields, parameters


@dataclass(frozen=True)
class Module:
    """An exported module, read and not imported."""

    room: Room
    examples: Mapping[str, str] = field(default_factory=dict)  # public name -> lines to type

    @cached_property
    def source(self) -> str:
        return self.room.module.read_text()

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)

    @cached_property
    def comments(self) -> dict[int, str]:
        """Line number -> what the comment on it says."""
        return comments(self.source)

    @cached_property
    def public(self) -> list[str]:
        """Names in `__all__`, in their order."""
        lists = [node.value for node in self.tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"]
        return ast.literal_eval(lists[0]) if lists else []

    @cached_property
    def definitions(self) -> dict[str, ast.stmt]:
        """Public name -> where it is defined, in the order of the file."""
        found = {}
        for node in self.tree.body:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else [node]
            names = [name for target in targets for name in _names(target)]
            found |= {name: node for name in names if name in self.public}
        return found

    @property
    def path(self) -> str:
        return f"{PACKAGE}.{self.room.name}"


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Name):
        return [node.id]
    return [name for part in node.elts for name in _names(part)] if isinstance(node, (ast.Tuple, ast.List)) else []


def page(module: Module, linked: Callable[[str], str]) -> str:
    """Markdown of one module; `linked` makes links of the names in a text."""
    parts = [f"# {module.room.name}", f"```{{py:module}} {module.path}\n```", linked(plain(ast.get_docstring(module.tree) or "")),
             f"Explained in the chapter {{doc}}`/{chapter(module.room)}`."]
    constants = {name: node for name, node in module.definitions.items() if isinstance(node, (ast.Assign, ast.AnnAssign))}
    for name, node in module.definitions.items():
        if name not in constants:
            describe = _class if isinstance(node, ast.ClassDef) else _function
            parts.append(describe(module, node, linked))
    if constants:
        parts += ["## Constants", *(_constant(module, name, node, linked) for name, node in constants.items())]
    return "\n\n".join(parts) + "\n"


def chapter(room: Room) -> str:
    """Where the notebook stands among the pages, without its suffix."""
    return f"chapters/{room.notebook.relative_to(REPO / 'nbs').with_suffix('')}"


def first_line(node: ast.AST) -> str:
    """First line of a docstring; nothing where there is none."""
    return (ast.get_docstring(node) or "").split("\n")[0]


def _function(module: Module, node: ast.FunctionDef, linked: Callable[[str], str], kind: str = "function") -> str:
    words = [ast.unparse(one) for one in node.decorator_list]
    bound = kind == "method" and "staticmethod" not in words
    if any(word.endswith("property") for word in words):
        kind, signature = "property", node.name
    else:
        signature = node.name + _signature(node, bound)
    rows = parameters(node, module.comments)[bound:]
    example = _example(module, node.name) if kind == "function" else ""
    return _directive(kind, signature, [linked(plain(ast.get_docstring(node) or "")), _table(rows, linked), example])


def _example(module: Module, name: str) -> str:
    return f"```python\n{module.examples[name]}\n```" if name in module.examples else ""


def _signature(
    node: ast.FunctionDef,
    bound: bool,  # leave out the first one, `self` or `cls`
) -> str:
    """Names and defaults; types stand in the table."""
    spec = ast.parse(f"def f({ast.unparse(node.args)}): pass").body[0].args
    for one in [*spec.posonlyargs, *spec.args, *spec.kwonlyargs, spec.vararg, spec.kwarg]:
        if one is not None:
            one.annotation = None
    if bound:
        (spec.posonlyargs or spec.args).pop(0)
    return f"({ast.unparse(spec)})"


def _class(module: Module, node: ast.ClassDef, linked: Callable[[str], str]) -> str:
    methods, rows = [one for one in node.body if isinstance(one, ast.FunctionDef)], fields(node, module.comments)
    maker, signature = next((one for one in methods if one.name == "__init__"), None), node.name
    if maker is not None:
        signature += _signature(maker, True)
    elif rows and _is_record(node):
        signature += f"({', '.join(row.name + (f'={row.default}' if row.default else '') for row in rows)})"
    bases = ", ".join(f"`{ast.unparse(base)}`" for base in node.bases)
    about = [plain(ast.get_docstring(node) or ""), f"Is a {bases}." if bases else ""]
    members = [_function(module, one, linked, "method") for one in methods if is_shown(one)]
    return _directive("class", signature, [*map(linked, about), _table(rows, linked), _example(module, node.name), *members])


def is_shown(method: ast.FunctionDef) -> bool:
    """Whether a method has an entry: it is public and says what it does."""
    return not method.name.startswith("_") and ast.get_docstring(method) is not None


def _is_record(node: ast.ClassDef) -> bool:
    words = [ast.unparse(one) for one in node.decorator_list + node.bases]
    return any("dataclass" in word or word in ("NamedTuple", "BaseModel") for word in words)


def _constant(module: Module, name: str, node: ast.Assign | ast.AnnAssign, linked: Callable[[str], str]) -> str:
    value = ast.unparse(node.value) if node.value is not None else ""
    shown = [f"`{value}`"] if value and len(value) <= 120 and "`" not in value else []
    said = module.comments.get(node.end_lineno, "")
    return _directive("data", name, [*shown, linked(plain(said))])


def _directive(kind: str, signature: str, body: list[str]) -> str:
    text = "\n\n".join(part for part in body if part)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"^(`{3,})", text, re.MULTILINE)), default=0))
    return f"{fence}{{py:{kind}}} {signature}\n\n{text}\n{fence}"


def _table(rows: list[Docment], linked: Callable[[str], str]) -> str:
    """Parameters or fields, and at last the result, whose name is empty; defaults stand in the signature."""
    lines = ["| name | type | meaning |", "|---|---|---|"]
    for row in rows:
        cells = [f"`{row.name}`" if row.name else "*returns*", linked(f"`{row.kind}`") if row.kind else "", linked(plain(row.said))]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) if rows else ""


def plain(text: str) -> str:
    """A docstring or a docment as Markdown: what stands between backticks stays, everything else is taken literally."""
    parts = re.split(r"(`[^`\n]+`)", text)
    lines = "".join(part if number % 2 else re.sub(r"([\\*_<>\[\]$#|~^{}])", r"\\\1", part) for number, part in enumerate(parts))
    return re.sub(r"^( *)\\\* ", r"\1* ", lines, flags=re.MULTILINE)
