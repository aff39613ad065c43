"""Tiny models, built from configurations with random weights: every architecture, no hub."""

from __future__ import annotations

import copy
import gc
import logging
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings
from torch import Tensor, nn

from tests.commands import lorakit_cli, stand_in, trained  # noqa: F401 (fixtures)

torch.set_num_threads(1)
# as a shell starts what runs in the background
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# the same inputs each time, on a busy machine too
settings.register_profile(
    "tests", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("tests")

HEAD_DIM, HEADS, KV_HEADS, LAYERS, WIDTH, MLP, VOCABULARY, PAD, END = 8, 4, 2, 2, 32, 48, 64, 0, 1

COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": MLP,
    "max_position_embeddings": 40,
    "pad_token_id": PAD,
    "bos_token_id": 2,
    "eos_token_id": END,
}
GROUPED = {"num_key_value_heads": KV_HEADS}
EXPERTS = {
    "num_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": MLP,
    "shared_expert_intermediate_size": MLP,
}
T5 = {"d_model": WIDTH, "d_kv": HEAD_DIM, "d_ff": MLP, "num_heads": HEADS, "num_layers": LAYERS}


def model_types_of(family: str) -> tuple[str, ...]:
    from lorakit.models import families

    return families.get(family).model_types


OWN = {
    "deberta": {
        "relative_attention": True,
        "pos_att_type": ["c2p", "p2c"],
        "max_relative_positions": 16,
    },
    "deberta-v2": {
        "relative_attention": True,
        "pos_att_type": ["c2p", "p2c"],
        "share_att_key": True,
        "position_buckets": 8,
        "norm_rel_ebd": "layer_norm",
        "position_biased_input": False,
    },
    "distilbert": {"dim": WIDTH, "hidden_dim": MLP, "n_heads": HEADS, "n_layers": LAYERS},
    "electra": {"embedding_size": 16},
    "gpt2": {"n_inner": MLP},
    "opt": {"ffn_dim": MLP, "word_embed_proj_dim": WIDTH},
    "phi3": GROUPED,
    "t5": {**T5, "decoder_start_token_id": PAD},
    "mt5": {**T5, "decoder_start_token_id": PAD},
    "gptj": {"n_inner": MLP, "rotary_dim": 4},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 16},
    "xglm": {"d_model": WIDTH, "num_layers": LAYERS, "attention_heads": HEADS, "ffn_dim": MLP},
    "rembert": {"input_embedding_size": 16, "output_embedding_size": 16},
    **{name: {**GROUPED, "head_dim": HEAD_DIM} for name in model_types_of("llama")},
    **{name: {**GROUPED, **EXPERTS, "head_dim": HEAD_DIM} for name in model_types_of("mixtral")},
    "starcoder2": GROUPED,
}
"""What a model type calls its sizes where it is not the common name, and what its published models
switch on."""


NO_CLASSIFIER = ("granite", "cohere", "cohere2", "ernie4_5", "apertus", "olmoe", "xglm")
"""Model types that transformers has as causal models only."""


RAMPED = ("singlora",)
"""Methods whose change is zero until the hook before the first step has run."""


def small_method(name: str) -> Any:
    """The method, for the tiny models."""
    from lorakit.methods import methods

    cls = methods.get(name)
    return cls.model_validate({"name": name, **cls.tiny})


@pytest.fixture(autouse=True)
def _what_is_logged_is_seen() -> Iterator[None]:
    """The command line, called within the process, keeps lorakit's log to itself; the next test
    gets it back."""
    log = logging.getLogger("lorakit")
    before = log.propagate, log.level, list(log.handlers)
    log.propagate = True
    yield
    log.propagate, log.handlers = before[0], before[2]
    log.setLevel(before[1])


def draw_frames(patch: pytest.MonkeyPatch) -> None:
    """Pictures are empty frames: to draw them takes a third of a tiny training."""

    def frame(_figure: Any, out: Any, **_: Any) -> None:
        out.write('<svg width="10pt" height="10pt" viewBox="0 0 10 10"></svg>')

    patch.setattr("matplotlib.figure.Figure.savefig", frame)


@pytest.fixture(autouse=True)
def pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty frames, except where a folder of tests overrides this fixture."""
    draw_frames(monkeypatch)


@pytest.fixture(scope="session", autouse=True)
def _no_power_cut() -> Iterator[None]:
    """Nothing waits for the disk: a training syncs 30 files, and no test cuts the power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)
        yield


@pytest.fixture(scope="module", autouse=True)
def _collector_skips_what_stays() -> Iterator[None]:
    """Every training runs the garbage collector, which would look at all imported modules."""
    yield
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What is collected stays until the end: the garbage collector never looks at it. And it looks
    at the rest less often, which saves 6 % of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.set_threshold(20_000, 50, 1_000)
        gc.enable()
        gc.collect()
        gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file's tests run in one process, so that its fixtures are made once."""
    from xdist.scheduler import LoadFileScheduling

    return LoadFileScheduling(config, log)


