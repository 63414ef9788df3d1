"""What the documents say of files, commands and options is so, and their lines are short."""

import contextlib
import io
import re
import shlex
from functools import cache
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from hmtl_plugin.commands.run import COMMANDS
from tests.commands.running import run_script
from tests.conftest import REPOSITORY

PAGES = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md")])
NAMES = [str(page.relative_to(REPOSITORY)) for page in PAGES]
PASSED_ON = {"finetune_glue", "finetune_squad", "recipe_options"}  # other options go to fairseq-train


def text_of(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_links_and_pictures_are_there(name: str) -> None:
    page, links = REPOSITORY / name, re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text_of(name), flags=re.S))
    for link in links:
        if link.startswith(("http://", "https://")):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), f"{name}: {link}"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{name}: {link}"


@cache
def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("name", NAMES)
def test_lines_of_prose_are_short(name: str) -> None:
    prose = re.sub(r"```.*?```", "", text_of(name), flags=re.S).splitlines()
    long = [line for line in prose if len(line) > 120 and not line.startswith(("|", "    ", "<!--"))]
    assert not long, f"{name}: {long[0]}"


def commands(name: str) -> list[list[str]]:
    """Commands of a page's code blocks, words as a shell cuts them."""
    text = text_of(name)
    blocks = re.findall(r"```(?:bash|sh|console)?\n(.*?)```", text, flags=re.S)
    lines = "\n".join([*blocks, *re.findall(r"^    (.*)$", text, flags=re.M)]).replace("\\\n", " ")
    found = []
    for line in lines.splitlines():
        if re.match(r"([A-Z_]+=\S+ )*(bash|python|fairseq-train) ", line):
            try:
                found.append(shlex.split(line, comments=True))
            except ValueError:  # python -c with a text of several lines
                continue
    return found


@cache
def options_of(command: str) -> set[str]:
    """Of its --help, printed in this process."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), pytest.raises(SystemExit):
        run_script(command, "--help")
    return set(re.findall(r"--[a-z][a-z0-9-]*", said.getvalue()))


@pytest.mark.parametrize("name", NAMES)
def test_commands_name_what_there_is(name: str) -> None:
    """Scripts, recipes and modules exist, and a script's options are among those of its --help."""
    for words in commands(name):
        words = words[next(i for i, word in enumerate(words) if "=" not in word or word.startswith("-")) :]
        files = [word for word in words if re.match(r"(scripts|recipes|benchmarks)/[\w/]+\.(py|sh)$", word)]
        for file in files:
            assert (REPOSITORY / file).is_file(), f"{name}: {' '.join(words)}"
        if words[:3] == ["python", "-m", "hmtl_plugin"] and words[3] != "COMMAND":
            assert words[3].replace("-", "_") in COMMANDS, f"{name}: {' '.join(words)}"
        script = files[0] if files and files[0].endswith(".py") else None
        command = Path(script).stem if script and script.startswith("scripts/") else ""
        if command in COMMANDS and command not in PASSED_ON:
            given = {word.partition("=")[0] for word in words if re.match(r"--[a-z]", word)}
            assert given <= options_of(command) | {"--user-dir"}, f"{name}: {' '.join(words)}"


def test_the_committed_probing_results_give_their_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the code that its page has."""
    (code,) = re.findall(r"```python\n(.*?)```", text_of("docs/results/probing/README.md"), flags=re.S)
    for name in ("results", "minilm"):
        monkeypatch.chdir(tmp_path)
        exec(code.replace("docs/results/probing/results", str(REPOSITORY / "docs/results/probing" / name)), {})
        assert "Layer-wise probing" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_citation_can_be_read() -> None:
    cited = OmegaConf.to_container(OmegaConf.load(REPOSITORY / "CITATION.cff"))
    assert isinstance(cited, dict)
    assert {"cff-version", "message", "title", "authors", "version", "license"} <= cited.keys()
    assert cited["version"] in text_of("setup.py") and "2011.04451" in str(cited["references"])


def test_every_page_is_named_in_the_readme() -> None:
    readme = text_of("README.md")
    assert all(f"]({name})" in readme for name in NAMES if name != "README.md")
