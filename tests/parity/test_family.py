"""The methods that stock PEFT has under names of its own: each reads what the other wrote."""

from __future__ import annotations

import warnings

import pytest
import torch

from lorakit.adapters.attach import attach_adapter
from lorakit.adapters.files import read_adapter
from lorakit.adapters.save import save_adapter
from lorakit.errors import AdapterError
from lorakit.methods import methods
from tests.parity.compare import gap

pytestmark = pytest.mark.peers
peft = pytest.importorskip("peft")

CLASSIFIER, CAUSAL = "SequenceClassification", "CausalLM"
TASK = {CLASSIFIER: "SEQ_CLS", CAUSAL: "CAUSAL_LM"}
SAME = 2e-6
"""Of logits, relative to the largest: PEFT's formulas have another order of sums in float32."""
PLACES = [
    ("roberta", CLASSIFIER, ["query", "value"]),
    ("llama", CAUSAL, ["q_proj", "v_proj", "down_proj"]),
    ("gpt2", CAUSAL, ["c_attn"]),
]
METHODS = {
    "rslora": (
        {"r": 4, "alpha": 6.0},
        ("LoraConfig", {"r": 4, "lora_alpha": 6, "use_rslora": True}),
    ),
    "lora_plus": ({"r": 4, "alpha": 6.0}, ("LoraConfig", {"r": 4, "lora_alpha": 6})),
    "dora": ({"r": 4, "alpha": 6.0}, ("LoraConfig", {"r": 4, "lora_alpha": 6, "use_dora": True})),
    "vera": ({"r": 8, "seed": 3}, ("VeraConfig", {"r": 8, "projection_prng_key": 3})),
    "pvera": ({"r": 8, "seed": 3}, ("PveraConfig", {"r": 8, "projection_prng_key": 3})),
    "delora": ({"r": 4}, ("DeloraConfig", {"r": 4, "delora_lambda": 15})),
    "hra": ({"r": 4}, ("HRAConfig", {"r": 4})),
    "hira": ({"r": 4}, ("HiraConfig", {"r": 4})),
    "gralora": ({"r": 4, "alpha": 6.0}, ("GraloraConfig", {"r": 4, "alpha": 6, "gralora_k": 2})),
    "miss": ({"r": 8}, ("MissConfig", {"r": 8})),
    "miss bat": ({"r": 8, "form": "bat"}, ("MissConfig", {"r": 8, "init_weights": "bat"})),
    "miss mini": (
        {"r": 8, "form": "mini", "mini_r": 4},
        ("MissConfig", {"r": 8, "mini_r": 4, "init_weights": "mini"}),
    ),
    "miss uneven": ({"r": 5}, ("MissConfig", {"r": 5})),
    "adalora": (
        {"r": 4, "final": 2},
        ("AdaLoraConfig", {"init_r": 4, "target_r": 2, "lora_alpha": 16, "total_step": 10}),
    ),
    "c3a": ({"block_size": 8}, ("C3AConfig", {"block_size": 8})),
    "c3a odd": ({"block_size": 1}, ("C3AConfig", {"block_size": 1})),
    "fourierft": (
        {"n": 40, "scaling": 20.0, "seed": 5},
        ("FourierFTConfig", {"n_frequency": 40, "scaling": 20.0, "random_loc_seed": 5}),
    ),
    "lokr": ({"r": 2, "alpha": 6.0}, ("LoKrConfig", {"r": 2, "alpha": 6})),
    "lokr full": ({"r": 4, "alpha": 6.0}, ("LoKrConfig", {"r": 4, "alpha": 6})),
    "lokr factor": (
        {"r": 3, "factor": 5},
        ("LoKrConfig", {"r": 3, "alpha": 8, "decompose_factor": 5}),
    ),
    "loha": ({"r": 3, "alpha": 6.0}, ("LoHaConfig", {"r": 3, "alpha": 6})),
    "randlora": (
        {"r": 8, "alpha": 20.0, "seed": 3},
        ("RandLoraConfig", {"r": 8, "randlora_alpha": 20, "projection_prng_key": 3}),
    ),
    "randlora uneven": (
        {"r": 5, "alpha": 20.0},
        ("RandLoraConfig", {"r": 5, "randlora_alpha": 20}),
    ),
}
"""Name -> (our fields, PEFT's configuration)."""
WITHOUT_CONV1D = ("delora", "hra", "miss", "c3a", "lokr", "loha")
"""PEFT's classes of these do not adapt GPT-2's Conv1D."""
CASES = [
    (name, *place)
    for name in METHODS
    for place in PLACES
    if not (place[0] == "gpt2" and name.split()[0] in WITHOUT_CONV1D)
]
IDS = [f"{name}-{family}" for name, family, *_ in CASES]


