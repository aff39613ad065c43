"""Every family, on a tiny model of each of its types: the roles fit the model's computation.

The maps are not repeated here. A role is found by moving a layer's output at one token and looking
at the attention: a query decides its own row of the attention matrix, a key all rows, a value none.
"""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from lorakit.errors import TargetError
from lorakit.models import families, family_of
from lorakit.nn.linear import features, is_linear
from lorakit.nn.select import ROLES, Site, row_numbers, select
from tests.attaching import attach
from tests.conftest import NO_CLASSIFIER, small_method
from tests.rounding import assert_near
from tests.tiers import tier

TYPES = [model_type for name in families.names() for model_type in families.get(name).model_types]
T5 = ("t5", "mt5")
MIXTURES = families.get("mixtral").model_types
"""Their experts are not linear layers, so that roles cover the attention."""
GATE_AND_UP = ("phi3", "glm", "glm4", "modernbert", "modernbert-decoder")
"""A gate and an up projection in one weight."""
MHA = {"num_key_value_heads": 4}
MQA = {"num_key_value_heads": 1}
CASES = [
    *((model_type, {}) for model_type in TYPES),
    *((model_type, shape) for model_type in ("llama", "phi3", "qwen3") for shape in (MHA, MQA)),
    ("llama", {"head_dim": 16}),
    ("gpt2", {"n_head": 2}),
    ("gpt_neox", {"num_attention_heads": 2}),
    ("bloom", {"n_head": 8}),
    ("deberta", {"num_attention_heads": 8}),
    ("deberta", {"relative_attention": False, "pos_att_type": None}),
    ("deberta-v2", {"relative_attention": False, "pos_att_type": None}),
    ("t5", {"feed_forward_proj": "gated-gelu"}),
]
IDS = [
    " ".join([model_type, *(f"{k}={v}" for k, v in changes.items())])
    for model_type, changes in CASES
]


FIRST = 2
"""Types of each family in the unit tier; the others have the same modules."""
UNIT = {t for name in families.names() for t in families.get(name).model_types[:FIRST]}
UNIT |= {"glm", "starcoder2"}  # which have other names for the MLP


@pytest.fixture(
    params=[
        pytest.param(case, id=id, marks=tier(case[0] in UNIT))
        for case, id in zip(CASES, IDS, strict=True)
    ]
)
def case(request, tiny):
    model_type, changes = request.param
    head = "CausalLM" if model_type in NO_CLASSIFIER else "SequenceClassification"
    return model_type, tiny(model_type, head, attention="eager", **changes)


def test_the_folder_is_read():
    assert len(families.names()) >= 12
    assert len(TYPES) == len(set(TYPES)) >= 20
    assert {"roberta", "gpt2", "deberta-v2", "llama"} <= set(TYPES)


@pytest.mark.parametrize("model_type", TYPES)
def test_a_model_type_finds_its_family(model_type):
    family = family_of(model_type)
    assert family is not None
    assert model_type in family.model_types


def test_an_unknown_model_type_has_no_family():
    assert family_of("no-such-architecture") is None


def _layers(model_type: str) -> int:
    """Attention blocks: T5 has two in each layer of its decoder."""
    return 6 if model_type in T5 else 2


def _gated(tiny) -> bool:
    """A gate and an up projection, in weights of their own."""
    return any(name.endswith(("gate_proj", "wi_1")) for name, _ in tiny.model.named_modules())


@pytest.mark.parametrize("role", ROLES)
def test_every_role_has_its_sites(case, role):
    model_type, tiny = case
    attention = role in ("query", "key", "value", "attention_out")
    if model_type in MIXTURES and not attention:
        with pytest.raises(TargetError):
            select(tiny.model, [role], tiny.roles)
        return
    blocks = _layers(model_type) if attention or model_type not in T5 else 4
    wanted = blocks * (2 if role == "mlp_in" and _gated(tiny) else 1)
    assert len(select(tiny.model, [role], tiny.roles, tiny.newly_initialised)) == wanted


