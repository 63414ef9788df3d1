"""Fetching GLUE and SQuAD: from a server on this machine and from folders, with archives made up here."""

import functools
import hashlib
import http.server
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from hmtl_plugin.glue.files import find_files
from hmtl_plugin.glue.tasks import TASKS

REPOSITORY = Path(__file__).resolve().parents[1]
TSV = b"sentence\tlabel\nA cat sat.\t1\n"


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; notes what is asked for; can break off, refuse ranges, or answer with errors."""

    server: "Server"

    def do_GET(self) -> None:
        name, server = self.path.rpartition("/")[2], self.server
        server.asked.append(f"{name} {self.headers.get('Range', '')}".strip())
        if server.errors:
            self.send_error(server.errors.pop(0))
            return
        path = server.folder / name
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        start = int(self.headers["Range"][6:-1]) if server.ranges and "Range" in self.headers else 0
        if start and start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = start + server.breaks.pop(0) if server.breaks else len(content)
        self.wfile.write(content[start:end])

    def log_message(self, format: str, *arguments: object) -> None:
        """Silence."""


class Server(http.server.ThreadingHTTPServer):
    """A server of a folder, and the table of what is published there.

    Attributes:
        asked: names asked for, with the range.
        breaks: the next answers end after so many bytes.
        errors: the next answers are these errors.
        ranges: whether parts of a file can be asked for.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.table, self.ranges = folder / "www", folder / "checksums.tsv", True
        self.url = f"http://127.0.0.1:{self.server_port}/data"
        self.asked: list[str] = []
        self.breaks: list[int] = []
        self.errors: list[int] = []
        self.folder.mkdir()
        self.table.write_text("# a comment\n\n")

    def publish(self, name: str, content: bytes, recorded: bytes | None = None, known: bool = True) -> bytes:
        """Put a file on the server and into the table, there with the sha256 of ``recorded`` where that is given."""
        (self.folder / name).write_bytes(content)
        recorded = content if recorded is None else recorded
        values = f"{hashlib.sha256(recorded).hexdigest()}\t{len(recorded)}" if known else "unknown\tunknown"
        with self.table.open("a") as file:
            file.write(f"{name}\t{values}\t{self.url}/{name}\n")
        return content


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path) as running:
        thread = threading.Thread(target=functools.partial(running.serve_forever, 0.01))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def script(server: Server, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """scripts/download.py as a module that reads the server's table and does not wait."""
    spec = importlib.util.spec_from_file_location("download", REPOSITORY / "scripts" / "download.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "download", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "TABLE", server.table)
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.001)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return module


def make_zip(folder: Path, members: dict[str, bytes]) -> bytes:
    path = folder / "made.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    content = path.read_bytes()
    path.unlink()
    return content


@pytest.fixture
def sst2(tmp_path: Path) -> bytes:
    members = {f"SST-2/{split}.tsv": TSV for split in ("train", "dev", "test")}
    more = {"SST-2/original/big.txt": b"x", "SST-2/README.txt": b"notes", "__MACOSX/SST-2/train.tsv": b"no"}
    return make_zip(tmp_path, members | more)


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def refused(script: ModuleType, *arguments: object) -> str:
    with pytest.raises(script.DownloadError) as error:
        script.main(list(map(str, arguments)))
    message = str(error.value)
    assert "\n" not in message
    return message


def test_fetches_what_the_task_needs_and_then_does_nothing(
    script: ModuleType, server: Server, sst2: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.publish("SST-2.zip", sst2)
    script.main(["glue", str(tmp_path / "glue"), "sst2"])
    files = [f"SST-2/{name}" for name in ("README.txt", "dev.tsv", "download.json", "test.tsv", "train.tsv")]
    assert tree(tmp_path / "glue") == files  # no archive, no part is left
    assert not (tmp_path / "glue" / ".download").exists()
    assert (tmp_path / "glue" / "SST-2" / "train.tsv").read_bytes() == TSV
    assert len(find_files(TASKS["SST-2"], tmp_path / "glue")) == 3
    times = [path.stat().st_mtime_ns for path in (tmp_path / "glue").rglob("*")]
    script.main(["glue", str(tmp_path / "glue"), "SST-2"])
    assert server.asked == ["SST-2.zip"]
    assert times == [path.stat().st_mtime_ns for path in (tmp_path / "glue").rglob("*")]
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path}/glue/SST-2: fetched",
        f"{tmp_path}/glue/SST-2: already there",
    ]