def _attached(tiny, name, family, head, targets):
    model = tiny(family, head)
    torch.manual_seed(0)
    method = methods.get(name.split()[0])
    patterns = tuple(f"*.{target}" for target in targets)
    attachment = method(targets=patterns, **METHODS[name][0]).attach(
        model.model, model.roles, model.newly_initialised
    )
    return model, attachment


def _wrapped(model, name, head, targets):
    kind, fields = METHODS[name][1]
    config = getattr(peft, kind)(task_type=TASK[head], target_modules=targets, **fields)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peft.get_peft_model(model.model, config)


@torch.no_grad()
def _move(parameters) -> None:
    """Add noise to every number that trains, so that none keeps a special value."""
    generator = torch.Generator().manual_seed(3)
    for p in parameters:
        spread = 0.1 * p.abs().mean() if p.any() else 0.3
        p.add_(spread * torch.randn(p.shape, generator=generator))


def _about(about, model, attachment, head):
    kind = "causal" if head == CAUSAL else "classification"
    return about(model, attachment, base="base", head=kind)


@pytest.mark.parametrize(("name", "family", "head", "targets"), CASES, ids=IDS)
def test_stock_peft_reads_ours_and_trains_as_many_numbers(
    tiny, about, tmp_path, name, family, head, targets
):
    model, attachment = _attached(tiny, name, family, head, targets)
    _move(attachment.trained().values())
    save_adapter(tmp_path / "adapter", attachment, _about(about, model, attachment, head))
    base = tiny(family, head)
    plain = base.logits()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        base.model = peft.PeftModel.from_pretrained(base.model, tmp_path / "adapter")
    said = [str(w.message) for w in caught]
    assert not [text for text in said if "missing" in text.lower() or "unexpected" in text.lower()]
    assert (plain - model.logits()).abs().max() > 1e-3
    assert gap(base.logits(), model.logits()) <= SAME
    theirs = _wrapped(tiny(family, head), name, head, targets)
    count = sum(p.numel() for p in theirs.parameters() if p.requires_grad)
    assert count == sum(p.numel() for p in attachment.trained().values())


@pytest.mark.parametrize(("name", "family", "head", "targets"), CASES, ids=IDS)
def test_we_read_what_peft_saved(tiny, tmp_path, name, family, head, targets):
    model = tiny(family, head)
    torch.manual_seed(0)
    model.model = _wrapped(model, name, head, targets)
    _move(p for p in model.model.parameters() if p.requires_grad)
    model.model.save_pretrained(tmp_path)
    other = tiny(family, head)
    plain = other.logits()
    file = read_adapter(tmp_path)
    attachment = attach_adapter(file, other.model, other.roles, other.newly_initialised)
    wanted = model.logits()
    assert gap(other.logits(), wanted) <= SAME
    assert (plain - wanted).abs().max() > 1e-3
    attachment.merge()
    assert gap(other.logits(), wanted) <= 10 * SAME


@pytest.mark.parametrize(
    ("kind", "fields", "field"),
    [
        ("HRAConfig", {"r": 4, "apply_GS": True}, "HRA"),
        ("GraloraConfig", {"r": 4, "hybrid_r": 2}, "GRALORA"),
        ("PveraConfig", {"r": 8, "sample_at_inference": True}, "sample_at_inference"),
        ("VeraConfig", {"r": 8, "bias": "all"}, "bias"),
        ("LoKrConfig", {"r": 2, "decompose_both": True}, "decompose_both"),
        ("LoHaConfig", {"r": 2, "alpha_pattern": {"query": 3}}, "alpha_pattern"),
        ("RandLoraConfig", {"r": 8, "sparse": True}, "sparse"),
        ("FourierFTConfig", {"n_frequency": 9, "n_frequency_pattern": {"query": 4}}, "n_frequency"),
        ("C3AConfig", {"block_size": 8, "block_size_pattern": {"query": 4}}, "block_size"),
    ],
)
def test_what_a_method_does_not_do_is_refused(tiny, tmp_path, kind, fields, field):
    model = tiny("roberta", CLASSIFIER)
    config = getattr(peft, kind)(task_type="SEQ_CLS", target_modules=["query"], **fields)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peft.get_peft_model(model.model, config).save_pretrained(tmp_path)
    other = tiny("roberta", CLASSIFIER)
    with pytest.raises(AdapterError, match=field):
        attach_adapter(read_adapter(tmp_path), other.model, other.roles, other.newly_initialised)


