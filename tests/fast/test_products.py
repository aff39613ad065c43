"""Products by oneDNN, and with weights laid out once: torch's numbers, and when they step aside."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from lorakit.fast import blocks as laying_out
from lorakit.fast import free_memory, onednn, products
from lorakit.fast.blocks import blocks_of, is_fast, laid_out, laid_out_bytes
from lorakit.fast.products import operands_of, use_fast_products
from lorakit.methods.reparam.lora import LoRA
from lorakit.nn.linear import is_conv1d
from tests.attaching import attach
from tests.rounding import TINY, assert_near

needs = {
    dtype: pytest.mark.skipif(not onednn.works(dtype), reason=f"oneDNN has no {dtype} here")
    for dtype in (torch.float32, torch.bfloat16)
}
KERNELS_AGREE = laying_out.kernels_agree
PRECISIONS = [
    pytest.param(torch.float32, 64, marks=needs[torch.float32]),
    pytest.param(torch.bfloat16, 3, marks=needs[torch.bfloat16]),
]


@pytest.fixture(autouse=True)
def everywhere(monkeypatch):
    """Whatever this processor gains by it."""
    for module in (products, laying_out):
        monkeypatch.setattr(module, "mkl_is_slow", lambda: True)
    monkeypatch.setattr(laying_out, "kernels_agree", lambda dtype: True)


def _layer(kind: str, dtype: torch.dtype = torch.float32, bias: bool = True) -> nn.Module:
    torch.manual_seed(0)
    layer = nn.Linear(24, 10, bias=bias) if kind == "Linear" else Conv1D(10, 24)
    return layer.to(dtype).requires_grad_(False)


def _fast(layer: nn.Module) -> nn.Module:
    fast = copy.deepcopy(layer)
    use_fast_products(fast)
    return fast


def _close(found: torch.Tensor, wanted: torch.Tensor, terms: int = 64) -> None:
    """terms: of a product with 24 numbers and a bias, or of a gradient over a few rows."""
    assert_near(found, wanted, terms)


def _results(
    module: nn.Module, shape: tuple[int, ...], dtype: torch.dtype
) -> tuple[torch.Tensor, ...]:
    module.bias.requires_grad_(True)
    module.bias.grad = None
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()
    y = module(x)
    y.mul_(1)  # a delta is added in place
    (y * torch.linspace(-1, 1, y.numel()).view(y.shape).to(dtype)).sum().backward()
    return y.detach(), x.grad, module.bias.grad


@pytest.mark.parametrize(("dtype", "terms"), PRECISIONS)
@pytest.mark.parametrize("kind", ["Linear", "Conv1D"])
@pytest.mark.parametrize("blocks", [False, True])
@pytest.mark.parametrize("shape", [(7, 24), (2, 5, 24), (1, 24), (2, 0, 24), (2, 3, 4, 24)])
def test_value_and_gradients_are_those_of_the_layer(kind, shape, dtype, terms, blocks):
    layer = _layer(kind, dtype)
    fast = _fast(layer)
    with laid_out(fast, training=True) if blocks else nullcontext():
        found = _results(fast, shape, dtype)
        few = dtype == torch.float32 and shape in ((1, 24), (2, 0, 24))  # no or one row
        assert laid_out_bytes(fast) == (2 * layer.weight.nbytes if blocks and not few else 0)
    for ours, wanted in zip(found, _results(layer, shape, dtype), strict=True):
        assert ours.dtype == wanted.dtype
        _close(ours, wanted, terms)


@pytest.mark.parametrize(("dtype", "terms"), PRECISIONS)
@pytest.mark.parametrize("kind", ["Linear", "Conv1D"])
@pytest.mark.parametrize("rows", [1, 2, 33, 864])
def test_in_blocks_it_is_the_same_to_the_bit(kind, rows, dtype, terms, monkeypatch):
    """Whether weights are laid out depends on the free memory, and no result may."""
    monkeypatch.setattr(laying_out, "kernels_agree", KERNELS_AGREE)
    torch.manual_seed(0)
    layer = (
        (nn.Linear(384, 160) if kind == "Linear" else Conv1D(160, 384))
        .to(dtype)
        .requires_grad_(False)
    )
    fast = _fast(layer)
    plain = _results(fast, (rows, 384), dtype)
    with laid_out(fast, training=True):
        blocks = _results(fast, (rows, 384), dtype)
        none = not KERNELS_AGREE(dtype) or (rows == 1 and dtype == torch.float32)
        assert laid_out_bytes(fast) == (0 if none else 2 * layer.weight.nbytes)
    assert all(torch.equal(a, b) for a, b in zip(plain, blocks, strict=True))


@pytest.mark.parametrize(("dtype", "terms"), PRECISIONS)
@pytest.mark.parametrize("shape", [(24, 10), (384, 160), (768, 768)])
@pytest.mark.parametrize("rows", [2, 33])
def test_where_kernels_differ_only_the_last_bits_do(shape, rows, dtype, terms):
    """By the rounding of as many terms as a row has."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(shape, generator=generator).to(dtype)
    for weight in (matrix, matrix.T):
        x = torch.randn(rows, weight.shape[1], generator=generator).to(dtype)
        blocks = onednn.in_blocks(weight)
        found = [onednn.times(x, w) for w in (weight, blocks)]
        assert_near(*found, weight.shape[1] if dtype == torch.float32 else terms)
        if KERNELS_AGREE(dtype):
            assert torch.equal(*found)


