"""Methods in a basis of the weight (SVF, VectorFit, SVFT, Spectral Adapter, QR-LoRA) and frozen
orthonormal starts, against the authors' code and by their formulas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lorakit.adapters.attach import attach_adapter
from lorakit.adapters.files import read_adapter
from lorakit.adapters.save import save_adapter
from lorakit.errors import AdapterError, ModelError
from lorakit.inits import inits
from lorakit.methods import methods
from lorakit.methods.reparam._delta import MethodDelta
from lorakit.nn.select import Site
from tests.attaching import attach

GOLDEN = json.loads((Path(__file__).parent / "golden" / "spectral.json").read_text())
DERIVED = ("svf", "svft", "vectorfit")
"""Methods that derive all singular vectors from W0."""
CLOSE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}


def _weight(shape: tuple[int, int]) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(7))


def _delta(
    name: str, shape: tuple[int, int], weight: torch.Tensor | None = None, **fields: Any
) -> Any:
    """The method's delta on a random weight (out, in)."""
    module = nn.Linear(shape[1], shape[0]).requires_grad_(False)
    module.weight.copy_(_weight(shape) if weight is None else weight)
    method = methods.get(name).model_validate({"name": name, **fields})
    delta = MethodDelta(method, Site("w", module, "all", None, "w"), None).eval()
    torch.manual_seed(0)
    delta.begin()
    assert not delta.matrix().any()
    return delta


@torch.no_grad()
def _set(on: Any, /, **values: Any) -> None:
    for name, value in values.items():
        getattr(on, name).copy_(torch.as_tensor(value))


def _name(case: dict) -> str:
    fields = "".join(f" {key}={value}" for key, value in case["fields"].items())
    return f"{case['method']}{fields} {case['shape']}"


@pytest.mark.parametrize("case", GOLDEN, ids=_name)
def test_a_change_is_that_of_the_authors_code(case):
    delta = _delta(case["method"], tuple(case["shape"]), **case["fields"])
    _set(delta, **case["tensors"])
    wanted = torch.tensor(case["dW"])
    assert wanted.abs().max() > 0.1
    torch.testing.assert_close(delta.matrix(), wanted, **CLOSE)
    x = torch.randn(5, case["shape"][1], generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        y = delta.add_to(torch.zeros(5, case["shape"][0]), x)
    torch.testing.assert_close(y, x @ wanted.T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(6, 6), (9, 5), (5, 9)])
def test_svf_scales_singular_values(shape):
    weight = _weight(shape)
    u, s, vh = torch.linalg.svd(weight, full_matrices=False)
    factors = torch.linspace(0.5, 2, len(s))
    scaled = (u * (s * factors)) @ vh
    delta = _delta("svf", shape)
    _set(delta, z=factors)
    torch.testing.assert_close(weight + delta.matrix(), scaled, **CLOSE)
    added = _delta("svf", shape, form="add")
    _set(added, delta=s * (factors - 1))
    torch.testing.assert_close(weight + added.matrix(), scaled, **CLOSE)
    kept = _delta("svf", shape, keep_sum=True)
    _set(kept, z=factors)
    new = torch.linalg.svdvals(weight + kept.matrix())
    torch.testing.assert_close(new.sum(), s.sum(), **CLOSE)


def test_svft_reaches_every_matrix_when_all_coefficients_train():
    shape = (6, 6)
    delta = _delta("svft", shape, d=5)
    assert delta.m.numel() == 36
    wanted = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    u, _, v = delta.basis
    _set(delta, m=(u.T @ wanted @ v).flatten())
    torch.testing.assert_close(delta.matrix(), wanted, **CLOSE)


@pytest.mark.parametrize("pattern", ["banded", "random", "top_k"])
def test_patterns_of_svft_train_as_many_distinct_places(pattern):
    delta = _delta("svft", (7, 7), pattern=pattern, d=2)
    count = 7 * 5 - 2 * 3
    assert delta.m.numel() == count
    _set(delta, m=torch.ones(count))
    u, _, v = delta.basis
    core = u.T @ delta.matrix() @ v
    assert torch.equal(core.round(), (core > 0.5).float())
    assert int(core.round().sum()) == count
    if pattern == "top_k":
        alignment = (u.T @ v).abs()
        chosen = core > 0.5
        assert alignment[chosen].min() > alignment[~chosen].max()


def test_the_random_places_of_svft_come_from_its_seed():
    index = [_delta("svft", (9, 9), pattern="random", d=1, seed=s).index for s in (1, 1, 2)]
    assert torch.equal(index[0], index[1])
    assert not torch.equal(index[0], index[2])


