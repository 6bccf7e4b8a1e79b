"""Read the Alpine expressions of unfold's templates, and tell which of them Alpine's CSP build cannot run.

The CSP build evaluates with a small parser of its own instead of the JavaScript engine. It knows one expression:
literals, arrays, objects, properties, calls, ``! + - * / %``, comparisons, ``&& || ?:``, ``= ++ --``. No statements,
functions, templates, ``new``, ``?.``, ``??`` or spread, and no globals: names come from ``x-data`` and Alpine's magics.
Source: ``src/parser.js`` of @alpinejs/csp 3.17.4.
"""

from __future__ import annotations

import re
from pathlib import Path

import unfold

UNFOLD = Path(unfold.__file__).parent
SCRIPT = Path(__file__).resolve().parents[3] / "portal/site/static/site/admin.js"

_TAG = r"\{%.*?%\}|\{\{.*?\}\}"
_ATTRIBUTE = re.compile(
    rf"""(?<![\w-])((?:x-(?:data|init|show|bind|on|text|html|model|effect|if|for|sort|resize|anchor|trap|modelable|id)|:|@)"""
    rf"""[\w:.-]*)="((?:{_TAG}|[^"])*)\"""",
    re.DOTALL,
)
_FOR = re.compile(r"^\s*\(?[\w, ]+\)?\s+in\s+")
_TOKEN = re.compile(
    r"""\s*(?:(?P<string>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|(?P<number>\d[\d.]*)|(?P<name>[A-Za-z_$][\w$]*)"""
    r"""|(?P<operator>===|!==|=>|==|!=|<=|>=|&&|\|\||\+\+|--|\?\?|\?\.|\.\.\.|[+*/%-]=|.))""",
    re.DOTALL,
)
_LACKING = {"=>", "??", "?.", "...", "+=", "-=", "*=", "/=", "%=", "`", "&", "|", "^", "~"}
_STATEMENTS = {
    *("if", "else", "for", "while", "return", "const", "let", "var", "function", "class", "new", "typeof", "void"),
    *("delete", "await", "async", "throw", "try", "instanceof"),
}
_GLOBALS = {
    *("window", "document", "location", "localStorage", "sessionStorage", "navigator", "console", "history", "Alpine"),
    *("htmx", "Math", "JSON", "Object", "Array", "Date", "Number", "String", "Boolean", "parseInt", "parseFloat"),
    *("setTimeout", "getComputedStyle", "fetch", "alert", "confirm", "django"),
}


def expressions(text: str) -> set[tuple[str, str]]:
    """Return attribute and expression of each Alpine directive, with Django's tags filled in."""
    found = set()
    for attribute, raw in _ATTRIBUTE.findall(text):
        expression = _without_tags(raw)
        if attribute.startswith("x-for"):
            expression = _FOR.sub("", expression)
        if expression.strip():
            found.add((attribute, expression))
    return found


def _without_tags(text: str) -> str:
    """Take the first branch of each condition and put a plain word for each value."""
    text = re.sub(r"\{%\s*else\s*%\}.*?(\{%\s*endif\s*%\})", r"\1", text, flags=re.DOTALL)
    text = re.sub(r"\{%.*?%\}", "", text, flags=re.DOTALL)
    return re.sub(r"\{\{.*?\}\}", "1", text, flags=re.DOTALL)


def lacking(expression: str, attribute: str = "") -> list[str]:
    """Return what the CSP build cannot run in it; nothing means it can."""
    found: list[str] = []
    previous = ""
    tokens = [match for match in _TOKEN.finditer(expression) if match[0].strip()]
    for index, match in enumerate(tokens):
        token = match[0].strip()
        following = tokens[index + 1][0].strip() if index + 1 < len(tokens) else ""
        if match["operator"] and (token in _LACKING or (token == ";" and following)):
            found.append(token)
        is_property = previous == "." or (following == ":" and previous in {"{", ","})
        if match["name"] and not is_property and token in _STATEMENTS | _GLOBALS:
            found.append(token)
        previous = token
    if attribute.startswith(("x-bind:style", ":style")) and not expression.lstrip().startswith("{"):
        found.append("a style as text")
    return found


def replacements() -> dict[str, str]:
    """Return the table of ``admin.js``."""
    table = SCRIPT.read_text().partition("const REPLACEMENTS = {")[2].partition("\n};")[0]
    pairs: list[tuple[str, str]] = re.findall(r'^  "(.+)": "(.+)",$', table, re.MULTILINE)
    return dict(pairs)


def templates() -> list[Path]:
    """Return unfold's templates, without its adapters to packages that the portal does not use."""
    return [
        path for path in sorted(UNFOLD.rglob("*.html")) if "contrib" not in path.parts and "crispy" not in str(path)
    ]
