"""Every case of ../shared/faults: what users of neighbouring projects reported, and files from strangers.

`pytest -s tests/hostile/test_shared_faults.py -m "slow or not slow"` prints a Markdown table of all cases at the end.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.hostile.faults import CHECKOUT, Command, Outcome, Program, run

PEAK = 1000  # MB, the libraries' own included
ROOT = ("--root", "base/root", "--device", "cpu")
BERT = "text.model=base/bert"
VECTORS = (
    BERT, "text.pretrained=false", "text.backbone.hidden_size=32", "text.backbone.intermediate_size=64",
    "text.backbone.num_attention_heads=4", "text.width=32", "text.heads=4", "joint.width=24", "train.batch_size=8",
)  # fmt: skip
IMAGES = (*VECTORS, "visual.kind=clip", "image.model=base/clip", "image.pretrained=false", "image.cache=5/cache")
SMALL_IMAGES = str(CHECKOUT / "configs/nrccr/multi30k-small.yaml")
Rows = list[tuple[str, Outcome]]


@dataclass(frozen=True)
class Case:
    """A case of the README.

    Attributes:
        name: its folder and what tells it from others there.
        command: arguments of `nrccr`.
        says: words of its one line.
        code: exit code; where it is 0, the words are on standard output.
        leaves: a file or folder that may not be there afterwards.
        limited: with 8 GB of addresses, as a case about memory.
    """

    name: str
    command: Sequence[str]
    says: Sequence[str]
    code: int = 2
    leaves: str = ""
    limited: bool = False

    @property
    def place(self) -> str:
        """The half of the folder that it is in."""
        return self.name.split("/")[0]


CASES = [
    Case(
        "reports/1 half", ("train", "1/half.yaml", "--root", "common/VS", "--out", "half", "--device", "cpu"),
        ("1/half", "encoder.layer.1.", "text.pretrained=false"), leaves="half",
    ),
    Case(
        "reports/1 wrong", ("train", "1/wrong.yaml", "--root", "common/VS", "--out", "wrong", "--device", "cpu"),
        ("1/wrong", "text.pretrained=false"), leaves="wrong",
    ),
    Case(
        "reports/2", ("check", "common/tiny.yaml", "--root", "2/cr_only"), ("no problems found", "24"), code=0,
    ),
    Case(
        "reports/3", ("train", "3/c.yaml", "--root", "3/VS", "--out", "v", "--device", "cpu"),
        ("3/bert", "vocabulary of", "rows"), leaves="v",
    ),
    Case(
        "hostile/1",
        ("train", "base/tiny.yaml", *ROOT, "--out", "1/run", "--resume", "train.epochs=4"),
        ("1/run/last/state.pt", "exp_avg", "(1,)", "(26, 32)"), limited=True,
    ),
    Case(
        "hostile/3 bytearray", ("test", "3/bytearray", *ROOT, BERT), ("3/bytearray/model_best.pth.tar",), limited=True,
    ),
    Case(
        "hostile/3 memo", ("qbnorm", "--sims_test_path", "3/memo.pkl", "--method", "dsl"), ("3/memo.pkl",), limited=True
    ),
    Case(
        "hostile/3 memo c2kd", ("convert", "c2kd", "3/msrvtt_train.pkl", "3/OUT"), ("3/msrvtt_train.pkl",),
        leaves="3/OUT", limited=True,
    ),
    Case("hostile/3 st", ("test", "3/st", *ROOT), ("3/st/model.safetensors",), leaves="3/st/test", limited=True),
    Case("hostile/3 ext", ("test", "3/ext", *ROOT), ("3/ext/config.yaml:", "extends"), leaves="3/ext/test"),
    Case("hostile/4", ("test", "4/run", *ROOT), ("4/run/config.yaml:", "data.collection"), leaves="4/run/test"),
    Case(
        "hostile/5 train", ("train", SMALL_IMAGES, "--root", "5/iroot", "--device", "cpu", "--out", "5/run", *IMAGES),
        ("train0.jpg", "JPEG"), leaves="5/run",
    ),
    Case("hostile/5 check", ("check", SMALL_IMAGES, "--root", "5/iroot", *IMAGES), ("5/iroot", "1 problem found")),
    Case("hostile/7 bomb", ("check", "7/bomb.yaml", "--root", "base/root"), ("7/bomb.yaml:2", "aliases"), limited=True),
    Case("hostile/7 ck", ("test", "7/ck", *ROOT, BERT), ("7/ck/model_best.pth.tar",), limited=True),
    Case(
        "hostile/7 hash", ("qbnorm", "--sims_test_path", "7/hash.pkl", "--method", "dsl"), ("7/hash.pkl",), limited=True
    ),
    Case("hostile/8", ("qbnorm", "--sims_test_path", "8/nest.pkl", "--method", "dsl"), ("8/nest.pkl",), limited=True),
    *(
        Case(f"hostile/12 {name}.yaml", ("check", f"12/{name}.yaml", "--root", "base/root"), (f"12/{name}.yaml:",))
        for name in ("bigint", "booltag", "listkey", "recursive")
    ),
    Case("hostile/12 ck_intkeys", ("test", "12/ck_intkeys", *ROOT, BERT), ("12/ck_intkeys/model_best.pth.tar",)),
    *(
        Case(
            f"hostile/12 vec {name} {verb}",
            (verb, SMALL_IMAGES, "--root", f"12/vec/{name}", *VECTORS,
             *(("--out", "12/out", "--device", "cpu") if verb == "train" else ())),
            (f"12/vec/{name}", "1 problem found" if verb == "check" else ".npy"), leaves="12/out",
        )
        for name in ("openparen", "zip")
        for verb in ("check", "train")
    ),
]  # fmt: skip


@pytest.fixture(scope="module")
def faults(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the folder, with the checkout's own place in its configurations."""
    if not (shared / "faults").is_dir():
        pytest.skip("needs the folder ../shared/faults, which this machine lacks")
    copy = Path(shutil.copytree(shared / "faults", tmp_path_factory.mktemp("shared") / "faults"))
    for path in [copy, *copy.rglob("*")]:
        path.chmod(0o755 if path.is_dir() or path.name == "gs" else 0o644)
        if path.suffix == ".yaml" and path.parent.name != "run":
            text = path.read_text().replace("CHECKOUT", str(CHECKOUT))
            path.write_text(text.replace("extends: ../configs", f"extends: {CHECKOUT}/configs"))
    return copy


