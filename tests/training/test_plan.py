"""Which examples meet in a step: each once, and the same whatever the number of processes and the
micro batch."""

from __future__ import annotations

import os

import pytest

from lorakit.errors import RecipeError
from lorakit.recipe.load import load_recipe
from lorakit.training.plan import GROUP, Shares, epoch_batches, own_part, share, steps_per_epoch

CUTS = [(1, None), (1, 1), (1, 3), (2, None), (2, 3), (2, 1), (4, None), (4, 1), (3, 2)]


def _lengths(n: int) -> list[int]:
    return [5 + (i * 37) % 90 for i in range(n)]


@pytest.mark.parametrize("by_length", [False, True])
@pytest.mark.parametrize(("n", "size"), [(100, 8), (96, 8), (5, 8), (1, 1), (1000, 4), (801, 2)])
def test_every_example_exactly_once(n, size, by_length):
    batches = epoch_batches(_lengths(n), size, seed=0, epoch=0, by_length=by_length)
    assert sorted(i for batch in batches for i in batch) == list(range(n))
    assert len(batches) == steps_per_epoch(n, size) == -(-n // size)
    assert sorted(map(len, batches), reverse=True)[: n // size] == [size] * (n // size)


@pytest.mark.parametrize("by_length", [False, True])
def test_a_plan_is_of_its_seed_and_epoch(by_length):
    def plan(seed, epoch):
        return epoch_batches(_lengths(200), 8, seed, epoch, by_length)

    assert plan(0, 0) == plan(0, 0)
    assert len({str(plan(seed, epoch)) for seed in (0, 1, 2) for epoch in (0, 1, 2)}) == 9


@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (3, 1), (1, 3)])
def test_the_order_is_that_of_every_version(seed, epoch):
    """By hand. A checkpoint holds the number of a step and not its examples, so a run that a later
    version resumes must meet the same ones."""
    import numpy as np

    n, size = 250, 2
    lengths = _lengths(n)
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(n).tolist()
    plain = [order[i : i + size] for i in range(0, n, size)]
    assert epoch_batches(lengths, size, seed, epoch, by_length=False) == plain
    long_first = [
        sorted(order[i : i + 50 * size], key=lambda i: -lengths[i]) for i in range(0, n, 50 * size)
    ]
    cut = [group[i : i + size] for group in long_first for i in range(0, len(group), size)]
    grouped = [cut[i] for i in rng.permutation(len(cut))]
    assert epoch_batches(lengths, size, seed, epoch, by_length=True) == grouped


def test_the_plan_does_not_touch_the_global_random_state():
    import numpy as np
    import torch

    torch.manual_seed(0)
    np.random.seed(0)
    before = torch.get_rng_state().clone(), str(np.random.get_state())
    epoch_batches(_lengths(50), 8, 3, 0, True)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert str(np.random.get_state()) == before[1]


def test_grouping_by_length_pads_little_and_still_mixes():
    n, size = 2 * GROUP * 8, 8
    lengths = _lengths(n)

    def padding(batches):
        return sum(
            max(lengths[i] for i in b) * len(b) - sum(lengths[i] for i in b) for b in batches
        )

    plain, grouped = (epoch_batches(lengths, size, 0, 0, by_length) for by_length in (False, True))
    assert padding(grouped) < 0.1 * padding(plain)
    longest = [max(lengths[i] for i in batch) for batch in grouped]
    assert longest != sorted(longest)
    assert longest != sorted(longest, reverse=True)


@pytest.mark.parametrize(("processes", "micro"), CUTS)
def test_a_batch_is_cut_without_loss_or_doubling(processes, micro):
    size = 12
    shares = share(size, micro, processes)
    for batch in epoch_batches(_lengths(100), size, 0, 0, True):  # the last one holds four
        parts = [own_part(batch, shares, rank) for rank in range(processes)]
        assert sorted(i for own in parts for part in own for i in part) == sorted(batch)
        assert {len(own) for own in parts} == {shares.accumulation}
        assert all(len(part) <= shares.micro for own in parts for part in own)


@pytest.mark.parametrize(
    ("size", "micro", "processes", "wanted"),
    [
        (32, None, 1, Shares(1, 32, 1)),
        (32, 8, 1, Shares(1, 8, 4)),
        (32, 8, 2, Shares(2, 8, 2)),
        (32, None, 4, Shares(4, 8, 1)),
        (32, 64, 1, Shares(1, 32, 1)),
        (32, 64, 4, Shares(4, 8, 1)),
        (1, None, 1, Shares(1, 1, 1)),
    ],
)
def test_how_a_global_batch_is_shared(size, micro, processes, wanted):
    assert share(size, micro, processes) == wanted


@pytest.mark.parametrize(
    ("size", "micro", "processes", "message"),
    [
        (32, None, 3, r"global_batch_size 32 cannot be shared by 3 processes; take 30"),
        (2, None, 4, r"global_batch_size 2 cannot be shared by 4 processes; take 4"),
        (32, 5, 1, r"micro_batch_size 5 does not divide the 32 examples"),
        (32, 12, 2, r"micro_batch_size 12 does not divide the 16 examples that each of 2 process"),
    ],
)
def test_a_batch_that_cannot_be_cut_evenly_is_refused(size, micro, processes, message):
    with pytest.raises(RecipeError, match=message):
        share(size, micro, processes)


def test_a_small_last_batch_spreads_over_the_processes():
    shares = share(8, 2, 2)
    assert [own_part([3, 1, 2], shares, rank) for rank in (0, 1)] == [[[3, 2], []], [[1], []]]


@pytest.mark.parametrize(
    ("recipe", "folder", "size"),
    [("glue_sst2", "glue", 16), ("glue_mrpc", "glue", 16), ("e2e", "e2e_nlg", 8)],
)
def test_real_lengths_are_padded_by_less_than_six_percent(recipe, folder, size):
    """By words, for no tokenizer is at hand; the same law of lengths."""
    data = os.environ.get("LORAKIT_DATA")
    if not data:
        pytest.skip("LORAKIT_DATA names no folder with the data sets")
    loaded = load_recipe(recipe, [f"data.path={data}/{folder}"]).recipe
    examples = loaded.task.read("train", loaded.data)
    lengths = [len(f"{e.text} {e.pair or ''} {e.target}".split()) + 3 for e in examples]
    batches = epoch_batches(lengths, size, 0, 0, by_length=True)
    assert sum(max(lengths[i] for i in b) * len(b) for b in batches) <= 1.06 * sum(lengths)