def test_wrong_checksum_is_refused_and_leaves_nothing(
    script: ModuleType, server: Server, sst2: bytes, tmp_path: Path
) -> None:
    server.publish("SST-2.zip", sst2, recorded=b"another")
    message = refused(script, "glue", tmp_path / "glue", "SST-2")
    assert "SST-2.zip: is not the file that was published" in message
    assert hashlib.sha256(sst2).hexdigest() in message and hashlib.sha256(b"another").hexdigest() in message
    assert list((tmp_path / "glue").iterdir()) == []
    server.publish("CoLA.zip", b"short", recorded=b"a longer one")  # no endless asking for the rest
    assert "CoLA.zip: is not the file" in refused(script, "glue", tmp_path / "glue", "CoLA")
    assert server.asked == ["SST-2.zip", "CoLA.zip"]
    assert list((tmp_path / "glue").iterdir()) == []


@pytest.mark.parametrize("ranges", [True, False])
def test_goes_on_where_it_broke_off(script: ModuleType, server: Server, tmp_path: Path, ranges: bool) -> None:
    content = server.publish("train-v1.1.json", os.urandom(5000))
    server.publish("dev-v1.1.json", b"{}")
    server.ranges, server.breaks, server.errors = ranges, [1000, 500], [503]
    script.main(["squad", str(tmp_path / "squad"), "1.1"])
    assert (tmp_path / "squad" / "train-v1.1.json").read_bytes() == content
    second, third = ("bytes=1000-", "bytes=1500-") if ranges else ("bytes=1000-", "bytes=500-")
    name = "train-v1.1.json"
    assert server.asked == [name, name, f"{name} {second}", f"{name} {third}", "dev-v1.1.json"]
    assert tree(tmp_path / "squad") == ["dev-v1.1.json", "train-v1.1.json"]


@pytest.mark.parametrize(
    "kept", [b"the beg", b"another", b"another, which is longer than it", b"the beginning and the end"]
)
def test_goes_on_in_another_run(script: ModuleType, server: Server, tmp_path: Path, kept: bytes) -> None:
    """A part that was of another file costs one more download."""
    content = server.publish("train-v1.1.json", b"the beginning and the end")
    server.publish("dev-v1.1.json", b"{}")
    part = tmp_path / "squad" / ".download" / "train-v1.1.json.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(kept)
    script.main(["squad", str(tmp_path / "squad"), "1.1"])
    assert (tmp_path / "squad" / "train-v1.1.json").read_bytes() == content
    assert tree(tmp_path / "squad") == ["dev-v1.1.json", "train-v1.1.json"]


def test_gives_up_and_keeps_what_came(script: ModuleType, server: Server, tmp_path: Path) -> None:
    content = server.publish("train-v1.1.json", os.urandom(5000))
    server.publish("dev-v1.1.json", b"{}")
    server.breaks = [1000, *[0] * script.ATTEMPTS]
    message = refused(script, "squad", tmp_path / "squad", "1.1")
    assert "broke off after 1000 of 5000 bytes" in message and "--from FOLDER" in message
    assert len(server.asked) == 1 + script.ATTEMPTS
    script.main(["squad", str(tmp_path / "squad"), "1.1"])
    assert server.asked[-2:] == ["train-v1.1.json bytes=1000-", "dev-v1.1.json"]
    assert (tmp_path / "squad" / "train-v1.1.json").read_bytes() == content


