"""Builds the compiled operators. ``pip install .`` comes here through the hooks at the end.

Torch is never imported: its headers are looked for where the package will run, so that an
environment that has torch is not made to download it again for the build.

Environment variables:
    GANLSTM_FAST_BUILD: ``python`` builds nothing, ``cpu`` no CUDA; unset, what the machine can.
    GANLSTM_FAST_TORCH: the folder of the torch package to compile against.
    GANLSTM_FAST_CUDA_ARCHS: compute capabilities, ``80;90`` by default.
    CXX, CUDA_HOME, MAX_JOBS: the C++ compiler, the CUDA toolkit, the number of compiler processes.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import site
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from setuptools import Extension, build_meta, setup
from setuptools.build_meta import (
    build_editable,
    build_sdist,
    build_wheel,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

# One binary serves every torch from here on. The macro is the same version as torch's headers
# encode it; pyproject.toml names it too.
TORCH_MIN = (2, 11)
TORCH_TARGET = f"0x{TORCH_MIN[0]:02x}{TORCH_MIN[1]:02x}000000000000"

CSRC = Path("csrc")
# Not under setuptools' own folders: those are temporary in an editable install, and objects do not
# depend on the version of Python.
OBJECTS = Path("build", "objects")

# A CPU kernel is compiled once for each, with the key as GANLSTM_ISA; which one runs is chosen when
# it runs. CMakeLists.txt has the same table.
AVX512 = ["-mavx512f", "-mavx512vl", "-mavx512dq", "-mavx512bw", "-mavx2", "-mfma"]
AVX512.append("-mprefer-vector-width=512")
ISA_FLAGS = {
    "baseline": [],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": AVX512,
    "avx512bf16": [*AVX512, "-mavx512bf16", "-DGANLSTM_BFLOAT16"],  # for bfloat16 only
}
CXX_FLAGS = ["-O3", "-std=c++17", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra"]
# Not -ffast-math: NaN and infinity must come out as they went in.
MATH_FLAGS = ["-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"]

# What the CUDA object takes from libtorch_cuda, which a CPU-only torch lacks. The object is linked
# against a stub with these names so that it depends on the real library by name.
LIBTORCH_CUDA_SYMBOLS = ["aoti_torch_get_current_cuda_stream"]


def fail(sentence: str) -> SystemExit:
    """An error that pip and uv show as this one line, without a traceback."""
    return SystemExit(f"ganlstm_fast: {sentence}")


# ---------------------------------------------------------------------------------- what to build


def wanted() -> set[str]:
    """The shared objects to build: a subset of ``{"cpu", "cuda"}``."""
    mode = os.environ.get("GANLSTM_FAST_BUILD", "")
    if mode not in ("", "python", "cpu"):
        raise fail(f"GANLSTM_FAST_BUILD: expected python, cpu or nothing, got {mode!r}")
    if mode == "python":
        return set()
    if platform.system() != "Linux":
        print(f"ganlstm_fast: the kernels are built on Linux only; on {platform.system()} the "
              "Python part is installed, which runs on PyTorch's own operators")  # fmt: skip
        return set()
    return {"cpu"} if mode == "cpu" or find_nvcc() is None else {"cpu", "cuda"}


def find_cxx() -> list[str]:
    """The command of the C++ compiler."""
    named = os.environ.get("CXX")
    if named:
        command = shlex.split(named)
        if shutil.which(command[0]):
            return command
        raise fail(
            f"the C++ compiler that CXX names, {named!r}, is not there; install it or unset CXX, "
            "or set GANLSTM_FAST_BUILD=python to install without kernels"
        )
    for name in ("g++", "c++", "clang++"):
        if shutil.which(name):
            return [name]
    raise fail(
        "no C++ compiler was found (g++, c++, clang++); install one (apt install g++, "
        "dnf install gcc-c++ or conda install gxx), or set GANLSTM_FAST_BUILD=python to install "
        "without kernels"
    )


def find_nvcc() -> str | None:
    homes = [os.environ.get(name) for name in ("CUDA_HOME", "CUDA_PATH")]
    for home in filter(None, homes):
        if nvcc := shutil.which("nvcc", path=str(Path(home, "bin"))):
            return nvcc
    return shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")


# --------------------------------------------------------------------------------- where torch is


def find_torch() -> Path | None:
    """The folder of an installed torch package that is new enough, or None."""
    named = os.environ.get("GANLSTM_FAST_TORCH")
    if named:
        if is_usable_torch(Path(named)):
            return Path(named)
        raise fail(
            "GANLSTM_FAST_TORCH: expected the folder of a torch package of version "
            f"{TORCH_MIN[0]}.{TORCH_MIN[1]} or newer, got {named!r}"
        )
    for packages in site_packages():
        if is_usable_torch(packages / "torch"):
            return packages / "torch"
    return None


def is_usable_torch(torch: Path) -> bool:
    try:
        version = (torch / "include/torch/headeronly/version.h").read_text()
    except OSError:
        return False
    found = re.findall(r"define TORCH_VERSION_(?:MAJOR|MINOR) (\d+)", version)
    return (
        tuple(map(int, found)) >= TORCH_MIN
        and (torch / "include/torch/csrc/stable/library.h").exists()
        and (torch / "lib/libtorch_cpu.so").exists()
    )


def site_packages() -> Iterator[Path]:
    """Where packages of the target environment may lie, the likeliest first."""
    # Under pip's build isolation these are still the folders of the environment of pip itself.
    yield from map(Path, (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))
    prefixes = [os.environ.get("VIRTUAL_ENV"), os.environ.get("CONDA_PREFIX")]
    prefixes += [*front_end_prefixes(), sys.base_prefix]
    for prefix in filter(None, prefixes):
        for folder in ("lib/python3*/site", "lib64/python3*/site", "lib/python3*/dist"):
            yield from Path(prefix).resolve().glob(f"{folder}-packages")
    yield Path(site.getusersitepackages())


def front_end_prefixes() -> Iterator[str]:
    """The environments that uv or build, the parents of this process, install into or run in.

    Both build in an environment of their own and name it in VIRTUAL_ENV; the user's can be read
    from the parent process only. Where that fails, the build asks for a torch of its own.
    """
    pid = os.getppid()
    while True:
        process = Path("/proc", str(pid))
        try:
            arguments = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            variables = (process / "environ").read_bytes().decode(errors="replace").split("\0")
            folder = Path(os.readlink(process / "cwd"))
            pid = int((process / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return
        program = Path(arguments[0])
        if not program.name.startswith(("uv", "python")):
            return  # a shell or a Makefile: its environment has been inherited already
        environ = dict(v.split("=", 1) for v in variables if "=" in v)
        interpreters = [
            *re.findall(r"\0(?:--python|-p)[\0=]([^\0]+)", "\0".join(arguments)),
            environ.get("UV_PYTHON", ""),
            arguments[0] if program.name.startswith("python") else "",
        ]
        for interpreter in filter(None, interpreters):
            path = folder / (shutil.which(interpreter, path=environ.get("PATH")) or interpreter)
            if path.is_dir():
                yield str(path)
            elif path.is_file():
                yield str(path.parent.parent)
        for name in ("VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT", "CONDA_PREFIX"):
            if environ.get(name):
                yield str(folder / environ[name])
        if program.name.startswith("uv"):
            yield from (str(above / ".venv") for above in (folder, *folder.parents))


# ------------------------------------------------------------------------------- compile and link


@dataclass
class Step:
    """One run of a compiler: made again when its command or a file it read has changed."""

    output: Path
    command: list[str]
    inputs: list[Path]

    @property
    def depfile(self) -> Path:
        return self.output.with_name(self.output.name + ".d")

    @property
    def stamp(self) -> Path:
        return self.output.with_name(self.output.name + ".command")

    def is_current(self) -> bool:
        if not (self.output.exists() and self.stamp.exists()):
            return False
        if self.stamp.read_text() != shlex.join(self.command):
            return False
        inputs = self.inputs
        if self.depfile.exists():
            rule = self.depfile.read_text().replace("\\\n", " ")
            inputs = [*inputs, *map(Path, shlex.split(rule.partition(":")[2]))]
        made = self.output.stat().st_mtime
        return all(path.exists() and path.stat().st_mtime <= made for path in inputs)

    def run(self) -> None:
        if self.is_current():
            return
        self.output.parent.mkdir(parents=True, exist_ok=True)
        self.stamp.unlink(missing_ok=True)
        done = subprocess.run(self.command, capture_output=True, text=True, check=False)
        # In one piece, because other steps print at the same time.
        sys.stdout.write(f"{shlex.join(self.command)}\n{done.stdout}{done.stderr}")
        sys.stdout.flush()
        if done.returncode:
            raise fail(
                f"{self.output} could not be built, the compiler's messages are above; "
                "GANLSTM_FAST_BUILD=cpu installs without CUDA, GANLSTM_FAST_BUILD=python without "
                "kernels"
            )
        self.stamp.write_text(shlex.join(self.command))


def compile_step(source: Path, command: list[str], suffix: str = "") -> Step:
    output = OBJECTS / source.relative_to(CSRC).with_name(f"{source.name}{suffix}.o")
    depfile = f"{output}.d"
    full = [*command, "-MMD", "-MF", depfile, "-c", str(source), "-o", str(output)]
    return Step(output, full, [source])


def torch_flags(torch: Path) -> list[str]:
    return [f"-DTORCH_TARGET_VERSION={TORCH_TARGET}", "-isystem", str(torch / "include")]


def path_flags(torch: Path) -> list[str]:
    """Torch's headers put their paths into error messages: without the machine's part of them."""
    return [f"-ffile-prefix-map={torch.parent}/="]


def cpu_steps(torch: Path, cxx: list[str]) -> list[Step]:
    """Kernels for each instruction set, the code that chooses among them, bindings; the link."""
    x86 = platform.machine() in ("x86_64", "AMD64")
    kernel = [*cxx, *CXX_FLAGS, *MATH_FLAGS, f"-I{CSRC}"]
    binding = [*kernel, *torch_flags(torch), *path_flags(torch)]
    steps = []
    for source in sorted(CSRC.glob("*/cpu/*.cpp")):
        if source.name.endswith("binding.cpp"):
            steps.append(compile_step(source, binding))
        elif source.name.endswith(".simd.cpp"):
            for isa, flags in ISA_FLAGS.items() if x86 else [("baseline", [])]:
                command = [*kernel, *flags, f"-DGANLSTM_ISA={isa}"]
                steps.append(compile_step(source, command, f".{isa}"))
        else:
            steps.append(compile_step(source, kernel))
    objects = [step.output for step in steps]
    output = OBJECTS / "_kernels_cpu.so"
    link = [*cxx, "-shared", "-pthread", "-o", str(output), *map(str, objects)]
    link += [f"-L{torch / 'lib'}"]
    link += ["-Wl,--as-needed", "-ltorch_cpu", "-Wl,-z,defs"]
    return [*steps, Step(output, link, objects)]


def cuda_steps(torch: Path, cxx: list[str], nvcc: str) -> list[Step]:
    """CUDA kernels and their bindings, the stub of libtorch_cuda, and the link."""
    base = [nvcc, "-ccbin", cxx[-1], "-O3", "-std=c++17", f"-I{CSRC}", "-DUSE_CUDA"]
    base += ["-Xcompiler", "-fPIC,-fvisibility=hidden,-Wall"]
    binding = [*base, *torch_flags(torch), "-Xcompiler", ",".join(path_flags(torch))]
    archs = re.findall(r"\d+[af]?", os.environ.get("GANLSTM_FAST_CUDA_ARCHS", "80;90"))
    code = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in archs]
    newest = max(archs, key=lambda arch: int(re.sub(r"\D", "", arch)))
    code.append(f"-gencode=arch=compute_{newest},code=compute_{newest}")
    steps = [compile_step(s, [*base, *code]) for s in sorted(CSRC.glob("*/gpu/*.cu"))]
    steps += [compile_step(s, binding) for s in sorted(CSRC.glob("*/gpu/*binding.cpp"))]

    stub_source = OBJECTS / "libtorch_cuda_stub.c"
    stub_text = "".join(f"void {name}(void) {{}}\n" for name in LIBTORCH_CUDA_SYMBOLS)
    if not stub_source.exists() or stub_source.read_text() != stub_text:
        stub_source.parent.mkdir(parents=True, exist_ok=True)
        stub_source.write_text(stub_text)
    stub = OBJECTS / "stub" / "libtorch_cuda.so"
    stub_link = [*cxx, "-x", "c", "-shared", "-fPIC", "-Wl,-soname,libtorch_cuda.so"]
    steps.append(Step(stub, [*stub_link, "-o", str(stub), str(stub_source)], [stub_source]))

    inputs = [step.output for step in steps]
    objects = [str(path) for path in inputs if path != stub]
    output = OBJECTS / "_kernels_cuda.so"
    # No device link: no kernel calls into another file, and the step would store the paths below.
    link = [nvcc, "-ccbin", cxx[-1], "-shared", "-nodlink", "-cudart", "static"]
    link += ["-o", str(output), *objects]
    link += [f"-L{stub.parent}", "-ltorch_cuda", f"-L{torch / 'lib'}", "-ltorch_cpu"]
    link += ["-Xlinker", "--as-needed,-z,defs,--exclude-libs,ALL"]
    return [*steps, Step(output, link, inputs)]


def run_steps(plans: list[list[Step]]) -> None:
    """Run each plan; the last step of a plan, its link, waits for the others."""
    jobs = int(os.environ.get("MAX_JOBS") or os.cpu_count() or 1)
    compiles = [step for plan in plans for step in plan[:-1]]
    links = [plan[-1] for plan in plans]
    outdated = sum(not step.is_current() for step in compiles)
    print(f"ganlstm_fast: compiling {outdated} of {len(compiles)} files, {jobs} at once")
    for steps in (compiles, links):
        pool = ThreadPoolExecutor(jobs)
        try:
            for done in as_completed([pool.submit(step.run) for step in steps]):
                done.result()
        finally:
            pool.shutdown(cancel_futures=True)


# -------------------------------------------------------------------------------------- setuptools


class CleanBuild(build):
    """Begins with an empty folder: setuptools would pack modules that have since been deleted."""

    def run(self) -> None:
        shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


class BuildSharedObjects(build_ext):
    def get_ext_filename(self, fullname: str) -> str:
        # No tag of a Python version: the objects do not use Python's API.
        return os.path.join(*fullname.split(".")) + ".so"

    def build_extensions(self) -> None:
        torch = find_torch()
        if torch is None:
            raise fail(
                f"no torch {TORCH_MIN[0]}.{TORCH_MIN[1]} or newer to compile against was found; "
                "install torch first, or name its folder in GANLSTM_FAST_TORCH"
            )
        cxx, nvcc = find_cxx(), find_nvcc()
        print(f"ganlstm_fast: building with {shlex.join(cxx)} and the headers of {torch}")
        plans = {}
        for extension in self.extensions:
            is_cuda = extension.name.endswith("_cuda")
            steps = cuda_steps(torch, cxx, nvcc) if is_cuda else cpu_steps(torch, cxx)
            plans[extension.name] = steps
        # The longest compilations first.
        run_steps([plans[name] for name in sorted(plans, reverse=True)])
        for name, steps in plans.items():
            target = self.get_ext_fullpath(name)
            self.mkpath(os.path.dirname(target))
            self.copy_file(str(steps[-1].output), target)


class AnyPythonWheel(bdist_wheel):
    def get_tag(self) -> tuple[str, str, str]:
        return ("py3", "none", super().get_tag()[2])


def requirements_of_build() -> list[str]:
    """What the build needs beside setuptools. Says early what is missing."""
    if not wanted():
        return []
    find_cxx()
    return [] if find_torch() else [f"torch>={TORCH_MIN[0]}.{TORCH_MIN[1]}"]


def get_requires_for_build_wheel(config_settings: dict | None = None) -> list[str]:
    return [*requirements_of_build(), *build_meta.get_requires_for_build_wheel(config_settings)]


def get_requires_for_build_editable(config_settings: dict | None = None) -> list[str]:
    return [*requirements_of_build(), *build_meta.get_requires_for_build_editable(config_settings)]


# pyproject.toml names this file as the build backend too, so that the hooks above and the commands
# share one answer to "where is torch?"; setuptools executes it as a script, the hooks import it.
if __name__ == "__main__":
    setup(
        ext_modules=[Extension(f"ganlstm_fast._kernels_{name}", []) for name in sorted(wanted())],
        cmdclass={
            "bdist_wheel": AnyPythonWheel,
            "build": CleanBuild,
            "build_ext": BuildSharedObjects,
        },
    )
