from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import ganlstm_fast as gf
from ganlstm_fast.nn import AdditiveAttention, DotProductAttention
from ganlstm_fast.nn.attention import masked_softmax
from tests.numerics import assert_close_to_reference

pytestmark = pytest.mark.usefixtures("one_thread")

B, T, FEATURES, QUERY = 3, 5, 4, 3
LAYERS = [
    pytest.param(lambda **q: AdditiveAttention(FEATURES, 6, **q), id="additive"),
    pytest.param(lambda **q: DotProductAttention(FEATURES, **q), id="dot"),
    pytest.param(lambda **q: DotProductAttention(FEATURES, 2, **q), id="dot-2-heads"),
]
with_and_without_query = pytest.mark.parametrize("query", [False, True], ids=["", "query"])


def _make(make, query: bool, dtype=torch.float64):
    layer = make(**({"query_features": QUERY} if query else {})).to(dtype)
    values = torch.randn(B, T, FEATURES, dtype=dtype, requires_grad=True)
    q = torch.randn(B, QUERY, dtype=dtype, requires_grad=True) if query else None
    return layer, values, q


def _mask() -> Tensor:
    """A full row, a padded one, and one without a valid step."""
    return torch.tensor([[True] * 5, [True, True, False, False, False], [False] * 5])


def _multihead(layer: DotProductAttention) -> nn.MultiheadAttention:
    """torch's layer with the same weights and nothing else."""
    twin = nn.MultiheadAttention(FEATURES, layer.heads, bias=False, batch_first=True).to(
        layer.key.weight.dtype
    )
    with torch.no_grad():
        twin.in_proj_weight.copy_(
            torch.cat((torch.eye(FEATURES), layer.key.weight, layer.value.weight))
        )
        twin.out_proj.weight.copy_(torch.eye(FEATURES))
    return twin


@pytest.mark.parametrize("heads", [1, 2, 4])
@with_and_without_query
def test_dot_product_is_torchs_multihead_attention(heads: int, query: bool) -> None:
    layer, values, q = _make(lambda **o: DotProductAttention(FEATURES, heads, **o), query)
    mask = _mask()
    mask[2] = True
    projected = layer.query.expand(B, -1) if q is None else layer.query(q)
    twin = _multihead(layer)
    expected, weights = twin(
        projected.unsqueeze(1),
        values,
        values,
        key_padding_mask=~mask,
        average_attn_weights=False,
    )
    pooled, ours = layer(values, q, mask=mask)
    torch.testing.assert_close(pooled, expected.squeeze(1))
    torch.testing.assert_close(ours, weights.squeeze(2))


@with_and_without_query
def test_additive_is_its_formula(query: bool) -> None:
    layer, values, q = _make(lambda **o: AdditiveAttention(FEATURES, 6, **o), query)
    pooled, weights = layer(values, q, lengths=[5, 2, 1])
    for b, length in enumerate([5, 2, 1]):
        scores = []
        for t in range(length):
            key = layer.key.weight @ values[b, t] + layer.key.bias
            if q is not None:
                key = key + layer.query.weight @ q[b]
            scores.append(layer.score.weight[0] @ torch.tanh(key))
        expected = torch.stack(scores).exp()
        expected = expected / expected.sum()
        torch.testing.assert_close(weights[b, :length], expected)
        torch.testing.assert_close(pooled[b], expected @ values[b, :length])


@pytest.mark.parametrize("make", LAYERS)
@with_and_without_query
def test_two_orders_of_gradients(make, query: bool) -> None:
    layer, values, q = _make(make, query)
    names, parameters = zip(*layer.named_parameters(), strict=True)
    inputs = (values, *([] if q is None else [q]), *parameters)

    def call(values: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
        q, weights = (rest[0], rest[1:]) if query else (None, rest)
        state = dict(zip(names, weights, strict=True))
        return torch.func.functional_call(layer, state, (values, q), {"mask": _mask()})

    assert torch.autograd.gradcheck(call, inputs)
    assert torch.autograd.gradgradcheck(call, inputs)


@pytest.mark.parametrize("make", LAYERS)
def test_several_queries_are_as_each_alone(make) -> None:
    layer, values, _ = _make(make, True)
    queries = torch.randn(B, 4, QUERY, dtype=torch.float64, requires_grad=True)
    pooled, weights = layer(values, queries, mask=_mask())
    alone = [layer(values, query, mask=_mask()) for query in queries.unbind(1)]
    torch.testing.assert_close(pooled, torch.stack([one for one, _ in alone], 1))
    torch.testing.assert_close(weights, torch.stack([one for _, one in alone], 1))
    assert torch.autograd.gradgradcheck(lambda q: layer(values, q, mask=_mask()), queries)
    with pytest.raises(ValueError, match=r"query: expected shape \(3, \*, 3\), got \(3, 4, 2\)"):
        layer(values, queries[..., :2])


@pytest.mark.parametrize("make", LAYERS)
@with_and_without_query
def test_padding_contributes_nothing(make, query: bool) -> None:
    layer, values, q = _make(make, query)
    lengths = [5, 2, 1]
    parameters = tuple(layer.parameters())
    found = []
    for filler in (0.0, 3.0, math.nan, math.inf):
        x = values.detach().clone()
        for b, length in enumerate(lengths):
            x[b, length:] = filler
        x.requires_grad_()
        pooled, weights = layer(x, q, lengths=lengths)
        (dx,) = torch.autograd.grad(pooled.square().sum(), x, create_graph=True)
        second = torch.autograd.grad(dx.square().sum(), parameters, allow_unused=True)
        for b, length in enumerate(lengths):
            assert (weights[b, ..., length:] == 0).all()
            assert (dx[b, length:] == 0).all()
        found.append((pooled, weights, dx, *(g for g in second if g is not None)))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=0, atol=0)
    for b, length in enumerate(lengths):
        alone, _ = layer(values[b : b + 1, :length], None if q is None else q[b : b + 1])
        torch.testing.assert_close(alone[0], found[0][0][b])