def test_says_what_the_server_says(script: ModuleType, server: Server, tmp_path: Path) -> None:
    server.publish("AX.tsv", b"x")
    (server.folder / "AX.tsv").unlink()
    assert "the server answers 404" in refused(script, "glue", tmp_path / "glue", "AX")
    assert server.asked == ["AX.tsv"]  # no use in trying again
    server.shutdown()
    server.server_close()
    assert "Connection refused" in refused(script, "glue", tmp_path / "glue", "AX")


@pytest.mark.parametrize(
    "name", ["../train.tsv", "/etc/train.tsv", "SST-2/../../train.tsv", "SST-2\\..\\..\\train.tsv"]
)
def test_archives_that_lead_out_of_the_folder_are_refused(
    script: ModuleType, server: Server, tmp_path: Path, name: str
) -> None:
    members = {f"SST-2/{split}.tsv": TSV for split in ("train", "dev", "test")}
    server.publish("SST-2.zip", make_zip(tmp_path, members | {name: b"out"}))
    before = tree(tmp_path)
    assert "leads out of the folder" in refused(script, "glue", tmp_path / "glue", "SST-2")
    assert tree(tmp_path) == before


def test_archives_that_are_none(script: ModuleType, server: Server, tmp_path: Path, sst2: bytes) -> None:
    local, central = sst2.index(b"PK\x03\x04"), sst2.index(b"PK\x01\x02")  # of a member: flags, compression
    for places, value in (((), 0), ((local + 6, central + 8), 1), ((local + 8, central + 10), 99)):
        content = bytearray(sst2 if places else b"no zip")
        for place in places:
            content[place] = value
        server.publish("SST-2.zip", bytes(content))
        assert "is no zip file that can be read" in refused(script, "glue", tmp_path / "glue", "SST-2")
    server.publish("CoLA.zip", make_zip(tmp_path, {"CoLA/train.tsv": TSV, "dev.tsv": TSV}))
    assert "holds no CoLA/dev.tsv" in refused(script, "glue", tmp_path / "glue", "CoLA")
    assert not list((tmp_path / "glue").glob("*"))


def test_from_a_folder_or_another_address(script: ModuleType, server: Server, sst2: bytes, tmp_path: Path) -> None:
    server.publish("SST-2.zip", sst2)
    server.publish("train-v2.0.json", b"{}")
    server.publish("dev-v2.0.json", b"{ }")
    shutil.copytree(server.folder, tmp_path / "here")
    given = ["--from", str(tmp_path / "here")]
    script.main(["glue", str(tmp_path / "glue"), *given, "SST-2"])
    script.main(["squad", *given, str(tmp_path / "squad"), "2.0"])
    assert server.asked == []
    assert tree(tmp_path / "squad") == ["dev-v2.0.json", "train-v2.0.json"]
    assert (tmp_path / "glue" / "SST-2" / "dev.tsv").read_bytes() == TSV
    assert tree(tmp_path / "here") == tree(server.folder)  # they stay
    script.main(["glue", str(tmp_path / "other"), "SST-2", "--from", f"{server.url}/mirror/"])
    assert server.asked == ["SST-2.zip"]

    (tmp_path / "here" / "SST-2.zip").write_bytes(b"changed")
    assert "is not the file that was published" in refused(script, "glue", tmp_path / "new", "SST-2", *given)
    (tmp_path / "here" / "SST-2.zip").unlink()
    assert f"holds no SST-2.zip; it is published at {server.url}" in refused(
        script, "glue", tmp_path / "new", "SST-2", *given
    )
    assert "no such folder" in refused(script, "glue", tmp_path / "new", "SST-2", "--from", tmp_path / "nowhere")
    assert tree(tmp_path / "new") == []