@pytest.mark.parametrize(
    ("fields", "named"), [({"d": 5}, "method.d is 5"), ({"pattern": "top_k", "d": 1}, "top_k")]
)
def test_svft_refuses_what_does_not_fit(fields, named):
    with pytest.raises(ModelError, match=named):
        _delta("svft", (5, 9), **fields)


@pytest.mark.parametrize("slot", [0, 1])
def test_spectral_starts_from_its_triplets_and_keeps_the_rest(slot):
    weight = _weight((9, 7))
    u, s, vh = torch.linalg.svd(weight, full_matrices=False)
    chosen = slice(3 * slot, 3 * slot + 3)
    delta = _delta("spectral", (9, 7), form="rotational", r=3, slot=slot)
    torch.testing.assert_close(delta.S.detach(), s[chosen])
    _set(delta, X_u=torch.randn(3, 3), X_v=torch.randn(3, 3))
    change = delta.matrix()
    assert change.norm() > 0.1
    # rotated vectors: the singular values stay, and all other triplets are as they were
    torch.testing.assert_close(torch.linalg.svdvals(weight + change), s, **CLOSE)
    rest = [i for i in range(7) if not chosen.start <= i < chosen.stop]
    assert (u[:, rest].T @ change).abs().max() < 1e-5
    assert (change @ vh[rest].T).abs().max() < 1e-5


def test_spectral_has_twice_the_rank_of_lora():
    delta = _delta("spectral", (9, 7), r=2)
    _set(delta, A=torch.randn(2, 7), B=torch.randn(9, 2))
    assert torch.linalg.matrix_rank(delta.matrix()) == 4
    a, b, scale = delta.factors()
    torch.testing.assert_close(scale * b @ a, delta.matrix())


def test_spectral_refuses_too_many_triplets_and_one_rotated_vector():
    with pytest.raises(ModelError, match=r"method\.slot = 2 needs 9"):
        _delta("spectral", (9, 7), r=3, slot=2)
    with pytest.raises(ValueError, match="r is 1"):
        methods.get("spectral")(form="rotational", r=1)


@pytest.mark.parametrize("shape", [(6, 6), (9, 5), (5, 9)])
def test_all_directions_of_qr_lora_give_the_weight(shape):
    k = min(shape)
    delta = _delta("qr_lora", shape, r=k)
    _set(delta, l=torch.ones(k))
    torch.testing.assert_close(delta.matrix(), _weight(shape), **CLOSE)
    torch.testing.assert_close((delta.B.T @ delta.B).detach(), torch.eye(k), **CLOSE)
    sizes = (delta.B.T @ _weight(shape)).detach().abs().amax(1)
    few = _delta("qr_lora", shape, r=2)
    assert torch.equal(few.A, delta.A[:2])
    # the first pivot is the longest column of W0
    assert float(sizes[0]) == pytest.approx(float(_weight(shape).norm(dim=0).max()), rel=1e-5)


def test_qr_lora_refuses_a_rank_above_the_weights():
    with pytest.raises(ModelError, match=r"method\.r is 6"):
        _delta("qr_lora", (5, 9), r=6)


def test_vectorfit_changes_singular_values_and_the_bias():
    delta = _delta("vectorfit", (6, 5))
    weight = _weight((6, 5))
    bias = delta.site.module.bias
    _set(delta, delta=torch.linspace(-1, 1, 5), beta=torch.linspace(0, 1, 6))
    s = torch.linalg.svdvals(weight)
    wanted = (s + delta.delta).detach().abs().sort(descending=True).values
    torch.testing.assert_close(torch.linalg.svdvals(weight + delta.matrix()), wanted, **CLOSE)
    x = torch.randn(3, 5)
    with torch.no_grad():
        y = delta.add_to(x @ weight.T + bias, x)
        new = x @ (weight + delta.matrix()).T + bias + delta.bias_change()
    torch.testing.assert_close(y, new, **CLOSE)


@pytest.mark.parametrize("family", ["roberta", "gpt2"])
def test_the_biases_of_vectorfit_are_folded_merged_and_given_back(tiny, family):
    model = tiny(family)
    attachment = attach(methods.get("vectorfit")(), model)
    delta = next(iter(attachment.deltas.values()))
    module = delta.site.module
    before = module.bias.detach().clone()
    with torch.no_grad():
        for each in attachment.deltas.values():
            each.beta.copy_(torch.linspace(-1, 1, len(each.beta)))
    wanted = before.clone()
    for each in attachment.deltas.values():
        if each.site.module is module:
            wanted[each.site.index] += each.beta.detach()
    assert not torch.equal(wanted, before)
    logits = model.logits()
    with attachment.folded():
        assert torch.equal(module.bias, wanted)
        torch.testing.assert_close(model.logits(), logits, **CLOSE)
    assert torch.equal(module.bias, before)
    attachment.merge()
    assert torch.equal(module.bias, wanted)
    torch.testing.assert_close(model.logits(), logits, **CLOSE)


