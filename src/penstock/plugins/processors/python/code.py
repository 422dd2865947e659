"""The user's code: found and looked at without running it, then loaded, and called in the way its function wants."""

from __future__ import annotations

import ast
import importlib
import importlib.machinery
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from penstock import sdk

FILE_BYTES_MAX = 4 * 1024 * 1024
RAISED = (Exception, SystemExit)
"""What the user's code may raise without ending more than its own event, or its own pipeline when it is loaded."""

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Shape:
    """What a function takes."""

    batch: bool
    """A whole batch at once, instead of one event."""
    meta: bool
    """The metadata of the event."""
    meta_by_name: bool
    options: bool
    """The options of the pipeline file, as the keyword argument `options`."""


class CodeError(ValueError):
    """The code cannot be used; the message tells the file and, where there is one, the line."""


def find_file(path: str | None, module: str | None) -> Path | None:
    """The file of the code; None for a module that is no Python source. Raises CodeError where there is none."""
    if path is not None:
        if not Path(path).is_file():
            raise CodeError(f"there is no file {path} (paths are relative to the working directory)")
        return Path(path)
    assert module is not None, "the rules see to it"
    spec = _find_module(module)
    if spec is None:
        raise CodeError(f"there is no module {module} on the module search path")
    origin = Path(spec.origin or "")
    return origin if origin.suffix == ".py" and origin.is_file() else None


def _find_module(name: str) -> importlib.machinery.ModuleSpec | None:
    """Like `find_spec`, which would import the packages around a module."""
    first, *inner = name.split(".")
    try:
        spec = find_spec(first)
    except ValueError:  # a module in memory that came from nowhere
        return None
    qualified = first
    for part in inner:
        if spec is None or spec.submodule_search_locations is None:
            return None
        qualified += f".{part}"
        spec = importlib.machinery.PathFinder.find_spec(qualified, spec.submodule_search_locations)
    return spec


def check_file(file: Path, function: str, *, options: bool) -> None:
    """Look at the code without running it: it parses and defines the function. Raises CodeError."""
    source = _read(file)
    try:
        tree = ast.parse(source, str(file))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise CodeError(_syntax(file, error)) from None
    found: ast.AST | None = None
    for statement in _statements(tree.body):
        if function in _names(statement):
            found = statement
    if found is None:
        if any(_is_star(statement) for statement in _statements(tree.body)):
            return
        raise CodeError(f"{file}: no function {function} is defined")
    if isinstance(found, _FunctionNode) and not found.decorator_list:
        place = f"{file}:{found.lineno}"
        shape = shape_of(_signature(found), f"{place}: {function}", options=options)
        if not shape.batch and not _gives_something(found):
            raise CodeError(f"{place}: {function} returns nothing, which would drop every event; return the event")


def load(file: Path | None, path: str | None, module: str | None, function: str) -> Callable[..., Any]:
    """Run the code and give its function. Raises CodeError with the line where it failed."""
    try:
        loaded = importlib.import_module(module) if module is not None else _run(Path(path or ""))
    except RAISED as error:
        raise CodeError(_syntax(file, error) if isinstance(error, SyntaxError) else told(error, file)) from error
    value = getattr(loaded, function, None)
    if not callable(value):
        raise CodeError(f"{path or module}: {function} is {'no function' if value is not None else 'not defined'}")
    return value  # type: ignore[no-any-return]


def bind(function: Callable[..., Any], shape: Shape, options: Mapping[str, Any]) -> Callable[..., Any]:
    """The function with its options, to be called with what it handles and, where it wants it, the metadata."""
    if shape.options:
        function = partial(function, options=sdk.copy_value(dict(options)))
    if shape.meta_by_name:
        inner = function
        return lambda event, meta: inner(event, meta=meta)
    return function


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """Its signature; that of a function of one event where it does not tell its own, as some built-in ones do."""
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return inspect.Signature([inspect.Parameter("event", _POSITIONAL[0])])


