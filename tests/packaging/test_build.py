"""The build: what is installed, from which torch, and what the shared objects depend on.

Everything is built in a copy of the checkout that begins with the objects already compiled here,
so that most builds only compile the bindings and link.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shlex
import shutil
import struct
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the kernels are built on Linux only"),
]

RUN_ONE_OPERATOR = """
import ganlstm_fast, torch
with ganlstm_fast.use_impl("cpu", "lstm"):
    y, _ = ganlstm_fast.FastLSTM(3, 4)(torch.randn(5, 2, 3))
assert y.shape == (5, 2, 4) and y.isfinite().all()
print(ganlstm_fast.__file__)
"""


def load_setup():
    spec = importlib.util.spec_from_file_location("ganlstm_fast_setup", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


setup = load_setup()


NO_SETUPTOOLS = (
    r"(No matching distribution|no versions of|not found .*for) \W?setuptools"
    r"|Failed to fetch: \S+/setuptools"
)


def run(*command, cwd, status=0, without=(), **variables):
    """The output of a command, which must end with ``status``."""
    # The variables of this process name the environment of the tests.
    hidden = ("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "PYTHONHOME", *without)
    env = {k: v for k, v in os.environ.items() if k not in hidden and k[:13] != "GANLSTM_FAST_"}
    env.update({name: str(value) for name, value in variables.items()})
    command = [str(part) for part in command]
    done = subprocess.run(
        command, cwd=cwd, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if re.search(NO_SETUPTOOLS, done.stdout):
        pytest.skip("build isolation needs setuptools, and no package index is reachable")
    assert done.returncode == status, f"{command} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    target = tmp_path_factory.mktemp("build") / "checkout"
    generated = (".*", "build", "dist", "runs", "*.egg-info", "__pycache__", "*.so")
    shutil.copytree(ROOT, target, ignore=shutil.ignore_patterns(*generated))
    if (ROOT / setup.OBJECTS).exists():
        shutil.copytree(ROOT / setup.OBJECTS, target / setup.OBJECTS)
    return target


@pytest.fixture(scope="module")
def wheel(checkout):
    options = ("--no-deps", "--no-build-isolation", "-w", "dist")
    run(sys.executable, "-m", "pip", "wheel", ".", *options, cwd=checkout)
    (path,) = (checkout / "dist").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def shared_objects(wheel, tmp_path_factory):
    target = tmp_path_factory.mktemp("wheel")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return {path.name: path for path in (target / "ganlstm_fast").glob("*.so")}


@pytest.fixture
def cuda_object(shared_objects):
    if setup.find_nvcc() is None:
        pytest.skip("nvcc was not found")
    return shared_objects["_kernels_cuda.so"]


def install_copy(name, packages, done):
    """Link a distribution of this environment, and what it requires, into another environment."""
    if name in done:
        return
    done.add(name)
    distribution = importlib.metadata.distribution(name)
    for file in distribution.files:
        source, target = Path(distribution.locate_file(file)), packages / file
        if ".." in file.parts or "__pycache__" in file.parts or not source.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except OSError:
            shutil.copy2(source, target)
    for requirement in distribution.requires or []:
        needed = re.match(r"[\w.-]+", requirement)[0]
        if "extra ==" not in requirement and has_distribution(needed):
            install_copy(needed, packages, done)


def has_distribution(name):
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


@pytest.fixture(scope="module")
def sources(checkout, wheel, tmp_path_factory):
    """Another copy, for environments whose torch lies elsewhere: objects name its folder."""
    target = tmp_path_factory.mktemp("sources") / "checkout"
    shutil.copytree(checkout, target, ignore=shutil.ignore_patterns("dist"))
    return target


@pytest.fixture(scope="module")
def torch_environment(tmp_path_factory):
    prefix = (tmp_path_factory.mktemp("with_torch") / "environment").resolve()
    venv.create(prefix, symlinks=True)
    (packages,) = prefix.glob("lib/python3*/site-packages")
    done = set()
    for name in ("pip", "torch", "numpy"):
        install_copy(name, packages, done)
    return prefix, packages


@pytest.fixture
def environment(torch_environment, tmp_path):
    """A virtual environment with torch and without this package: its prefix, where packages lie."""
    prefix, packages = torch_environment
    if (packages / "ganlstm_fast").exists():
        run(prefix / "bin/python", "-m", "pip", "uninstall", "-y", "ganlstm_fast", cwd=tmp_path)
    assert not (packages / "ganlstm_fast").exists()
    return prefix, packages


def check_installed(packages, torch_before):
    assert (packages / "ganlstm_fast/_kernels_cpu.so").exists()
    assert torch_files(packages) == torch_before, "another torch was installed"


def check_it_runs(prefix, packages, tmp_path):
    printed = run(prefix / "bin/python", "-c", RUN_ONE_OPERATOR, cwd=tmp_path)
    assert Path(printed.splitlines()[-1]).parent == packages / "ganlstm_fast"


def torch_files(packages):
    versions = [path.name for path in packages.glob("torch-*.dist-info")]
    return versions, (packages / "torch/lib/libtorch_cpu.so").stat().st_ino


# CUDA is left out where torch is not the tests' own, to save compiling its bindings again. The
# wheel has it.
def test_pip_takes_the_torch_that_is_there(environment, sources, tmp_path):
    prefix, packages = environment
    before = torch_files(packages)
    pip = (prefix / "bin/python", "-m", "pip", "install", "-v", ".")
    log = run(*pip, cwd=sources, GANLSTM_FAST_BUILD="cpu")
    assert f"the headers of {packages / 'torch'}\n" in log
    # Torch was fetched neither for the build nor for the environment.
    assert not re.findall(r"(?:Collecting|Downloading|Processing|cached) (?:\S*/)?torch\b", log)
    check_installed(packages, before)
    check_it_runs(prefix, packages, tmp_path)


@pytest.mark.parametrize("named_by", ["VIRTUAL_ENV", "--python", ".venv"])
def test_uv_takes_the_torch_that_is_there(environment, sources, tmp_path, named_by):
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if uv is None:
        pytest.skip("uv was not found")
    prefix, packages = environment
    before = torch_files(packages)
    cache = tmp_path / "cache"
    arguments, variables = [], {"UV_CACHE_DIR": cache, "GANLSTM_FAST_BUILD": "cpu"}
    if named_by == "VIRTUAL_ENV":
        variables["VIRTUAL_ENV"] = prefix
    elif named_by == "--python":
        arguments = ["--python", prefix / "bin/python"]
    else:
        (sources / ".venv").symlink_to(prefix)
    install = (uv, "pip", "install", "-v", *arguments, ".")
    try:
        log = run(*install, cwd=sources, without=("UV_PYTHON",), **variables)
    finally:
        (sources / ".venv").unlink(missing_ok=True)
    assert f"the headers of {packages / 'torch'}\n" in log
    # The cache was empty: a torch fetched for the build or the environment would be in it.
    assert not list(cache.rglob("libtorch*"))
    check_installed(packages, before)
    if named_by == "VIRTUAL_ENV":
        check_it_runs(prefix, packages, tmp_path)


def test_build_takes_the_torch_of_its_environment(checkout, tmp_path):
    pytest.importorskip("build")
    options = ("--wheel", "--outdir", tmp_path)
    log = run(sys.executable, "-m", "build", *options, ".", cwd=checkout)
    assert "the headers of " in log
    assert "- torch" not in log, "build installed a torch of its own"


def test_where_there_is_no_torch_the_build_asks_for_one(monkeypatch):
    monkeypatch.setattr(setup, "site_packages", lambda: iter(()))
    monkeypatch.delenv("GANLSTM_FAST_TORCH", raising=False)
    monkeypatch.delenv("GANLSTM_FAST_BUILD", raising=False)
    assert setup.requirements_of_build() == ["torch>=2.11"]
    monkeypatch.setenv("GANLSTM_FAST_BUILD", "python")
    assert setup.requirements_of_build() == []


@pytest.mark.parametrize(
    ("system", "mode", "nvcc", "expected"),
    [
        ("Linux", "", "/usr/bin/nvcc", {"cpu", "cuda"}),
        ("Linux", "", None, {"cpu"}),
        ("Linux", "cpu", "/usr/bin/nvcc", {"cpu"}),
        ("Linux", "python", "/usr/bin/nvcc", set()),
        ("Darwin", "", None, set()),
    ],
)
def test_what_is_built_where(monkeypatch, capsys, system, mode, nvcc, expected):
    monkeypatch.setattr(setup.platform, "system", lambda: system)
    monkeypatch.setattr(setup, "find_nvcc", lambda: nvcc)
    monkeypatch.setenv("GANLSTM_FAST_BUILD", mode)
    assert setup.wanted() == expected
    said = capsys.readouterr().out
    assert ("on Darwin the Python part is installed" in said) == (system == "Darwin")


def test_a_torch_that_is_too_old_is_passed_over(monkeypatch, tmp_path):
    header = tmp_path / "torch/include/torch/headeronly/version.h"
    header.parent.mkdir(parents=True)
    header.write_text("#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR 10\n")
    assert not setup.is_usable_torch(tmp_path / "torch")
    monkeypatch.setenv("GANLSTM_FAST_TORCH", str(tmp_path / "torch"))
    with pytest.raises(SystemExit, match=r"GANLSTM_FAST_TORCH: expected .* 2\.11 or newer, got"):
        setup.find_torch()


def test_wheel_is_for_every_python(wheel):
    assert re.fullmatch(r"ganlstm_fast-[\d.]+-py3-none-linux_\w+\.whl", wheel.name)
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {"ganlstm_fast/_kernels_cpu.so", "ganlstm_fast/py.typed"} <= names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"ganlstm_fast"}


def test_an_editable_install_is_a_path(checkout, tmp_path):
    """Type checkers and editors read a path; they do not run setuptools' import hook."""
    build = "import sys, setup; setup.build_editable(sys.argv[1])"
    run(sys.executable, "-c", build, tmp_path, cwd=checkout, GANLSTM_FAST_BUILD="python")
    (path,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        (name,) = (name for name in archive.namelist() if ".dist-info/" not in name)
        assert name.endswith(".pth")
        assert archive.read(name).decode().split() == [str(checkout)]


def needed(path):
    if shutil.which("readelf") is None:
        pytest.skip("readelf was not found")
    dynamic = run("readelf", "-d", path, cwd=path.parent, LC_ALL="C")
    assert "RPATH" not in dynamic
    assert "RUNPATH" not in dynamic
    return re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic)


