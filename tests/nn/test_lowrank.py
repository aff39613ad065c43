"""The fast product against the one in plain operations: value, gradient, and what it leaves
alone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from lorakit.fast import dropout
from lorakit.nn.lowrank import Projection, Rows, add_product, low_rank_reference, project
from tests.rounding import assert_near


def add_low_rank(
    y: Tensor, x: Tensor, a: Tensor, b: Tensor, scale: float, rows: Rows = None
) -> Tensor:
    """Both steps for a delta of its own: as `low_rank_reference`, but `y` is changed in place and
    returned."""
    return add_product(y, project(x.to(y.dtype), a.to(y.dtype)), b, scale, rows)


OUT, IN, R, SCALE = 12, 7, 3, 1.75
TERMS = 128
"""Of a gradient: 12 rows of the batch, 12 outputs and 3 ranks, and squares of them where a loss is
squared."""
ROWS: dict[str, Rows] = {
    "all": None,
    "block": slice(4, 9),
    "end": slice(8, 12),
    "interleaved": torch.tensor([0, 1, 4, 5, 8, 9]),
    "unordered": torch.tensor([11, 2, 5]),
}
BATCHES = [(5,), (2, 3), (2, 3, 2)]


@pytest.fixture(params=ROWS.values(), ids=list(ROWS))
def rows(request) -> Rows:
    return request.param


def _height(rows: Rows) -> int:
    return len(torch.arange(OUT)[slice(None) if rows is None else rows])


def _operands(
    rows: Rows, batch=(2, 3), dtype=torch.float32
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    shapes = ((*batch, OUT), (*batch, IN), (R, IN), (_height(rows), R))
    y, x, a, b = (torch.randn(s, generator=g, dtype=dtype).requires_grad_() for s in shapes)
    return y, x, a, b


def _run(function, rows: Rows, operands) -> tuple[Tensor, list[Tensor]]:
    """(value, gradients of y, x, A, B); y is not a leaf, as a layer's output is none."""
    y, x, a, b = operands
    out = function(y * 1, x, a, b, SCALE, rows)
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    return out.detach(), list(torch.autograd.grad((out * weights).sum(), operands))


@pytest.mark.parametrize("batch", BATCHES, ids=str)
def test_value_and_gradients_are_the_references(rows, batch):
    operands = _operands(rows, batch)
    value, gradients = _run(add_low_rank, rows, operands)
    wanted, wanted_gradients = _run(low_rank_reference, rows, operands)
    assert_near(value, wanted, TERMS)
    assert_near(gradients, wanted_gradients, TERMS)


def test_the_reference_is_the_formula(rows):
    """h = W0 x + s B A x at the rows, W0 x elsewhere."""
    y, x, a, b = _operands(rows, (5,), torch.float64)
    wanted = y.detach().clone()
    for i, row in enumerate(torch.arange(OUT)[slice(None) if rows is None else rows].tolist()):
        wanted[:, row] += SCALE * torch.stack([(b[i] * (a @ sample)).sum() for sample in x])
    assert_near(low_rank_reference(y, x, a, b, SCALE, rows), wanted, TERMS)


def test_gradcheck(rows):
    operands = _operands(rows, (2, 2), torch.float64)
    assert torch.autograd.gradcheck(
        lambda y, x, a, b: add_low_rank(y * 1, x, a, b, SCALE, rows), operands
    )


def test_y_is_changed_in_place_and_x_is_not(rows):
    y, x, a, b = (t.detach() for t in _operands(rows))
    wanted, x_before = low_rank_reference(y, x, a, b, SCALE, rows), x.clone()
    out = add_low_rank(y, x, a, b, SCALE, rows)
    assert out.data_ptr() == y.data_ptr()
    assert_near(y, wanted, TERMS)
    assert torch.equal(x, x_before)


def test_rows_outside_are_untouched():
    y, x, a, b = (t.detach() for t in _operands(ROWS["block"]))
    before = y.clone()
    add_low_rank(y, x, a, b, SCALE, slice(4, 9))
    assert torch.equal(y[..., :4], before[..., :4])
    assert torch.equal(y[..., 9:], before[..., 9:])
    assert (y[..., 4:9] != before[..., 4:9]).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_activations_with_float32_factors(rows, dtype):
    y, x, a, b = _operands(rows)
    half = [y.detach().to(dtype).requires_grad_(), x.detach().to(dtype).requires_grad_(), a, b]
    value, gradients = _run(add_low_rank, rows, half)
    exact = [t.detach().float().requires_grad_() for t in half]
    wanted, wanted_gradients = _run(low_rank_reference, rows, exact)
    assert value.dtype is dtype
    assert [g.dtype for g in gradients] == [dtype, dtype, torch.float32, torch.float32]
    for found, right in zip([value, *gradients], [wanted, *wanted_gradients], strict=True):
        assert (found.float() - right).norm() <= 0.01 * right.norm()


