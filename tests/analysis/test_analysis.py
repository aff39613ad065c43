"""Measures of `lorakit.analysis` on matrices whose answer is known.

It is known by construction, by a theorem, or from the definition written in another way.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lorakit.analysis._change import MAX_SINGULAR_VALUES, Change, svd
from lorakit.analysis._sites import middle_layer
from lorakit.analysis.amplification import amplification
from lorakit.analysis.base_overlap import measure
from lorakit.analysis.full import truncation, truncation_errors
from lorakit.analysis.intruders import intruders, nearest
from lorakit.analysis.norms import Norms, norms
from lorakit.analysis.norms import table as norms_table
from lorakit.analysis.rank import effective_rank, spectrum, stable_rank
from lorakit.analysis.subspace import Overlap, headline, overlaps, random_similarity, similarity
from lorakit.errors import InputError

OUT, IN = 24, 20


@pytest.fixture
def draw():
    """`draw(rows, columns)`: Gaussian float64, new at every call, the same in every session."""
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.fixture
def orthonormal(draw):
    """`orthonormal(n, k)`: n columns, orthonormal, of length k -> (k, n)"""
    return lambda n, k: torch.linalg.qr(draw(k, n))[0]


def _matrix(u: Tensor, s: list[float], v: Tensor) -> Tensor:
    return u[:, : len(s)] @ torch.diag(torch.tensor(s, dtype=torch.float64)) @ v[:, : len(s)].T


# subspace


def test_phi_of_an_adapter_with_itself(draw):
    phi = similarity(a := draw(4, IN), a)
    assert phi.shape == (4, 4)
    # the first i directions hold the first j <= i, and the other way round
    assert torch.allclose(phi, torch.ones_like(phi))


def test_phi_of_orthogonal_subspaces(orthonormal):
    columns = orthonormal(7, IN)
    phi = similarity(columns[:, :3].T, columns[:, 3:].T)
    assert phi.shape == (3, 4)
    assert phi.abs().max() < 1e-20


def test_phi_of_nested_subspaces_with_directions_in_another_order(orthonormal):
    """A1 has the directions e1, e2, and A2 has e3, e2, e1.

    By hand: the sum of squared cosines over min(i, j).
    """
    e = orthonormal(3, IN).T
    a1 = torch.stack([3 * e[0], 2 * e[1]])
    a2 = torch.stack([5 * e[2], 4 * e[1], 1 * e[0]])
    assert torch.allclose(
        similarity(a1, a2), torch.tensor([[0, 0, 1], [0, 1 / 2, 2 / 2]], dtype=torch.float64)
    )
    assert torch.allclose(similarity(a2, a1), similarity(a1, a2).T)


def test_phi_is_the_projection_metric(draw):
    """phi = 1 - d^2 / p with d^2 = p - sum sigma^2 of V1^T V2 (Ham and Lee).

    The paper's (1 - d^2) / p is a misprint.
    """
    a1, a2 = draw(3, IN), draw(5, IN)
    phi = similarity(a1, a2)
    v1, v2 = (torch.linalg.svd(a, full_matrices=False)[2] for a in (a1, a2))
    for i in range(1, 4):
        for j in range(1, 6):
            p, sigma = min(i, j), torch.linalg.svdvals(v1[:i] @ v2[:j].T)
            d2 = p - sigma.square().sum()
            assert phi[i - 1, j - 1].item() == pytest.approx(float(1 - d2 / p), abs=1e-12)
    assert bool(((phi >= 0) & (phi <= 1)).all())


def test_an_invertible_map_of_the_rows_leaves_the_span(draw):
    """A -> M A has the same row space, so phi of the whole spans stays; single directions move."""
    a1, a2, m = draw(4, IN), draw(6, IN), draw(4, 4)
    before, after = similarity(a1, a2), similarity(m @ a1, a2)
    assert after[-1, -1] == pytest.approx(before[-1, -1].item(), abs=1e-10)
    assert (after[0] - before[0]).abs().max() > 1e-3


def test_scale_and_signs_do_not_matter(draw):
    a1, a2 = draw(4, IN), draw(6, IN)
    assert torch.allclose(similarity(-3 * a1, a2 * 1e-3), similarity(a1, a2))


def test_rotating_both_inputs_changes_nothing(draw, orthonormal):
    a1, a2, q = draw(4, IN), draw(6, IN), orthonormal(IN, IN)
    assert torch.allclose(similarity(a1 @ q, a2 @ q), similarity(a1, a2))


def test_the_random_control_is_near_its_expectation():
    """E ||U^T V||^2 = i j / width for random subspaces, so phi is max(i, j) / width."""
    many = torch.stack([random_similarity(3, 8, 40, seed) for seed in range(400)]).mean(0)
    i, j = torch.arange(1, 4).unsqueeze(1), torch.arange(1, 9)
    expected = torch.maximum(i, j) / 40
    assert ((many - expected).abs() < 0.01).all()
    assert torch.equal(random_similarity(3, 8, 40), random_similarity(3, 8, 40))


def _low(site: str, a: Tensor, out: int = OUT) -> Change:
    return Change(site, factors=(torch.ones(out, a.shape[0], dtype=a.dtype), a))


def test_overlaps_match_by_site_and_put_the_smaller_rank_first(draw):
    wide, narrow = draw(6, IN), draw(2, IN)
    first = [_low("x", draw(6, IN)), _low("layer.0.q", wide)]
    (found,) = overlaps([(first, [_low("layer.0.q", narrow), _low("layer.0.v", narrow)])])
    assert (found.site, found.ranks, found.width) == ("layer.0.q", (2, 6), IN)
    assert torch.allclose(torch.tensor(found.phi, dtype=torch.float64), similarity(narrow, wide))
    assert found.each == [(found.phi[0][0], found.phi[1][1])]


def test_overlaps_of_several_pairs_are_their_mean(draw):
    a, b, c = ([_low("q", draw(3, IN))] for _ in range(3))
    (found,) = overlaps([(a, b), (a, c), (b, c)])
    singles = [overlaps([pair])[0] for pair in ((a, b), (a, c), (b, c))]
    assert len(found.each) == 3
    assert found.phi[0][0] == pytest.approx(sum(s.phi[0][0] for s in singles) / 3)


def test_adapters_that_have_nothing_in_common_are_refused(draw):
    with pytest.raises(InputError, match=r" q .* v "):
        overlaps([([_low("q", draw(2, IN))], [_low("v", draw(2, IN))])])
    with pytest.raises(InputError, match=r"q .*20 .*30 "):
        overlaps([([_low("q", draw(2, IN))], [_low("q", draw(2, 30))])])


# the change


def test_the_svd_of_a_product_without_the_product(draw):
    for out, r, in_ in (
        (OUT, 3, IN),
        (4, 6, IN),
        (OUT, 30, IN),
    ):  # a rank above the matrix's own too
        b, a = draw(out, r), draw(r, in_)
        u, s, v = Change("q", factors=(b, a)).svd
        assert torch.allclose(u @ torch.diag(s) @ v.T, b @ a)
        full = torch.linalg.svdvals(b @ a)
        assert torch.allclose(s[: len(full)], full[: len(s)])
        assert torch.allclose(u.T @ u, torch.eye(len(s), dtype=u.dtype), atol=1e-10)


def test_both_forms_of_a_change_are_one(draw):
    b, a = draw(OUT, 3), draw(3, IN)
    low, dense = Change("q", factors=(b, a)), Change("q", dense=b @ a)
    assert torch.allclose(low.matrix, dense.matrix)
    assert torch.allclose(low.svd[1], dense.svd[1][:3])
    assert Change("q", factors=(b.float(), a.float())).svd[1].dtype == torch.float64


# amplification


def test_the_factor_of_a_constructed_change(orthonormal):
    """dW = 20 times what W has in its directions 5 and 6: sigma 0.5 and 0.4 become 10 and 8."""
    u, v = orthonormal(IN, OUT), orthonormal(IN, IN)
    s = [10.0, 8, 6, 4, 0.5, 0.4, *[0.1] * (IN - 6)]
    w = _matrix(u, s, v)
    delta = u[:, 4:6] @ torch.diag(torch.tensor([10.0, 8.0], dtype=torch.float64)) @ v[:, 4:6].T
    found = amplification(Change("q", factors=(delta @ v[:, 4:6], v[:, 4:6].T), base=w))
    assert found.r == 2
    assert found.factor == pytest.approx(20.0)
    assert found.onto_delta == pytest.approx(math.hypot(0.5, 0.4))
    assert found.onto_base == pytest.approx(math.hypot(10, 8))
    assert found.delta == pytest.approx(math.hypot(10, 8))
    assert found.base == pytest.approx(math.sqrt(sum(x * x for x in s)))
    assert 0 < found.onto_random < found.onto_base


def test_the_random_column_is_near_its_expectation(draw):
    """Of random directions, E ||U^T W V||^2 = r^2 ||W||^2 / (out in)."""
    w = draw(OUT, IN)
    change = Change("q", factors=(draw(OUT, 4), draw(4, IN)), base=w)
    many = [amplification(change, seed).onto_random ** 2 for seed in range(200)]
    assert sum(many) / 200 == pytest.approx(16 * float(w.norm()) ** 2 / (OUT * IN), rel=0.1)


def test_a_change_where_w_has_nothing(draw):
    found = amplification(
        Change("q", factors=(draw(OUT, 2), draw(2, IN)), base=torch.zeros(OUT, IN).double())
    )
    assert found.factor is None


# rank


@pytest.mark.parametrize("n", [1, 3, 8])
def test_equal_singular_values_are_as_many_ranks(n):
    s = torch.full((n,), 2.5)
    assert effective_rank(s) == pytest.approx(n)
    assert stable_rank(s) == pytest.approx(n)


def test_the_two_ranks_by_hand():
    s = torch.tensor([3.0, 1.0, 0.0])
    assert stable_rank(s) == pytest.approx(10 / 9)
    assert effective_rank(s) == pytest.approx(
        math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    )
    assert effective_rank(torch.zeros(3)) == stable_rank(torch.zeros(3)) == 0


def test_a_spectrum(draw, orthonormal):
    u, v = orthonormal(3, OUT), orthonormal(3, IN)
    found = spectrum(Change("q", dense=_matrix(u, [4.0, 2.0, 1.0], v)))
    assert found.singular[:3] == pytest.approx([4, 2, 1])
    assert found.full == IN
    assert found.first == pytest.approx(16 / 21)
    large = spectrum(Change("q", dense=draw(80, 90)))
    assert (large.full, len(large.singular)) == (80, MAX_SINGULAR_VALUES)


# full


def test_truncation_is_eckart_and_young(draw):
    matrix = draw(OUT, IN)
    u, s, v = svd(matrix)
    errors = truncation_errors(s)
    assert errors.shape == (IN,)
    for r in (1, 4, IN):
        best = u[:, :r] @ torch.diag(s[:r]) @ v[:, :r].T
        assert errors[r - 1].item() == pytest.approx(
            float((matrix - best).norm() / matrix.norm()), abs=1e-12
        )
    for _ in range(20):  # no other matrix of rank 4 is nearer
        near = (u[:, :4] * s[:4] + 0.01 * draw(OUT, 4)) @ (v[:, :4] + 0.01 * draw(IN, 4)).T
        assert float((matrix - near).norm() / matrix.norm()) > errors[3].item()
    assert errors[-1] == 0


def test_a_change_of_low_rank_is_kept_whole_by_that_rank(orthonormal):
    found = truncation(
        Change("q", dense=_matrix(orthonormal(2, OUT), [4.0, 3.0], orthonormal(2, IN)))
    )
    assert found.errors[0] == pytest.approx(3 / 5)
    assert found.errors[1] < 1e-12
    assert found.norm == pytest.approx(5)
    assert len(found.errors) == len(found.singular) == IN
    assert truncation(Change("q", dense=torch.zeros(3, 3))).errors == [0, 0, 0]


# intruders


def _base(orthonormal) -> tuple[Tensor, Tensor, Tensor]:
    u, v = orthonormal(IN, OUT), orthonormal(IN, IN)
    return u, v, _matrix(u, [20.0 - i for i in range(IN)], v)


def test_nothing_new_is_no_intruder(orthonormal):
    u, v, w = _base(orthonormal)
    assert intruders(Change("q", dense=torch.zeros_like(w), base=w)).count == 0
    louder = _matrix(u, [0.0, 0, 30, 7], v)  # the same directions in another order
    found = intruders(Change("q", dense=louder, base=w))
    assert found.count == 0
    assert len(found.cosines) == 10
    assert min(found.cosines) == pytest.approx(1)


def test_planted_intruders_are_found(draw, orthonormal):
    """Two loud directions outside of W's column space: orthogonal to every x_i."""
    u, _, w = _base(orthonormal)
    outside = torch.linalg.qr(torch.cat([u, draw(OUT, 2)], 1))[0][:, IN:]
    for count in (1, 2):
        delta = 100 * outside[:, :count] @ orthonormal(count, IN).T
        found = intruders(Change("q", dense=delta, base=w), epsilon=0.5)
        assert found.count == count
        assert max(found.cosines[:count]) < 0.2
        assert nearest(w, w + delta, 3).tolist() == pytest.approx(found.cosines[:3])
    low = Change("q", factors=(100 * outside, orthonormal(2, IN).T), base=w)
    assert intruders(low).count == 2


