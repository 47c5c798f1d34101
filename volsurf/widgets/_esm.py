"""The JavaScript of a panel as one self-contained module.

A notebook front end loads a widget's module from a blob: URL, where relative imports cannot resolve. The panels share
`live.js`, so its text is put in front of the panel's own and the panel's import of it, one statement of fixed form, is
taken out. On disk both stay ordinary modules that Node, editors and tests can import. Comment lines and indentation stay
behind: the text travels to every page.
"""

from __future__ import annotations

import functools
import re
from importlib.resources import files

_SHARED_IMPORT = re.compile(r'^import \{[^}]*\} from "\./live\.js";?\n', re.MULTILINE)
_ANY_IMPORT = re.compile(r'^\s*import\b|\bimport\s*\(|\bfrom\s+["\']', re.MULTILINE)

_SHORTER = (
    # comments that have their lines to themselves
    (re.compile(r"^[ \t]*(?:/\*\*.*?\*/|//[^\n]*)\n", re.MULTILINE | re.DOTALL), ""),
    (re.compile(r"^[ \t]+|\n(?=\n)", re.MULTILINE), ""),
    (re.compile(r"^export (?=const|function)", re.MULTILINE), ""),
    (re.compile(r"\b(if|for) \("), r"\1("),
    (re.compile(r"\) \{"), "){"),
    # operators that no text or style contains
    (re.compile(r" (=>|===|!==|&&|\|\||\?\?|[-+*]?=|[-+*?<>]|[<>]=) "), r"\1"),
)

MAXIMUM_BYTES = 32_768
"""Longest module of a panel: it is sent once per widget, over the same connection as the frames."""


@functools.cache
def panel_module(name: str) -> str:
    """Text of the self-contained module of panel `name` ("surface", "smiles", "status")."""
    folder = files("volsurf.widgets")
    shared = folder.joinpath("live.js").read_text(encoding="utf-8")
    own, imports = _SHARED_IMPORT.subn("", folder.joinpath(f"{name}.js").read_text(encoding="utf-8"))
    text = f"{shared}\n{own}"
    if imports != 1 or _ANY_IMPORT.search(text):
        raise ImportError(f"{name}.js must import from ./live.js once, in one statement, and from nowhere else")
    for pattern, instead in _SHORTER:
        text = pattern.sub(instead, text)
    return text
