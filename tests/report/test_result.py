"""Results: the numbers of the summary, and the file."""

from __future__ import annotations

import json
import math
import statistics

import pytest

from lorakit.errors import DataError, InputError
from lorakit.recipe.expect import Published
from lorakit.runs.result import Check, Result, failed_checks, summary, write_whole


def row_of(result, metric="accuracy", split="validation"):
    return next(row for row in summary(result) if (row.split, row.metric) == (split, metric))


def test_the_summary_by_hand(make_result):
    row = row_of(make_result())
    assert row.values == (90.0, 89.5, 90.4)
    assert row.mean == pytest.approx(89.96666667)
    assert (
        row.std == pytest.approx(statistics.stdev([90.0, 89.5, 90.4])) == pytest.approx(0.45092498)
    )
    assert row.median == 90.0
    assert row.base_mean == pytest.approx(32.5)  # 31.5, 32.5, 33.5
    assert (row.published, row.published_spread) == (89.7, 0.7)
    assert row.difference == pytest.approx(0.26666667)
    assert row.inside is True


def test_one_seed_has_no_spread(make_result):
    row = row_of(make_result((90.0,)))
    assert (row.mean, row.std, row.median) == (90.0, None, 90.0)


@pytest.mark.parametrize(
    ("accuracy", "published", "comparable", "inside"),
    [
        (90.4, Published(value=89.7, spread=0.7), True, True),  # 90.4 - 89.7 is 0.7000000000000028
        (88.5, Published(value=89.2, spread=0.7), True, True),
        # both printed numbers are rounded: 89.7 ± 0.7 may be 89.74 ± 0.74, which holds 90.48
        (90.48, Published(value=89.7, spread=0.7), True, True),
        (90.51, Published(value=89.7, spread=0.7), True, False),
        (89.76, Published(value=89.7, spread=0.0), True, True),
        (89.71, Published(value=89.7, spread=0.7, kind="variance"), True, None),
        (88.0, Published(value=89.7, spread=0.7), True, False),
        (90.0, Published(value=89.7), True, None),
        (90.0, Published(value=89.7, spread=0.7), False, None),
        (math.nan, Published(value=89.7, spread=0.7), True, None),
    ],
)
def test_inside_the_published_spread(make_result, accuracy, published, comparable, inside):
    result = make_result((accuracy,), published={"accuracy": published}, comparable=comparable)
    assert row_of(result).inside is inside


def two_splits(make_result, published):
    scores = {"matched": {"accuracy": 87.0}, "mismatched": {"accuracy": 86.0}}
    seed = make_result().seeds[0].model_copy(update={"scores": scores, "base_scores": {}})
    return make_result(splits=("matched", "mismatched"), seeds=(seed,), published=published)


@pytest.mark.parametrize(
    ("published", "first", "second"),
    [
        ({"accuracy": 87.5}, 87.5, None),  # a bare metric is of the split that selects
        ({"mismatched/accuracy": 86.9}, None, 86.9),
        ({"accuracy": 87.5, "mismatched/accuracy": 86.9}, 87.5, 86.9),
        (
            {"matched/accuracy": 87.4, "accuracy": 87.5},
            87.4,
            None,
        ),  # the one that names its split wins
    ],
)
def test_which_split_a_published_number_is_of(make_result, published, first, second):
    result = two_splits(
        make_result, {key: Published(value=value) for key, value in published.items()}
    )
    assert [row.published for row in summary(result)] == [first, second]
    assert [row.base_mean for row in summary(result)] == [None, None]


def test_what_was_published_and_not_measured_has_a_row(make_result):
    row = row_of(make_result(published={"bleu": Published(value=70.4)}), "bleu")
    assert math.isnan(row.mean)
    assert row.published == 70.4


def test_a_seed_without_a_metric_is_not_left_out_in_silence(make_result):
    first, second, third = make_result().seeds
    result = make_result(
        seeds=(first.model_copy(update={"scores": {"validation": {"f1": 1.0}}}), second, third)
    )
    row = row_of(result)
    assert len(row.values) == 3
    assert all(math.isnan(value) for value in (row.mean, row.median, row.std, row.difference))


def test_failed_checks(make_result):
    bad = Check(name="reload", passed=False, value=0.3, tolerance=1e-5)
    first, second, third = make_result().seeds
    result = make_result(
        seeds=(first, second.model_copy(update={"checks": (*second.checks, bad)}), third)
    )
    assert failed_checks(result) == [(1, bad)]


def test_the_file_gives_the_same_result(make_result, tmp_path):
    result = make_result()
    result.write(tmp_path / "result.json")
    assert Result.read(tmp_path / "result.json") == result
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_not_a_number_is_null_in_the_file_and_comes_back(make_result, tmp_path):
    result = make_result((math.nan, 90.0), recipe_values={"a": math.nan})
    result.write(tmp_path / "result.json")

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    plain = json.loads((tmp_path / "result.json").read_text(), parse_constant=refuse)
    assert plain["seeds"][0]["scores"]["validation"]["accuracy"] is None
    assert json.dumps(result.model_dump(mode="json", exclude={"recipe_values"}), allow_nan=False)
    again = Result.read(tmp_path / "result.json")
    assert math.isnan(again.seeds[0].scores["validation"]["accuracy"])
    assert again.seeds[1] == result.seeds[1]


def test_writing_that_fails_leaves_the_old_file_and_no_other(make_result, tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    make_result().write(path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(InputError, match=r"result\.json: No space left on device"):
        make_result((1.0,)).write(path)
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["result.json"]


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"cannot write .*No such file or directory"):
        write_whole(tmp_path / "none" / "x.txt", "text")


def changed(plain, **more):
    return json.dumps({**plain, **more})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text, plain: text[: len(text) // 2], "line"),
        (lambda text, plain: "", "EOF"),
        (lambda text, plain: "\x00\xff", "line 1"),
        (lambda text, plain: "[1, 2]", "object"),
        (lambda text, plain: changed(plain, primary=3), "primary is 3"),
        (lambda text, plain: changed(plain, colour="red"), "colour is 'red'"),
        (lambda text, plain: changed(plain, seeds=[]), "seeds is"),
        (
            lambda text, plain: changed(plain, counts={**plain["counts"], "sites": "24"}),
            "counts.sites is '24'",
        ),
        (
            lambda text, plain: json.dumps({k: v for k, v in plain.items() if k != "task"}),
            "task is absent",
        ),
    ],
)
def test_a_damaged_file_says_what_and_where(make_result, tmp_path, damage, message):
    path = tmp_path / "result.json"
    text = make_result().model_dump_json()
    path.write_text(damage(text, json.loads(text)), encoding="utf-8")
    with pytest.raises(DataError, match=message) as caught:
        Result.read(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"cannot read .*none\.json: No such file"):
        Result.read(tmp_path / "none.json")
