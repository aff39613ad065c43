"""Names of outputs: which of them are names, and when two lists are the same labels."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from lorakit.errors import AdapterError
from lorakit.recipe.load import load_recipe
from lorakit.runs.labels import in_order_of, keep_problem_type, names_of, refuse_other_labels


@pytest.mark.parametrize(
    ("id2label", "label2id", "wanted"),
    [
        ({0: "no", 1: "yes"}, None, ["no", "yes"]),
        ({1: "yes", 0: "no"}, {"yes": 1, "no": 0}, ["no", "yes"]),
        ({"0": "no", "1": "yes"}, {"LABEL_0": 0, "LABEL_1": 1}, ["no", "yes"]),
        ({0: "LABEL_0", 1: "LABEL_1"}, {"LABEL_0": 0, "LABEL_1": 1}, []),
        ({0: "label 0", 1: "Label_1"}, None, []),
        ({0: "LABEL_0", 1: "LABEL_1"}, {"yes": 1, "no": 0}, ["no", "yes"]),
        ({0: "no", 2: "yes"}, None, []),
        ({0: "no", 1: "yes"}, {"no": 1, "yes": 0}, []),
        ({0: "no", 1: "NO"}, None, ["no", "NO"]),
        ({0: "no", 1: "no"}, None, []),
        ({0: "no", 1: " "}, None, []),
        ({0: 0, 1: 1}, None, ["0", "1"]),
        (None, None, []),
    ],
)
def test_names_of_outputs(id2label, label2id, wanted):
    assert names_of(SimpleNamespace(id2label=id2label, label2id=label2id)) == wanted


@pytest.mark.parametrize(
    ("names", "labels", "wanted"),
    [
        (["NO", "Yes"], ["yes", "no"], ["no", "yes"]),
        ([" not one", "one"], ["one", "not_one"], ["not_one", "one"]),
        (["b", "a"], ["a", "b"], ["b", "a"]),
        (["NO", "no"], ["no", "NO"], ["NO", "no"]),
        (["NO", "no"], ["no", "yes"], None),
        (["yes", "no"], ["no", "NO"], None),
        (["-1", "1"], ["1", "-1"], ["-1", "1"]),
        (["STRASSE", "x"], ["x", "straße"], ["straße", "x"]),
        (["a", "b", "c"], ["a", "b"], None),
        ([], ["a", "b"], None),
    ],
)
def test_the_same_labels_are_put_in_the_order_of_the_outputs(names, labels, wanted):
    assert in_order_of(names, labels) == wanted


@pytest.mark.parametrize(
    ("names", "certain", "refused"),
    [
        (["equivalent", "not_equivalent"], True, True),
        # those of a base whose head was replaced say nothing about the new head
        (["equivalent", "not_equivalent"], False, False),
        (["not_equivalent", "equivalent"], True, False),
        (["yes", "no"], True, False),
        ([], True, False),
    ],
)
def test_outputs_in_another_order(names, certain, refused):
    recipe = load_recipe("glue_mrpc").recipe
    with pytest.raises(AdapterError) if refused else nullcontext():
        refuse_other_labels(recipe, names, "m", certain)


@pytest.mark.parametrize(
    ("own", "outputs", "wanted"),
    [
        (None, 1, "regression"),
        (None, 3, None),
        ("single_label_classification", 1, "regression"),
        ("multi_label_classification", 1, "multi_label_classification"),
        ("regression", 4, "regression"),
    ],
)
def test_what_a_merged_model_is_for(own, outputs, wanted):
    config = SimpleNamespace(problem_type="single_label_classification")
    keep_problem_type(config, SimpleNamespace(problem_type=own), outputs)
    assert config.problem_type == wanted