def test_x_in_another_dtype_than_y():
    """Under autocast a layer's input may be float32 and its output bfloat16."""
    y, x, a, b = _operands(None)
    out = add_low_rank(y.detach().bfloat16(), x, a, b, SCALE)
    out.float().sum().backward()
    assert out.dtype is torch.bfloat16
    assert x.grad is not None
    assert x.grad.dtype is torch.float32


@pytest.mark.parametrize("layout", ["transposed", "strided", "expanded"])
def test_x_need_not_be_contiguous(rows, layout):
    y, _, a, b = _operands(rows)
    source = torch.randn(3, 2, 2 * IN, generator=torch.Generator().manual_seed(1))
    x = {
        "transposed": source.transpose(0, 1)[..., :IN],
        "strided": source.view(2, 3, 2 * IN)[..., ::2],
        "expanded": source[0, :, :IN].unsqueeze(1).expand(2, 3, IN),
    }[layout].requires_grad_()
    assert not x.is_contiguous()
    value, gradients = _run(add_low_rank, rows, (y, x, a, b))
    wanted, wanted_gradients = _run(low_rank_reference, rows, (y, x, a, b))
    assert_near(value, wanted, TERMS)
    assert_near(gradients, wanted_gradients, TERMS)


@pytest.mark.parametrize("frozen", ["y", "x", "a", "b", "yx", "ab"])
def test_no_gradient_where_none_is_wanted(rows, frozen):
    operands = dict(zip("yxab", _operands(rows), strict=True))
    for name in frozen:
        operands[name] = operands[name].detach()
    live = [t for t in operands.values() if t.requires_grad]

    def gradients(function) -> tuple[Tensor, ...]:
        y, x, a, b = operands.values()
        return torch.autograd.grad(function(y * 1, x, a, b, SCALE, rows).pow(2).sum(), live)

    assert_near(gradients(add_low_rank), gradients(low_rank_reference), TERMS)


def test_y_as_a_view():
    """GPT-2's Conv1D returns a view of its product; the gradient must still reach what the view was
    made of."""
    _, x, a, b = _operands(None, (2, 3))
    weight = torch.randn(IN, OUT, generator=torch.Generator().manual_seed(1)).requires_grad_()

    def loss(function) -> tuple[Tensor, ...]:
        y = torch.mm(x.reshape(-1, IN), weight).view(2, 3, OUT)
        return torch.autograd.grad(
            function(y, x, a, b, SCALE, None).pow(2).sum(), (weight, x, a, b)
        )

    assert_near(loss(add_low_rank), loss(low_rank_reference), TERMS)


def _names_behind(tensor: Tensor) -> set[str]:
    """The names of all nodes of a tensor's graph."""
    left, seen = [tensor.grad_fn], {}
    while left:
        node = left.pop()
        if node is not None and node not in seen:
            seen[node] = node.name()
            left += [behind for behind, _ in node.next_functions]
    return set(seen.values())


@pytest.mark.parametrize("trains", [True, False], ids=["input trains", "input does not"])
@pytest.mark.parametrize("kind", ["linear", "conv1d"])
def test_the_output_of_torchs_linear_is_changed_without_copies_of_its_gradient(kind, trains, rows):
    """It is a view of tokens x out: autograd copies the gradient of a view that is changed."""
    _, x, a, b = _operands(rows)
    weight = torch.linspace(-1, 1, OUT * IN).view(OUT, IN)
    bias = torch.linspace(0, 1, OUT)
    x = x.detach().requires_grad_(trains)

    def layer() -> Tensor:
        if kind == "linear":
            return torch.nn.functional.linear(x, weight, bias)
        return torch.addmm(bias, x.view(-1, IN), weight.T).view(*x.shape[:-1], OUT)

    assert layer()._is_view()
    wanted = low_rank_reference(layer(), x, a, b, SCALE, rows)
    found = add_low_rank(layer(), x, a, b, SCALE, rows)
    assert not any("CopySlices" in name for name in _names_behind(found))
    assert_near(found.detach(), wanted.detach(), TERMS)
    leaves = [leaf for leaf in (x, a, b) if leaf.requires_grad]
    assert_near(
        list(torch.autograd.grad(found.square().sum(), leaves)),
        list(torch.autograd.grad(wanted.square().sum(), leaves)),
        TERMS,
    )


