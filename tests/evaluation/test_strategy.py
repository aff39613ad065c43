"""Whatever an architecture caches, it generates what plain forward passes of the text give."""

from __future__ import annotations

import inspect
from contextlib import nullcontext

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL

from lorakit.errors import ModelError
from lorakit.evaluation import strategy
from lorakit.evaluation.cache import CacheStrategy
from lorakit.evaluation.decode import decode
from lorakit.evaluation.likelihood import log_likelihoods
from lorakit.evaluation.strategy import cache_strategy, ignores_right_padding
from lorakit.recipe.evaluate import Decode
from tests.encoded import encoded_rows
from tests.evaluation.architectures import build

NEW, PAD, END, LENGTHS = 8, 0, 1, (9, 5, 1, 5)
KINDS = {
    "bamba": CacheStrategy.COPIED,  # a state next to attention
    "falcon_mamba": CacheStrategy.UNPADDED,  # a state, which padding changes
    "mbart": CacheStrategy.UNPADDED,  # positions that it counts itself, padding included
    "openai-gpt": CacheStrategy.UNCACHED,  # no cache
    "recurrent_gemma": CacheStrategy.UNCACHED,  # a state in the modules, not per beam
    "roberta": CacheStrategy.UNPADDED,  # positions that begin after that of padding
    "rwkv": CacheStrategy.UNCACHED,  # a state under another name
    "xglm": CacheStrategy.COPIED,  # positions that begin at two
}
LOOK_AHEAD = {"cpmant", "prophetnet", "xlnet"}
"""A plain forward pass of a whole text reads what follows, so there is nothing to be compared
with."""


@pytest.fixture(scope="module")
def model():
    made = {}

    def get(model_type):
        if model_type not in made:
            made[model_type] = build(model_type)
        return made[model_type]

    return get


def _prompts():
    ids = torch.randint(
        20, 64, (len(LENGTHS), max(LENGTHS)), generator=torch.Generator().manual_seed(0)
    )
    mask = torch.tensor([[0] * (max(LENGTHS) - n) + [1] * n for n in LENGTHS])
    return ids * mask, mask


@torch.no_grad()
def _next(model, ids):
    """log p of the tokens that follow, of one row, without a cache or a mask."""
    known = inspect.signature(type(model).forward).parameters
    fields = {"use_cache": False} if "use_cache" in known else {}
    return model(input_ids=torch.tensor([ids]), **fields).logits[0].float().log_softmax(-1)


def _greedy(model, ids):
    text = []
    while len(text) < NEW:
        token = int(_next(model, ids + text)[-1].argmax())
        if token == END:
            break
        text.append(token)
    return text


def _each(ids, mask):
    return [row[there == 1].tolist() for row, there in zip(ids, mask, strict=True)]


def _until_padding(model, ids):
    """The tokens up to the first that is the model's padding.

    Some architectures do not count it as a position in a plain pass, and do in generation.
    """
    padding = model.config.get_text_config().pad_token_id
    return ids[: ids.index(padding) + 1] if padding in ids else ids


