"""The command: exit codes, messages, and signals, as a shell sees them."""

import dataclasses
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

from ganlstm_fast.cli import main
from ganlstm_fast.cli_options import build_parser
from ganlstm_fast.training import MODELS
from ganlstm_fast.training.checkpoint import load_checkpoint
from ganlstm_fast.training.config import flag

TINY = ["--hidden=8", "--noise=4", "--batch-size=8", "--seq-len=6", "--metrics=none", "--quiet"]


def started(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "ganlstm_fast", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def parser_of(model):
    commands = build_parser()._subparsers._group_actions[0].choices
    return commands["train"]._subparsers._group_actions[0].choices[model]


def steps_saved(folder):
    exists = (folder / "checkpoint.pt").exists()
    return load_checkpoint(folder, "LSTMGAN")["step"] if exists else 0


def test_help(capsys):
    for arguments in (["--help"], ["train", "lstm-gan", "--help"], ["generate", "--help"]):
        with pytest.raises(SystemExit, match="0"):
            main(arguments)
        assert "examples:" in capsys.readouterr().out
    assert main([]) == 2


def test_help_states_the_defaults():
    for name, model in MODELS.items():
        parser = parser_of(name)
        text = " ".join(parser.format_help().split())
        for field in dataclasses.fields(model.config):
            assert flag(field.name) in text
            if isinstance(field.default, (int, float)) and not isinstance(field.default, bool):
                action = parser._option_string_actions[flag(field.name)]
                assert action.help.endswith(f"({field.default})"), field.name


def test_help_is_light():
    code = "import sys; from ganlstm_fast.cli_options import build_parser; "
    code += "build_parser().format_help(); "
    code += "sys.exit(any(m in sys.modules for m in ('pandas', 'matplotlib', 'lightning_fabric')))"
    command = [sys.executable, "-W", "ignore", "-c", code]
    assert subprocess.run(command, check=False).returncode == 0


def test_explain(capsys):
    assert main(["explain"]) == 0
    assert "lstm:" in capsys.readouterr().out


def test_train_resume_generate(tmp_path, capsys):
    folder = tmp_path / "r"
    assert main(["train", *TINY, "--steps=3", f"--out={folder}"]) == 0
    assert main(["train", f"--resume={folder}", "--steps=4", "--quiet"]) == 0
    out = tmp_path / "out.csv"
    assert main(["generate", str(folder), "-n", "5", "-o", str(out)]) == 0
    assert pd.read_csv(out).shape == (30, 6)
    capsys.readouterr()
    assert main(["generate", str(folder), "-n", "1"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data=missing.csv"], "does not exist"),
        (["--columns=nothing"], "no column nothing"),
        (["--seq-len=2000"], "fewer than one window"),
        (["--steps=0"], "--steps: expected 1 or more, got 0"),
        (["--label-smoothing=0.1"], "--label-smoothing: expected 0 with --loss wgan-gp, got 0.1"),
        (["--device=warp"], "--device warp"),
        (["--out=file/run"], "cannot make the folder"),
        (["--resume=nowhere"], "does not exist"),
        (["--resume=."], "holds no checkpoint.pt"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert main(["train", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_generate_errors(tmp_path, capsys):
    folder = tmp_path / "r"
    assert main(["train", *TINY, "--steps=1", f"--out={folder}"]) == 0
    assert main(["generate", str(folder), "-o", str(tmp_path / "no" / "o.csv")]) == 2
    assert "cannot write" in capsys.readouterr().err
    assert main(["generate", str(tmp_path)]) == 2
    assert "holds no checkpoint.pt" in capsys.readouterr().err


def test_options_argparse_refuses(capsys):
    for arguments in (["train", "--steps=x"], ["train", "--out=a", "--resume=b"], ["paint"]):
        with pytest.raises(SystemExit, match="2"):
            main(arguments)
        assert capsys.readouterr().err.count("\n") == 1


def test_missing_extra():
    code = "import sys; sys.modules['pandas'] = None; from ganlstm_fast.cli import main; "
    code += "sys.exit(main(['train']))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert 'pip install "ganlstm_fast[train]"' in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_killed_run_leaves_a_checkpoint(tmp_path, number):
    folder = tmp_path / "r"
    process = started("train", *TINY, "--steps=1000000", "--checkpoint-every=5", f"--out={folder}")
    try:
        deadline = time.monotonic() + 60
        while (
            not (folder / "checkpoint.pt").exists()
            or load_checkpoint(folder, "LSTMGAN")["step"] < 5
        ):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(number)
        errors = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    step = steps_saved(folder)
    assert step >= 5
    if number == signal.SIGKILL:
        assert process.returncode == -number
    else:
        assert process.returncode == 128 + number
        assert f"--resume {folder}" in errors
        assert f"at step {step}" in errors
    assert main(["train", f"--resume={folder}", f"--steps={step + 1}", "--quiet"]) == 0


def test_output_cut_short(tmp_path):
    folder = tmp_path / "r"
    assert main(["train", *TINY, "--steps=1", f"--out={folder}"]) == 0
    process = started("generate", str(folder), "-n", "20000")
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=60) == 128 + signal.SIGPIPE
    assert "Traceback" not in process.stderr.read()