def test_the_shapes_are_those_of_the_roles(case):
    model_type, tiny = case
    heads = tiny.config.num_attention_heads
    size = getattr(tiny.config, "head_dim", None) or (
        tiny.config.d_kv if model_type in T5 else 32 // heads
    )
    kv = getattr(tiny.config, "num_key_value_heads", None) or heads
    # bloom's is fixed at four times
    narrow = 4 * 32 if model_type == "bloom" else 48
    wide = 2 * narrow if model_type in GATE_AND_UP else narrow
    wanted = {
        "query": (heads * size, 32),
        "key": (kv * size, 32),
        "value": (kv * size, 32),
        "attention_out": (32, heads * size),
        "mlp_in": (wide, 32),
        "mlp_out": (32, narrow),
    }
    for role in wanted.keys() & tiny.roles.keys():
        shape = wanted[role]
        assert {site.shape for site in select(tiny.model, [role], tiny.roles)} == {shape}


def test_the_roles_are_all_there_is_in_a_block(case):
    """With all roles as targets, no row of a linear layer is left, except DeBERTa's positions, and
    what routes tokens to experts or is shared by all of them."""
    model_type, tiny = case
    beside = "mlp." if model_type in MIXTURES else "pos_"
    left = {
        path: set(range(features(module)[0]))
        for path, module in tiny.model.named_modules()
        if is_linear(module)
        and any(part.isdecimal() for part in path.split("."))
        and beside not in path
    }
    for site in select(tiny.model, _roles(tiny), tiny.roles, tiny.newly_initialised):
        rows = list(row_numbers(site.rows, features(site.module)[0]))
        assert len(rows) == len(set(rows))
        left[site.path] -= set(rows)
    assert not any(left.values())


def test_a_block_computes_query_key_value_then_the_rest_in_order(case):
    """attention_out comes after the attention, mlp_out last, in the order of the model's calls."""
    model_type, tiny = case
    sites = select(tiny.model, _roles(tiny), tiny.roles, tiny.newly_initialised)
    role_of: dict[int, str] = {}
    for site in sites:
        role_of[id(site.module)] = (
            "qkv" if site.part != "all" else _role(site, tiny.roles, tiny.model)
        )
    called: list[str] = []
    for module in {id(site.module): site.module for site in sites}.values():
        module.register_forward_hook(lambda m, *_: called.append(role_of[id(m)]))
    tiny.logits()
    order = {
        "qkv": 0,
        "query": 0,
        "key": 0,
        "value": 0,
        "attention_out": 1,
        "mlp_in": 2,
        "mlp_out": 3,
    }
    # DeBERTa projects its relative positions with the same layers again: count runs of a stage
    stages = [
        order[role]
        for i, role in enumerate(called)
        if i == 0 or order[role] != order[called[i - 1]]
    ]
    decoder = [0, 1, 0, 1, 2, 3]
    block = [0, 1] if model_type in MIXTURES else [0, 1, 2, 3]
    assert stages == (block * 2 + decoder * 2 if model_type in T5 else block * 2)


def _roles(tiny) -> list[str]:
    return [role for role in ROLES if role in tiny.roles]


def _role(site: Site, roles, model: nn.Module) -> str:
    return next(
        role
        for role in roles
        if any(site.path == other.path for other in select(model, [role], roles))
    )


@contextmanager
def _moved(site: Site, rows: list[int], token: int):
    """Inside, `rows` of the layer's output differ at one token of the first example."""

    def move(_module: nn.Module, _inputs: tuple, output: Tensor) -> Tensor:
        if output.ndim != 3 or output.shape[:2] != (
            2,
            9,
        ):  # not a projection of tokens: DeBERTa's relative positions
            return output
        output = output.clone()
        output[0, token, rows] += torch.linspace(1, 2, len(rows))
        return output

    handle = site.module.register_forward_hook(move)
    yield
    handle.remove()


@torch.no_grad()
def _attentions(tiny) -> list[Tensor]:
    """(batch, heads, query, key) of each attention block, in the model's order; then the logits."""
    inputs = tiny.inputs | {"attention_mask": torch.ones_like(tiny.inputs["attention_mask"])}
    out = tiny.model(**inputs, output_attentions=True)
    logits = out.logits[:, None, None]
    if "encoder_attentions" in out:
        decoder = zip(out.decoder_attentions, out.cross_attentions, strict=True)
        return [*out.encoder_attentions, *(a for pair in decoder for a in pair), logits]
    return [*out.attentions, logits]


def _changed_rows(before: Tensor, after: Tensor) -> set[int]:
    return set((before[0] - after[0]).abs().amax(dim=(0, 2)).gt(1e-7).nonzero().flatten().tolist())


