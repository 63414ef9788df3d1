"""Prose of the Python installation: prose is kept, code and tables are not; one machine gives one corpus."""

from pathlib import Path

import pytest

from hmtl_plugin.errors import UserError
from hmtl_plugin.preparation import python_prose as embedded
from hmtl_plugin.preparation.prose import is_prose, paragraphs
from hmtl_plugin.preparation.python_prose import docstrings, gather_python_prose

PROSE = "This function returns the number of items that were found in the list, or zero if there are none."
OTHER = "The caller must hold the lock while it is running, because other threads may change the table."

DOCSTRING = f"""{PROSE}

    Parameters
    ----------
    items : list of str
        The items that are to be counted, each of which has to be a string of some length.

    >>> count(["a", "b"])
    2

    {OTHER}

    .. note::
       The ``result`` is :func:`~a.b.cached` for as long as *the* `object <http://x.org>`_ that was given is alive.

    .. code-block:: python

        this is some code that one would not take for prose if one looked at it

    :param items: the items that are to be counted, as it was said in the section above.
    - A list item that is long enough to be prose but is part of a list, which is left out here.

    +------+-----+
    | The  | and |
    +------+-----+

    Permission is hereby granted, free of charge, to any person who has a copy of this software.
    """


def test_prose_is_kept_and_the_rest_is_not() -> None:
    assert paragraphs(DOCSTRING) == [
        PROSE,
        OTHER,
        "The result is a.b.cached for as long as the object that was given is alive.",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "x = f(a, b) if the value of it is not in the list of all the names.",
        "too short.",
        "This one has no full stop at the end of it and is thus no whole sentence",
        "The formula \\alpha is the one that we use in all of these cases.",
        "Foo Bar Baz Qux Quux Corge Grault Garply Waldo Fred Plugh Xyzzy Thud.",
        "The a_b and c_d and e_f and g_h and i_j.k_l m_n.o_p are q_r.s_t.",
    ],
)
def test_what_is_no_prose(text: str) -> None:
    assert not paragraphs(text)


def test_markup_is_removed() -> None:
    assert is_prose(PROSE)
    text = "Use ``len()`` and **not** `size` [1]_ when the |version| of it is [given](http://x.y/z) by the user."
    assert paragraphs(text) == ["Use len() and not size when the version of it is given by the user."]


def test_docstrings_in_source_order_without_importing() -> None:
    filler = "word " * 20
    source = f'''"""Module {filler}"""
raise SystemExit("imported")
def f():
    """Function {filler}"""
    def g():
        """Inner {filler}"""
class C:
    """Class {filler}"""
if True:
    def h():
        """Conditional {filler}"""
add_docstr(f, r"""Added {"long " * 60}""".format(1))
x = """Not a docstring {filler}"""
'''
    found = [text.split()[0] for text in docstrings(source.encode())]
    assert found == ["Module", "Function", "Inner", "Class", "Conditional", "Added"]
    assert docstrings(b'"""' + b"a" * 300 + b'"""\ndef broken(:') == []
    assert docstrings(b'"""' + b"a" * 300 + b'"""\x00') == []
    assert docstrings(b"\xff\xfe" + b'"""' + b"a" * 300 + b'"""') == []


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with three small packages instead of its own."""
    root = tmp_path / "site-packages"
    for name, texts in {"b": (PROSE, OTHER), "a": (PROSE, OTHER, f"But {PROSE}"), "c": (f"Now {OTHER}",)}.items():
        (root / name).mkdir(parents=True)
        blocks = "\n\n".join(texts)
        (root / name / "__init__.py").write_text(f'"""{blocks}\n"""\nraise SystemExit\n')
    (root / "a" / "tests").mkdir()
    (root / "a" / "tests" / "x.py").write_text(f'"""Tests {PROSE}\n\nTests {OTHER}\n"""')
    (root / "LICENSE.txt").write_text(f"Free. {PROSE}\n\nFree. {OTHER}")
    (root / "z.dist-info").mkdir()
    (root / "z.dist-info" / "METADATA").write_text(f"Name: z\n\nHere {PROSE}\n\nHere {OTHER}\n")
    monkeypatch.setattr(embedded, "package_folders", lambda: [root])
    monkeypatch.setattr(embedded, "topics", list)
    monkeypatch.setattr(embedded, "standard_library", lambda: tmp_path / "nothing")
    return root


def test_a_module_is_a_document_and_repeats_go(packages: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "embedded.txt"
    summary = gather_python_prose(out, workers=1)
    documents = [[PROSE, OTHER, f"But {PROSE}"], [f"Here {PROSE}", f"Here {OTHER}"]]
    assert out.read_text() == "\n\n".join("\n".join(doc) for doc in documents) + "\n"
    assert (summary.documents, summary.paragraphs, summary.size) == (2, 5, out.stat().st_size)
    assert gather_python_prose(out, workers=1).skipped
    first = out.read_bytes()
    assert not gather_python_prose(out, workers=2, overwrite=True).skipped
    assert out.read_bytes() == first
    assert [p.name for p in out.parent.iterdir()] == ["embedded.txt"]


def test_cap_and_minimum(packages: Path, tmp_path: Path) -> None:
    assert gather_python_prose(tmp_path / "e", max_megabytes=1e-5, workers=1).documents == 1
    with pytest.raises(UserError, match=r"found 0\.0 MB of prose"):
        gather_python_prose(tmp_path / "f", min_megabytes=3, workers=1)
    assert not list(tmp_path.glob("f*"))


def test_language_reference_is_prose() -> None:
    topics = [topic for topic in embedded.topics() if len(topic) >= 2]
    assert len(topics) > 40
    assert sum(len(p) for topic in topics for p in topic) > 150_000
    assert not [p for topic in topics for p in topic if ">>>" in p or "\n" in p]