def test_cpu_object_needs_torch_but_no_python_and_no_openmp(shared_objects):
    libraries = needed(shared_objects["_kernels_cpu.so"])
    assert "libtorch_cpu.so" in libraries
    allowed = ("libtorch_cpu", "libc10", "libstdc++", "libgcc_s", "libc.", "libm.", "ld-linux")
    assert not [name for name in libraries if not name.startswith(allowed)]


def test_cuda_object_names_libtorch_cuda_and_brings_its_runtime(cuda_object):
    libraries = needed(cuda_object)
    assert {"libtorch_cpu.so", "libtorch_cuda.so"} <= set(libraries)
    # The CUDA runtime is inside; the driver is found when the first kernel runs.
    assert not [name for name in libraries if re.match("libcud|libpython|libgomp", name)]


def test_shared_objects_name_no_folder_of_this_machine(shared_objects, checkout):
    folders = (str(setup.find_torch().parent), str(ROOT), str(checkout))
    for path in shared_objects.values():
        assert not [folder for folder in folders if folder.encode() in path.read_bytes()]


def fat_binary_architectures(data):
    """The compute capabilities of the machine code in an object.

    CUDA's containers begin with a magic number and their size, their entries with the entry's kind
    (2: machine code), the sizes of its header and contents, and the architecture.
    """
    found, start = set(), 0
    while (start := data.find(b"\x50\xed\x55\xba\x01\x00\x10\x00", start)) >= 0:
        entry = start + 16
        end = entry + struct.unpack_from("<Q", data, start + 8)[0]
        while entry < end:
            kind, _, header, size = struct.unpack_from("<HHIQ", data, entry)
            if kind == 2:
                found.add(struct.unpack_from("<I", data, entry + 28)[0])
            entry += header + size
        start = end
    return found