def test_where_they_differ_training_keeps_the_plain_weights(monkeypatch):
    real = onednn.times

    def other(x, weight, bias=None):
        return real(x, weight, bias) + 1e-7 * (weight.layout != torch.strided)

    for module in (products, laying_out):
        monkeypatch.setattr(module, "times", other)
    monkeypatch.setattr(laying_out, "kernels_agree", KERNELS_AGREE.__wrapped__)
    fast = _fast(_layer("Linear"))
    with laid_out(fast, training=True):
        assert blocks_of(fast) is None
    with laid_out(fast):
        assert blocks_of(fast) is not None


def test_where_fp32_is_mkls_training_leaves_it_so(monkeypatch):
    for module in (products, laying_out):
        monkeypatch.setattr(module, "mkl_is_slow", lambda: False)
    fast, half = _fast(_layer("Linear")), _fast(_layer("Linear", torch.bfloat16))
    with laid_out(fast, training=True), laid_out(half, training=True):
        assert blocks_of(fast) is None
        assert (blocks_of(half) is not None) == onednn.works(torch.bfloat16)
    with laid_out(fast):
        assert blocks_of(fast) is not None


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("dtype", "terms"), PRECISIONS)
@pytest.mark.parametrize("kind", ["Linear", "Conv1D"])
def test_a_weight_that_changes_is_laid_out_anew(kind, dtype, terms, training):
    layer = _layer(kind, dtype)
    fast = _fast(layer)
    x = torch.randn(6, 24, dtype=dtype)
    with laid_out(fast, training), torch.no_grad():
        for change in (lambda w: w.mul_(-2), lambda w: w[1:3].zero_(), lambda w: w.T.add_(1)):
            _close(fast(x), layer(x), terms)
            before = fast(x)
            for module in (layer, fast):
                change(module.weight)
            assert not torch.equal(fast(x), before)
            _close(fast(x), layer(x), terms)
        for module in (layer, fast):
            module.weight = nn.Parameter(module.weight.detach().clone().neg_(), requires_grad=False)
        _close(fast(x), layer(x), terms)
        with torch.inference_mode():
            for module in (layer, fast):
                module.weight.mul_(2)
            _close(fast(x), layer(x), terms)
    assert laid_out_bytes(fast) == 0


def test_laid_out_for_reading_alone_a_gradient_takes_the_plain_weight():
    layer = _layer("Linear")
    fast = _fast(layer)
    with laid_out(fast):
        found = _results(fast, (6, 24), torch.float32)
    for ours, wanted in zip(found, _results(layer, (6, 24), torch.float32), strict=True):
        _close(ours, wanted)


def test_inside_another_the_outer_copies_stay():
    fast, x = _fast(_layer("Linear")), torch.randn(6, 24)
    with laid_out(fast, training=True):
        fast(x)
        blocks = blocks_of(fast)
        with laid_out(fast), torch.inference_mode():
            fast(x)
        assert blocks_of(fast) is blocks
        assert laid_out_bytes(fast) == fast.weight.nbytes
        assert laid_out_bytes(copy.deepcopy(fast)) == 0


def test_without_a_bias():
    layer, x = _layer("Linear", bias=False), torch.randn(6, 24)
    fast = _fast(layer)
    _close(fast(x), layer(x))
    with torch.no_grad(), laid_out(fast):
        _close(fast(x), layer(x))


def test_an_input_with_gaps():
    layer, x = _layer("Linear"), torch.randn(4, 6, 48)
    for gaps in (x[..., ::2], x[:, 2:4, :24], x[:, :, :24].transpose(0, 1)):
        _close(_fast(layer)(gaps), layer(gaps))


def test_layers_keep_what_others_know_them_by(tiny):
    for family, head in (("gpt2", "CausalLM"), ("roberta", "SequenceClassification")):
        plain, fast = tiny(family, head), tiny(family, head)
        parameters = dict(fast.model.named_parameters(remove_duplicate=False))
        use_fast_products(fast.model)
        use_fast_products(fast.model)
        changed = [m for m in fast.model.modules() if is_fast(m)]
        assert len(changed) == sum(
            type(m) is nn.Linear or is_conv1d(m) for m in plain.model.modules()
        )
        assert [(n, type(m).__name__) for n, m in plain.model.named_modules()] == [
            (n, type(m).__name__) for n, m in fast.model.named_modules()
        ]
        now = dict(fast.model.named_parameters(remove_duplicate=False))
        assert all(now[name] is p for name, p in parameters.items()), (
            "a weight, or a tie, is another"
        )
        twin = copy.deepcopy(fast.model)
        with torch.no_grad():
            next(m for m in twin.modules() if is_fast(m)).weight.add_(1)
        for name, p in fast.model.named_parameters():
            torch.testing.assert_close(p, dict(plain.model.named_parameters())[name])


