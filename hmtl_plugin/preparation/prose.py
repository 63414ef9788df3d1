"""Prose out of documentation: which paragraphs of a docstring or a text file are running English, and their
plain text. By patterns and not by docutils, as they may be Markdown as well.
"""

import inspect
import re

_MIN_WORDS, _MAX_WORDS = 9, 400
_MIN_LETTERS = 0.8  # letters and spaces among the characters
_MIN_COMMON = 0.2  # function words among the words
_MAX_SYMBOLS = 0.025
_MAX_NAMES = 0.3  # words that look like identifiers

_COMMON = frozenset(
    "a about after all also an and any are as at be because been before being between both but by can"
    " cannot could did do does each either even every for from given had has have how however if in"
    " instead into is it its itself just like made may might more most must need never new no not"
    " nothing of often on once one only or other others otherwise our over own rather same see should"
    " since so some such than that the their them then there these they this those though through thus"
    " to too two under until up upon use used using usually very was we well were what when where"
    " whether which while who why will with within without would yet you your".split()
)
_ADMONITION = re.compile(
    r"^\.\. *(note|warning|tip|hint|important|caution|attention|seealso|danger"
    r"|versionadded|versionchanged|deprecated)::.*$",
    re.IGNORECASE,
)
_LINKS = [
    (re.compile(r":[a-z:+-]+:`~?!?([^`<]*?)\s*<[^`>]*>`"), r"\1"),  # :ref:`text <target>`
    (re.compile(r":[a-z:+-]+:`[~!]?([^`]*)`"), r"\1"),  # :func:`name`
    (re.compile(r"`([^`<]*?)\s*<[^`>]*>`__?"), r"\1"),  # `text <url>`_
    (re.compile(r"\[([^\]\[]+)\]\((?:[^()\s]|\([^()\s]*\))+\)"), r"\1"),  # [text](url)
]
_MARKUP = [
    (re.compile(r"(``?)([^`]+)\1(?:__?(?!\w))?"), r"\2"),  # ``code``, `name`_
    (re.compile(r"(?<!\w)\*\*([^*\s](?:[^*]*[^*\s])?)\*\*(?!\w)"), r"\1"),
    (re.compile(r"(?<![\w*])\*([^*\s](?:[^*]*[^*\s])?)\*(?![\w*])"), r"\1"),
    (re.compile(r"(?<!\w)\|([A-Za-z][\w ]*)\|(?:__?)?(?!\w)"), r"\1"),
    (re.compile(r"\s*\[(?:\d+|#\w*|[A-Z]\w+\d*)\]_?(?=[\s.,;:)]|$)"), ""),  # [1]_ and other citations
    (re.compile(r"\\([*`_|])"), r"\1"),
    (re.compile(r"::$"), ":"),
]
_NOT_PROSE = re.compile(
    r">>>|\\[a-zA-Z]{2,}|\\\\|\$[^$]+\$|https?://|www\.|[{}<>|~]{2,}|={2,}|-{3,}|_{3,}|\*{3,}|\.{4,}|[#]{2,}|::|&[a-z]+;"
    r"|\b(?:in|of|from|see|by|to|and|on|with|is) \[[\w#]+\]_"  # a citation that is part of its sentence
    r"|<[/a-zA-Z][^>]*>|copyright|all rights reserved|permission is hereby"
    r"|warranties?\b|licensed under|spdx|@\w+\.\w+"
    r"|auto-?generated|do not edit|!\[",
    re.IGNORECASE,
)
_LIST_ITEM = re.compile(r"^\s*(?:[-*+•o]|\d{1,3}[.)]|[a-zA-Z][.)]|\(\w{1,3}\)|#\.)\s+")
_FIELD = re.compile(r"^\s*(?::[^:`]+:(?!`)|@\w+|[\w*., \[\]]{1,60}\s:\s|[\w.*]+\s*\([^)]*\)\s*:|[\w.*]+\s*(?:--|=)\s)")
_RULE = re.compile(r"^\s*([=\-~^\"'`#*+:.<>_])\1{2,}\s*$")
_TABLE = re.compile(r"^\s*(?:\+[-=+]+\+|\|.*\||[= -]*={3,} +={2,}[= ]*|[- ]*-{3,} +-{2,}[- ]*)\s*$")
_WORD = re.compile(r"[A-Za-z][A-Za-z'’-]*")
_NAME = re.compile(r"\w_\w|[a-z][A-Z]|\w\.[a-z_]\w|\(\)|[A-Z]{5,}|\w\[|\w=\w|[a-z]\d|/\w+/")
_SYMBOLS = re.compile(r"[=+*/\\<>{}\[\]|^~@#$%&_]")


