"""Which modules of the product write the rows of which model, read from the syntax trees.

A type is followed from where it is named (a model, an annotation, a queryset's class) through assignments, loops,
attributes and relations of the model to the call that writes. What Python cannot know without running is not seen: a
row that passes through ``Any`` or comes out of a dictionary.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping

from django.apps import apps
from django.db.models import ForeignObjectRel, Model, QuerySet

from tests.support.source import OURS, module_name, modules

WRITES = {
    "save",
    "create",
    "bulk_create",
    "bulk_update",
    "update",
    "delete",
    "get_or_create",
    "update_or_create",
}
BULK = {"upsert", "set_each"}  # of portal.bulk, which write the model that they get
_CLAIM = re.compile(r"Written by (.*?)(?:\bonly\b|\balone\b|\bnothing else\b)", re.DOTALL)
_NAME = re.compile(r"``([a-z_.]+)``")

type Models = Mapping[str, type[Model]]


def our_models() -> dict[str, type[Model]]:
    """Return the models of the product by their names."""
    return {model.__name__: model for model in apps.get_models() if model.__module__.partition(".")[0] in OURS}


def claims() -> dict[str, set[str]]:
    """Return for each model whose docstring says who writes it the modules and packages that it names."""
    known = {module_name(path) for path in modules()}
    return {
        name: {_module(one, known) for one in _NAME.findall(claim[1])}
        for name, model in our_models().items()
        if (claim := _CLAIM.search(model.__doc__ or ""))
    }


def _module(name: str, known: set[str]) -> str:
    """Return the module of ``portal.audit.trail.record``."""
    while name not in known:
        name, dot, _ = name.rpartition(".")
        assert dot, "a docstring names a writer that is no module"
    return name


def writers() -> dict[str, set[str]]:
    """Return for each model the modules that write it; those that define models and querysets write for their callers.

    So a method of a model or of its queryset that writes counts as a write where it is called.
    """
    return written({module_name(path): path.read_text() for path in modules()}, our_models())


def written(texts: Mapping[str, str], models: Models) -> dict[str, set[str]]:
    """Return the same for any modules, by their names and texts."""
    homes = {model.__module__ for model in models.values()}
    own = {name: _own_writes(model, texts.get(model.__module__, "")) for name, model in models.items()}
    result: dict[str, set[str]] = {name: set() for name in models}
    for module, text in texts.items():
        if module not in homes:
            for name in _Reader(models, own).read(ast.parse(text)):
                result[name].add(module)
    return result


def _own_writes(model: type[Model], text: str) -> set[str]:
    """Return the methods of a model and its queryset that write their rows, also through one another."""
    classes = {model.__name__, type(model._default_manager).__name__, type(model._default_manager.all()).__name__}
    methods = {
        method.name: {
            node.func.attr
            for node in ast.walk(method)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and "self" in ast.unparse(node.func)
        }
        for each in ast.walk(ast.parse(text))
        if isinstance(each, ast.ClassDef) and each.name in classes
        for method in each.body
        if isinstance(method, ast.FunctionDef)
    }
    found: set[str] = set()
    while more := {name for name, called in methods.items() if called & (WRITES | found)} - found:
        found |= more
    return found


class _Reader:
    """Finds the writes in one module."""

    def __init__(self, models: Models, own: Mapping[str, set[str]]) -> None:
        self._models = models
        self._own = own
        self._sets = {type(model._default_manager.all()).__name__: name for name, model in models.items()}
        self._sets.pop(QuerySet.__name__, None)

    def read(self, tree: ast.Module) -> Iterator[str]:
        yield from self._scope(tree, {})

    def _scope(self, scope: ast.AST, outer: Mapping[str, str]) -> Iterator[str]:
        """Yield what is written here and in the functions within, which see the names of what is around them."""
        names = dict(outer)
        if isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            every = [*scope.args.posonlyargs, *scope.args.args, *scope.args.kwonlyargs]
            names |= {arg.arg: found for arg in every if (found := self._annotated(arg.annotation))}
        inner: list[ast.AST] = []
        nodes: list[ast.AST] = []
        waiting = list(ast.iter_child_nodes(scope))
        while waiting:
            node = waiting.pop(0)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                inner.append(node)
            else:
                nodes.append(node)
                waiting = [*ast.iter_child_nodes(node), *waiting]
        for _ in range(2):  # a name may be used before the line that tells what it is, in a loop
            for node in nodes:
                names |= self._bound(node, names)
        for node in nodes:
            if found := self._write(node, names):
                yield found
        for function in inner:
            yield from self._scope(function, names)

    def _bound(self, node: ast.AST, names: Mapping[str, str]) -> dict[str, str]:
        pairs: list[tuple[ast.expr, ast.expr | None]] = []
        if isinstance(node, ast.Assign):
            pairs = [(target, node.value) for target in node.targets]
        elif isinstance(node, ast.NamedExpr | ast.For | ast.comprehension):
            pairs = [(node.target, node.value if isinstance(node, ast.NamedExpr) else node.iter)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found = self._annotated(node.annotation)
            return {node.target.id: found} if found else {}
        bound = {}
        for target, value in pairs:
            first = target.elts[0] if isinstance(target, ast.Tuple) and target.elts else target  # as of get_or_create
            if isinstance(first, ast.Name) and value is not None and (found := self._type(value, names)):
                bound[first.id] = found
        return bound

    def _annotated(self, annotation: ast.expr | None) -> str | None:
        words = re.findall(r"\w+", ast.unparse(annotation)) if annotation is not None else []
        if {"Mapping", "dict", "Callable", "type"} & set(words):
            return None
        return next((self._sets.get(word, word) for word in words if word in self._models or word in self._sets), None)

    def _type(self, node: ast.expr, names: Mapping[str, str]) -> str | None:
        """Return the model whose row or rows an expression is about."""
        if isinstance(node, ast.Name):
            return names.get(node.id) or (node.id if node.id in self._models else None)
        if isinstance(node, ast.Attribute):
            base = self._type(node.value, names)
            if base is None:
                return node.attr if node.attr in self._models else None
            return self._relation(base, node.attr) or base
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in {"list", "sorted", "tuple", "set"} and node.args:
                return self._type(node.args[0], names)
            if ast.unparse(node.func).startswith("QuerySet") and node.args:
                return self._type(node.args[0], names)
            return self._type(node.func, names)
        if isinstance(node, ast.Subscript | ast.Starred | ast.Await):
            return self._type(node.value, names)
        if isinstance(node, ast.IfExp | ast.BoolOp):
            parts = [node.body, node.orelse] if isinstance(node, ast.IfExp) else node.values
            return next((found for part in parts if (found := self._type(part, names))), None)
        return None

    def _relation(self, model: str, attribute: str) -> str | None:
        for field in self._models[model]._meta.get_fields():
            accessor = field.get_accessor_name() if isinstance(field, ForeignObjectRel) else field.name
            if attribute == accessor and field.related_model is not None:
                name = field.related_model.__name__ if isinstance(field.related_model, type) else ""
                return name if name in self._models else None
        return None

    def _write(self, node: ast.AST, names: Mapping[str, str]) -> str | None:
        """Return the model that a call writes; who asks for the name of its table writes SQL of its own."""
        if isinstance(node, ast.Attribute) and node.attr == "db_table":
            return self._type(node.value, names)
        if isinstance(node, ast.Call) and node.args and ast.unparse(node.func).rpartition(".")[2] in BULK:
            return self._type(node.args[0], names)
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            return None
        model = self._type(node.func.value, names)
        return model if model and node.func.attr in WRITES | self._own[model] else None