def shape_of(signature: inspect.Signature, name: str, *, options: bool) -> Shape:
    """What a function of this signature takes. Raises CodeError for one that cannot be called."""
    parameters = dict(signature.parameters)
    takes_options = parameters.pop("options", None) is not None
    if options and not takes_options:
        raise CodeError(f"{name} takes no argument named options")
    positional = [parameter for parameter in parameters.values() if parameter.kind in _POSITIONAL]
    named = [parameter for parameter in parameters.values() if parameter.kind is inspect.Parameter.KEYWORD_ONLY]
    variable = any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in parameters.values())
    if not positional and not variable:
        raise CodeError(f"{name} takes no event")
    batch = bool(positional) and _is_batch(positional[0])
    second = positional[1] if len(positional) > 1 else None
    by_place = second is not None and (second.name == "meta" or second.default is inspect.Parameter.empty)
    by_name = any(parameter.name == "meta" for parameter in named)
    required = [
        each.name
        for each in (*positional[2:], *named)
        if each.default is inspect.Parameter.empty and each.name != "meta"
    ]
    if required or (batch and (by_place or by_name)):
        takes = "a batch" if batch else "an event and its metadata"
        raise CodeError(f"{name} asks for {', '.join(required) or 'more than'} beside {takes}")
    return Shape(batch, by_place or by_name, by_name and not by_place, takes_options)


def told(error: BaseException, file: Path | None, *, message: bool = True) -> str:
    """`rules.py:12: KeyError: 'user'`: where in the user's code it happened, and with `message` what was said."""
    text = f"{type(error).__name__}: {str(error)[:500] if message else ''}".rstrip(": ")
    place = _place(error.__traceback__, None if file is None else str(file))
    return f"{place}: {text}" if place else text


def _place(trace: TracebackType | None, file: str | None) -> str:
    place = inner = ""
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        inner = f"{name}:{trace.tb_lineno}"
        if name == file:
            place = inner
        trace = trace.tb_next
    return place or inner


def _syntax(file: Path | None, error: Exception) -> str:
    if isinstance(error, SyntaxError):
        return f"{error.filename or file}:{error.lineno or 0}: {type(error).__name__}: {error.msg}"
    return f"{file}: {error}"


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            data = opened.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise CodeError(f"{file} cannot be read: {error.strerror}") from None
    if len(data) > FILE_BYTES_MAX:
        raise CodeError(f"{file} is larger than {FILE_BYTES_MAX} bytes")
    return data


def _run(path: Path) -> ModuleType:
    """A module of its own for each processor, so that two of them share nothing and a changed file is read again."""
    module = ModuleType(f"penstock_python_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses and pickle look their module up
    exec(compile(_read(path), str(path), "exec"), module.__dict__)  # noqa: S102 (the user's own code, on purpose)
    return module


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """What runs when the module is loaded, inside of `if`, `try` and `with` too."""
    for statement in body:
        yield statement
        if isinstance(statement, _FunctionNode | ast.ClassDef):
            continue
        for field in ("body", "orelse", "finalbody"):
            yield from _statements(getattr(statement, field, []))
        for handler in getattr(statement, "handlers", []):
            yield from _statements(handler.body)


def _names(statement: ast.stmt) -> set[str]:
    """Names that a statement binds."""
    match statement:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return {name}
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            return {alias.asname or alias.name for alias in names}
        case ast.Assign(targets=targets):
            return {node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)}
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr()):
            return {name}
        case _:
            return set()


def _is_star(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.ImportFrom) and any(alias.name == "*" for alias in statement.names)


def _gives_something(function: _FunctionNode) -> bool:
    pending: list[ast.AST] = list(function.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Yield | ast.YieldFrom | ast.Raise) or (isinstance(node, ast.Return) and node.value):
            return True
        if not isinstance(node, _FunctionNode | ast.Lambda | ast.ClassDef):
            pending += ast.iter_child_nodes(node)
    return False


def _signature(function: _FunctionNode) -> inspect.Signature:
    arguments = function.args
    places = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(places) - len(arguments.defaults)) + list(arguments.defaults)
    parameters = [_parameter(each, _POSITIONAL[1], default) for each, default in zip(places, defaults, strict=True)]
    if arguments.vararg:
        parameters.append(_parameter(arguments.vararg, inspect.Parameter.VAR_POSITIONAL, None))
    parameters += [
        _parameter(each, inspect.Parameter.KEYWORD_ONLY, default)
        for each, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    ]
    return inspect.Signature(parameters)


def _parameter(argument: ast.arg, kind: Any, default: ast.expr | None) -> inspect.Parameter:
    return inspect.Parameter(
        argument.arg,
        kind,
        default=inspect.Parameter.empty if default is None else ast.unparse(default),
        annotation=inspect.Parameter.empty if argument.annotation is None else ast.unparse(argument.annotation),
    )


def _is_batch(parameter: inspect.Parameter) -> bool:
    annotation = parameter.annotation
    if annotation is inspect.Parameter.empty:
        return parameter.name == "batch"
    if isinstance(annotation, str):
        return annotation.strip("'\"").rpartition(".")[2] == "Batch"
    return annotation is sdk.Batch
