"""What a run shows of its model: weights that no target can choose are named."""

from __future__ import annotations

import pytest

from lorakit.verbs.model_view import model_view
from tests.attaching import attach
from tests.conftest import small_method


@pytest.mark.parametrize(
    ("model_type", "stacked"),
    [
        (
            "mixtral",
            ("model.layers.*.mlp.experts.down_proj", "model.layers.*.mlp.experts.gate_up_proj"),
        ),
        ("llama", ()),
    ],
)
def test_the_tensors_of_experts_are_named(tiny, model_type, stacked):
    method = small_method("lora").model_copy(update={"targets": ("all-linear",)})
    attachment = attach(method, tiny(model_type))
    assert model_view(attachment, None).stacked == stacked


def test_a_method_that_trains_them_names_none(tiny):
    assert model_view(attach(small_method("full"), tiny("mixtral")), None).stacked == ()