@dataclass
class Tiny:
    model: Any
    config: Any
    roles: Any
    newly_initialised: frozenset[str]
    """The head: the parameters outside the base model."""
    inputs: dict[str, Tensor]

    @torch.no_grad()
    def logits(self) -> Tensor:
        self.model.eval()
        return self.model(**self.inputs).logits

    def loss(self) -> Tensor:
        """Depends on every logit, and not equally."""
        logits = self.model(**self.inputs).logits
        logits = logits if logits.dtype == torch.float64 else logits.float()
        return (logits * torch.linspace(-1, 2, logits.numel()).reshape(logits.shape)).pow(2).mean()

    def step(self, attachment: Any, rate: float = 0.01, steps: int = 1) -> None:
        """Of AdamW, on everything that trains."""
        optimizer = torch.optim.AdamW(attachment.trained().values(), lr=rate)
        for step in range(steps):
            if attachment.method.name in RAMPED:
                attachment.before_step(step, steps)
            self.loss().backward()
            optimizer.step()
            optimizer.zero_grad()


def make_config(model_type: str, **changes: Any) -> Any:
    """Two layers, four heads of eight, no dropout."""
    from transformers import AutoConfig

    config = AutoConfig.for_model(model_type, **{**COMMON, **OWN.get(model_type, {}), **changes})
    for name, value in config.to_dict().items():
        if (
            ("dropout" in name or "pdrop" in name)
            and isinstance(value, float)
            and name not in changes
        ):
            setattr(config, name, 0.0)
    return config


def draw(model: nn.Module, seed: int) -> None:
    """Random weights, larger than at initialisation, so that attention is not flat and nothing is
    zero or one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            spread = 1 / WIDTH**0.5 if parameter.ndim > 1 else 0.1
            parameter.copy_(noise * spread + (parameter.mean() if parameter.ndim == 1 else 0))


def make_inputs(config: Any) -> dict[str, Tensor]:
    """Two rows of nine tokens, the second with two of padding; each ends in one end token, as T5's
    head wants it."""
    ids = torch.randint(3, VOCABULARY, (2, 9), generator=torch.Generator().manual_seed(1))
    ids[0, -1], ids[1, -3], ids[1, -2:] = END, END, PAD
    return {"input_ids": ids, "attention_mask": (ids != PAD).long()}


def build(
    model_type: str,
    head: str = "SequenceClassification",
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    attention: str | None = None,
    **changes: Any,
) -> Tiny:
    """A new model; the same arguments give the same weights.

    head: as in the name of the transformers class, `SequenceClassification` or `CausalLM`.
    """
    key = repr((model_type, head, seed, dtype, attention, sorted(changes.items())))
    if key not in _BUILT:
        # As if it were a copy already: what a test draws afterwards does not depend on its order.
        with torch.random.fork_rng(devices=()):
            _BUILT[key] = _built(model_type, head, seed, dtype, attention, changes)
    return copy.deepcopy(_BUILT[key])


_BUILT: dict[str, Tiny] = {}
"""Models by their arguments: a copy takes half of the time that transformers needs to build one."""


def _built(
    model_type: str,
    head: str,
    seed: int,
    dtype: torch.dtype,
    attention: str | None,
    changes: dict[str, Any],
) -> Tiny:
    import transformers

    from lorakit.models import family_of

    config = make_config(model_type, **changes)
    chosen = {"attn_implementation": attention} if attention else {}
    model = getattr(transformers, f"AutoModelFor{head}").from_config(config, **chosen)
    draw(model, seed)
    model = model.to(dtype).eval()
    body = f"{model.base_model_prefix}."
    outside = {name for name, _ in model.named_parameters() if not name.startswith(body)}
    fresh = frozenset(outside if head == "SequenceClassification" else ())
    family = family_of(model_type)
    assert family is not None
    return Tiny(model, model.config, family.places(model.config), fresh, make_inputs(config))


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], str]:
    """write(name, content): a file in the test's folder, and its path."""

    def write(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Tiny]:
    """`tiny(model_type, ...)` is a new model; the same arguments give the same weights."""
    return build


def make_about(model: Tiny, attachment: Any, **changes: Any) -> Any:
    """As a run writes it, for a base that has just been read."""
    from lorakit.adapters.about import About
    from lorakit.adapters.fingerprint import fingerprint

    with attachment.off():
        fingerprint = fingerprint(model.model, attachment.newly_initialised)
    values: dict[str, Any] = {
        "base": "some/base",
        "revision": "abc123",
        "model_type": model.config.model_type,
        "head": "classification",
        "labels": ["no", "yes"],
        "task": {"name": "classification"},
        "max_length": 128,
        "method": attachment.method.model_dump(mode="json"),
        "fresh": sorted(attachment.newly_initialised),
        "fingerprint": fingerprint,
        "lorakit": "0.0",
    }
    return About(**(values | changes))


@pytest.fixture(scope="session")
def about() -> Callable[..., Any]:
    """`about(model, attachment, ...)` is what travels with an adapter."""
    return make_about


def make_tokenizer(words: int = 60, pad: bool = True) -> Any:
    """Four special tokens, then the words w0, w1, ...; nothing is added to a text."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = ["<pad>", "</s>", "<s>", "<unk>", *(f"w{i}" for i in range(words))]
    tokenizer = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {
        "eos_token": "</s>",
        "bos_token": "<s>",
        "unk_token": "<unk>",
        **({"pad_token": "<pad>"} if pad else {}),
    }
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


@pytest.fixture(scope="session")
def tokenizer() -> Callable[..., Any]:
    """`tokenizer(words, pad)`"""
    return make_tokenizer