def test_an_intruder_is_below_epsilon(draw):
    change = Change("q", dense=draw(OUT, IN), base=draw(OUT, IN))
    cosines = sorted(intruders(change).cosines)
    for count, cosine in enumerate(cosines):
        assert intruders(change, epsilon=cosine).count == count


def test_a_rotation_of_two_of_w_s_directions_is_no_intruder(orthonormal):
    """By 45 degrees: |cos| is 0.707 with both."""
    u, v, w = _base(orthonormal)
    turn = torch.tensor([[1.0, -1], [1, 1]], dtype=torch.float64) / math.sqrt(2)
    turned = u.clone()
    turned[:, :2] = u[:, :2] @ turn
    after = _matrix(turned, [20.0 - i for i in range(IN)], v)
    found = intruders(Change("q", dense=after - w, base=w), epsilon=0.5)
    assert found.count == 0
    assert found.cosines[:2] == pytest.approx([math.sqrt(0.5)] * 2)
    assert intruders(Change("q", dense=after - w, base=w), epsilon=0.75, top=5).count == 2


# norms


def test_relative_norms(draw):
    w, b, a = draw(OUT, IN), draw(OUT, 3), draw(3, IN)
    found = norms(Change("q", factors=(b, a), base=w))
    assert found.relative == pytest.approx(float((b @ a).norm() / w.norm()))
    assert norms(Change("q", dense=b @ a, base=w)).relative == pytest.approx(found.relative)
    assert norms(Change("q", dense=b @ a, base=w * 0)).relative == pytest.approx(found.delta)


