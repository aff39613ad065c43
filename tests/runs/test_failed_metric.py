"""A metric that cannot be computed: the others are given, the exit code is 1, and nothing is
lost."""

from __future__ import annotations

import json
import math

import pytest

from lorakit.errors import DataError, MetricError
from lorakit.metrics import attempt, e2e_metrics, facts_of, failures, metrics
from lorakit.tasks import _scoring
from tests.commands import SMALL

WHY = "METEOR has not answered in 900 seconds, and was ended"
BOTH = "task.metrics=[exact_match, rouge]"
SHORT = [*SMALL, "train.max_steps=2", "decode.max_new_tokens=4", BOTH]


class _Broken:
    """The metrics, one of which fails."""

    def __init__(self, name: str, error: Exception):
        self.name, self.error = name, error

    def get(self, name: str):
        return self.fails if name == self.name else metrics.get(name)

    def fails(self, predictions, references):
        raise self.error


@pytest.fixture
def broken(monkeypatch):
    """broken(name, error): the metric of that name fails."""

    def put(name: str, error: Exception) -> None:
        monkeypatch.setattr(_scoring, "metrics", _Broken(name, error))

    return put


@pytest.fixture
def files(tmp_path):
    """--predictions and --references of two texts, one of them right."""
    said, wanted = tmp_path / "said.jsonl", tmp_path / "wanted.jsonl"
    said.write_text('{"prediction": "a b"}\n{"prediction": "c d"}\n')
    wanted.write_text('{"reference": "a b"}\n{"reference": "c e"}\n')
    return ["--predictions", said, "--references", wanted]


@pytest.mark.parametrize(
    "error", [MetricError(WHY), RuntimeError("[odd] model"), OSError(28, "No space left")]
)
def test_what_fails_is_noted_and_raised_where_nobody_looks(error):
    def fails() -> dict[str, float]:
        raise error

    with failures() as failed:
        assert attempt(("a",), lambda: {"a": 0.5}, 100) == {"a": 50}
        assert all(math.isnan(value) for value in attempt(("b", "c"), fails).values())
    assert list(failed) == ["b", "c"]
    assert str(error) in failed["b"]
    with pytest.raises(MetricError, match=r"900 seconds|odd|No space"):
        attempt(("b",), fails)


def test_a_mistake_in_what_is_given_is_no_failure():
    def fails() -> dict[str, float]:
        raise DataError("prediction 3")

    with failures() as failed, pytest.raises(DataError, match="prediction 3"):
        attempt(("a",), fails)
    assert not failed


@pytest.fixture
def late(monkeypatch):
    """METEOR and its tokens are there, and METEOR does not answer in time."""

    def meteor(*_):
        raise MetricError(WHY)

    tokenize = e2e_metrics.tokenize
    monkeypatch.setattr(e2e_metrics, "find", lambda *_: "tables")
    monkeypatch.setattr(e2e_metrics, "tokenize", lambda _data, *texts: tokenize(None, *texts))
    monkeypatch.setattr(e2e_metrics, "corpus_meteor", meteor)


def test_meteor_takes_no_other_metric_with_it(late, lorakit_cli, files):
    done = lorakit_cli("score", "e2e", *files, "--json")
    assert done.code == 1
    assert done.json["scores"]["meteor"] is None
    assert done.json["failed"] == {"meteor": WHY}
    assert {"bleu", "nist", "rouge_l_approx", "cider_approx"} <= set(done.json["scores"])
    assert None not in [value for key, value in done.json["scores"].items() if key != "meteor"]
    assert "e2e  nist" in done.err
    assert f"meteor: {WHY}" in done.err.splitlines()[-1]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose ROUGE failed each time."""
    from lorakit.recipe.load import load_recipe
    from lorakit.verbs.train import train_recipe

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_scoring, "metrics", _Broken("rouge", MetricError(WHY)))
        return train_recipe(
            load_recipe("quickstart_generate", SHORT),
            tmp_path_factory.mktemp("runs"),
            lambda _: None,
        )


def test_a_run_is_whole_without_the_metric_and_says_so(run):
    folder, result = run
    (seed,) = result.seeds
    assert seed.scores["validation"]["exact_match"] >= 0
    lost = {check.name for check in seed.checks if not check.passed}
    assert lost == {f"metric {key}" for key in facts_of("rouge").keys}
    assert all(WHY in check.note for check in seed.checks if not check.passed)
    assert (folder / "report.html").is_file()
    assert (
        json.loads((folder / "result.json").read_text())["seeds"][0]["scores"]["validation"][
            "rougeL"
        ]
        is None
    )


def test_its_command_ends_with_1(run, lorakit_cli):
    done = lorakit_cli("train", "quickstart_generate", *SHORT, "--runs", run[0].parent, "--json")
    assert done.code == 1
    assert done.json["checks_passed"] is False
    assert "checks passed" not in done.err
    assert f"metric rougeL: {WHY}" in done.err


def test_an_evaluation_gives_the_others(run, broken, lorakit_cli, tmp_path):
    broken("rouge", MetricError(WHY))
    done = lorakit_cli("eval", run[0], "--out", tmp_path / "out", "--json")
    assert done.code == 1
    assert done.json["scores"]["validation"]["exact_match"] >= 0
    assert done.json["failed"]["rougeL"] == WHY
    assert (tmp_path / "out" / "validation.jsonl").is_file()
    assert "validation  exact_match" in done.err
    assert "rougeL nan" not in done.err


def test_the_metric_that_chooses_fails(broken, tmp_path, lorakit_cli):
    """No state is better than another then; the run ends, and its exit code says so."""
    broken("exact_match", MetricError(WHY))
    done = lorakit_cli("train", "quickstart_generate", *SHORT, "--runs", tmp_path, "--json")
    assert done.code == 1
    assert done.json["scores"]["validation/exact_match"] is None
    assert done.json["scores"]["validation/rougeL"] >= 0


def test_a_run_that_cannot_choose_a_state_is_refused_before_training(
    monkeypatch, tmp_path, lorakit_cli
):
    """METEOR as the only metric, where its tables are not installed."""
    from lorakit.metrics import meteor

    monkeypatch.setattr(meteor, "find", lambda *_: None)
    done = lorakit_cli(
        "train", "quickstart_generate", *SHORT, "task.metrics=[meteor]", "--runs", tmp_path
    )
    assert done.code == 2
    assert "meteor, which is not available" in done.err
    assert "step 1" not in done.err
