"""Targets to sites: what matches, what is refused, and what the refusal says."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lorakit.errors import InputError, TargetError
from lorakit.nn.select import SHORT, Place, Site, fused_rows, row_numbers, select


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.value, self.out_proj = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.up, self.norm = Attention(), nn.Linear(4, 8), nn.LayerNorm(4)


class Toy(nn.Module):
    """An architecture that no family knows."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.layer = nn.Embedding(9, 4), nn.ModuleList(Block() for _ in range(12))
        self.head, self.out_head = nn.Linear(4, 2), nn.Linear(4, 2)


QUERIES = [f"layer.{i}.attention.query" for i in range(12)]


def _paths(targets, model=None, roles=None, skip=()) -> list[str]:
    return [site.path for site in select(model or Toy(), targets, roles or {}, skip)]


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        ("query", QUERIES),
        ("attention.query", QUERIES),
        ("layer.1.attention.query", QUERIES[1:2]),
        ("1.attention.query", QUERIES[1:2]),
        ("*.query", QUERIES),
        ("layer.[01].*.query", QUERIES[:2]),
        ("layer.?.attention.query", QUERIES[:10]),
        ("attention.[q]*", QUERIES),
        (r"re:layer\.\d\d\.attention\.query", QUERIES[10:]),
        (
            r"re:.*\.(query|value)",
            [q.replace("query", w) for q in QUERIES for w in ("query", "value")],
        ),
        ("head", ["head"]),
    ],
    ids=str,
)
def test_modules_by_name(target, wanted):
    assert _paths([target]) == wanted


def test_all_linear_is_every_linear_layer_but_for_the_head():
    linear = [name for name, module in Toy().named_modules() if isinstance(module, nn.Linear)]
    assert len(linear) == 12 * 4 + 2
    assert _paths(["all-linear"]) == linear
    assert _paths(["all-linear"], skip={"head.weight", "head.bias"}) == [
        name for name in linear if name != "head"
    ]


def test_a_suffix_ends_at_a_dot():
    """`query` is not `pre_query`, and `head` is not `out_head`."""
    assert _paths(["head"]) == ["head"]
    with pytest.raises(TargetError):
        _paths(["uery"])


def test_a_regex_is_for_the_whole_path():
    with pytest.raises(TargetError):
        _paths(["re:query"])


def test_sites_come_in_the_models_order_whatever_the_order_of_targets():
    assert _paths(["value", "query"]) == _paths(["query", "value"]) != []


@pytest.mark.parametrize(
    "targets", [["query", "attention.query"], ["all-linear", "up"], ["query", "query"]], ids=str
)
def test_a_weight_matched_twice_is_refused(targets):
    with pytest.raises(TargetError, match=f"twice.*'{targets[0]}'.*'{targets[1]}'"):
        _paths(targets)


@pytest.mark.parametrize(
    ("typo", "nearest"),
    [
        ("querry", "attention.query"),
        ("layer.*.attention.valu", "attention.value"),
        ("re:.*out_prj", "out_proj"),
    ],
)
def test_a_typo_in_one_of_several_targets_names_it_and_what_is_near(typo, nearest):
    with pytest.raises(TargetError) as error:
        _paths(["up", typo])
    assert repr(typo) in str(error.value)
    assert nearest in str(error.value)
    assert "'up'" not in str(error.value)
    assert isinstance(error.value, InputError)
    assert error.value.exit_code == 2


def test_a_regex_that_is_none():
    with pytest.raises(TargetError, match=r"'re:\(query' is not a regular expression"):
        _paths(["re:(query"])


@pytest.mark.parametrize(
    "pattern", [r"(\w+\.?)+X", "(.*.*)*X", "(x?){300}", "a?" * 30 + "a" * 30, ".*" * 9 + "X"]
)
def test_a_regular_expression_that_could_take_for_ever(pattern):
    with pytest.raises(TargetError, match="is not a regular expression that is tried"):
        _paths([f"re:{pattern}"])


