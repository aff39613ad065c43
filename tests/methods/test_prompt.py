"""Prefix embeddings and prefix layers against rows put together by hand; with a cache, in batches,
and in the loss."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lorakit.batches import IGNORE, Encoded, collate
from lorakit.errors import ModelError
from lorakit.evaluation.decode import decode
from lorakit.evaluation.likelihood import log_likelihoods
from lorakit.methods import methods
from lorakit.nn.prompt import added_tokens, prompt_ends
from lorakit.recipe.evaluate import Decode
from lorakit.tasks import Head
from lorakit.training.loss import can_be_lean, loss_sum
from tests.attaching import attach
from tests.encoded import encoded_rows
from tests.tiers import unit_or_slow

DECODERS = ("gpt2", "gpt_neox", "bloom", "opt", "llama", "phi3")


PREFIX, INFIX = 3, 2
PROMPT, ANSWER = [5, 6, 7, 8], [9, 10, 11]


def _attached(model, name: str = "prefix_embedding", **fields):
    """Away from where it starts."""
    infix = 0 if name == "prefix_tuning" else INFIX
    chosen = {"prefix": PREFIX, "infix": infix} | fields
    if name.startswith("lora"):
        chosen = {"prompt": chosen}
    torch.manual_seed(0)
    attachment = (
        methods.get(name).model_validate({"name": name, **chosen}).attach(model.model, model.roles)
    )
    with torch.no_grad():
        for parameter in attachment.trained().values():
            parameter.add_(torch.randn(parameter.shape) * 0.3)
    return attachment


def _vectors(attachment) -> list[Tensor]:
    return [insert.vectors.detach() for insert in attachment.inserts.values()]


@torch.no_grad()
def _logits(
    model, rows: list[list[int]], ends: list[int] | None = None, side: str = "right"
) -> list[Tensor]:
    """Of each row's own tokens."""
    items = encoded_rows(rows)
    batch = collate(items, Head.CLASSIFICATION, 0, side=side)
    fields = (
        dict(batch) if ends is None else {**batch, **prompt_ends(model.model, torch.tensor(ends))}
    )
    logits = model.model(**fields).logits
    return [row[mask.bool()] for row, mask in zip(logits, batch["attention_mask"], strict=True)]