def test_cuda_object_holds_code_for_ampere_and_hopper(cuda_object):
    assert {80, 90} <= fat_binary_architectures(cuda_object.read_bytes())


def find_cuobjdump():
    """CUDA's own, or the one that comes with Triton."""
    folders = [Path(setup.find_nvcc()).parent]
    if triton := importlib.util.find_spec("triton"):
        folders.append(Path(triton.origin).parent / "backends/nvidia/bin")
    found = shutil.which("cuobjdump", path=os.pathsep.join(map(str, folders)))
    return found or pytest.skip("cuobjdump was not found")


def test_cuda_kernels_keep_to_their_registers(cuda_object):
    """A spilled register shows as stack, since no kernel has an array there."""
    dump = (find_cuobjdump(), "--dump-resource-usage", cuda_object)
    log = run(*dump, cwd=cuda_object.parent)
    kernels = re.findall(r"Function (\S+):\s+REG:\d+ STACK:(\d+)", log)
    for source in (ROOT / "csrc").glob("*/gpu/*.*"):
        for name in re.findall(r"(\w+_kernel)\(const", source.read_text()):
            assert any(name in kernel for kernel, _ in kernels), name
    assert not [kernel for kernel, stack in kernels if stack != "0"]
    assert set(re.findall(r"arch = sm_(\d+)", log)) >= {"80", "90"}


