"""Every operator has one schema, one way to its kernels, and arguments by name."""

from __future__ import annotations

import ast
import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ganlstm_fast.ops import backends, schemas
from ganlstm_fast.ops.lstm import fit
from ganlstm_fast.ops.registry import Operator
from tests.fake_gpu import OnGPU, pretend
from tests.marks import needs_cpu_kernels

ROOT = Path(__file__).parents[2]
OPS = ROOT / "ganlstm_fast/ops"
OPERATORS = [
    value
    for family in backends.FAMILIES
    for value in vars(importlib.import_module(f"ganlstm_fast.ops.{family}.operators")).values()
    if isinstance(value, Operator)
]
# They take no tensor, so that nothing but a kernel belongs to them.
WITHOUT_TENSORS = {"cpu_isa", "empty_cache", "probe_gpu", "lstm_why_not_cuda"}


def test_every_schema_has_an_operator() -> None:
    names = [schemas.name_of(schema) for schema in schemas.SCHEMAS]
    assert len(names) == len(set(names))
    assert {this.name for this in OPERATORS} == set(names) - WITHOUT_TENSORS


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda this: this.name)
def test_arguments_are_those_of_the_schema(operator: Operator) -> None:
    given = operator.op._schema.arguments
    assert operator.kind._fields == tuple(argument.name for argument in given)
    defaults = {a.name: a.default_value for a in given if a.has_default_value()}
    assert operator.kind._field_defaults == defaults


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda this: this.name)
def test_an_overload_takes_all_but_impl(operator: Operator) -> None:
    for overload in operator.overloads.values():
        names = [argument.name for argument in overload._schema.arguments]
        assert (*names, "impl") == operator.kind._fields
        results = (this._schema.returns for this in (overload, operator.op))
        assert len({tuple((r.name, str(r.type)) for r in given) for given in results}) == 1


def test_a_schema_stands_once_in_the_tree() -> None:
    sources = [*ROOT.glob("ganlstm_fast/**/*.py"), *ROOT.glob("csrc/**/*.[hc]*")]
    text = {path: path.read_text() for path in sources}
    for schema in schemas.SCHEMAS:
        name = schemas.name_of(schema)
        defining = re.compile(rf"[\"']{name}(\.\w+)?\(")
        found = [path for path, code in text.items() if defining.search(code)]
        assert found == [OPS / "schemas.py"], name


def test_ops_imports_nothing_else_of_the_package() -> None:
    for path in OPS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                top = name.partition(".")[0]
                allowed = {"torch", "triton", *sys.stdlib_module_names}
                assert top in allowed or name.startswith("ganlstm_fast.ops"), (path, name)


def test_families_have_the_same_files() -> None:
    names = {"__init__", "function", "operators", "autograd", "reference"}
    of_triton = {"triton_common", "triton_forward", "triton_backward", "triton_double_backward"}
    for family, implementations in backends.FAMILIES.items():
        has_triton = any(this.name == "triton" for this in implementations)
        found = {path.stem for path in (OPS / family).glob("*.py")}
        assert names | (of_triton if has_triton else set()) <= found, family


def test_modules_are_not_hidden_by_functions() -> None:
    import ganlstm_fast

    for family in ("lstm", "spectral_norm", "gradient_penalty"):
        assert callable(getattr(ganlstm_fast, family))
        importlib.import_module(f"ganlstm_fast.ops.{family}.reference")
        with pytest.raises(ImportError):
            importlib.import_module(f"ganlstm_fast.{family}")


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


USE = (
    "import ganlstm_fast as gf, torch; x = torch.ones(2, 3, 4, requires_grad=True);"
    "gf.FastLSTM(4, 5, impl='cpu')(x)[0].sum().backward(); print(x.grad.shape)"
)


@needs_cpu_kernels
def test_a_compiled_object_may_be_loaded_first_or_twice(tmp_path: Path) -> None:
    """It only implements: what comes before the definitions waits for them."""
    path = backends.PACKAGE / "_kernels_cpu.so"
    again = shutil.copy(path, tmp_path / "again.so")
    for code in (
        f"import torch; torch.ops.load_library({str(path)!r}); {USE}",
        f"{USE}; torch.ops.load_library({str(again)!r}); {USE}",
    ):
        assert "torch.Size([2, 3, 4])" in run_python(code)


@needs_cpu_kernels
def test_an_implementation_of_another_device_is_refused() -> None:
    x = torch.ones(2, 3)
    ops, seed = torch.ops.ganlstm_fast, torch.zeros(1, dtype=torch.int64)
    with pytest.raises(RuntimeError, match="impl: expected cpu for tensors on cpu, got triton"):
        ops.interpolate(x, x, seed, "triton")
    with pytest.raises(RuntimeError, match="impl: expected cpu for tensors on cpu, got other"):
        ops.spectral_norm_forward([x], [x[:, 0]], [x[0]], [0], 1, 1e-12, True, "other")


def test_triton_serves_where_nothing_was_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    missing = backends._Library(False, "not built")
    pretend(monkeypatch, library=missing)
    monkeypatch.setitem(backends._LIBRARIES, "cpu", missing)
    for family in ("lstm", "spectral_norm", "gradient_penalty"):
        kernels = set(backends.serving(family, "cuda", torch.float32)) - {"torch", "reference"}
        assert kernels == {"triton"}
    assert fit.second_order(OnGPU(), 64) == "triton"
    assert fit.second_order(OnGPU(), 512) is None
