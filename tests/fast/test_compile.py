"""torch.compile takes a fast model with LoRA as one graph."""

from __future__ import annotations

import pytest
import torch
from torch import _dynamo as dynamo

from lorakit.fast import make_fast
from lorakit.methods.reparam.lora import LoRA
from lorakit.models import family_of
from tests.attaching import attach
from tests.rounding import assert_near
from tests.tiers import unit_or_slow

ENCODER = ("roberta", "SequenceClassification")
DECODER = ("gpt2", "CausalLM")
OTHERS = [("bert", "SequenceClassification"), ("llama", "CausalLM"), ("phi3", "CausalLM")]


@pytest.fixture
def adapted(tiny):
    def adapted(family: str, head: str, dropout: float = 0.0):
        model = tiny(family, head)
        make_fast(model.model, family_of(family).reads_first)
        torch.manual_seed(0)
        attachment = attach(LoRA(r=4, dropout=dropout), model)
        generator = torch.Generator().manual_seed(0)
        for delta in attachment.deltas.values():
            torch.nn.init.normal_(delta.B, generator=generator)
        model.model.train()
        return model

    yield adapted
    dynamo.reset()


@pytest.mark.parametrize(("family", "head"), unit_or_slow([ENCODER, DECODER, *OTHERS], [DECODER]))
def test_no_graph_break(adapted, family, head):
    model = adapted(family, head, dropout=0.1)
    found = dynamo.explain(model.model)(**model.inputs)
    assert (found.graph_count, found.graph_break_count) == (1, 0), found.break_reasons


@pytest.mark.parametrize(("family", "head"), unit_or_slow([ENCODER, DECODER], [DECODER]))
def test_compiled_it_is_the_same_function(adapted, family, head):
    eager, compiled = adapted(family, head), adapted(family, head)
    eager.loss().backward()
    compiled.model.compile(backend="aot_eager", fullgraph=True)
    compiled.loss().backward()
    wanted = {name: p.grad for name, p in eager.model.named_parameters() if p.grad is not None}
    found = {name: p.grad for name, p in compiled.model.named_parameters() if p.grad is not None}
    assert_near(found, wanted)
