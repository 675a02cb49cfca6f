"""Which device a run uses, and what ``ganlstm-fast explain`` says of those that are here."""

import dataclasses
from functools import partial
from pathlib import Path

import pytest
import torch
from tqdm import tqdm

from ganlstm_fast.cli import main
from ganlstm_fast.cli_options import build_parser
from ganlstm_fast.training import InputError, TrainConfig, generate, load_trained, train
from ganlstm_fast.training import devices as devices_module
from ganlstm_fast.training import fabric as fabric_module
from ganlstm_fast.training import outputs as outputs_module
from ganlstm_fast.training.configs import MODELS, ForecasterConfig
from ganlstm_fast.training.devices import explain_devices, find_device, named
from ganlstm_fast.training.fabric import OneProcess, make_fabric
from ganlstm_fast.training.recipes import forecaster as forecaster_module
from ganlstm_fast.training.recipes import series as series_module
from ganlstm_fast.training.state import resume_run

RUN = {"steps": 4, "hidden": 8, "batch_size": 8, "checkpoint_every": 2, "metrics": "none"}
TINY = TrainConfig(**RUN, noise=4, seq_len=6, device="cpu")
GPU = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr(outputs_module, "plot_losses", lambda *arguments: None)
    monkeypatch.setattr(series_module, "plot_samples", lambda *arguments: None)
    monkeypatch.setattr(forecaster_module, "plot_forecasts", lambda *arguments, **options: None)


def has(monkeypatch, files=1, available=True, works=True, count=1):
    """Pretend that this machine has a GPU, or its files, and that torch sees it or can use it."""

    def tried(name, processes):
        if name == "cpu":
            return torch.device("cpu")
        if not works:
            raise RuntimeError("CUDA error: no kernel image\nand how to debug it")
        return GPU

    found = [Path(f"/dev/nvidia{number}") for number in range(files)]
    monkeypatch.setattr(devices_module, "_gpu_files", lambda: found)
    monkeypatch.setattr(devices_module, "_tried", tried)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count if available else 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")


def run(config, **options):
    return train(config, progress=partial(tqdm, disable=True), **options)


def content(folder):
    return torch.load(folder / "checkpoint.pt", weights_only=True)


def test_auto_is_the_default_where_a_command_takes_a_device():
    assert all(model.config().device == "auto" for model in MODELS.values())
    parse = build_parser().parse_args
    for command in ("generate", "evaluate", "score", "forecast", "classify", "report"):
        assert parse([command, "runs/r"]).device == "auto"


@pytest.mark.parametrize(
    ("machine", "expected", "told"),
    [
        ({"files": 0, "available": False}, "cpu", 0),
        ({"works": True}, "cuda:0", 0),
        ({"works": False}, "cpu", 1),
        ({"available": False, "works": False}, "cpu", 1),
    ],
    ids=["no GPU", "a GPU", "a GPU that fails", "a GPU that torch cannot see"],
)
def test_auto_is_a_gpu_that_works_or_the_cpu(monkeypatch, machine, expected, told):
    has(monkeypatch, **machine)
    lines = []
    assert str(find_device("auto", lines.append)) == expected
    assert len(lines) == told
    assert all("(CUDA error: no kernel image)" in line for line in lines)
    if expected == "cpu":
        # A named device is taken or raises; so does auto where processes might choose differently.
        assert find_device("cpu") == torch.device("cpu")
        if told:
            for name, processes in (("cuda", 1), ("auto", 2)):
                with pytest.raises(InputError, match=rf"device='{name}' cannot be used.*no kernel"):
                    find_device(name, lines.append, processes)
            assert len(lines) == 1


def test_gpus_that_the_user_hides_are_none(monkeypatch):
    monkeypatch.setattr(Path, "glob", lambda self, pattern: [Path("/dev/nvidia0")])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert len(devices_module._gpu_files()) == 1
    for hidden in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert devices_module._gpu_files() == []


def test_each_process_tries_its_own_gpu(monkeypatch):
    tried = []

    def ones(size, device):
        tried.append(device)
        return torch.zeros(size)

    monkeypatch.setattr(torch, "ones", ones)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setenv("LOCAL_RANK", "2")
    for name, processes in (("auto", 4), ("cuda", 4), ("cuda", 1), ("cuda:1", 4)):
        find_device(name, processes=processes)
    assert [str(device) for device in tried] == ["cuda:2", "cuda:2", "cuda", "cuda:1"]


