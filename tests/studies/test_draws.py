"""Table 16 draws other examples for each seed; Table 8 asks after examples."""

from __future__ import annotations

import pytest

from lorakit.errors import RecipeError
from lorakit.recipe.load import load_recipe
from lorakit.runs.identity import digest_of
from lorakit.studies.paper_plan import Selection, load_reproduction
from lorakit.tasks import Data, Example
from lorakit.tasks.mnli_causal import MnliCausal

EXAMPLES = [Example(f"train-{i}", "text") for i in range(1000)]


def drawn(count: int, seed: int) -> list[str]:
    return [one.id for one in Data(sample=count).drawn(EXAMPLES, seed)]


def test_each_seed_draws_its_own_and_always_the_same():
    first, second = drawn(100, 0), drawn(100, 1)
    assert len(set(first)) == len(first) == 100
    assert first == drawn(100, 0)
    # 10 are expected in both
    assert len(set(first) & set(second)) < 30
    assert first != [one.id for one in EXAMPLES[:100]]
    # in the file's order
    assert first == sorted(first, key=lambda id: int(id.partition("-")[2]))


def test_the_draw_is_the_same_in_every_version():
    """Another one would train a resumed run, or another seed of a study, on other examples."""
    assert [one.id for one in Data(sample=5).drawn(EXAMPLES[:20], 0)] == [
        f"train-{i}" for i in (1, 3, 4, 8, 15)
    ]


def test_all_or_too_many():
    assert Data().drawn(EXAMPLES, 0) == Data(sample=1000).drawn(EXAMPLES, 0) == EXAMPLES
    with pytest.raises(RecipeError, match=r"data.sample: 1001 of 1000 training examples"):
        drawn(1001, 0)


def test_it_is_in_the_identity_and_its_absence_is_not():
    plain = load_recipe("quickstart").recipe
    assert digest_of(plain) == digest_of(load_recipe("quickstart", ["data.sample=null"]).recipe)
    assert digest_of(plain) != digest_of(load_recipe("quickstart", ["data.sample=100"]).recipe)


def test_table_16_draws():
    cells = load_reproduction("table16", Selection(rows=["lora"])).cells
    found = {run: cell.loaded.recipe.data for (_, run), cell in cells.items()}
    assert {run: data.sample for run, data in found.items()} == {
        "mnli_100": 100,
        "mnli_1k": 1000,
        "mnli_10k": 10000,
        "mnli_392k": None,
    }
    assert not any(data.limit for data in found.values())


class TestShots:
    @pytest.fixture
    def folder(self, tmp_path):
        head = "index\tgenre\tsentence1\tsentence2\tgold_label\n"
        labels = ("entailment", "neutral", "contradiction")
        rows = [f"{i}\tx\tPremise {i}.\tClaim {i}.\t{labels[i % 3]}\n" for i in range(12)]
        (tmp_path / "MNLI").mkdir()
        for name in ("train", "dev_matched", "dev_mismatched"):
            (tmp_path / "MNLI" / f"{name}.tsv").write_text(head + "".join(rows))
        return tmp_path

    def test_two_of_each_label_are_before_every_prompt(self, folder):
        data = Data(path=str(folder), limit={"train": 1})
        task = MnliCausal(shots=2)
        texts = [one.text for one in task.read("validation_matched", data)]
        plain = [one.text for one in MnliCausal().read("validation_matched", data)]
        before = {text.removesuffix(end) for text, end in zip(texts, plain, strict=True)}
        [shots] = before
        answers = [line for line in shots.splitlines() if line.startswith("Answer:")]
        assert sorted(answers) == sorted(
            [f"Answer: {word}" for word in ("True", "Neither", "False") for _ in range(2)]
        )
        assert shots.endswith("\n\n")
        # in the order of a draw, and not by label
        assert answers[:3] == ["Answer: Neither", "Answer: True", "Answer: Neither"]

    def test_another_seed_shows_others(self, folder):
        data = Data(path=str(folder))
        found = {
            MnliCausal(shots=1, shots_seed=seed).read("train", data)[0].text for seed in range(5)
        }
        assert len(found) > 1

    def test_table_8_does_not_train(self):
        cells = load_reproduction("table8", Selection(rows=["few_shot"])).cells
        [recipe] = [cell.loaded.recipe for cell in cells.values()]
        assert (recipe.train.max_steps, recipe.task.shots) == (1, 2)  # type: ignore[attr-defined]
        assert recipe.train.learning_rate < 1e-20