def test_a_weight_that_trains_gets_its_gradient():
    fast = _fast(_layer("Linear")).requires_grad_(True)
    with laid_out(fast, training=True):
        fast(torch.ones(3, 24)).sum().backward()
    assert blocks_of(fast) is None
    torch.testing.assert_close(fast.weight.grad, torch.full((10, 24), 3.0))


def test_autocast_and_other_dtypes_take_the_layers_own_way(monkeypatch):
    def refuse(*_):
        raise AssertionError("not for this")

    monkeypatch.setattr(products, "times", refuse)
    layer = _fast(_layer("Linear"))
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.ones(2, 24)).dtype == torch.bfloat16
    assert layer.double()(torch.ones(2, 24, dtype=torch.float64)).dtype == torch.float64
    with pytest.raises(RuntimeError, match="dtype"):  # torch's own words for a mistake
        layer.float()(torch.ones(2, 24, dtype=torch.bfloat16))


def test_a_class_of_its_own_is_left_alone():
    class Other(nn.Linear):
        pass

    model = nn.Sequential(Other(3, 4), nn.Linear(4, 2))
    use_fast_products(model)
    assert not is_fast(model[0])
    assert is_fast(model[1])


def test_where_the_operators_are_not_there_it_is_torchs_own(monkeypatch):
    def gone(*_):
        raise AttributeError("no such operator")

    monkeypatch.setattr(onednn, "times", gone)
    onednn.works.cache_clear()
    try:
        assert not onednn.works(torch.float32)
        layer, x = _layer("Linear"), torch.randn(6, 24)
        fast = _fast(layer)
        with torch.no_grad(), laid_out(fast):
            assert torch.equal(fast(x), layer(x))
        assert operands_of(fast, x) is None
    finally:
        onednn.works.cache_clear()


@pytest.mark.skipif(not Path("/proc/self/cgroup").exists(), reason="Linux")
def test_a_container_has_less_than_its_host(monkeypatch, tmp_path):
    own = Path("/proc/self/cgroup").read_text()
    if "0::/" not in own:
        pytest.skip("control groups of the first version")
    monkeypatch.setattr(free_memory, "GROUPS", tmp_path)
    inside = tmp_path / own.split("0::/")[1].splitlines()[0]
    inside.mkdir(parents=True, exist_ok=True)
    whole = free_memory.free_bytes()
    assert 0 < whole < 2**50
    (inside / "memory.max").write_text("max\n")
    (inside / "memory.current").write_text("700\n")
    assert free_memory.free_bytes() > 2**20
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert free_memory.free_bytes() == 4000


def test_the_systems_free_memory_is_given_in_kib(monkeypatch, tmp_path):
    file = tmp_path / "meminfo"
    file.write_text("MemTotal:  9000 kB\nMemAvailable:  3000 kB\n")
    monkeypatch.setattr(free_memory, "Path", lambda _: file)
    assert list(free_memory._system()) == [3000 * 1024]


@pytest.mark.parametrize(("training", "share"), [(False, 2), (True, 16)])
def test_laying_out_is_left_out_where_memory_is_short(monkeypatch, training, share):
    fast = _fast(_layer("Linear"))
    monkeypatch.setattr(laying_out, "free_bytes", lambda: share * fast.weight.nbytes - 1)
    with laid_out(fast, training):
        assert blocks_of(fast) is None
    monkeypatch.setattr(laying_out, "free_bytes", lambda: share * fast.weight.nbytes)
    with laid_out(fast, training):
        assert blocks_of(fast) is not None


@pytest.mark.parametrize(
    ("family", "head"),
    [("roberta", "SequenceClassification"), ("gpt2", "CausalLM"), ("llama", "CausalLM")],
)
def test_a_model_with_lora_has_the_same_loss_and_gradients(tiny, family, head):
    found = []
    for fast in (False, True, "blocks"):
        model = tiny(family, head)
        torch.manual_seed(0)
        attachment = attach(LoRA(r=4), model)
        generator = torch.Generator().manual_seed(0)
        for delta in attachment.deltas.values():
            nn.init.normal_(delta.B, generator=generator)
        if fast:
            use_fast_products(model.model)
        model.model.eval()
        with laid_out(model.model, training=True) if fast == "blocks" else nullcontext():
            loss = model.loss()
            loss.backward()
            assert (laid_out_bytes(model.model) > 0) == (fast == "blocks")
        found.append({"loss": loss.detach()} | {n: p.grad for n, p in attachment.trained().items()})
    assert len(found[0]) > 2
    for name, wanted in found[0].items():
        _close(found[1][name], wanted, TINY)
        _close(found[2][name], wanted, TINY)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_works_is_found_out_under_autocast_too(dtype):
    """The first to ask may be a generation in bf16 of a float32 model."""
    onednn.works.cache_clear()
    with torch.autocast("cpu", torch.bfloat16):
        found = onednn.works(dtype)
    onednn.works.cache_clear()
    assert found == onednn.works(dtype)