@pytest.mark.parametrize(
    ("settings", "machine", "message"),
    [
        ({"precision": "16-mixed"}, {"files": 0, "available": False}, "'auto' has found none"),
        ({"devices": 2, "device": "auto"}, {}, r"devices: expected 1 or less.* got 2; or device="),
        ({"devices": 2, "device": "cuda"}, {}, "devices: expected 1 or less"),
        ({"devices": 2, "device": "cuda:0"}, {"count": 2}, "is one device; leave its number out"),
    ],
)
def test_what_does_not_go_with_a_device(monkeypatch, settings, machine, message):
    has(monkeypatch, **machine)
    with pytest.raises(InputError, match=message):
        make_fabric(dataclasses.replace(TINY, **{"device": "auto", **settings}))


def test_a_run_says_where_it_is(tmp_path, monkeypatch, capsys):
    has(monkeypatch, works=False)
    options = ["--steps=1", "--hidden=4", "--seq-len=6", "--metrics=none"]
    assert main(["train", *options, f"--out={tmp_path / 'r'}"]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[0].endswith(f"; on the CPU; writing to {tmp_path / 'r'}")
    assert captured.err.splitlines()[0] == (
        "ganlstm-fast: warning: the GPU cannot be used (CUDA error: no kernel image), so the CPU "
        "is used; --device cpu asks for it"
    )
    assert main(["train", f"--resume={tmp_path / 'r'}", "--steps=2", "--device=cpu"]) == 0
    captured = capsys.readouterr()
    line = f"going on with {tmp_path / 'r'} at step 1, on the CPU"
    assert captured.out.splitlines()[0] == line
    assert "GPU" not in captured.err
    assert main(["generate", str(tmp_path / "r"), "-n", "1"]) == 0
    assert capsys.readouterr().err.count("the GPU cannot be used") == 1


def test_names_of_devices(monkeypatch):
    has(monkeypatch)
    assert named(torch.device("cpu")) == "on the CPU"
    assert named(GPU) == "on cuda:0 (NVIDIA H100 80GB HBM3)"
    assert named(torch.device("cpu"), 2) == "in 2 processes, the first on the CPU"


@pytest.mark.parametrize(
    "config", [TINY, ForecasterConfig(**RUN, history=20, device="cpu", dropout=0.1)]
)
def test_one_process_trains_as_fabric_does(tmp_path, monkeypatch, config):
    assert isinstance(make_fabric(config), OneProcess)
    whole = content(run(config, out=tmp_path / "whole").folder)
    # Half of it with Fabric, as if this were a process of a cluster.
    part = run(dataclasses.replace(config, steps=2), out=tmp_path / "part").folder
    monkeypatch.setenv("SLURM_NTASKS", "1")
    monkeypatch.setenv("SLURM_JOB_NAME", "bash")
    assert not isinstance(make_fabric(config), OneProcess)
    rest = content(run(None, resume=part, changes={"steps": 4}).folder)
    monkeypatch.delenv("SLURM_NTASKS")
    assert torch.equal(whole["history"], rest["history"])
    assert all(torch.equal(value, rest["model"][name]) for name, value in whole["model"].items())


def test_other_precisions_and_strategies_are_fabrics(monkeypatch):
    made = []
    monkeypatch.setattr(fabric_module, "_launchable", lambda *arguments: made.append(arguments[1:]))
    monkeypatch.setattr(fabric_module, "_is_script", lambda: True)
    make_fabric(dataclasses.replace(TINY, precision="bf16-mixed"))
    make_fabric(dataclasses.replace(TINY, strategy="ddp"))
    make_fabric(dataclasses.replace(TINY, devices=2))
    assert made == [("cpu", 1, 1), ("cpu", 1, 1), ("cpu", 2, 1)]


def test_a_run_moves_to_another_kind_of_device(tmp_path):
    folder = run(dataclasses.replace(TINY, steps=2, device="auto"), out=tmp_path / "r").folder
    # The state of a GPU's generator is 16 bytes.
    saved = content(folder) | {"random": torch.zeros(16, dtype=torch.uint8)}
    histories = []
    for _ in range(2):
        torch.save(saved, folder / "checkpoint.pt")
        told = []
        run(None, resume=folder, changes={"steps": 4, "device": "cpu"}, warn=told.append)
        histories.append(content(folder)["history"])
        assert len(told) == 1
        assert "the last steps of the run were on another kind of device" in told[0]
    assert histories[0].isfinite().all()
    assert torch.equal(*histories)
    told.clear()
    run(None, resume=folder, changes={"steps": 6}, warn=told.append)
    assert told == []


def test_a_resumed_run_keeps_its_device(tmp_path, monkeypatch):
    of_cpu = run(dataclasses.replace(TINY, steps=1), out=tmp_path / "cpu").folder
    anywhere = run(dataclasses.replace(TINY, steps=1, device="auto"), out=tmp_path / "auto").folder
    assert resume_run(of_cpu).state.config.device == "cpu"
    assert resume_run(anywhere).state.config.device == "auto"
    has(monkeypatch)
    looked_for = []
    monkeypatch.setattr(
        fabric_module,
        "find_device",
        lambda name, *rest: looked_for.append(name) or torch.device("cpu"),
    )
    resume_run(of_cpu)
    resume_run(anywhere)
    assert looked_for == ["cpu", "auto"]


def test_functions_look_for_a_gpu_and_a_model_stays_on_the_cpu(tmp_path, monkeypatch):
    folder = run(dataclasses.replace(TINY, steps=1), out=tmp_path / "r").folder
    has(monkeypatch, files=0, available=False)
    found = load_trained(folder)
    assert {p.device for p in found.model.parameters()} == {torch.device("cpu")}
    assert generate(folder, 2).equals(generate(folder, 2, device="cpu"))
    has(monkeypatch, works=False)
    with pytest.warns(UserWarning, match="the GPU cannot be used"):
        generate(folder, 2)


def test_explain_tells_of_each_device(monkeypatch, capsys):
    assert main(["explain", "--device=cpu", "--dtype=float16"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("cpu: ")
    assert f"{torch.get_num_threads()} threads on " in lines[0]
    assert "GiB of memory (" in lines[0]
    assert lines[0].endswith(f"torch {torch.__version__}")
    assert lines[1].startswith("  lstm: ")
    assert all(line.startswith("  ") for line in lines[1:])
    with pytest.raises(SystemExit, match="2"):
        main(["explain", "--dtype=int8"])
    assert main(["explain", "--device=warp"]) == 2
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1].startswith("ganlstm-fast: error: --device warp cannot")

    monkeypatch.setattr(devices_module, "explain", lambda device, dtype: f"lstm: {device.type}\nx")
    has(monkeypatch, files=0, available=False)
    text = explain_devices()
    assert text.splitlines()[1:3] == ["  lstm: cpu", "  x"]
    assert text.splitlines()[3].startswith("no GPU: ")

    has(monkeypatch, count=3)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    gib = 2**30

    def memory(device):
        if device.index == 2:
            raise RuntimeError("CUDA error: out of memory\nand so on")
        return 70 * gib, 79 * gib

    monkeypatch.setattr(torch.cuda, "mem_get_info", memory)
    monkeypatch.setattr(devices_module, "_driver", lambda: ["driver 580.65.06"])
    lines = explain_devices().splitlines()
    versions = f"driver 580.65.06, CUDA {torch.version.cuda}, torch {torch.__version__}"
    what = "NVIDIA H100 80GB HBM3, compute capability 9.0"
    assert lines[3] == f"cuda:0: {what}, 79.0 GiB of memory (70.0 GiB free), {versions}"
    assert lines[4].startswith("cuda:1: ")
    assert lines[5] == f"cuda:2: {what}, cannot be used: CUDA error: out of memory, {versions}"
    # One line says what is the same for all three.
    assert lines[6:] == ["  lstm: cuda", "  x"]


def test_the_drivers_version_is_found(monkeypatch):
    for text, expected in (
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.54.03  Tue Jun 6",
            ["driver 535.54.03"],
        ),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build",
            ["driver 580.65.06"],
        ),
        ("something else", []),
    ):
        monkeypatch.setattr(Path, "read_text", lambda self, text=text: text)
        assert devices_module._driver() == expected
