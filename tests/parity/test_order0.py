"""LoRMA+, ETHER, MultiLoRA, LoLDU, MSPLoRA and IncreLoRA: numbers of the authors' code, and what
the papers say of each."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lorakit.errors import ModelError
from lorakit.methods import methods
from tests.conftest import small_method
from tests.parity.deltas import delta_on, put, wave

NAMES = ("lorma", "ether", "multilora", "loldu", "msplora", "increlora")


W0 = wave(4, 6, k=0.7)

# Row 0 and row 3 of W', or of dW, that the authors' classes give for `wave` values, in float64:
# mwbini/ether ddc1038 (ETHERLinear, one block), Exploration-Lab/LoRMA 7e131da (LormaLinear_plus),
# FeiyuZhang98/IncreLoRA 51a2d73 (loraW), and in float32 SKDDJ/LoLDU 4fe87a0.
ETHER_CHANGE = """-0.0243398113 -0.4038862773 0.2275642199 1.3983496385 1.9230076988 1.1829207081
    -0.0507235001 -0.4809231826 0.1647457137 1.3916779345 1.9498668272 1.185586869"""
ETHER_PLUS = """0.085679217 0.1566564377 0.7878701939 1.0544176232 0.4127119811 -0.4876770085
    0.1100356157 0.1487908611 0.7643241279 1.0396634322 0.4098077495 -0.4989424771"""
ETHER_PLUS_BOTH = """-0.0201907355 0.2427613631 1.1354519819 1.4301466195 0.5444544134 -0.5649030671
    -0.2087559422 0.3583344053 1.5760283216 1.8725514581 0.6923964421 -0.6105960292"""
LORMA_OUTPUT = """2.1049430503 1.148436026 -0.3481984063 -1.6810696872 -2.2233076269 -1.7198892495
    1.0437491885 2.9989586496 3.5437109978 2.4218006917 0.1608796786 -2.1757055611"""
LORMA_INPUT = """0.4431328752 1.7020772934 1.6247875092 0.3892208731 -0.8512188372 -1.135556364
    0.5101862916 1.7973926094 1.6552158107 0.3184641178 -0.9615085695 -1.1857802142"""
LOLDU = """-0.3023132086 0.226780653 0.6492164135 0.7663152218 0.523004055 0.0337159634
    -0.3350019455 0.1874986887 0.6218158007 0.7636833191 0.5463784337 0.0721032619"""
INCRELORA = """1.2093507403 2.1942190989 0.7812278053 -1.485495294 -2.1288576128 -0.4457878185
    -0.6764127041 -1.5312779382 -0.7127507632 0.8846759748 1.515321945 0.4900123391"""


def assert_rows(matrix: Tensor, golden: str, far: float = 1e-9) -> None:
    wanted = torch.tensor([float(number) for number in golden.split()], dtype=torch.float64)
    found = matrix[[0, 3]].flatten()
    assert (found - wanted).abs().max() <= far * wanted.abs().max()


class TestTheAuthorsNumbers:
    def test_ether(self):
        delta = delta_on("ether", W0, form="ether", n=1)
        put(delta, U=wave(1, 6, k=1.1), U0=wave(1, 6, k=0.4))
        assert_rows(delta.matrix(), ETHER_CHANGE)

    def test_ether_plus(self):
        delta = delta_on("ether", W0, n=1, both_sides=False)
        put(delta, U=wave(1, 6, k=1.1), V=wave(1, 6, k=1.7))
        assert_rows(W0 + delta.matrix(), ETHER_PLUS)

    def test_ether_plus_on_both_sides(self):
        delta = delta_on("ether", W0, n=1)
        put(delta, U=wave(1, 6, k=1.1), V=wave(1, 6, k=1.7))
        put(delta, U_out=wave(1, 4, k=0.9), V_out=wave(1, 4, k=2.3))
        assert_rows(W0 + delta.matrix(), ETHER_PLUS_BOTH)

    @pytest.mark.parametrize(
        ("side", "width", "golden"), [("output", 4, LORMA_OUTPUT), ("input", 6, LORMA_INPUT)]
    )
    def test_lorma(self, side, width, golden):
        delta = delta_on("lorma", W0, r=2, alpha=6.0, side=side)
        put(delta, A=wave(2, width, k=1.1), B=wave(width, 2, k=1.7))
        assert_rows(W0 + delta.matrix(), golden)

    def test_loldu(self):
        delta = delta_on("loldu", W0, r=2, alpha=6.0)
        moved = delta.z.detach() + torch.tensor([0.5, -0.25])
        put(delta, z=moved, s=torch.tensor([2.0]))
        assert_rows(W0 + delta.matrix(), LOLDU, far=1e-6)

    def test_increlora(self):
        """Its authors divide by k + 1e-5."""
        delta = delta_on("increlora", W0, r=2, first=2, final=2, alpha=6.0)
        put(delta, A=wave(2, 6, k=1.1), E=wave(2, 1, k=0.5), B=wave(4, 2, k=1.7))
        assert_rows(delta.matrix(), INCRELORA, far=1e-5)


def test_blocks_of_ether_are_reflections():
    """W0 H_0 + dW is W0 H, with an orthogonal H of one reflection per block."""
    weight = torch.randn(12, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    delta = delta_on("ether", weight, form="ether", n=3)
    first = delta.U0.detach()
    put(delta, U=wave(3, 4, k=1.3))

    def reflection(rows: Tensor) -> Tensor:
        unit = rows / rows.norm(dim=1, keepdim=True)
        return torch.block_diag(*(torch.eye(4) - 2 * u[:, None] @ u[None] for u in unit))

    h = reflection(delta.U.detach())
    torch.testing.assert_close(h @ h.T, torch.eye(12, dtype=h.dtype))
    wanted = weight @ (h - reflection(first))
    torch.testing.assert_close(delta.matrix(), wanted)
    assert delta.matrix().norm() <= 4 * weight.norm()


def test_multilora_is_a_sum_of_scaled_loras():
    delta = delta_on("multilora", W0, n=2, r=3, alpha=6.0)
    put(delta, s=wave(2, 4, k=0.6))
    wanted = sum(2.0 * delta.s[i][:, None] * (delta.B[i] @ delta.A[i]) for i in range(2))
    torch.testing.assert_close(delta.matrix(), wanted.detach())


def test_the_pivots_of_loldu_give_the_weight():
    """With all pivots, the start that is taken off is s0 W0."""
    weight = torch.randn(5, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    delta = delta_on("loldu", weight, r=5, alpha=5.0)
    torch.testing.assert_close((delta.B * delta.start @ delta.A).detach(), weight)


def test_loldu_wants_as_many_pivots_as_there_are(tiny):
    model = tiny("bert")
    method = methods.get("loldu")(r=1000)
    with pytest.raises(ModelError, match=r"32 x 32.*1000"):
        method.attach(model.model, model.roles, model.newly_initialised)


def attached(tiny, name: str, **fields):
    model = tiny("bert")
    torch.manual_seed(0)
    method = small_method(name).model_copy(update=fields)
    return model, method.attach(model.model, model.roles, model.newly_initialised)


def test_layers_of_msplora_share_what_they_should(tiny):
    _, attachment = attached(tiny, "msplora", groups=2)
    places = attachment.shared.places
    queries = [places[name] for name in places if "query" in name]
    values = [places[name] for name in places if "value" in name]
    assert len(queries) == len(values) == 2
    assert queries[0][0] == queries[1][0] != values[0][0]
    assert queries[0][1] != queries[1][1]
    _, of_one_group = attached(tiny, "msplora", groups=1)
    places = of_one_group.shared.places
    queries = [places[name] for name in places if "query" in name]
    assert queries[0] == queries[1]


def test_msplora_is_the_sum_of_three_loras(tiny):
    model, attachment = attached(tiny, "msplora")
    model.step(attachment, steps=3)
    method = attachment.method
    name, delta = next(iter(attachment.deltas.items()))
    whole, group = attachment.shared.of(name)
    wanted = method.alpha / method.r_all * whole.B @ whole.A
    wanted = wanted + method.alpha / method.r_group * group.B @ group.A
    wanted = wanted + method.alpha / method.r * delta.B @ delta.A
    torch.testing.assert_close(delta.matrix(), wanted.detach())
    assert whole.B.any()
    assert group.B.any()


def train_with_hooks(model, attachment, steps: int) -> list[float]:
    optimizer = torch.optim.AdamW(attachment.trained().values(), lr=1e-2, weight_decay=0.0)
    losses = []
    for step in range(steps):
        attachment.before_step(step, steps)
        loss = model.loss()
        losses.append(float(loss.detach()))
        penalty = attachment.penalty()
        total = loss if penalty is None else loss + penalty
        total.backward()
        attachment.before_update()
        optimizer.step()
        attachment.after_step(step, steps)
        optimizer.zero_grad()
    return losses


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_falls(tiny, name):
    model, attachment = attached(tiny, name)
    head = [attachment.model.get_parameter(n) for n in attachment.newly_initialised]
    for p in head:
        p.requires_grad_(False)
    losses = train_with_hooks(model, attachment, 20)
    assert losses[-1] < 0.9 * losses[0]


def test_ether_learns_from_its_moved_start(tiny):
    model, attachment = attached(tiny, "ether", form="ether")
    losses = train_with_hooks(model, attachment, 20)
    assert losses[-1] < losses[0]
    assert min(attachment.delta_norms().values()) > 0


def test_the_ranks_of_increlora_grow_to_the_budget(tiny):
    fields = {"r": 4, "first": 1, "final": 2, "every": 2, "top": 2}
    model, attachment = attached(tiny, "increlora", **fields)
    assert {int(d.k) for d in attachment.deltas.values()} == {1}
    train_with_hooks(model, attachment, 20)
    ranks = [int(d.k) for d in attachment.deltas.values()]
    assert sum(ranks) == 2 * len(ranks)
    assert max(ranks) <= 4
    for d in attachment.deltas.values():
        k = int(d.k)
        assert d.E[:k].all()
        assert not d.E[k:].any()
        assert torch.linalg.matrix_rank(d.matrix()) == k


def test_the_scale_of_increlora_is_by_the_triplets_in_use():
    delta = delta_on("increlora", W0, r=4, first=1, final=2, alpha=6.0)
    put(delta, E=torch.tensor([[1.0], [0.0], [0.0], [0.0]]))
    alone = (delta.B[:, :1] @ delta.A[:1]).detach()
    torch.testing.assert_close(delta.matrix(), 6.0 * alone)
    put(delta, k=torch.tensor([2.0]))
    torch.testing.assert_close(delta.matrix(), 3.0 * alone)


def test_triplets_of_increlora_learn_in_advance(tiny):
    """Their E is 1e-5 and does not move; the ones after them do not learn."""
    fields = {"r": 4, "first": 1, "final": 4, "warm": 0.9}
    model, attachment = attached(tiny, "increlora", **fields)
    before = {name: d.A.detach().clone() for name, d in attachment.deltas.items()}
    optimizer = torch.optim.SGD(attachment.trained().values(), lr=1.0)
    for step in range(3):
        model.loss().backward()
        optimizer.step()
        attachment.after_step(step, 100)
        optimizer.zero_grad()
    for name, d in attachment.deltas.items():
        assert d.E[1:].flatten().tolist() == pytest.approx([1e-5, 0.0, 0.0])
        assert not torch.equal(d.A[1], before[name][1])
        assert torch.equal(d.A[2:], before[name][2:])


@pytest.mark.peers
@pytest.mark.parametrize("family", ["gpt2", "llama", "opt", "gpt_neox"])
def test_prefix_embedding_without_infix_is_pefts_prompt_tuning(tiny, family):
    peft = pytest.importorskip("peft")
    ours, theirs = tiny(family, "CausalLM"), tiny(family, "CausalLM")
    plain = ours.logits()
    method = methods.get("prefix_embedding")(prefix=3, infix=0)
    attachment = method.attach(ours.model, ours.roles)
    (insert,) = attachment.inserts.values()
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    theirs.model = peft.get_peft_model(theirs.model, config)
    vectors = wave(*insert.vectors.shape, k=0.7).float() / 5
    with torch.no_grad():
        insert.vectors.copy_(vectors)
        theirs.model.prompt_encoder["default"].embedding.weight.copy_(vectors)
    trained = sum(p.numel() for p in theirs.model.parameters() if p.requires_grad)
    assert trained == sum(p.numel() for p in attachment.trained().values())
    mask = ours.inputs["attention_mask"].bool()
    wanted = theirs.logits()[:, 3:][mask]
    assert (ours.logits()[mask] - wanted).abs().max() <= 1e-6 * wanted.abs().max().clamp(min=1)
    assert (plain[mask] - wanted).abs().max() > 1e-3