def test_cuda_object_registers_its_operators(shared_objects, cuda_object, checkout):
    # A CPU-only torch has no libtorch_cuda: the build's stub stands in, and nothing is launched.
    source = f"""
import runpy
import torch
torch.ops.load_library({str(shared_objects["_kernels_cpu.so"])!r})
torch.ops.load_library({str(cuda_object)!r})
schemas = runpy.run_path({str(ROOT / "ganlstm_fast/ops/schemas.py")!r})
library = torch.library.Library("ganlstm_fast", "DEF")
library.define(schemas["schema_of"]("lstm_forward_steps"))
library.define(schemas["schema_of"]("lstm_tangent_backward_steps"))
library.define(schemas["overload"](schemas["schema_of"]("interpolate"), "cuda"))
for name in ("lstm_forward_steps", "lstm_tangent_backward_steps", "interpolate.cuda"):
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"ganlstm_fast::{{name}}", "CUDA"), name
"""
    stub = checkout / setup.OBJECTS / "stub"
    has_cuda = (setup.find_torch() / "lib/libtorch_cuda.so").exists()
    path = {} if has_cuda else {"LD_LIBRARY_PATH": stub}
    run(sys.executable, "-c", source, cwd=checkout.parent, **path)


def test_kernels_of_one_instruction_set_export_no_weak_symbol(wheel, checkout):
    if shutil.which("nm") is None:
        pytest.skip("nm was not found")
    x86 = platform.machine() in ("x86_64", "AMD64")
    kernels = sorted((checkout / "csrc").glob("*/cpu/*.simd.cpp"))
    assert kernels
    for source in kernels:
        for isa in setup.ISA_FLAGS if x86 else ["baseline"]:
            folder = checkout / setup.OBJECTS / source.parent.relative_to(checkout / "csrc")
            symbols = run("nm", "--demangle", folder / f"{source.name}.{isa}.o", cwd=checkout)
            weak = re.findall(r"(?m)^[0-9a-f]+ [WVu] (.*)", symbols)
            # A pointer to the C++ runtime's handler of exceptions: the same in every object.
            weak = [name for name in weak if name != "DW.ref.__gxx_personality_v0"]
            assert not weak, f"{source.name} for {isa}: {weak}"


def test_python_only_install(checkout, tmp_path):
    options = ("--no-deps", "--no-build-isolation", "-w", tmp_path)
    pip = (sys.executable, "-m", "pip", "wheel", ".", *options)
    run(*pip, cwd=checkout, GANLSTM_FAST_BUILD="python")
    (path,) = tmp_path.glob("*.whl")
    assert path.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(path) as archive:
        assert not [name for name in archive.namelist() if name.endswith(".so")]


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"PATH": "/nonexistent"}, r"no C\+\+ compiler was found .*apt install g\+\+"),
        ({"CXX": "/nonexistent"}, r"the C\+\+ compiler that CXX names, '/nonexistent', is not"),
        ({"GANLSTM_FAST_BUILD": "gpu"}, r"GANLSTM_FAST_BUILD: expected python, cpu or .*'gpu'"),
    ],
)
def test_what_is_missing_is_said_in_one_sentence(checkout, variables, sentence):
    hook = "import setup; setup.get_requires_for_build_wheel()"
    command = (sys.executable, "-c", hook)
    log = run(*command, cwd=checkout, status=1, without=("CXX",), **variables)
    (line,) = log.splitlines()[-1:]
    assert re.search(sentence, line)
    assert "Traceback" not in log
    if "PATH" in variables or "CXX" in variables:
        assert "GANLSTM_FAST_BUILD=python" in line