TOKEN = 4


def _found_role(tiny, block: int, site: Site, rows: list[int], before: list[Tensor]) -> str:
    """The role that the model itself gives these rows of the layer."""
    with _moved(site, rows, TOKEN):
        after = _attentions(tiny)
    changed = _changed_rows(before[block], after[block])
    if not changed:
        later = any(
            _changed_rows(b, a)
            for b, a in zip(before[block + 1 :], after[block + 1 :], strict=True)
        )
        return "value" if later else "nothing"
    return "query" if changed == {TOKEN} else "key" if changed > {TOKEN} else "mixed"


@pytest.mark.parametrize("role", ["query", "key", "value"])
def test_a_role_is_what_the_attention_takes_it_for(case, role):
    _, tiny = case
    before = _attentions(tiny)
    sites = select(tiny.model, [role], tiny.roles)
    assert len(sites) == len(before) - 1
    for block, site in enumerate(sites):
        rows = list(row_numbers(site.rows, features(site.module)[0]))
        assert _found_role(tiny, block, site, rows, before) == role


FUSED = [
    (t, changes) for t, changes in CASES if (f := family_of(t)) is not None and f.fused is not None
]


@pytest.mark.parametrize(("model_type", "changes"), FUSED, ids=str)
def test_every_single_row_of_a_fused_weight_has_its_role(tiny, model_type, changes):
    """Row by row: a map that is one row off, or interleaved otherwise, has a wrong row."""
    model = tiny(model_type, attention="eager", **changes)
    before = _attentions(model)
    seen = 0
    for role in ("query", "key", "value"):
        site = select(model.model, [role], model.roles)[0]
        for row in row_numbers(site.rows, features(site.module)[0]):
            assert _found_role(model, 0, site, [row], before) == role, row
            seen += 1
    assert seen == features(site.module)[0]


@pytest.mark.parametrize("shift", [-1, 1])
@pytest.mark.parametrize(("model_type", "changes"), FUSED[:4], ids=str)
def test_the_probe_sees_a_map_that_is_one_row_off(tiny, model_type, changes, shift):
    """A check of the check: without it, the tests above might pass on any map."""
    model = tiny(model_type, attention="eager", **changes)
    before = _attentions(model)
    site = select(model.model, ["key"], model.roles)[0]
    out = features(site.module)[0]
    shifted = [row + shift for row in row_numbers(site.rows, out)]
    assert {_found_role(model, 0, site, [row], before) for row in shifted} != {"key"}


def test_the_probe_tells_whole_layers_apart(tiny):
    model = tiny("bert", attention="eager")
    swapped = dict(model.roles) | {"query": model.roles["key"], "key": model.roles["query"]}
    before = _attentions(model)
    site = select(model.model, ["query"], swapped)[0]
    assert _found_role(model, 0, site, list(range(32)), before) == "key"


def test_a_head_of_other_size_than_its_share_of_the_width(tiny):
    """`head_dim` decides, where a configuration has it: 4 heads of 16 on a width of 32."""
    model = tiny("llama", head_dim=16)
    assert {site.shape for site in select(model.model, ["query"], model.roles)} == {(64, 32)}
    assert {site.shape for site in select(model.model, ["key"], model.roles)} == {(32, 32)}


@pytest.mark.parametrize("head", ["SequenceClassification", "CausalLM"])
@pytest.mark.parametrize("model_type", ["gpt2", "llama", "phi3", "opt", "bloom", "gpt_neox"])
def test_roles_do_not_depend_on_the_head(tiny, model_type, head):
    model = tiny(model_type, head)
    assert len(select(model.model, ["query", "value"], model.roles)) == 4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lora", "adapter_h", "adapter_p"])
def test_methods_learn_and_fold(case, name):
    model_type, tiny = case
    if model_type in MIXTURES and name != "lora":
        with pytest.raises(TargetError):
            attach(small_method(name), tiny)
        return
    attachment = attach(small_method(name), tiny)
    before = attachment.state()
    tiny.step(attachment, steps=2)
    after = attachment.state()
    assert {key for key in after if not torch.equal(after[key], before[key])} == before.keys()
    if name == "lora":
        trained = tiny.logits()
        with attachment.folded():
            assert_near(tiny.logits(), trained)
