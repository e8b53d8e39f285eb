"""Pages of reference from the exported modules: signatures, and tables of the docments (the comment beside each parameter)."""

import ast
import io
import re
import tokenize
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from house import PACKAGE, REPO, Room


class Row(NamedTuple):
    """A parameter, a field, or with an empty name the result."""

    name: str
    kind: str  # its type
    default: str
    said: str  # its docment


@dataclass(frozen=True)
class Module:
    """An exported module, read and not imported."""

    room: Room

    @cached_property
    def source(self) -> str:
        return self.room.module.read_text()

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)

    @cached_property
    def comments(self) -> dict[int, str]:
        """Line number -> what the comment on it says."""
        tokens = tokenize.generate_tokens(io.StringIO(self.source).readline)
        return {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}

    @cached_property
    def public(self) -> list[str]:
        """Names in `__all__`, in their order."""
        return list(names_in_all(self.tree))

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


def names_in_all(tree: ast.Module) -> list[str]:
    """What `__all__` lists."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    return []


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Name):
        return [node.id]
    return [name for part in node.elts for name in _names(part)] if isinstance(node, (ast.Tuple, ast.List)) else []


def top_level_names() -> dict[str, str]:
    """What `from spectramind_nb import` gives: name -> the module below the package that it comes from."""
    for node in ast.parse((REPO / PACKAGE / "__init__.py").read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_HOME":
            return ast.literal_eval(node.value)
    raise LookupError("spectramind_nb/__init__.py has no _HOME, from which the page of the names at the top is made")


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
    arguments = node.args.posonlyargs + node.args.args
    shown = ast.parse(f"def f({ast.unparse(node.args)}): pass").body[0].args
    for argument in [*shown.posonlyargs, *shown.args, *shown.kwonlyargs, shown.vararg, shown.kwarg]:
        if argument is not None:
            argument.annotation = None  # the table says it
    bound = kind != "function" and "staticmethod" not in map(ast.unparse, node.decorator_list) and bool(arguments)
    if bound:
        (shown.posonlyargs or shown.args).pop(0)
    is_property = any(ast.unparse(one).endswith("property") for one in node.decorator_list)
    signature = node.name if is_property else f"{node.name}({ast.unparse(shown)})"
    rows = _parameters(module, node)[bound:]
    given, said = ast.unparse(node.returns) if node.returns else "", module.comments.get(_end_of_signature(node), "")
    if said or given not in ("", "None"):
        rows.append(Row("", given, "", said))
    body = [linked(plain(ast.get_docstring(node) or "")), _table(rows, linked)]
    directive = "property" if is_property else kind
    return _directive(directive, signature, body)


def _parameters(module: Module, node: ast.FunctionDef) -> list[Row]:
    """One row a parameter, in their order."""
    spec, given = node.args, node.args.posonlyargs + node.args.args
    defaults = dict(zip([one.arg for one in given][::-1], spec.defaults[::-1]))
    defaults |= dict(zip([one.arg for one in spec.kwonlyargs], spec.kw_defaults))
    named = [(one.arg, one) for one in given] + [(f"*{one.arg}", one) for one in [spec.vararg] if one]
    named += [(one.arg, one) for one in spec.kwonlyargs] + [(f"**{one.arg}", one) for one in [spec.kwarg] if one]
    lines = [(defaults.get(one.arg) or one).end_lineno for _, one in named]
    rows = []
    for (name, one), line, following in zip(named, lines, [*lines[1:], _end_of_signature(node)]):
        kind, default = (ast.unparse(value) if value else "" for value in (one.annotation, defaults.get(one.arg)))
        said = module.comments.get(line, "") if line != following else ""  # a comment belongs to what stands last on its line
        rows.append(Row(name, kind, default, said))
    return rows


def _end_of_signature(node: ast.FunctionDef) -> int:
    """The line of the colon: that of the result's type, or the one before the body."""
    return node.returns.end_lineno if node.returns is not None else max(node.lineno, node.body[0].lineno - 1)


def _class(module: Module, node: ast.ClassDef, linked: Callable[[str], str]) -> str:
    methods = [one for one in node.body if isinstance(one, ast.FunctionDef)]
    fields = [Row(one.target.id, ast.unparse(one.annotation), ast.unparse(one.value) if one.value else "",
                  module.comments.get(one.end_lineno, ""))
              for one in node.body if isinstance(one, ast.AnnAssign) and not one.target.id.startswith("_")]
    arguments = [row for one in methods if one.name == "__init__" for row in _parameters(module, one)[1:]]
    given = arguments or (fields if _is_record(node) else [])
    signature = f"{node.name}({', '.join(row.name + (f'={row.default}' if row.default else '') for row in given)})" if given else node.name
    bases = ", ".join(f"`{ast.unparse(base)}`" for base in node.bases)
    members = [_function(module, one, linked, "method") for one in methods if not one.name.startswith("_") and ast.get_docstring(one)]
    about = [plain(ast.get_docstring(node) or ""), f"Is a {bases}." if bases else ""]
    return _directive("class", signature, [*map(linked, about), _table(fields + arguments, linked), *members])


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
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"^(`+)\{", text, re.MULTILINE)), default=0))
    return f"{fence}{{py:{kind}}} {signature}\n\n{text}\n{fence}"


def _table(rows: list[Row], linked: Callable[[str], str]) -> str:
    """Parameters or fields, and at last the result, whose name is empty; defaults stand in the signature."""
    lines = ["| name | type | meaning |", "|---|---|---|"]
    for row in rows:
        cells = [f"`{row.name}`" if row.name else "*returns*", f"`{row.kind}`" if row.kind else "", linked(plain(row.said))]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) if rows else ""


def plain(text: str) -> str:
    """A docstring or a docment as Markdown: what stands between backticks stays, everything else is taken literally."""
    parts = re.split(r"(`[^`\n]+`)", text)
    lines = "".join(part if number % 2 else re.sub(r"([\\*_<>\[\]$#|~^{}])", r"\\\1", part) for number, part in enumerate(parts))
    return re.sub(r"^( *)\\\* ", r"\1* ", lines, flags=re.MULTILINE)
