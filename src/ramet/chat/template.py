"""A checkpoint's chat template, run in a sandbox with bounds on time and size."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.ext import Extension, loopcontrols
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from ramet.chat import formats
from ramet.chat.efforts import read_efforts
from ramet.errors import RametError
from ramet.models.fields import read_json

SECONDS = 20.0
CHARACTERS = 1 << 26

QWEN3_5 = formats.QWEN3_5.template
"""The template of checkpoints that are made here, in Qwen3.5's format."""


class TemplateError(RametError):
    """The chat template refused the conversation, or is itself at fault."""


class TemplateStoppedError(TemplateError):
    """The chat template passed its bounds."""


class _RunawayTemplate(Exception):
    """A template passed its bounds. Not a jinja error, so that no part of the template can catch or mask it."""


_deadline: ContextVar[float] = ContextVar("_deadline")


class ChatTemplate:
    """A compiled chat template. Safe to use from several threads.

    Templates come with checkpoints, so they run in jinja's sandbox, and every turn of a loop, call of a macro and
    growth of a string is checked against `SECONDS` and `CHARACTERS`.
    """

    def __init__(self, source: str, origin: str, constants: Mapping[str, Any] | None = None) -> None:
        """`origin` names the template in errors; `constants` are variables that are always there.

        Raises TemplateError if it does not compile.
        """
        self.source = source
        self.origin = origin
        self._constants = dict(constants or {})
        try:
            self._template = _ENVIRONMENT.from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(f"{origin}: the chat template is broken in line {error.lineno}: {error}") from error
        except RecursionError as error:
            raise TemplateError(f"{origin}: the chat template is nested too deeply") from error

    def render(self, variables: Mapping[str, Any]) -> str:
        """The text for `variables`. Raises TemplateError with what the template said, or what is wrong with it."""
        token = _deadline.set(time.monotonic() + SECONDS)
        try:
            return self._template.render({**variables, **self._constants})
        except jinja2.TemplateError as error:
            raise TemplateError(f"The chat template cannot render this conversation: {error}") from error
        except _RunawayTemplate as error:
            raise TemplateStoppedError(f"{self.origin}: the chat template was stopped: {error}") from error
        except RecursionError as error:
            raise TemplateError(f"{self.origin}: the chat template was stopped: it calls itself too deeply") from error
        except (ArithmeticError, LookupError, MemoryError, TypeError, ValueError, AttributeError) as error:
            raise TemplateError(
                f"The chat template cannot render this conversation ({type(error).__name__}: {error}). "
                f"The template is from {self.origin}."
            ) from error
        finally:
            _deadline.reset(token)


def load_templates(path: str | Path) -> dict[str, ChatTemplate]:
    """The chat templates in a checkpoint's folder, by name; `default` is the usual one.

    `chat_template.jinja` comes before `chat_template` in tokenizer_config.json, which is a template or a list of named
    ones. A family that publishes no template has one here. Raises TemplateError if there is none.
    """
    folder = Path(path)
    templates: dict[str, ChatTemplate] = {}
    config_file = folder / "tokenizer_config.json"
    found = read_json(config_file).get("chat_template") if config_file.is_file() else None
    named = [{"name": "default", "template": found}] if isinstance(found, str) else found or []
    if not isinstance(named, list):
        raise TemplateError(f"{config_file}: its chat_template is neither text nor a list of named templates")
    for entry in named:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise TemplateError(f"{config_file}: an entry of its chat_template has no name")
        if not isinstance(entry.get("template"), str):
            raise TemplateError(f"{config_file}: its chat_template {entry['name']!r} has no text")
        templates[entry["name"]] = ChatTemplate(entry["template"], f"{config_file} ({entry['name']})")
    file = folder / "chat_template.jinja"
    if file.is_file():
        try:
            templates["default"] = ChatTemplate(file.read_text(encoding="utf-8"), str(file))
        except UnicodeDecodeError as error:
            raise TemplateError(f"{file}: not UTF-8 text ({error.reason} at byte {error.start})") from error
    format = formats.format_of_folder(folder)
    if "default" not in templates and format is not None and format in formats.UNPUBLISHED:
        efforts = read_efforts(folder) if format is formats.DEEPSEEK_V4 else None
        origin = f"Ramet's own template for {format.name}"
        templates["default"] = ChatTemplate(format.template, origin, {"efforts": efforts})
    if "default" not in templates:
        raise TemplateError(
            f"{folder}: no chat template. Put it in chat_template.jinja; a base model that was never trained "
            "on conversations has none."
        )
    return templates


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Plain JSON: jinja's own filter escapes HTML, which models never saw."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