def test_a_bias_in_bfloat16_is_rounded_once(tiny):
    """What is stored is the nearest bfloat16 to the exact sum."""
    model = tiny("roberta", dtype=torch.bfloat16)
    attachment = attach(methods.get("vectorfit")(), model)
    delta = next(iter(attachment.deltas.values()))
    _set(delta, beta=torch.linspace(-0.3, 0.3, len(delta.beta)))
    module = delta.site.module
    exact = module.bias.float() + delta.bias_change()
    attachment.merge()
    assert torch.equal(module.bias, exact.bfloat16())


def test_vectorfit_leaves_a_layer_without_a_bias_without_one(tiny):
    model = tiny("llama")
    attachment = attach(methods.get("vectorfit")(), model)
    assert {n for d in attachment.deltas.values() for n, _ in d.named_parameters()} == {
        "delta",
        "check",
    }


@pytest.mark.parametrize("name", DERIVED)
class TestDerivedVectors:
    def test_an_adapter_holds_a_few_numbers_of_each(self, tiny, name):
        attachment = attach(methods.get(name)(), tiny("roberta"))
        delta = next(iter(attachment.deltas.values()))
        frozen = [n for n, p in delta.named_parameters() if not p.requires_grad]
        assert frozen == ["check"]
        assert delta.check.numel() == 3 * min(delta.site.shape)

    def test_another_algorithm_gives_the_same_vectors(self, name):
        """As another machine may: the SVD of the transpose, with other signs."""
        delta = _delta(name, (64, 48))
        u, _, vh = torch.linalg.svd(_weight((64, 48)).double().T, full_matrices=False)
        left = vh.T
        signs = torch.sign(left[left.abs().argmax(0), torch.arange(48)])
        torch.testing.assert_close(delta.basis[0], (left * signs).float(), rtol=0, atol=1e-6)
        torch.testing.assert_close(delta.basis[2], (u * signs).float(), rtol=0, atol=1e-6)

    def test_the_vectors_follow_the_model_and_are_no_buffers(self, name):
        """DDP sends buffers to every process in every step."""
        delta = _delta(name, (6, 6))
        assert not any(b.is_floating_point() for b in delta.buffers())
        delta.double()
        assert delta.matrix().dtype == torch.float64

    def test_a_saved_adapter_is_the_same_on_its_base(self, tiny, about, tmp_path, name):
        model = tiny("roberta")
        attachment = attach(methods.get(name)(), model)
        model.step(attachment, steps=2)
        save_adapter(tmp_path / "adapter", attachment, about(model, attachment))
        other = tiny("roberta")
        file = read_adapter(tmp_path / "adapter")
        attach_adapter(file, other.model, other.roles, other.newly_initialised)
        assert torch.equal(other.logits(), model.logits())

    def test_another_weight_is_refused_and_changes_nothing(self, tiny, name):
        attachment = attach(methods.get(name)(), tiny("roberta"))
        state = attachment.state()
        other = tiny("roberta", seed=1)
        trained = attach(methods.get(name)(), other)
        other.step(trained)
        before = other.logits()
        site = next(iter(trained.deltas))
        with pytest.raises(AdapterError, match=f"singular vectors of another {site}"):
            trained.load_state(state)
        assert torch.equal(other.logits(), before)

    def test_a_vector_with_the_other_sign_is_refused(self, name):
        delta = _delta(name, (6, 6))
        state = {n: p.detach().clone() for n, p in delta.named_parameters()}
        delta.method.refuse_state(delta, state)
        state["check"][1:, 2] *= -1
        with pytest.raises(AdapterError, match="w: they differ"):
            delta.method.refuse_state(delta, state)

    def test_equal_singular_values_are_refused(self, name):
        with pytest.raises(ModelError, match=r"numbers 1 and 2 are 1\).*not unique"):
            _delta(name, (6, 6), weight=torch.eye(6))

    def test_a_weight_of_a_lower_rank_is_refused(self, name):
        weight = _weight((6, 6))
        weight[:2] = 0
        with pytest.raises(ModelError, match="not unique"):
            _delta(name, (6, 6), weight=weight)


def _of_init(name: str, shape: tuple[int, int], r: int, **fields: Any) -> Any:
    init = {"name": name, **fields}
    return _delta("lora", shape, r=r, alpha=float(r), init=init)