def test_without_a_recorded_checksum(
    script: ModuleType, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = server.publish("AX.tsv", b"index\tsentence1\tsentence2\n", known=False)
    message = refused(script, "glue", tmp_path / "glue", "AX")
    assert hashlib.sha256(content).hexdigest() in message and "--accept-unverified" in message
    script.main(["glue", str(tmp_path / "glue"), "diagnostic", "--accept-unverified"])
    assert server.asked == ["AX.tsv"]
    assert tree(tmp_path / "glue") == ["diagnostic/diagnostic.tsv", "diagnostic/download.json"]
    assert capsys.readouterr().out == f"{tmp_path}/glue/diagnostic: fetched, NOT verified\n"


def test_mrpc_is_put_together(script: ModuleType, server: Server, tmp_path: Path) -> None:
    header = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n".encode()
    rows = [b'%d\t%d\t%d\tOne \xc2\x85 "%d .\tOther %d .\n' % (i % 2, i, i + 10, i, i) for i in range(5)]
    server.publish("msr_paraphrase_train.txt", header + b"".join(rows))
    server.publish("msr_paraphrase_test.txt", header + rows[1] + rows[0])
    server.publish("mrpc_dev_ids.tsv", b"3\t13\n1\t11\n")
    script.main(["glue", str(tmp_path / "glue"), "MRPC"])
    folder = tmp_path / "glue" / "MRPC"
    assert (folder / "train.tsv").read_bytes() == header + rows[0] + rows[2] + rows[4]
    assert (folder / "dev.tsv").read_bytes() == header + rows[1] + rows[3]
    test = b"index\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
    assert (folder / "test.tsv").read_bytes() == test + b"0" + rows[1][1:] + b"1" + rows[0][1:]
    assert len(find_files(TASKS["MRPC"], tmp_path / "glue")) == 3
    assert not (tmp_path / "glue" / ".download").exists()


def test_mrpc_ids_must_be_found(script: ModuleType, server: Server, tmp_path: Path) -> None:
    server.publish("msr_paraphrase_train.txt", b"Quality\t#1 ID\t#2 ID\n1\t2\t3\n")
    server.publish("msr_paraphrase_test.txt", b"Quality\t#1 ID\t#2 ID\n")
    server.publish("mrpc_dev_ids.tsv", b"2\t3\n4\t5\n")
    assert "1 of its 2 pairs" in refused(script, "glue", tmp_path / "glue", "MRPC")
    assert not list((tmp_path / "glue").glob("*"))


def test_leaves_alone_what_it_did_not_make(script: ModuleType, server: Server, sst2: bytes, tmp_path: Path) -> None:
    server.publish("SST-2.zip", sst2)
    server.publish("AX.tsv", b"x")
    folder = tmp_path / "glue" / "SST-2"
    folder.mkdir(parents=True)  # empty: as good as none
    script.main(["glue", str(tmp_path / "glue"), "SST-2"])
    server.asked.clear()
    (folder / "dev.tsv").write_bytes(b"mine")
    assert "dev.tsv: is missing or was changed" in refused(script, "glue", tmp_path / "glue", "AX", "SST-2")
    (folder / "download.json").write_text("{}")
    assert "download.json: is damaged" in refused(script, "glue", tmp_path / "glue", "SST-2")
    (folder / "download.json").write_text(json.dumps({"sources": {"SST-2.zip": "0"}, "files": {}}))
    assert "made of other files than checksums.tsv lists" in refused(script, "glue", tmp_path / "glue", "SST-2")
    (folder / "download.json").unlink()
    assert "did not fetch" in refused(script, "glue", tmp_path / "glue", "SST-2")
    assert (folder / "dev.tsv").read_bytes() == b"mine"
    assert server.asked == []

    server.publish("train-v1.1.json", b"{}")
    server.publish("dev-v1.1.json", b"{}")
    (tmp_path / "squad").mkdir()
    (tmp_path / "squad" / "dev-v1.1.json").write_bytes(b"mine")
    assert "dev-v1.1.json: is not the file" in refused(script, "squad", tmp_path / "squad", "1.1")
    assert tree(tmp_path / "squad") == ["dev-v1.1.json"]


def test_names(script: ModuleType, tmp_path: Path) -> None:
    assert script.find_tasks(["stsb", "Qnli", "mnli", "AX"]) == ["STS-B", "QNLI", "MNLI", "AX"]
    assert sorted(script.find_tasks([])) == sorted(script.GLUE)
    assert "'SST' is no task: choose from CoLA," in refused(script, "glue", tmp_path / "glue", "SST")
    assert "'3.0' is no version" in refused(script, "squad", tmp_path / "squad", "3.0")
    assert not (tmp_path / "glue").exists()


def test_the_table_has_all_that_the_tasks_need(script: ModuleType) -> None:
    """And every task that can be prepared can be fetched, under the names that are looked for."""
    table = script.read_table(REPOSITORY / "scripts" / "checksums.tsv")
    names = {name for sources in script.SOURCES.values() for name in sources}
    assert set(table) == names | {f"{split}-v{version}.json" for split in ("train", "dev") for version in script.SQUAD}
    for source in table.values():
        assert source.url.startswith("https://") and source.url.endswith(f"/{source.name}")
        assert source.sha256 == script.UNKNOWN or (len(source.sha256) == 64 and int(source.sha256, 16) and source.size)
    assert set(script.SOURCES) == {*TASKS, "AX"}
    for task, (_, _, files) in script.ARCHIVES.items():
        wanted = [names for split, names in TASKS[task].files.items() if split != "ax"]
        assert all(set(names) & set(files) for names in wanted) and len(wanted) == len(files)


def test_a_table_that_is_none(script: ModuleType, server: Server, tmp_path: Path) -> None:
    server.table.write_text("AX.tsv\tabc\n")
    assert "checksums.tsv: line 1 is not" in refused(script, "glue", tmp_path / "glue", "AX")


def test_real_files(
    script: ModuleType, real_data: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those we have are the ones recorded, and MRPC comes out as others put it together."""
    monkeypatch.setattr(script, "TABLE", REPOSITORY / "scripts" / "checksums.tsv")
    table = script.read_table(script.TABLE)
    mrpc, squad = real_data("glue/MRPC"), real_data("squad_v1/dev-v1.1.json")
    (tmp_path / "given").mkdir()
    shutil.copy(mrpc / "dev_ids.tsv", tmp_path / "given" / "mrpc_dev_ids.tsv")
    for path in [*mrpc.glob("msr_*.txt"), squad]:
        shutil.copy(path, tmp_path / "given")
    shutil.copy(real_data("glue/diagnostic/diagnostic.tsv"), tmp_path / "given" / "AX.tsv")
    script.main(["glue", str(tmp_path / "glue"), "MRPC", "AX", "--from", str(tmp_path / "given")])
    for name in ("train.tsv", "dev.tsv", "test.tsv"):
        assert (tmp_path / "glue" / "MRPC" / name).read_bytes() == (mrpc / name).read_bytes()
    assert script.sha256_of(squad) == table["dev-v1.1.json"].sha256


def test_the_shell_scripts(tmp_path: Path) -> None:
    def run(name: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        command = ["bash", str(REPOSITORY / "scripts" / name), *arguments]
        return subprocess.run(command, env=os.environ | environ, capture_output=True, text=True, cwd=tmp_path)

    for name, word in (("download_glue.sh", "TASK"), ("download_squad.sh", "VERSION")):
        done = run(name, "new", "no-such")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("error: 'no-such' is no ") and done.stderr.count("\n") == 1
        assert word in run(name, "--help").stdout
        assert run(name).returncode == 2
        done = run(name, "new", "--from", str(tmp_path))
        assert done.returncode == 1 and done.stderr.startswith(f"error: --from {tmp_path}: holds no ")
        done = run(name, "new", PYTHON="no-such-python")
        assert done.returncode == 1 and "PYTHON=" in done.stderr
    (tmp_path / "file").touch()
    assert run("download_squad.sh", "file", "--from", str(tmp_path)).stderr == "error: file: File exists\n"