@pytest.mark.parametrize("make", LAYERS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_row_without_a_valid_step_is_zero(make, dtype: torch.dtype) -> None:
    layer, values, _ = _make(make, False, dtype)
    pooled, weights = layer(values, mask=_mask())
    assert pooled.dtype == weights.dtype == dtype
    assert (pooled[2] == 0).all()
    assert (weights[2] == 0).all()
    torch.testing.assert_close(weights[:2].sum(-1), torch.ones_like(weights[:2, ..., 0]))
    with torch.autograd.set_detect_anomaly(True):  # which finds a NaN on the way, too
        (dx,) = torch.autograd.grad(pooled.square().sum(), values, create_graph=True)
        dx.square().sum().backward()
    assert (dx[2] == 0).all()
    assert torch.isfinite(values.grad).all()
    assert (values.grad[2] == 0).all()


def test_masked_softmax_ignores_how_large_a_masked_score_is() -> None:
    scores = torch.tensor([[-1e30, math.inf, -2e30], [0.0, 1.0, math.nan]])
    mask = torch.tensor([[True, False, True], [True, True, False]])
    expected = torch.tensor([[1.0, 0.0, 0.0], [0.26894142, 0.73105858, 0.0]])
    torch.testing.assert_close(masked_softmax(scores, mask), expected)


def test_float32_errs_no_more_than_torchs() -> None:
    layer = DotProductAttention(FEATURES, 2)
    values = torch.randn(16, 200, FEATURES)
    lengths = torch.randint(1, 201, (16,))
    mask = torch.arange(200) >= lengths.unsqueeze(1)
    out, _ = layer(values, lengths=lengths)
    query = layer.query.expand(16, 1, -1)
    rival, _ = _multihead(layer)(query, values, values, key_padding_mask=mask)
    truth, _ = layer.double()(values.double(), lengths=lengths)
    assert_close_to_reference(out, truth, rival.squeeze(1))


def test_gradient_penalty_through_both() -> None:
    """A critic that is linear in its input has a penalty with a known value."""
    values = torch.randn(4, T, FEATURES)
    layer = DotProductAttention(FEATURES)
    nn.init.zeros_(layer.query)  # the weights are 1 / T
    slope = torch.randn(FEATURES)
    norm = (layer.value.weight.T @ slope).norm() / math.sqrt(T)
    value = gf.gradient_penalty(lambda x: layer(x)[0] @ slope, values, values.flip(0), lambda_=1.0)
    torch.testing.assert_close(value, (norm - 1).square())


def test_autocast() -> None:
    for layer in (AdditiveAttention(FEATURES), DotProductAttention(FEATURES, 2)):
        values = torch.randn(B, T, FEATURES)
        with torch.autocast("cpu", torch.bfloat16):
            pooled, weights = layer(values, mask=_mask())
        expected, _ = layer(values, mask=_mask())
        torch.testing.assert_close(pooled.float(), expected, rtol=0.05, atol=0.05)
        pooled.float().sum().backward()
        assert (weights[2] == 0).all()


def test_state_dict_round_trip() -> None:
    for make in (AdditiveAttention, DotProductAttention):
        first = make(FEATURES, query_features=QUERY)
        second = make(FEATURES, query_features=QUERY)
        second.load_state_dict(first.state_dict())
        values, q = torch.randn(B, T, FEATURES), torch.randn(B, QUERY)
        assert torch.equal(first(values, q)[0], second(values, q)[0])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: AdditiveAttention(0), ValueError, "features: expected 1 or more, got 0"),
        (lambda: AdditiveAttention(4, hidden=0), ValueError, "hidden: expected 1 or more"),
        (lambda: AdditiveAttention(4.0), TypeError, "features: expected an integer"),
        (
            lambda: DotProductAttention(4, query_features=-1),
            ValueError,
            "query_features: expected 1 or more",
        ),
        (lambda: DotProductAttention(4, 3), ValueError, "heads: expected a divisor of 4 features"),
    ],
)
def test_constructor_errors(call, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"values": torch.randn(B, FEATURES)}, ValueError, r"values: expected shape \(\*, \*, 4\)"),
        ({"query": torch.randn(B, 2)}, ValueError, "query: expected None"),
        ({"mask": torch.ones(B, T)}, TypeError, "mask: expected a bool tensor"),
        (
            {"mask": torch.ones(B, 2, dtype=torch.bool)},
            ValueError,
            r"mask: expected shape \(3, 5\)",
        ),
        ({"mask": _mask(), "lengths": [1, 1, 1]}, ValueError, "mask: expected None beside"),
        ({"lengths": [1, 6, 1]}, ValueError, "lengths: expected values in 1..5, got 6 at index 1"),
    ],
)
def test_call_errors(options: dict, error: type[Exception], message: str) -> None:
    options = {"values": torch.randn(B, T, FEATURES)} | options
    with pytest.raises(error, match=message):
        AdditiveAttention(FEATURES)(**options)


def test_a_missing_query_is_told() -> None:
    with pytest.raises(TypeError, match="query: expected a tensor, got NoneType"):
        AdditiveAttention(FEATURES, query_features=QUERY)(torch.randn(B, T, FEATURES))