class _Generation(Extension):
    """`{% generation %}...{% endgeneration %}` marks what a model writes, for training; its body renders as it is."""

    tags = {"generation"}  # noqa: RUF012 (declared so by jinja)

    def parse(self, parser: jinja2.parser.Parser) -> list[nodes.Node]:
        """The body of the tag."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Namespace(Namespace):
    """A namespace without private names, through which a template could reach into Python."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # any name may be a keyword, `self` too
        self, values = args[0], dict(*args[1:], **kwargs)
        for name in values:
            _refuse_private(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_private(name)
        super().__setitem__(name, value)


def _refuse_private(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace cannot hold the private name {name!r}")


class _CodeGenerator(CodeGenerator):
    """Compiles `a ~ b` to a join with a bound, where jinja has one without."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        """Written out in place."""
        self.write("concat([")
        for part in node.nodes:
            self.write("str(")
            self.visit(part, frame)
            self.write("), ")
        self.write("])")


class _Environment(ImmutableSandboxedEnvironment):
    """jinja as chat templates expect it, with a check wherever a template can repeat itself or grow a string."""

    code_generator_class = _CodeGenerator
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
        self.filters["tojson"] = _to_json
        self.globals.update(raise_exception=_raise_exception, strftime_now=_strftime_now, namespace=_Namespace)

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        for node in source.find_all((nodes.For, nodes.Macro, nodes.CallBlock)):
            look = nodes.EnvironmentAttribute("in_time").set_environment(self)
            node.body.insert(0, nodes.ExprStmt(look))  # type: ignore[attr-defined]
        return super()._generate(source, *args, **kwargs)

    @property
    def in_time(self) -> bool:
        """Looked at in every turn of a loop and call of a macro. Raises once the time is over."""
        if time.monotonic() > _deadline.get():
            raise _RunawayTemplate(f"it ran for more than {SECONDS:.0f} seconds")
        return True

    @staticmethod
    def concat(parts: Iterable[str]) -> str:
        """Joins what a template, macro, block or `~` wrote."""
        if isinstance(parts, list):
            _check_size(sum(map(len, parts)))
            return "".join(parts)
        kept, size = [], 0
        for part in parts:
            kept.append(part)
            size += len(part)
            _check_size(size)
        return "".join(kept)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Arithmetic on sizes that stay sane."""
        if operator == "*":
            for sequence, times in ((left, right), (right, left)):
                if isinstance(sequence, str | list | tuple) and isinstance(times, int):
                    _check_size(len(sequence) * times)
        elif operator == "+" and isinstance(left, str | list | tuple) and isinstance(right, str | list | tuple):
            _check_size(len(left) + len(right))
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            _check_size(left.bit_length() * right)
        elif operator == "%" and isinstance(left, str) and re.search(r"%[^a-zA-Z%]*(\d{5}|\*)", left):
            raise _RunawayTemplate("it pads text to an absurd width")
        return super().call_binop(context, operator, left, right)


def _check_size(size: int) -> None:
    if size > CHARACTERS:
        raise _RunawayTemplate(f"it built more than {CHARACTERS >> 20} million characters")


_ENVIRONMENT = _Environment()