class TestBaseOverlap:
    """Figure 8: directions of dW in those of W."""

    @staticmethod
    def change(a: torch.Tensor, w: torch.Tensor) -> Change:
        return Change("w", (torch.eye(w.shape[0], a.shape[0]), a), base=w)

    def test_the_first_directions_of_w_are_found(self):
        w = torch.diag(torch.arange(40.0, 0, -1))
        inside = measure(self.change(torch.eye(2, 40), w))
        assert (len(inside.phi), len(inside.phi[0])) == (2, 4)
        assert inside.all == pytest.approx(1)
        outside = measure(self.change(torch.eye(40)[30:32], w))
        assert outside.all == pytest.approx(0, abs=1e-12)

    def test_a_tenth_is_of_the_smaller_side(self):
        found = measure(self.change(torch.eye(2, 200), torch.randn(30, 200)))
        assert len(found.phi[0]) == 3

    def test_the_control_is_what_chance_gives(self):
        w = torch.randn(200, 200, generator=torch.Generator().manual_seed(1))
        found = measure(self.change(torch.eye(4, 200), w))
        # the share of 20 of 200 directions, over the smaller number
        assert found.random[-1][-1] == pytest.approx(20 / 200, abs=0.06)


def test_the_headline_has_what_chance_gives_for_the_smaller_rank():
    phi = [[0.5, 0.5, 0.5, 0.5], [0.5, 0.25, 0.5, 0.5]]
    found = Overlap("q", width=40, phi=phi, random=phi, each=[])
    assert headline([found]) == "mean φ(1,1) 0.500 (chance 0.025), mean φ(p,p) 0.250 (chance 0.050)"


def test_the_layer_in_the_middle():
    found = [Norms(f"layer.{n}.q", 1.0, 1.0, 1.0) for n in range(5)]
    assert [one.site for one in middle_layer(found)] == ["layer.2.q"]
    assert [one.site for one in middle_layer(found[:4])] == ["layer.2.q"]
    loose = [Norms("head", 1.0, 1.0, 1.0)]
    assert middle_layer(loose) == loose


def test_the_experts_of_a_layer_are_one_column_with_their_mean():
    found = [
        Norms(f"model.layers.{layer}.mlp.experts.down_proj[{expert}]", 1.0, value, value)
        for layer, values in enumerate([(0.1, 0.3), (0.5, 0.7)])
        for expert, value in enumerate(values)
    ]
    shown = norms_table("run", found)
    assert shown.header == ("layer", "down_proj")
    assert shown.rows == (("0", "0.2000"), ("1", "0.6000"))
    assert "mean" in shown.caption
    # a fused weight's parts are columns of their own
    fused = [Norms(f"h.0.c_attn[{part}]", 1.0, 0.5, 0.5) for part in ("query", "value")]
    assert len(norms_table("run", fused).header) == 3