def paragraphs(text: str, indented: bool = False) -> list[str]:
    """The prose paragraphs of a docstring or plain-text document, each one line, markup removed.

    With `indented` also those that are indented, as the definitions of the language reference are.
    """
    return [found for block in _blocks(inspect.cleandoc(text), indented) if (found := _prose(block))]


def _blocks(text: str, indented: bool) -> list[list[str]]:
    """Blocks of unindented lines; what is indented is code or a list of parameters, but in an admonition it
    is prose.
    """
    blocks: list[list[str]] = []
    block: list[str] = []
    inside = 0  # indentation of the admonition whose body is read; 0 outside
    fenced = False

    def close() -> None:
        nonlocal block
        if block:
            blocks.append(block)
        block = []

    for line in text.replace("\t", "    ").split("\n"):
        stripped = line.strip()
        if stripped.startswith(("```", "~~~")):
            fenced = not fenced
            close()
        elif fenced:
            continue
        elif not stripped:
            close()
        elif _ADMONITION.match(line):
            close()
            inside = 1
        else:
            indent = len(line) - len(line.lstrip())
            if indented or (inside and indent):
                block.append(stripped)
            else:
                inside = 0
                block.append(line.rstrip())
    close()
    return blocks


def _prose(lines: list[str]) -> str | None:
    """A block as one line of plain text, None when it is not prose."""
    words = " ".join(lines).split()
    if len(words) < _MIN_WORDS:  # half of all blocks; what follows only ever takes words away
        return None
    if any(line.startswith(" ") for line in lines) or any(_RULE.match(line) or _TABLE.match(line) for line in lines):
        return None
    if lines[0].startswith((">>>", "...", "..", "#", "|", "$ ", "% ", "In [", "Out[")) or _FIELD.match(lines[0]):
        return None
    if sum(bool(_LIST_ITEM.match(line)) for line in lines) > (0 if _LIST_ITEM.match(lines[0]) else 1):
        return None
    text = " ".join(words)
    if ":math:" in text:
        return None
    for pattern, replacement in _LINKS:
        text = pattern.sub(replacement, text)
    if _NOT_PROSE.search(text):
        return None
    for pattern, replacement in _MARKUP:
        text = pattern.sub(replacement, text)
    text = re.sub(r"\s+([.,;:])(?=\s|$)", r"\1", " ".join(text.split()))
    return text if is_prose(text) else None


def is_prose(text: str) -> bool:
    """Whether one line of text reads as English sentences: begins and ends as such, mostly words, many
    function words.
    """
    if not re.match(r"[\"'“(]?[A-Z]", text) or not re.search(r"[.!?][\"'”)]?$", text) or "`" in text:
        return False
    words = text.split(" ")
    if not _MIN_WORDS <= len(words) <= _MAX_WORDS:
        return False
    return (  # the cheapest first
        text.count("(") == text.count(")")
        and text.count('"') % 2 == 0
        and (sum(map(str.isalpha, text)) + text.count(" ")) / len(text) >= _MIN_LETTERS
        and len(_SYMBOLS.findall(text)) / len(text) <= _MAX_SYMBOLS
        and sum(word.lower() in _COMMON for word in _WORD.findall(text)) / len(words) >= _MIN_COMMON
        and sum(bool(_NAME.search(word)) for word in words) / len(words) <= _MAX_NAMES
    )
