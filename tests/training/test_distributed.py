"""Runs of two processes, and runs that were killed, compared with one undisturbed process."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from ganlstm_fast.cli import main
from ganlstm_fast.training.checkpoint import load_checkpoint

TINY = ["--hidden=8", "--noise=4", "--batch-size=8", "--seq-len=6", "--metrics=none", "--quiet"]
TINY += ["--device=cpu"]
LAUNCHERS = {
    "fabric": ([], ["--devices=2"]),
    "torchrun": (["torch.distributed.run", "--nproc-per-node=2", "-m"], []),
}


def launch(launcher, arguments):
    before, after = LAUNCHERS[launcher]
    command = [sys.executable, "-m", *before, "ganlstm_fast", *arguments, *after]
    # As in a shell, since launchers would take these variables for their own.
    environment = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "MASTER_PORT")}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def content(folder):
    return load_checkpoint(folder)


# Where a bias of the critic shifts all scores, the loss must depend on the shift: otherwise the
# gradient of the bias is only rounding, which Adam turns into full steps.
CASES = [
    ("torchrun", ["--penalty-fraction=0.5"]),
    ("fabric", ["--loss=relativistic-average-lsgan", "--lr-d=0.01", "--augment=jitter,shift"]),
    ("fabric", ["--critic=conv", "--loss=lsgan", "--penalty-every=2"]),
]


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(("launcher", "options"), CASES)
def test_two_processes_train_as_one(tmp_path, launcher, options):
    arguments = ["train", "lstm-gan", *TINY, "--steps=6", *options]
    assert main([*arguments, f"--out={tmp_path / 'one'}"]) == 0
    done = launch(launcher, [*arguments, f"--out={tmp_path / 'two'}"])
    assert done.returncode == 0, done.stderr
    one, two = content(tmp_path / "one"), content(tmp_path / "two")
    torch.testing.assert_close(one["history"], two["history"], rtol=2e-5, atol=2e-6)
    assert not torch.equal(one["history"], two["history"])  # they did share the work
    assert torch.equal(one["random"], two["random"])
    for name, value in one["average"].items():
        torch.testing.assert_close(value, two["average"][name], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_two_processes_pretrain_as_one(tmp_path):
    """By likelihood the critic's LSTM is trained past the critic's own forward."""
    arguments = ["train", "text-gan", *TINY, "--steps=4", "--pretrain=4"]
    assert main([*arguments, f"--out={tmp_path / 'one'}"]) == 0
    done = launch("fabric", [*arguments, f"--out={tmp_path / 'two'}"])
    assert done.returncode == 0, done.stderr
    one, two = content(tmp_path / "one"), content(tmp_path / "two")
    torch.testing.assert_close(one["history"], two["history"], rtol=2e-5, atol=2e-6)
    for name, value in one["model"].items():
        torch.testing.assert_close(value, two["model"][name], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_two_processes_train_text_with_a_likelihood(tmp_path):
    """The generator runs two forwards before a backward: one draws, one reads given text."""
    arguments = ["train", "text-gan", *TINY, "--steps=4", "--pretrain=1", "--warmup-d=0"]
    done = launch("torchrun", [*arguments, f"--out={tmp_path / 'two'}"])
    assert done.returncode == 0, done.stderr
    assert content(tmp_path / "two")["history"].isfinite().all()


@pytest.mark.slow
def test_an_error_of_two_processes_is_told_once(tmp_path):
    done = launch("fabric", ["train", *TINY, "--batch-size=7", f"--out={tmp_path / 'r'}"])
    assert done.returncode == 2
    assert done.stderr == (
        "ganlstm-fast: error: --batch-size: expected a multiple of the 2 processes, got 7\n"
    )
    assert not (tmp_path / "r").exists()


@pytest.mark.usefixtures("undrawn")
def test_a_killed_run_goes_on_as_if_it_had_not_been(tmp_path):
    # Checkpoints are written at other steps than those with a penalty.
    options = [*TINY, "--checkpoint-every=7", "--critic=conv", "--penalty-every=4"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    command = [sys.executable, "-m", "ganlstm_fast", "train", *options, f"--out={killed}"]
    process = subprocess.Popen([*command, "--steps=1000000"], stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 120
        while not (killed / "checkpoint.pt").exists() or content(killed)["step"] < 10:
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        assert process.wait(timeout=60) == -signal.SIGKILL
    finally:
        process.kill()
    steps = content(killed)["step"] + 5
    assert main(["train", f"--resume={killed}", f"--steps={steps}", "--quiet"]) == 0
    assert main(["train", *options, f"--steps={steps}", f"--out={whole}"]) == 0
    one, two = content(killed), content(whole)
    assert torch.equal(one["history"], two["history"])
    assert torch.equal(one["random"], two["random"])
    for part in ("model", "average"):
        for name, value in one[part].items():
            assert torch.equal(value, two[part][name]), name