def test_a_layer_number_that_is_not_there():
    with pytest.raises(TargetError, match=r"layer\.12\.attention\.query"):
        _paths(["layer.12.attention.query"])


def test_a_role_on_an_unknown_architecture_says_so():
    with pytest.raises(TargetError, match="no role map"):
        _paths(["mlp_out"])


def test_what_is_fresh_is_not_offered():
    with pytest.raises(TargetError, match="'head' matches no linear layer"):
        _paths(["head"], skip={"head.weight"})


def test_embeddings_and_norms_are_no_sites():
    for target in ("embed", "layer.0.norm"):
        with pytest.raises(TargetError):
            _paths([target])


ROLES = {
    "query": [Place("attention.query")],
    "value": [Place("attention.value")],
    "attention_out": [Place("attention.out_proj")],
    "mlp_in": [Place("up"), Place("nowhere")],
}


@pytest.mark.parametrize(
    ("role", "path"), [("query", "query"), ("value", "value"), ("attention_out", "out_proj")]
)
def test_a_role_and_its_short_name(role, path):
    short = {long: s for s, long in SHORT.items()}[role]
    wanted = [f"layer.{i}.attention.{path}" for i in range(12)]
    assert _paths([role], roles=ROLES) == _paths([short], roles=ROLES) == wanted


def test_a_role_with_several_places_needs_one_of_them():
    assert _paths(["mlp_in"], roles=ROLES) == [f"layer.{i}.up" for i in range(12)]


def test_a_role_that_is_misspelt_names_the_role():
    with pytest.raises(TargetError, match=r"query, value, attention_out, mlp_in"):
        _paths(["querry"], roles=ROLES)


FUSED = {
    "query": [Place("up", slice(0, 2))],
    "key": [Place("up", slice(2, 4))],
    "value": [Place("up", torch.tensor([4, 6]))],
}


def test_parts_of_a_fused_weight_are_sites_of_their_own():
    sites = select(Toy(), ["value", "q"], FUSED)
    assert len(sites) == 24
    value, query = sites[:2]
    assert (value.name, value.part, value.shape) == ("layer.0.up[value]", "value", (2, 4))
    assert (query.name, query.part, query.shape) == ("layer.0.up[query]", "query", (2, 4))


def test_a_whole_weight_is_named_by_its_path():
    site = select(Toy(), ["layer.3.up"], {})[0]
    assert (site.name, site.part, site.rows, site.shape) == ("layer.3.up", "all", None, (8, 4))


def test_the_whole_and_a_part_of_it_is_refused():
    with pytest.raises(TargetError, match="matched twice"):
        select(Toy(), ["query", "up"], FUSED)


def test_a_conv1d_is_a_linear_layer():
    from transformers.pytorch_utils import Conv1D

    model = nn.Sequential(Conv1D(6, 4))
    assert [site.shape for site in select(model, ["0"], {})] == [(6, 4)]


def test_fused_rows_in_one_block_are_slices():
    sizes = {"q": 4, "k": 2, "v": 2}
    assert [fused_rows(p, sizes, 1) for p in "qkv"] == [slice(0, 4), slice(4, 6), slice(6, 8)]


def test_fused_rows_interleaved_by_head():
    """Two heads of two: q0 q0 k0 k0 v0 v0 q1 q1 k1 k1 v1 v1."""
    sizes = dict.fromkeys("qkv", 2)
    found = {part: list(row_numbers(fused_rows(part, sizes, 2), 12)) for part in "qkv"}
    assert found == {"q": [0, 1, 6, 7], "k": [2, 3, 8, 9], "v": [4, 5, 10, 11]}


@pytest.mark.parametrize(
    ("rows", "shape"),
    [(None, (8, 4)), (slice(2, 5), (3, 4)), (slice(6, None), (2, 4)), (torch.tensor([7]), (1, 4))],
)
def test_shape_of_a_site(rows, shape):
    assert Site("x", nn.Linear(4, 8), "all", rows, "x").shape == shape