def test_sdist_carries_the_sources(checkout):
    hook = "import setup; print(setup.build_sdist('dist'))"
    name = run(sys.executable, "-c", hook, cwd=checkout).splitlines()[-1]
    with tarfile.open(checkout / "dist" / name) as archive:
        names = {member.partition("/")[2] for member in archive.getnames()}
    sources = [path for path in (ROOT / "csrc").rglob("*") if path.is_file()]
    assert {str(path.relative_to(ROOT)) for path in sources} <= names
    assert {"setup.py", "pyproject.toml", "CMakeLists.txt", "LICENSE"} <= names
    assert not [member for member in names if member.endswith((".so", ".o"))]


def deciding_flags(command):
    """The flags that decide on the object file: no paths, no dependency files."""
    flags = [word for word in command if re.match("-(?![IMoc])", word)]
    return tuple(sorted(flags))


LAUNCHER = """
import json, os, shutil, sys
output = sys.argv[sys.argv.index("-o") + 1]
with open(__file__ + ".json") as file:
    compiled = json.load(file).get(output)
if compiled:
    shutil.copy(compiled, output)
else:
    os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake was not found")
def test_cmake_builds_the_plain_library(checkout, wheel, tmp_path, monkeypatch):
    """From the same sources as setup.py with the same flags. An object that setup.py has is not
    compiled again: in its place the compiler's launcher copies it."""
    launcher = tmp_path / "launcher.py"
    launcher.write_text(LAUNCHER)
    monkeypatch.chdir(checkout)  # setup.py has relative paths
    (cxx,) = setup.find_cxx()
    options = [f"-DCMAKE_CXX_COMPILER_LAUNCHER={sys.executable};{launcher}"]
    options.append("-DCMAKE_EXPORT_COMPILE_COMMANDS=ON")
    run("cmake", "-S", checkout, "-B", tmp_path, *options, cwd=tmp_path, CXX=cxx)

    ours = {}
    for step in setup.cpu_steps(setup.find_torch(), [cxx])[:-1]:
        (source,) = step.inputs
        if not source.name.endswith("binding.cpp"):
            ours[source, deciding_flags(step.command)] = checkout / step.output
    theirs, tests, cuda = {}, [], {}
    for entry in json.loads((tmp_path / "compile_commands.json").read_text()):
        source = Path(entry["file"]).relative_to(checkout)
        command = shlex.split(entry["command"])
        if source.suffix == ".cu":
            cuda[source] = command
        elif source.parent.name == "tests":
            tests.append(source.stem)
        else:
            output = command[command.index("-o") + 1]
            theirs[source, deciding_flags(command)] = output
    assert theirs.keys() == ours.keys()
    if setup.find_nvcc() is not None:  # the wheel has its kernels: here they are not compiled
        assert set(cuda) == set(Path("csrc").glob("*/gpu/*.cu"))
    for command in cuda.values():
        assert {"-O3", "-std=c++17"} <= set(command)
        assert re.findall(r"sm_(\d+)", " ".join(command)) == ["80", "90"]

    compiled = {output: str(ours[key]) for key, output in theirs.items()}
    Path(f"{launcher}.json").write_text(json.dumps(compiled))
    run("cmake", "--build", tmp_path, "--target", *tests, cwd=tmp_path)
    log = run("ctest", "--test-dir", tmp_path, "--output-on-failure", cwd=tmp_path)
    assert "100% tests passed" in log
    isas = setup.ISA_FLAGS if platform.machine() in ("x86_64", "AMD64") else ["baseline"]
    assert len(re.findall(r"Test +#\d+: \S+", log)) == len(tests) * len(isas)
