"""The command: exit codes, messages, and signals, as a shell sees them."""

import dataclasses
import json
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from PIL import Image

import ganlstm_fast
from ganlstm_fast.cli import main
from ganlstm_fast.cli_options import build_parser
from ganlstm_fast.training import MODELS
from ganlstm_fast.training.checkpoint import load_checkpoint
from ganlstm_fast.training.errors import flag

TINY = ["--hidden=8", "--noise=4", "--batch-size=8", "--seq-len=6", "--metrics=none", "--quiet"]
TINY += ["--device=cpu"]


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


@pytest.mark.usefixtures("undrawn")
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


def test_a_finished_run_is_left_as_it_is_and_says_how_to_go_on(tmp_path, capsys):
    folder, train = tmp_path / "r", ["train", *(option for option in TINY if option != "--quiet")]
    assert main([*train, "--steps=2", f"--out={folder}"]) == 0
    told = capsys.readouterr()
    assert "2 steps are few: the default is 6000" in told.err
    for line in (
        f"look at it  {folder}/samples.png",
        f"use it      ganlstm-fast generate {folder}",
        f"go on       ganlstm-fast train --resume {folder} --steps 6000",
    ):
        assert line in told.out
    before = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert main(["train", f"--resume={folder}"]) == 0
    again = capsys.readouterr()
    assert f"{folder} is finished: all of its 2 steps are done" in again.out
    assert again.out.endswith(told.out[told.out.index(f"{folder} holds") :])
    assert {file.name: file.stat().st_mtime_ns for file in folder.iterdir()} == before
    # Files that are missing, or of other steps, are written.
    (folder / "metrics.json").unlink()
    assert main(["train", f"--resume={folder}"]) == 0
    assert (folder / "metrics.json").exists()
    assert main(["train", f"--resume={folder}", "--steps=3"]) == 0
    assert "is finished" not in capsys.readouterr().out
    assert json.loads((folder / "metrics.json").read_text())["steps"] == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data=missing.csv"], "does not exist"),
        (["--columns=nothing"], "no column nothing"),
        (["--date-column=nothing"], "no column nothing"),
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


@pytest.mark.usefixtures("undrawn")
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


# SIGKILL: test_distributed.py.
@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
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
    assert process.returncode == 128 + number
    assert f"--resume {folder}" in errors
    assert f"at step {step}" in errors
    assert main(["train", f"--resume={folder}", f"--steps={step + 1}", "--quiet"]) == 0


@pytest.mark.usefixtures("undrawn")
def test_output_cut_short(tmp_path):
    folder = tmp_path / "r"
    assert main(["train", *TINY, "--steps=1", f"--out={folder}"]) == 0
    process = started("generate", str(folder), "-n", "2000")
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=60) == 128 + signal.SIGPIPE
    assert "Traceback" not in process.stderr.read()


def test_list(capsys):
    assert main(["list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(MODELS)
    assert main(["list", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == set(MODELS)


def test_other_models_from_the_shell(tmp_path, capsys):
    folder, size = tmp_path / "r", ["--size=8", "--noise=4", "--hidden=8,9", "--metrics=none"]
    assert main(["train", "mlp-gan", *size, "--steps=2", f"--out={folder}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 2
    assert load_checkpoint(folder)["config"]["hidden"] == [8, 9]
    assert main(["generate", str(folder), "-n", "9", "-o", str(tmp_path / "made.png")]) == 0
    with Image.open(tmp_path / "made.png") as image:
        assert image.size == (26, 26)
    assert capsys.readouterr().out.endswith("made.png: 9 images of 8 pixels\n")
    assert main(["generate", str(folder)]) == 2
    assert "do not go to a screen" in capsys.readouterr().err
    assert main(["forecast", str(folder)]) == 2
    error = "a run of mlp-gan cannot forecast; runs of lstm-forecaster can"
    assert error in capsys.readouterr().err
    assert main(["evaluate", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] > 0.9


@pytest.mark.usefixtures("undrawn")
def test_forecast(tmp_path, capsys):
    folder = tmp_path / "r"
    small = ["--hidden=4", "--history=9", "--horizon=3", "--metrics=none"]
    assert main(["train", "lstm-forecaster", *small, "--steps=1", f"--out={folder}"]) == 0
    capsys.readouterr()
    assert main(["forecast", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "date,step,precipitation,temp_max,temp_min,wind"
    assert [line.split(",")[:2] for line in lines[1:]] == [
        [f"2016-01-0{k}", str(k)] for k in (1, 2, 3)
    ]
    assert main(["forecast", str(folder), "-o", str(tmp_path / "f.csv")]) == 0
    assert (tmp_path / "f.csv").read_text().splitlines() == lines


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dcgan", "--size=30"], "--size: expected one of 28, 32, 64, 128, got 30"),
        (["dcgan", "--channels=3"], "--channels: expected 1 for the digits"),
        (["mlp-gan", "--data=nowhere"], "is not a folder"),
        (["text-gan", "--data=nowhere"], "cannot be read"),
        (["text-gan", "--augment=jitter"], "--augment: expected some of nothing"),
        (["text-gan", "--bidirectional"], "--bidirectional: expected off with --feedback, got"),
        (["text-gan", "--no-feedback"], "--pretrain: expected 0 with --no-feedback, got"),
        (["lstm-classifier", "--data=nowhere"], "nowhere does not exist"),
        (["lstm-classifier", "--label-column=a"], "--label-column needs a table, and no --data"),
        (["lstm-forecaster", "--held-out=1400"], "--horizon 1; --held-out 730 works"),
        (["anomaly", "--data=sines"], "--data sines: independent series have no last rows"),
        (["conditional-lstm-gan", "--date-column=day"], "has no column day"),
    ],
)
def test_errors_of_other_models(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert list(tmp_path.iterdir()) == []


def test_report(tmp_path, capsys):
    folder = tmp_path / "r"
    assert main(["train", *TINY, "--steps=2", f"--out={folder}"]) == 0
    assert main(["report", str(folder)]) == 0
    page = (folder / "report.html").read_text()
    # Four pictures, all in the page, and nothing from elsewhere.
    assert page.count('src="data:image/png;base64,') == 4
    assert page.count("src=") == 4
    assert "http" not in page
    for words in ("Real beside generated", "Autocorrelation", "Losses", "seq_len", "2 of 2 steps"):
        assert words in page
    assert main(["report", str(tmp_path / "nowhere")]) == 2
    assert "not the folder of a run" in capsys.readouterr().err


def test_bench_says_where_the_benchmarks_are(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ganlstm_fast, "__file__", str(tmp_path / "ganlstm_fast" / "__init__.py"))
    assert main(["bench"]) == 2
    assert "clone the repository" in capsys.readouterr().err