@pytest.mark.parametrize("name", ["c3a", "fourierft", "lokr", "loha", "randlora"])
def test_ten_steps_of_sgd_are_those_of_peft(tiny, name):
    """So the gradients are PEFT's too."""
    place = ("llama", CAUSAL, ["q_proj", "down_proj"])
    ours, attachment = _attached(tiny, name, *place)
    theirs = tiny("llama", CAUSAL)
    theirs.model = _wrapped(theirs, name, CAUSAL, place[2])
    ends = attachment.method.peft.tensors
    with torch.no_grad():
        for path, delta in attachment.deltas.items():
            layer = theirs.model.get_submodule(f"base_model.model.{path}")
            for own, value in delta.named_parameters():
                getattr(layer, ends[own])["default"].copy_(value)
    losses = []
    for model, parameters in (
        (ours, list(attachment.trained().values())),
        (theirs, [p for p in theirs.model.parameters() if p.requires_grad]),
    ):
        optimizer = torch.optim.SGD(parameters, lr=0.05)
        losses.append([])
        for _ in range(10):
            loss = model.loss()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses[-1].append(float(loss.detach()))
    assert losses[0][-1] < losses[0][0]
    assert losses[0] == pytest.approx(losses[1], rel=2e-5)


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_a_moved_start_has_the_product_of_pefts(tiny, init):
    model, other = tiny("llama", CAUSAL), tiny("llama", CAUSAL)
    method = methods.get("lora")(targets=("*.q_proj",), init=init, r=4, alpha=8)
    attachment = method.attach(model.model, model.roles, model.newly_initialised)
    config = peft.LoraConfig(target_modules=["q_proj"], r=4, lora_alpha=8, init_lora_weights=init)
    wrapped = peft.get_peft_model(other.model, config)
    for path, delta in attachment.deltas.items():
        layer = wrapped.get_submodule(f"base_model.model.{path}")
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        assert gap(delta.B @ delta.A, b @ a) <= 5e-6


def test_pissa_is_saved_as_a_lora_of_twice_the_rank_and_comes_back(tiny, about, tmp_path):
    model = tiny("gpt2", CAUSAL)
    attachment = methods.get("lora")(init="pissa", r=4).attach(
        model.model, model.roles, model.newly_initialised
    )
    model.step(attachment, steps=3)
    save_adapter(tmp_path / "adapter", attachment, _about(about, model, attachment, CAUSAL))
    theirs, ours = tiny("gpt2", CAUSAL), tiny("gpt2", CAUSAL)
    theirs.model = peft.PeftModel.from_pretrained(theirs.model, tmp_path / "adapter")
    assert gap(theirs.logits(), model.logits()) <= SAME
    file = read_adapter(tmp_path / "adapter")
    again = attach_adapter(file, ours.model, ours.roles, ours.newly_initialised)
    assert torch.equal(ours.logits(), model.logits())
    assert all(torch.equal(again.state()[k], v) for k, v in attachment.state().items())


def test_eva_chooses_ranks_and_comes_back(tiny, about, tmp_path):
    model = tiny("roberta", CLASSIFIER)
    method = methods.get("lora")(
        r=4, init={"name": "eva", "batches": 2}, targets=("query", "value", "mlp_out")
    )
    attachment = method.attach(model.model, model.roles, model.newly_initialised)
    before = model.logits()
    attachment.see([[model.loss], [model.loss]])
    assert torch.equal(model.logits(), before)
    ranks = {name: d.A.shape[0] for name, d in attachment.deltas.items()}
    assert len(set(ranks.values())) > 1
    assert sum(ranks.values()) == 4 * len(ranks)
    model.step(attachment, steps=3)
    save_adapter(tmp_path / "adapter", attachment, _about(about, model, attachment, CLASSIFIER))
    other, theirs = tiny("roberta", CLASSIFIER), tiny("roberta", CLASSIFIER)
    file = read_adapter(tmp_path / "adapter")
    attach_adapter(file, other.model, other.roles, other.newly_initialised)
    assert torch.equal(other.logits(), model.logits())
    theirs.model = peft.PeftModel.from_pretrained(theirs.model, tmp_path / "adapter")
    assert gap(theirs.logits(), model.logits()) <= SAME


def test_eva_keeps_the_rank_of_every_site_with_rho_1(tiny):
    model = tiny("roberta", CLASSIFIER)
    method = methods.get("lora")(
        r=4, init={"name": "eva", "batches": 1, "rho": 1.0}, targets=("query", "value", "mlp_out")
    )
    attachment = method.attach(model.model, model.roles, model.newly_initialised)
    attachment.see([[model.loss]])
    assert {d.A.shape[0] for d in attachment.deltas.values()} == {4}