def test_qr_trains_a_alone_within_the_strongest_directions():
    delta = _of_init("qr", (9, 7), 3)
    assert delta.A.requires_grad
    assert not delta.B.requires_grad
    torch.testing.assert_close((delta.B.T @ delta.B).detach(), torch.eye(3), **CLOSE)
    u, _, _ = torch.linalg.svd(_weight((9, 7)), full_matrices=False)
    onto = u[:, :3] @ u[:, :3].T
    torch.testing.assert_close(onto @ delta.B.detach(), delta.B.detach(), **CLOSE)


def test_adapters_with_other_slots_read_other_inputs():
    slots = [_of_init("orthogonal_basis", (9, 12), 3, slot=slot, seed=5) for slot in range(4)]
    assert not slots[0].A.requires_grad
    together = torch.cat([delta.A for delta in slots]).detach()
    # the sign of a row is that of what was drawn, and not of the machine's decomposition
    generator = torch.Generator().manual_seed(5)
    drawn = [torch.randn(12, generator=generator, dtype=torch.float64) for _ in range(12)]
    assert all(float(a.double() @ row) > 0 for a, row in zip(together, drawn, strict=True))
    torch.testing.assert_close(together @ together.T, torch.eye(12), **CLOSE)
    changes = []
    for delta in slots:
        _set(delta, B=torch.randn(9, 3))
        changes.append(delta.matrix())
    assert (changes[0] @ changes[2].T).abs().max() < 1e-5 * changes[0].norm() * changes[2].norm()
    other = _of_init("orthogonal_basis", (9, 12), 3, slot=0, seed=6)
    assert not torch.allclose(other.A, slots[0].A)
    # the same rows whatever r is
    wide = _of_init("orthogonal_basis", (9, 12), 6, seed=5)
    torch.testing.assert_close(wide.A.detach(), together[:6], **CLOSE)


def test_a_slot_beyond_the_inputs_is_refused():
    with pytest.raises(ModelError, match=r"has 12 inputs.*slot = 4 needs 15"):
        _of_init("orthogonal_basis", (9, 12), 3, slot=4)


def test_more_iterations_bring_pissa_nearer_to_the_svd():
    u, s, vh = torch.linalg.svd(_weight((9, 7)), full_matrices=False)
    wanted = (u[:, :3] * s[:3]) @ vh[:3]
    torch.manual_seed(0)
    far, near = (_of_init("pissa", (9, 7), 3, niter=n) for n in (1, 20))
    distances = [float((d.B0 @ d.A0 - wanted).abs().max()) for d in (far, near)]
    assert distances[1] < 1e-4 < distances[0]


def test_the_minor_part_of_pissa_is_the_end_of_the_svd():
    """URAE."""
    delta = _of_init("pissa", (9, 7), 2, part="minor")
    u, s, vh = torch.linalg.svd(_weight((9, 7)), full_matrices=False)
    torch.testing.assert_close((delta.B0 @ delta.A0).detach(), (u[:, 5:] * s[5:]) @ vh[5:], **CLOSE)
    _set(delta, B=delta.B0 * 2)
    torch.testing.assert_close(delta.matrix(), (u[:, 5:] * s[5:]) @ vh[5:], **CLOSE)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("svf", {}),
        ("svf", {"form": "add"}),
        ("svf", {"keep_sum": True}),
        ("svft", {}),
        ("vectorfit", {}),
        ("spectral", {}),
        ("spectral", {"form": "rotational", "r": 4}),
        ("qr_lora", {"r": 8}),
        ("lora", {"init": "qr"}),
        ("lora", {"init": "orthogonal_basis"}),
        ("lora", {"init": {"name": "pissa", "part": "minor"}}),
    ],
    ids=str,
)
def test_it_learns(tiny, name, fields):
    """With a frozen head: the loss falls by what the deltas learn."""
    model = tiny("roberta")
    attachment = attach(methods.get(name).model_validate({"name": name, **fields}), model)
    mine = [p for d in attachment.deltas.values() for p in d.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(mine, lr=0.02)
    first = float(model.loss().detach())
    for _ in range(10):
        model.loss().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert float(model.loss().detach()) < 0.9 * first


def test_an_init_of_peft_form_with_a_frozen_b_is_a_lora(tiny, about, tmp_path):
    peft = pytest.importorskip("peft")
    assert not inits.get("qr").trains_b
    model = tiny("roberta")
    attachment = attach(methods.get("lora")(init="qr", targets=("*.query", "*.value")), model)
    model.step(attachment, steps=2)
    save_adapter(tmp_path / "adapter", attachment, about(model, attachment, base="base"))
    base = tiny("roberta")
    base.model = peft.PeftModel.from_pretrained(base.model, tmp_path / "adapter")
    torch.testing.assert_close(base.logits(), model.logits(), **CLOSE)