@pytest.fixture(scope="module")
def table() -> Iterator[Rows]:
    """Where cases write their outcome; printed at the end."""
    rows: Rows = []
    yield rows
    print("\n\n| case | exit | seconds | peak MB | message |\n|---|---|---|---|---|")
    for name, found in rows:
        lines = (found.err if found.code else found.out).splitlines() or [""]
        message = lines[-1].removeprefix("nrccr: ").replace("|", "\\|")
        print(f"| {name} | {found.code} | {found.seconds:.1f} | {found.peak} | {message} |")


def checked(found: Outcome, case: Case, folder: Path) -> None:
    """One line with the words, and little memory."""
    assert found.code == case.code, found
    said = found.out if case.code == 0 else found.err
    assert case.code == 0 or (len(said.splitlines()) == 1 and said.startswith("nrccr: ")), said
    assert all(word in said for word in case.says), said
    assert 0 < found.peak < PEAK
    assert not case.leaves or not (folder / case.leaves).exists()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case(case: Case, faults: Path, table: Rows) -> None:
    folder = faults / case.place
    marker = folder / "5/bin"
    path = {"PATH": f"{marker}{os.pathsep}{os.environ['PATH']}"}
    found = run(Command(case.command), folder, environment=path, limited=case.limited)
    table.append((case.name, found))
    checked(found, case, folder)
    assert not (marker / "gs_ran").exists()


@pytest.fixture(scope="module")
def trained(faults: Path) -> Path:
    """A run of common/tiny.yaml."""
    made = run(Command(("train", "common/tiny.yaml", "--root", "common/VS", "--out", "RUN")), faults / "reports")
    assert made.code == 0, made.err
    return faults / "reports" / "RUN"


LINKS = (".ranks.tsv.tmp", "ranks.tsv", "metrics.json")  # of which the first was a temporary name


@pytest.mark.parametrize("link", LINKS)
def test_hostile_2_a_planted_link_is_not_written_through(link: str, faults: Path, table: Rows) -> None:
    folder = faults / "hostile"
    planted = folder / "2/run/test" / link
    planted.symlink_to("../../victim.txt")
    before = (folder / "2/victim.txt").read_bytes()
    found = run(Command(("test", "2/run", *ROOT)), folder)
    table.append((f"hostile/2 {link}", found))
    if link == LINKS[0]:
        checked(found, Case("", (), ("written: 2/run/test",), code=0), folder)
    else:
        checked(found, Case("", (), (f"2/run/test/{link}: a link",)), folder)
    assert (folder / "2/victim.txt").read_bytes() == before
    shutil.rmtree(folder / "2/run/test")
    (folder / "2/run/test").mkdir()


def test_reports_5_an_image_is_turned_as_a_viewer_turns_it(faults: Path, table: Rows) -> None:
    folder = faults / "reports"
    train = ("train", "common/img.yaml", "--root", "common/IS", "--out", "IMAGES", "image.model=../hostile/base/clip")
    made = run(Command(train), folder)
    assert made.code == 0, made.err
    program = folder / "5/cosine.py"
    program.write_text(
        "import nrccr\n"
        "up, phone = nrccr.load('IMAGES').encode_image(['5/up.png', '5/phone.png'])\n"
        "print(f'cosine {up @ phone:.2f}')\n"
    )
    found = run(Program(str(program)), folder)
    table.append(("reports/5", found))
    assert (found.code, found.out) == (0, "cosine 1.00\n"), found