def test_eva_sees_what_pefts_incremental_pca_sees():
    from peft.utils.incremental_pca import IncrementalPCA

    from lorakit.inits import inits

    eva = inits.get("eva")()
    seen = {}
    generator = torch.Generator().manual_seed(0)
    pca = IncrementalPCA(n_components=40)
    spread = torch.linspace(3, 0.1, 40)
    for _ in range(4):
        x = torch.randn(200, 40, generator=generator) * spread + 1
        eva.see(x, seen)
        pca.partial_fit(x)
    ours, theirs = seen["v"][:12].float(), pca.components_[:12].float()
    assert (ours * theirs).sum(1).abs().min() > 0.999
    ratio = (seen["s"] ** 2 / seen["variance"])[:12].float()
    wanted = pca.explained_variance_ratio_[:12].float()
    torch.testing.assert_close(ratio, wanted, rtol=2e-3, atol=1e-5)


def test_lora_plus_has_pefts_two_rates(tiny):
    from peft.optimizers import create_loraplus_optimizer

    from lorakit.recipe.train import Train
    from lorakit.training.optim import build_optimizer, set_rates

    place = ("llama", CAUSAL, ["q_proj", "v_proj", "down_proj"])
    ours, attachment = _attached(tiny, "lora_plus", *place)
    theirs = tiny("llama", CAUSAL)
    theirs.model = _wrapped(theirs, "lora_plus", CAUSAL, place[2])
    with torch.no_grad():
        for path, letter, their in _factors(theirs.model, attachment):
            their.copy_(getattr(attachment.deltas[path], letter))
    own = build_optimizer(
        attachment.trained(), Train(learning_rate=1e-3), attachment.method.rate_of
    )
    set_rates(own, 1e-3)
    assert sorted(group["lr"] for group in own.param_groups) == [1e-3, 16e-3]
    other = create_loraplus_optimizer(
        theirs.model, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=16, weight_decay=0.0
    )
    for _ in range(10):
        for model, optimizer in ((ours, own), (theirs, other)):
            model.model.train()
            model.loss().backward()
            optimizer.step()
            optimizer.zero_grad()
    for path, letter, their in _factors(theirs.model, attachment):
        mine = getattr(attachment.deltas[path], letter)
        torch.testing.assert_close(mine, their, rtol=0, atol=2e-5)


def _factors(wrapped, attachment, letters="AB"):
    for path in attachment.deltas:
        layer = wrapped.get_submodule(f"base_model.model.{path}")
        for letter in letters:
            their = getattr(layer, f"lora_{letter}")["default"]
            yield path, letter, getattr(their, "weight", their)


def test_adalora_keeps_the_triplets_that_pefts_keeps(tiny):
    total = 20
    targets = ["q_proj", "v_proj", "down_proj"]
    ours, theirs = tiny("llama", CAUSAL), tiny("llama", CAUSAL)
    method = methods.get("adalora")(
        targets=tuple(f"*.{t}" for t in targets), r=6, final=2, warm=0.1, cool=0.3, every=3
    )
    torch.manual_seed(0)
    attachment = method.attach(ours.model, ours.roles, ours.newly_initialised)
    config = peft.AdaLoraConfig(
        init_r=6,
        target_r=2,
        lora_alpha=16,
        tinit=2,
        tfinal=6,
        deltaT=3,
        total_step=total,
        beta1=0.85,
        beta2=0.85,
        orth_reg_weight=0.5,
        target_modules=targets,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs.model = wrapped = peft.get_peft_model(theirs.model, config)
    with torch.no_grad():
        for path, letter, their in _factors(wrapped, attachment, "ABE"):
            their.copy_(getattr(attachment.deltas[path], letter))
    own = torch.optim.AdamW(attachment.trained().values(), lr=0.01)
    other = torch.optim.AdamW([p for p in wrapped.parameters() if p.requires_grad], lr=0.01)
    for step in range(total):
        (ours.loss() + attachment.penalty()).backward()
        own.step()
        attachment.after_step(step, total)
        own.zero_grad()
        (theirs.loss() + 0.5 * _orthogonal(wrapped)).backward()
        other.step()
        wrapped.base_model.update_and_allocate(step)
        other.zero_grad()
    kept = {path: int((d.E != 0).sum()) for path, d in attachment.deltas.items()}
    found = {path: int((e != 0).sum()) for path, _, e in _factors(wrapped, attachment, "E")}
    assert sum(kept.values()) == 2 * len(kept)
    assert kept == found


def _orthogonal(wrapped):
    """PEFT's penalty, which its forward pass adds to a loss that is not asked for here."""
    squares = [p @ p.T for n, p in wrapped.named_parameters() if "lora_A" in n]
    squares += [p.T @ p for n, p in wrapped.named_parameters() if "lora_B" in n]
    return sum(torch.norm(s - torch.eye(len(s))) for s in squares) / len(squares)