@pytest.mark.parametrize("family", DECODERS)
@torch.no_grad()
def test_prefix_embeddings_are_tokens_of_the_row(tiny, family):
    """prefix, prompt, infix, answer; what follows the prompt is predicted by the infix."""
    model = tiny(family, "CausalLM")
    embed = model.model.get_input_embeddings()
    attachment = _attached(model)
    (v,) = _vectors(attachment)
    with attachment.off():
        prompt, answer = embed(torch.tensor(PROMPT)), embed(torch.tensor(ANSWER))
        row = torch.cat([v[:PREFIX], prompt, v[PREFIX:], answer])[None]
        logits = model.model(
            inputs_embeds=row, attention_mask=torch.ones(1, row.shape[1]).long()
        ).logits[0]
    last = PREFIX + len(PROMPT) + INFIX - 1
    own = [*range(PREFIX, PREFIX + len(PROMPT) - 1), *range(last, last + 1 + len(ANSWER))]
    found = _logits(model, [PROMPT + ANSWER], [len(PROMPT)])[0]
    torch.testing.assert_close(found, logits[own], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_prefix_layers_take_the_place_of_hidden_states_after_every_block_but_the_last(tiny):
    model = tiny("gpt2", "CausalLM", num_hidden_layers=3)
    attachment = _attached(model, "prefix_layer")
    v = _vectors(attachment)
    assert len(v) == 3
    body = model.model.transformer
    at = torch.tensor([*range(PREFIX), *range(PREFIX + len(PROMPT), PREFIX + len(PROMPT) + INFIX)])
    with attachment.off():
        ids = torch.tensor([0] * PREFIX + PROMPT + [0] * INFIX + ANSWER)
        embedded = body.wte(ids)
        embedded[at] = v[0]
        h = (embedded + body.wpe(torch.arange(len(ids))))[None]
        for i, block in enumerate(body.h):
            h = block(h)
            if i < 2:
                h[0, at] = v[i + 1]
        logits = model.model.lm_head(body.ln_f(h))[0]
    last = PREFIX + len(PROMPT) + INFIX - 1
    own = [*range(PREFIX, PREFIX + len(PROMPT) - 1), *range(last, last + 1 + len(ANSWER))]
    found = _logits(model, [PROMPT + ANSWER], [len(PROMPT)])[0]
    torch.testing.assert_close(found, logits[own], rtol=1e-5, atol=1e-5)


def test_the_vectors_start_as_what_real_tokens_are(tiny):
    """In even steps through the vocabulary; a block's, as it gives them where they are read
    alone."""
    model = tiny("gpt2", "CausalLM")
    with torch.no_grad():
        ids = torch.linspace(0, 63, PREFIX + INFIX).long()
        states = model.model.transformer(ids[None], output_hidden_states=True).hidden_states
    fields = {"prefix": PREFIX, "infix": INFIX}
    attachment = methods.get("prefix_layer")(**fields).attach(model.model, model.roles)
    embeddings, after_first = _vectors(attachment)
    assert torch.equal(embeddings, model.model.transformer.wte.weight[ids])
    torch.testing.assert_close(after_first, states[1][0])


NAMES = (
    "prefix_embedding",
    "prefix_layer",
    "prefix_tuning",
    "lora_prefix_embedding",
    "lora_prefix_layer",
)
ROWS = [[5, 6, 7, 8, 9, 10], [11, 12, 13], [14]]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("family", unit_or_slow(["gpt2", "bloom", "llama"], ["gpt2"]))
def test_a_batch_is_each_row_alone(tiny, family, name, side):
    model = tiny(family, "CausalLM")
    _attached(model, name)
    together = _logits(model, ROWS, side=side)
    for row, logits in zip(ROWS, together, strict=True):
        torch.testing.assert_close(logits, _logits(model, [row])[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("fields", [{"prefix": 4, "infix": 0}, {"prefix": 0, "infix": 4}], ids=str)
def test_a_prefix_alone_and_an_infix_alone(tiny, fields):
    model = tiny("gpt2", "CausalLM")
    base = _logits(model, [PROMPT + ANSWER])[0]
    _attached(model, **fields)
    found = _logits(model, [PROMPT + ANSWER], [len(PROMPT)])[0]
    changed = (found - base).abs().amax(-1) > 1e-4
    assert changed.tolist() == [bool(fields["prefix"])] * 3 + [True] * 4


def _continued(model, prompt: list[int], steps: int) -> list[int]:
    """Greedy, every time from the whole row."""
    written: list[int] = []
    for _ in range(steps):
        written.append(int(_logits(model, [prompt + written], [len(prompt)])[0][-1].argmax()))
    return written


@pytest.mark.parametrize(
    ("family", "name"),
    unit_or_slow(
        [(family, name) for family in ("gpt2", "bloom", "llama", "opt") for name in NAMES],
        [
            ("gpt2", "prefix_embedding"),
            ("gpt2", "lora_prefix_layer"),
            ("gpt2", "prefix_tuning"),
            ("bloom", "prefix_layer"),
        ],
    ),
)
def test_a_text_is_the_same_with_a_cache_in_a_batch_and_by_beams(tiny, family, name):
    """gpt2 and llama keep one row for all beams, bloom one for each."""
    model = tiny(family, "CausalLM")
    _attached(model, name)
    items = encoded_rows(ROWS)
    batch = collate(items, Head.CLASSIFICATION, 0, side="left")
    fields = batch["input_ids"], batch["attention_mask"]
    greedy = decode(model.model, *fields, Decode(max_new_tokens=12), [])
    assert [w.ids for w in greedy] == [_continued(model, row, 12) for row in ROWS]
    beams = Decode(max_new_tokens=12, beams=3)
    together = decode(model.model, *fields, beams, [])
    for row, written in zip(ROWS, together, strict=True):
        ids = torch.tensor([row])
        (alone,) = decode(model.model, ids, torch.ones_like(ids), beams, [])
        assert alone.ids == written.ids
        assert alone.score == pytest.approx(written.score, abs=1e-4)
        logits = _logits(model, [row + written.ids], [len(row)])[0]
        log_p = (
            logits[len(row) - 1 : -1]
            .log_softmax(-1)
            .gather(1, torch.tensor(written.ids)[:, None])
            .sum()
        )
        assert written.score * 12 == pytest.approx(float(log_p), abs=1e-3)


def test_likelihoods_are_of_what_follows_the_infix(tiny):
    model = tiny("gpt2", "CausalLM")
    _attached(model, "prefix_layer")
    prompts = encoded_rows(ROWS)
    choices = [[9], [12, 13], [12, 14]]
    found = log_likelihoods(model.model, prompts, choices, 0, 4)
    for row, values in zip(ROWS, found, strict=True):
        for choice, value in zip(choices, values, strict=True):
            log_p = _logits(model, [row + choice], [len(row)])[0][len(row) - 1 : -1].log_softmax(-1)
            wanted = sum(float(log_p[i, token]) for i, token in enumerate(choice))
            assert value == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("lean", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_the_loss_is_that_of_the_answers(tiny, name, lean):
    model = tiny("gpt2", "CausalLM")
    _attached(model, name)
    rows = [(PROMPT, ANSWER), ([12, 13], [14, 15, 16, 17])]
    items = [
        Encoded(
            "",
            {"input_ids": p + a, "attention_mask": [1] * len(p + a)},
            None,
            [IGNORE] * len(p) + a,
        )
        for p, a in rows
    ]
    batch = collate(items, Head.CAUSAL, 0)
    assert can_be_lean(model.model, batch)
    wanted = 0.0
    for p, a in rows:
        logits = _logits(model, [p + a], [len(p)])[0][len(p) - 1 : -1]
        wanted += float(F.cross_entropy(logits, torch.tensor(a), reduction="sum"))
    assert loss_sum(model.model, batch, Head.CAUSAL, lean=lean).item() == pytest.approx(
        wanted, rel=1e-4
    )


@torch.no_grad()
def test_a_head_that_reads_the_last_token_reads_the_infix(tiny):
    model = tiny("gpt2")
    attachment = attach(methods.get("prefix_embedding")(prefix=2, infix=2), model)
    (v,) = _vectors(attachment)
    short = torch.tensor([[5, 6, 7, 0, 0]])
    with attachment.off():
        embedded = model.model.transformer.wte(torch.tensor([5, 6, 7]))
        row = torch.cat([v[:2], embedded, v[2:]])[None]
        wanted = model.model.score(model.model.transformer(inputs_embeds=row)[0])[0, -1]
    found = model.model(input_ids=short, attention_mask=(short != 0).long()).logits[0]
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_off_there_are_no_tokens(tiny):
    model = tiny("gpt2", "CausalLM")
    attachment = _attached(model)
    assert added_tokens(model.model) == PREFIX + INFIX
    with attachment.off():
        assert added_tokens(model.model) == 0
    assert added_tokens(tiny("gpt2", "CausalLM").model) == 0
    assert prompt_ends(tiny("gpt2", "CausalLM").model, torch.tensor([1])) == {}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "family",
    unit_or_slow(["bert", "roberta", "distilbert", "deberta", "deberta-v2", "t5"], ["bert", "t5"]),
)
def test_an_encoder_is_refused(tiny, family, name):
    model = tiny(family)
    before = {n: p.requires_grad for n, p in model.model.named_parameters()}
    with pytest.raises(ModelError, match="is for decoders"):
        attach(methods.get(name)(), model)
    assert {n: p.requires_grad for n, p in model.model.named_parameters()} == before


def test_more_tokens_than_positions_are_refused(tiny):
    model = tiny("gpt2", "CausalLM")
    with pytest.raises(ModelError, match="40 tokens do not fit into the model's 40 positions"):
        methods.get("prefix_embedding")(prefix=32, infix=8).attach(model.model, model.roles)


def test_no_tokens_are_refused():
    with pytest.raises(ValueError, match="both 0"):
        methods.get("prefix_layer")(prefix=0, infix=0)


def test_who_does_not_count_the_tokens_is_refused(tiny):
    """transformers' own generate."""
    model = tiny("gpt2", "CausalLM")
    attachment = _attached(model)
    ids = torch.tensor([PROMPT])
    long = {"max_new_tokens": 3, "min_new_tokens": 3}
    with pytest.raises(ModelError, match=r"10 tokens.* 5:"):
        model.model.generate(ids, attention_mask=torch.ones_like(ids), **long)
    padded = torch.tensor([PROMPT, [0, 0, 5, 6]])
    with pytest.raises(ModelError, match=r"10 tokens.* 5:"):
        model.model.generate(padded, attention_mask=(padded != 0).long(), **long)
    with attachment.off():
        model.model.generate(ids, attention_mask=torch.ones_like(ids), **long)
    with pytest.raises(ModelError, match="inputs_embeds"):
        model.model(inputs_embeds=torch.zeros(1, 3, 32))