def _check_texts(model):
    ids, mask = _prompts()
    written = decode(model, ids, mask, Decode(max_new_tokens=NEW), (END,))
    plain = [_greedy(model, prompt) for prompt in _each(ids, mask)]
    assert [_until_padding(model, w.ids) for w in written] == [
        _until_padding(model, text) for text in plain
    ]
    searched = decode(
        model, ids, mask, Decode(max_new_tokens=NEW, beams=3, length_penalty=0.0), (END,)
    )
    for prompt, w in zip(_each(ids, mask), searched, strict=True):
        text = [*w.ids, *([END] if w.ended else [])]
        if _until_padding(model, text) != text:
            continue
        logp = [float(_next(model, prompt + text[:i])[-1, token]) for i, token in enumerate(text)]
        assert w.score == pytest.approx(sum(logp), rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("model_type", sorted(KINDS))
def test_generated_texts_are_those_of_plain_forward_passes(model, model_type):
    made = model(model_type)
    _check_texts(made)
    assert cache_strategy(made, *_prompts(), NEW) is KINDS[model_type]


@pytest.mark.parametrize("model_type", ["falcon_mamba", "openai-gpt", "bamba", "xglm"])
@pytest.mark.parametrize("beams", [1, 3])
def test_as_transformers_writes_one_prompt_at_a_time(model, model_type, beams):
    made, (ids, mask) = model(model_type), _prompts()
    search = {"length_penalty": 1.0, "early_stopping": False} if beams > 1 else {}
    written = decode(made, ids, mask, Decode(max_new_tokens=NEW, beams=beams), (END,))
    for prompt, w in zip(_each(ids, mask), written, strict=True):
        found = made.generate(
            input_ids=torch.tensor([prompt]),
            max_new_tokens=NEW,
            num_beams=beams,
            do_sample=False,
            pad_token_id=PAD,
            eos_token_id=END,
            **search,
        )[0, len(prompt) :].tolist()
        assert w.ids == (found[: found.index(END)] if END in found else found)


@pytest.mark.parametrize("model_type", ["falcon_mamba", "rwkv"])
def test_draws_do_not_depend_on_the_batch(model, model_type):
    made, (ids, mask) = model(model_type), _prompts()
    settings = Decode(max_new_tokens=NEW, sample=True, top_p=0.9)
    uniform = torch.rand(len(ids), NEW, generator=torch.Generator().manual_seed(0))
    together = decode(made, ids, mask, settings, (END,), uniform)
    for i, n in enumerate(LENGTHS):
        own = slice(i, i + 1)
        alone = decode(made, ids[own, -n:], mask[own, -n:], settings, (END,), uniform[own])
        assert alone[0].ids == together[i].ids


@pytest.mark.parametrize(
    "model_type", ["mamba2", "rwkv", "roberta", "openai-gpt", "recurrent_gemma"]
)
def test_choices_have_the_likelihood_of_plain_forward_passes(model, model_type):
    made, prompts, choices = model(model_type), _each(*_prompts()), [[3], [4, 5], [6]]
    items = encoded_rows(prompts)
    found = log_likelihoods(made, items, choices, PAD, 8)
    for prompt, values in zip(prompts, found, strict=True):
        for choice, value in zip(choices, values, strict=True):
            logp = [
                float(_next(made, prompt + choice[:i])[-1, token]) for i, token in enumerate(choice)
            ]
            assert value == pytest.approx(sum(logp), rel=1e-3, abs=1e-3)


class _Odd(nn.Module):
    """A model of the kind `kind`, around a Llama."""

    def __init__(self, inner, kind):
        super().__init__()
        self.inner, self.kind, self.config, self.dtype = inner, kind, inner.config, inner.dtype

    def get_output_embeddings(self):
        return self.inner.get_output_embeddings()


class _Swallows(_Odd):
    def forward(self, input_ids, attention_mask=None, **kwargs):
        return self.inner(input_ids=input_ids, use_cache=False)


class _Fails(_Odd):
    def forward(self, input_ids, attention_mask=None, **kwargs):
        raise RuntimeError("no such luck")


class _SeesPadding(_Odd):
    def forward(self, input_ids, attention_mask=None, **kwargs):
        outputs = self.inner(input_ids=input_ids, use_cache=False)
        hidden = 0 if attention_mask is None else (attention_mask == 0).sum(-1)
        outputs.logits = outputs.logits * (1 + torch.as_tensor(hidden)).view(-1, 1, 1)
        return outputs


def test_a_field_that_would_vanish_is_not_given(model):
    odd = _Swallows(model("llama"), "")
    assert cache_strategy(odd, *_prompts(), NEW) is CacheStrategy.UNCACHED
    ids, mask = _prompts()
    settings = Decode(max_new_tokens=NEW, beams=2)
    assert [w.ids for w in decode(odd, ids, mask, settings, (END,))] == [
        w.ids for w in decode(model("llama"), ids, mask, settings, (END,))
    ]


def test_a_model_that_cannot_read_a_text_is_an_error(model):
    with pytest.raises(ModelError, match="no such luck"):
        decode(_Fails(model("llama"), ""), *_prompts(), Decode(max_new_tokens=2), (END,))


def test_choices_where_padding_is_seen(model):
    prompts, choices = _each(*_prompts()), [[3], [4, 5]]
    items = encoded_rows(prompts)
    wanted = log_likelihoods(model("llama"), items, choices, PAD, 8)
    found = log_likelihoods(_SeesPadding(model("llama"), ""), items, choices, PAD, 8)
    torch.testing.assert_close(torch.tensor(found), torch.tensor(wanted), rtol=1e-4, atol=1e-4)


def test_positions_that_move_with_the_length_are_read_without_a_cache():
    """Dynamic rotary angles: past the first 16 tokens, keys that were kept have the angles of a
    shorter text."""
    rope = {
        "rope_type": "dynamic",
        "factor": 4.0,
        "rope_theta": 10000.0,
        "original_max_position_embeddings": 16,
    }
    made = build("llama", rope_parameters=rope, max_position_embeddings=16)
    ids, mask = _prompts()
    assert cache_strategy(made, ids, mask, 4) is CacheStrategy.SHARED
    assert cache_strategy(made, ids, mask, 12) is CacheStrategy.UNCACHED


def test_a_family_that_is_known_keeps_the_fast_strategy_in_half_precision(tiny):
    for family in ("gpt2", "llama", "phi3", "opt", "gemma2"):
        half = tiny(family, "CausalLM", dtype=torch.bfloat16).model
        assert cache_strategy(half, *_prompts(), NEW) is CacheStrategy.SHARED


@pytest.mark.parametrize("autocast", ["of torch", "of accelerate, in forward"])
def test_it_is_tried_without_autocast(tiny, autocast):
    """Its rounding would be taken for a wrong strategy of a model in float32."""
    weights = tiny("llama", "CausalLM").model
    inside = nullcontext()
    if autocast == "of torch":
        inside = torch.autocast("cpu", torch.bfloat16)
    else:
        AcceleratorState._reset_state(reset_partial_state=True)
        weights = Accelerator(cpu=True, mixed_precision="bf16").prepare_model(weights)
        AcceleratorState._reset_state(reset_partial_state=True)
    forward = weights.forward
    with inside:
        assert cache_strategy(weights, *_prompts(), NEW) is CacheStrategy.SHARED
        assert ignores_right_padding(weights, *_prompts())
    assert weights.forward == forward


def test_rounding_is_not_taken_for_a_wrong_strategy(model, monkeypatch):
    """Experts that change with the last bit: reading the entire text differs as much as the fast
    strategy does."""
    half, differences = (
        build("mixtral").bfloat16(),
        {CacheStrategy.SHARED: 0.12, CacheStrategy.UNCACHED: 0.1},
    )
    monkeypatch.setattr(strategy, "_difference", lambda model, tried, prompt: differences[tried])
    assert cache_strategy(half, *_prompts(), NEW) is CacheStrategy.SHARED
    monkeypatch.setattr(
        strategy, "_difference", lambda model, tried, prompt: {**differences, tried: 1.0}[tried]
    )
    assert cache_strategy(build("mixtral").bfloat16(), *_prompts(), NEW) is CacheStrategy.UNCACHED


def test_rounding_that_reading_without_a_cache_does_not_show(tiny, monkeypatch):
    """Reading without a cache repeats a plain pass to the bit, and the fast strategy does not."""
    half = tiny("llama", "CausalLM", dtype=torch.bfloat16).model
    difference = {CacheStrategy.SHARED: 0.1, CacheStrategy.UNCACHED: 0.0}
    others = dict.fromkeys(CacheStrategy, 1.0)
    monkeypatch.setattr(strategy, "_difference", lambda model, t, prompt: (others | difference)[t])
    monkeypatch.setattr(strategy, "_rounding", lambda model, prompt: 0.06)
    assert cache_strategy(half, *_prompts(), NEW) is CacheStrategy.SHARED
    other = tiny("llama", "CausalLM", dtype=torch.bfloat16).model
    monkeypatch.setattr(strategy, "_rounding", lambda model, prompt: 0.04)
    assert cache_strategy(other, *_prompts(), NEW) is CacheStrategy.UNCACHED


def test_the_rounding_of_a_model_is_small_and_leaves_no_hook(tiny):
    half = tiny("llama", "CausalLM", dtype=torch.bfloat16).model
    found = strategy._rounding(half, torch.arange(3, 12))
    assert 0 < found < 0.2
    assert not half.get_input_embeddings()._forward_hooks


@pytest.mark.slow
@pytest.mark.parametrize("model_type", sorted({*CAUSAL} - LOOK_AHEAD))
def test_every_architecture(model_type):
    try:
        made = build(model_type)
        _next(made, [20, 21, 22])
    except Exception as error:
        pytest.skip(f"not built at these sizes: {error}"[:200])
    _check_texts(made)