def test_two_parts_of_one_output_add_up():
    """Query and value of a fused weight: the second product is added onto what the first has
    changed."""
    y, x, a, b = _operands(slice(0, 4))
    a2, b2 = a.detach().flip(0).requires_grad_(), b.detach().flip(1).requires_grad_()

    def gradients(function) -> tuple[Tensor, ...]:
        out = function(function(y * 1, x, a, b, SCALE, slice(0, 4)), x, a2, b2, 0.5, slice(8, 12))
        return torch.autograd.grad(out.pow(2).sum(), (y, x, a, b, a2, b2))

    assert_near(gradients(add_low_rank), gradients(low_rank_reference), TERMS)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu(rows):
    operands = [t.detach().cuda().requires_grad_() for t in _operands(rows)]
    rows = rows.cuda() if isinstance(rows, Tensor) else rows
    value, gradients = _run(add_low_rank, rows, operands)
    wanted, wanted_gradients = _run(low_rank_reference, rows, operands)
    assert_near(value, wanted, TERMS)
    assert_near(gradients, wanted_gradients, TERMS)


class _Part(torch.nn.Module):
    def __init__(self, r: int):
        super().__init__()
        self.A = torch.nn.Parameter(torch.randn(r, IN))
        self.reads = lambda: self.A


def test_what_reads_one_input_is_projected_once(monkeypatch):
    parts = [_Part(2), _Part(3)]
    shared, x = Projection(parts, 0.0), torch.randn(4, IN, requires_grad=True)
    asked = []
    monkeypatch.setattr(
        "lorakit.nn.lowrank.project",
        lambda x, a, *more: asked.append(a.shape[0]) or project(x, a, *more),
    )
    for _ in range(2):
        found = [shared(i, x, x.dtype) for i in range(2)]
        for part, h in zip(parts, found, strict=True):
            torch.testing.assert_close(h, x @ part.A.T)
    assert asked == [5, 5]  # once in each pass
    gradients = torch.autograd.grad(sum(h.pow(2).sum() for h in found), [x, *(p.A for p in parts)])
    wanted = torch.autograd.grad(
        sum((x @ p.A.T).pow(2).sum() for p in parts), [x, *(p.A for p in parts)]
    )
    torch.testing.assert_close(gradients, wanted)


def test_another_input_another_moment_another_projection():
    """A decoder's cross-attention reads two inputs; and what was projected before an update is not
    taken after it."""
    parts = [_Part(2), _Part(3)]
    shared, x, other = Projection(parts, 0.0), torch.randn(4, IN), torch.randn(5, IN)
    shared(0, x, x.dtype)
    torch.testing.assert_close(shared(1, other, x.dtype), other @ parts[1].A.T)
    torch.testing.assert_close(shared(1, x, x.dtype), x @ parts[1].A.T)
    shared(0, x, x.dtype)
    with torch.no_grad():
        parts[1].A.add_(1)
    torch.testing.assert_close(shared(1, x, x.dtype), x @ parts[1].A.T)
    with torch.no_grad():
        shared(0, x, x.dtype)
    assert shared(1, x, x.dtype).requires_grad
    shared(0, x, x.dtype)
    assert copy.deepcopy(shared).latest is None


def test_what_was_projected_with_dropout_is_not_taken_in_an_evaluation():
    parts = [_Part(2), _Part(3)]
    shared, x = Projection(parts, 0.5), torch.randn(4, IN)
    shared(0, x, x.dtype)
    for part in parts:
        part.eval()
    torch.testing.assert_close(shared(1, x, x.dtype), x @ parts[1].A.T)


@pytest.mark.parametrize("draw", [None, dropout.draw], ids=["torch", "gaps"])
def test_dropout_of_the_input_is_drawn_once_for_all(draw):
    parts = [_Part(IN), _Part(IN)]
    with torch.no_grad():
        for part in parts:
            part.A.copy_(torch.eye(IN))
    shared, x = Projection(parts, 0.4), torch.ones(50, IN, requires_grad=True)
    shared.draw = draw
    first, second = (shared(i, x, x.dtype) for i in range(2))
    assert torch.equal(first, second)
    assert sorted(set(first.detach().flatten().tolist())) == pytest.approx([0, 1 / 0.6])
    (grad,) = torch.autograd.grad((first + second).sum(), x)
    torch.testing.assert_close(grad, 2 * first)  # through what was kept, and nothing else
    for part in parts:
        part.eval()
    assert torch.equal(shared(0, x, x.dtype), x)