def test_reports_7_an_overflow_is_an_error(faults: Path, table: Rows) -> None:
    found = run(Program("7/overflow.py"), faults / "reports")
    table.append(("reports/7", found))
    assert found.code == 1 and found.out == ""
    assert found.err.splitlines()[-1].startswith("ValueError: ") and "overflows" in found.err.splitlines()[-1]


def test_reports_8_texts_of_any_kind(faults: Path, trained: Path, table: Rows) -> None:
    found = run(Program("8/texts.py", (str(trained),)), faults / "reports")
    table.append(("reports/8", found))
    lines = found.out.splitlines()
    assert found.code == 0 and found.err == "", found
    assert [lines[0], lines[3]] == ["(2, 24)", "(1, 24)"]
    for line, says in zip((lines[1], lines[2], lines[4]), ("NoneType", "float", "Unicode"), strict=True):
        assert line.startswith("UserError encode_text: caption ") and says in line


# What a user of old Chinese file names does; G is a name in GBK's bytes.
GBK = {
    "train": ("train", "common/tiny.yaml", "--root", "G/root", "--out", "G/out", "--device", "cpu", "--test"),
    "model": ("train", "common/tiny.yaml", "--root", "G/root", "--out", "G/own", "text.model=G/bert", "train.epochs=1"),
    "resume": ("train", "common/tiny.yaml", "--root", "G/root", "--out", "G/out", "--resume", "train.epochs=3"),
    "check": ("check", "common/tiny.yaml", "--root", "G/root"),
    "test": ("test", "G/out", "--root", "G/root", "--out", "G/tested", "evaluation.save_scores=true"),
    "rank": ("rank", "G/out", "男人跑", "--root", "G/root"),
    "table": ("table", "--runs", "G/out", "--out", "G/tables"),
    "compare": ("compare", "G/tested", "G/tested"),
    "noise": ("noise", "common/tiny.yaml", "--root", "G/root", "--out", "G/noise", "--translators", "google",
              "--seeds", "0", "--models", "basic", "train.epochs=1"),
    "query": ("rank", "G/out", "男人跑", "G", "--root", "G/root"),
    "nowhere": ("test", "G/nowhere", "--root", "G/root"),
}  # fmt: skip
REFUSED = {"query": "is no UTF-8", "nowhere": "/nowhere: no such run"}
NAME = os.fsdecode(b"\xca\xd3\xc6\xb5")


@pytest.fixture
def in_gbk(faults: Path, tmp_path: Path) -> Path:
    """A folder with a root and a backbone in a folder whose name is in GBK's bytes."""
    shutil.copytree(faults / "reports/common", tmp_path / "common")
    subprocess.run(["bash", str(faults / "reports/4/make.sh")], cwd=tmp_path, check=True)
    shutil.copytree(tmp_path / "common/bert", tmp_path / NAME / "bert")
    return tmp_path


def judged(verb: str, found: Outcome) -> None:
    """Names are shown escaped, and what is refused is one line."""
    assert found.code == (2 if verb in REFUSED else 0), found
    assert "\udcca" not in found.out + found.err and "Traceback" not in found.err
    if verb in REFUSED:
        assert len(found.err.splitlines()) == 1 and REFUSED[verb] in found.err
        assert "\\udcca\\udcd3" in found.err


def test_reports_4_names_in_any_bytes(in_gbk: Path, table: Rows) -> None:
    for verb, command in GBK.items():
        found = run(Command([part.replace("G", NAME) for part in command]), in_gbk)
        table.append((f"reports/4 {verb}", found))
        judged(verb, found)


@pytest.mark.slow
@pytest.mark.parametrize("utf8", ["by default", "switched off"])
def test_reports_4_in_the_c_locale(utf8: str, in_gbk: Path, table: Rows) -> None:
    """Interpreters of their own: the encoding of names is chosen when Python starts."""
    off = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"} if utf8 == "switched off" else {}
    environment = {**os.environ, "LC_ALL": "C", "PYTHONPATH": str(CHECKOUT), **off}
    for verb, command in GBK.items():
        began = time.monotonic()
        line = [sys.executable, "-m", "nrccr", *(part.replace("G", NAME) for part in command)]
        with subprocess.Popen(line, cwd=in_gbk, env=environment, stdout=-1, stderr=-1) as process:
            out, err = (text.decode("utf-8", "surrogateescape") for text in process.communicate())
        found = Outcome(process.returncode, out, err, time.monotonic() - began, 0)
        table.append((f"reports/4 {verb}, LC_ALL=C, UTF-8 {utf8}", found))
        judged(verb, found)
