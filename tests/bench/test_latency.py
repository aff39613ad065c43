"""Latency: a merged model has the parts and the time of its base; adapters are measured."""

from __future__ import annotations

import copy
import json
import re
import statistics

import pytest
import torch

from lorakit.bench import Setting, benches
from lorakit.bench._rounds import Rounds
from lorakit.bench.latency import PUBLISHED, _Models, no_slower, plain_again, read_shapes
from lorakit.errors import InputError
from lorakit.recipe.load import load_recipe
from tests.commands import python

BENCH = ["-m", "lorakit", "bench", "latency", "quickstart"]


@pytest.fixture(scope="module", params=["quickstart", "quickstart_generate"])
def models(request):
    recipe = load_recipe(request.param, []).recipe
    return _Models(recipe, Setting(layers=2))


def test_merged_is_plain_and_other_weights(models):
    assert plain_again(models.merged, models.base).passed
    changed = [
        name
        for (name, a), b in zip(
            models.merged.named_parameters(), models.base.parameters(), strict=True
        )
        if not torch.equal(a, b)
    ]
    assert len(changed) in (
        2,
        4,
    )  # query and value of two layers, or the fused weights that hold both


def test_what_is_left_behind_is_named(models):
    assert not plain_again(models.ways["LoRA, unmerged"], models.base).passed
    hooked = copy.deepcopy(models.base)
    name, module = list(hooked.named_modules())[-1]
    module.register_forward_hook(lambda *_: None)
    assert plain_again(hooked, models.base).note.endswith(f"not so: {name}")


def test_the_ways_share_what_is_frozen(models):
    base = {p.data_ptr() for p in models.base.parameters()}
    assert base <= {p.data_ptr() for p in models.ways["LoRA, unmerged"].parameters()}
    assert not base & {p.data_ptr() for p in models.merged.parameters()}


@pytest.mark.slow
def test_merged_takes_no_longer():
    """On a shape where passes take longer than Python does; the best of three tries counts, because
    the machine may be busy."""
    recipe = load_recipe("quickstart", []).recipe
    found = []
    for _ in range(3):
        measured = benches.get("latency").run(
            recipe, Setting(against=(), layers=2, rounds=7, shapes="8x32")
        )
        found.append({check.name: check.passed for check in measured.checks})
        if all(found[-1].values()):
            break
    assert list(found[-1]) == ["merged is plain", "merged no slower, 8x32"]
    assert all(found[-1].values())


@pytest.mark.parametrize(
    ("merged", "again", "passed"),
    [
        ([1.1] * 7, [1.0] * 7, False),
        (
            [1.1] * 6 + [0.9],
            [1.0] * 7,
            True,
        ),  # slower in six of seven: chance does that once in sixteen
        ([1.1] * 6, [1.0] * 6, True),  # six rounds are too few
        ([1.1] * 7, [1.2] * 7, True),  # a copy of the base is as slow
        ([0.8] * 7, [0.7] * 7, True),
        ([1.1] * 17 + [0.9] * 3, [1.0] * 20, False),
        ([1.1] * 12 + [0.9] * 8, [1.0] * 20, True),
    ],
)
def test_slower_is_what_chance_and_a_copy_are_not(merged, again, passed):
    seconds = {"base": [1.0] * len(merged), "LoRA, merged": merged, "base, again": again}
    check = no_slower(Rounds(seconds), (1, 8))
    assert (check.passed, check.value) == (passed, statistics.median(merged))


@pytest.mark.slow
def test_bottlenecks_that_are_given_each_have_a_row():
    setting = Setting(against=(), rounds=2, layers=2, shapes="1x8", bottlenecks=(2, 16))
    measured = benches.get("latency").run(load_recipe("quickstart", []).recipe, setting)
    ways = [row[0] for row in measured.tables[0].rows]
    assert ways == [
        "base",
        "base, again",
        "LoRA, merged",
        "LoRA, unmerged",
        "Adapter-L 2",
        "Adapter-L 16",
        "Adapter-H 2",
        "Adapter-H 16",
    ]
    assert {ratio.of for ratio in measured.ratios} == {f"1x8: {way}" for way in ways[1:]}
    counts = dict(
        re.findall(r"(Adapter-\w, bottleneck \d+): ([\d,]+) parameters", "\n".join(measured.notes))
    )
    assert len(counts) == 4
    wide, narrow = (int(counts[f"Adapter-H, bottleneck {n}"].replace(",", "")) for n in (16, 2))
    assert wide - narrow == 2 * 2 * (16 - 2) * (
        2 * 128 + 1
    )  # two in each layer: down, up, and the bias of down


@pytest.mark.parametrize(("way", "width"), [("adapter_h", 111), ("adapter_l", 222)])
def test_table_1_has_adapters_of_11_million(way, width):
    """In GPT-2 medium: about 2 d m + m + d per adapter; a layer has two (H) or one (L)."""
    small = ["model.shape.vocab_size=8", "model.shape.n_positions=8"]
    models = _Models(load_recipe("e2e", small).recipe, Setting(layers=1))
    assert abs(models._wide(way, 11e6) - width) <= 2


@pytest.mark.slow
def test_published_numbers_are_next_to_their_shape():
    setting = Setting(against=(), rounds=2, layers=1, shapes="1x128,1x8")
    table = (
        benches.get("latency").run(load_recipe("quickstart_generate", []).recipe, setting).tables[0]
    )
    assert table.header == ("slow-down", "1x128", "published", "1x8")
    assert {row[0]: row[2] for row in table.rows if row[2] != "–"} == PUBLISHED[1, 128]
    assert "Quadro RTX8000, another device" in table.caption


@pytest.mark.parametrize(
    "text", ["", "32", "32x", "0x8", "8x0", "1x8;2x8", "table2", "-1x8", "1x9999999"]
)
def test_other_shapes_are_refused(text):
    with pytest.raises(InputError, match="BATCHxLENGTH"):
        read_shapes(text)


def test_shapes():
    assert read_shapes("32x512, 1x128,32x512") == [(32, 512), (1, 128)]


@pytest.mark.parametrize(
    ("recipe", "shapes", "said"),
    [("quickstart", "1x5000", "5000 tokens, and"), ("quickstart_full", "1x8", "method is full")],
)
def test_other_methods_and_long_shapes_are_refused(recipe, shapes, said):
    overrides = ["~method", "method.name=full"] if recipe.endswith("_full") else []
    loaded = load_recipe(recipe.removesuffix("_full"), overrides)
    with pytest.raises(InputError, match=said):
        benches.get("latency").checked(loaded.recipe, Setting(against=(), layers=1, shapes=shapes))


@pytest.mark.slow
def test_the_command_prints_a_table_and_draws(tmp_path):
    words = [
        "--shapes",
        "1x8",
        "--layers",
        "1",
        "--rounds",
        "2",
        "--picture",
        str(tmp_path / "slow.svg"),
    ]
    done = python(*BENCH, *words, "--format", "markdown")
    assert "passed: merged is plain" in done.stderr
    assert done.returncode == (1 if "FAILED" in done.stderr else 0), done.stderr
    assert "| LoRA, merged |" in done.stdout
    assert (tmp_path / "slow.svg").read_text().startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    said = python(*BENCH, *words[:6], "--json").stdout
    assert {check["name"] for check in json.loads(said)["checks"]} == {
        "merged is plain",
        "merged no slower, 1x8",
    }
    wrong = python(*BENCH, "--bottlenecks", "8,x")
    assert (wrong.returncode, "'x'" in wrong.stderr) == (2, True)
