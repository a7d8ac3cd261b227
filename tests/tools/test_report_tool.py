"""tools/report.py as a user calls it."""

import json
import subprocess
import sys
from dataclasses import asdict

import pytest

from tests.conftest import ROOT
from tests.transfer.test_report import result
from tools.report import main
from tools.support.command import run_main


@pytest.fixture
def runs(tmp_path):
    for method, value in (("none", 50.0), ("cutmix", 52.0)):
        folder = tmp_path / "runs" / method
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(
            json.dumps(asdict(result("pretrain", method, 0, value)))
        )
    return tmp_path / "runs"


def code(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        run_main(lambda: main([str(word) for word in words]))
    return int(ended.value.code or 0)


def test_expected_numbers_decide_the_exit_code(runs, tmp_path, capsys):
    file = tmp_path / "expected.yaml"
    row = "  - {task: pretrain, method: cutmix, metric: top1, value: 52, tolerance: 0.1}\n"
    file.write_text(f"rows:\n{row}")
    main([str(runs), "--check", str(file)])  # returns: exit code 0
    assert "ok   pretrain top1, cutmix: 52, expected 52 ± 0.1" in capsys.readouterr().err
    file.write_text(f"rows:\n{row}{row.replace('52', '53')}")
    assert code(runs, "--check", file) == 1
    told = capsys.readouterr()
    assert "FAIL pretrain top1, cutmix: 52, expected 53 ± 0.1, off by -1" in told.err
    assert "| net, cutmix | 52.0 | 52.0 |" in told.out
    file.write_text(f"rows:\n{row.replace('cutmix', 'mixup')}")
    assert code(runs, "--check", file) == 1
    assert "FAIL pretrain top1, mixup: not measured" in capsys.readouterr().err
    file.write_text("rows: [")
    assert code(runs, "--check", file) == 2
    assert code(runs, "--check", tmp_path / "nowhere.yaml") == 2


def test_a_user_s_mistakes_leave_nothing_behind(runs, tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("x")
    assert code(runs, "--out", file) == 2
    assert "is a file; it must name a folder" in capsys.readouterr().err
    assert code(tmp_path / "nowhere") == 2
    assert code(runs, "--docs", file, "--out", tmp_path / "out") == 2
    assert file.read_text() == "x"
    assert code(runs, "--ou", tmp_path / "out") == 2  # no abbreviations
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "runs"]


def test_docs_are_brought_in_step(runs, tmp_path, capsys):
    docs = tmp_path / "docs.md"
    docs.write_text("# Results\n\n<!-- report -->\n<!-- /report -->\nmore\n")
    main([str(runs), "--docs", str(docs)])
    table = capsys.readouterr().out
    assert docs.read_text() == (
        f"# Results\n\n<!-- report -->\n\n{table.strip()}\n\n<!-- /report -->\nmore\n"
    )


def test_the_report_needs_no_torch(runs, tmp_path):
    block = "import sys; sys.modules['torch'] = None; sys.argv = sys.argv[1:]; "
    block += "import runpy; runpy.run_path(sys.argv[0], run_name='__main__')"
    tool = str(ROOT / "tools" / "report.py")
    command = [sys.executable, "-c", block, tool, str(runs), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out").iterdir())) == 5
