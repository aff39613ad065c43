"""Made-up tables, questions and SQL as the task `wikisql` has them, for a base that has never
copied a column.

    python scripts/make_table_questions.py OUT [--examples 40000]
    lorakit train recipes/small_gpt2/tables.yaml model.name=BASE task.train=OUT/train.jsonl \
        task.validation=OUT/validation.jsonl

Every name is new: syllables, numbers, names of two or three words. No question, table or value is
WikiSQL's.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

from lorakit.metrics._wikisql import Query
from lorakit.tasks._sql import quoted, to_sql, with_names

SEED = 2106
SYLLABLES = [
    c + v
    for c in "bdfghjklmnprstvwz"
    for v in ("a", "e", "i", "o", "u", "an", "er", "il", "on", "us")
]
HEADS = [
    "name",
    "year",
    "date",
    "team",
    "player",
    "position",
    "city",
    "score",
    "points",
    "rank",
    "title",
    "winner",
    "opponent",
    "number",
    "country",
    "record",
    "location",
    "nation",
    "result",
    "round",
    "class",
]
ASKS = {
    0: [
        "What is the {c} when {w}?",
        "Which {c} has {w}?",
        "Name the {c} for {w}",
        "What {c} has {w}?",
        "Tell me the {c} that has {w}",
        "What was the {c} with {w}?",
    ],
    1: [
        "What is the highest {c} when {w}?",
        "What is the largest {c} with {w}?",
        "Name the most {c} for {w}",
    ],
    2: [
        "What is the lowest {c} when {w}?",
        "What is the smallest {c} with {w}?",
        "Name the least {c} for {w}",
    ],
    3: [
        "How many {c} are there when {w}?",
        "What is the number of {c} with {w}?",
        "How many {c} have {w}?",
    ],
    4: ["What is the total {c} when {w}?", "What is the sum of {c} with {w}?"],
    5: ["What is the average {c} when {w}?", "Name the average {c} for {w}"],
}
WHERE = {
    0: ["the {c} is {v}", "{c} of {v}", "a {c} of {v}", "{v} as the {c}", "{c} is {v}"],
    1: ["{c} is more than {v}", "a {c} larger than {v}"],
    2: ["{c} is less than {v}", "a {c} smaller than {v}"],
}


def word(rng: random.Random) -> str:
    made = "".join(rng.choices(SYLLABLES, k=rng.randint(1, 3)))
    return made.capitalize() if rng.random() < 0.6 else made


def column(rng: random.Random) -> str:
    head = rng.choice(HEADS) if rng.random() < 0.5 else word(rng)
    return (
        head.capitalize()
        if rng.random() < 0.3
        else f"{head} {word(rng)}"
        if rng.random() < 0.3
        else head
    )


def value(rng: random.Random) -> str | int:
    kind = rng.random()
    if kind < 0.3:
        return rng.choice((rng.randint(1, 99), rng.randint(1850, 2020), rng.randint(100, 99999)))
    if kind < 0.4:
        return f"{rng.randint(0, 9)}-{rng.randint(0, 9)}"
    return " ".join(word(rng) for _ in range(rng.randint(1, 3)))


def example(rng: random.Random) -> str:
    names = list(dict.fromkeys(column(rng) for _ in range(rng.randint(3, 7))))
    places = rng.sample(range(len(names)), k=min(len(names), 1 + rng.choice((1, 1, 1, 2, 2, 3))))
    aggregate = rng.choice((0, 0, 0, 0, 1, 2, 3, 3, 4, 5))
    conditions, said = [], []
    for at in places[1:]:
        found = value(rng)
        operator = rng.choice((0, 1, 2)) if isinstance(found, int) and rng.random() < 0.4 else 0
        conditions.append((at, operator, found))
        said.append(rng.choice(WHERE[operator]).format(c=names[at], v=found))
    asked = rng.choice(ASKS[aggregate]).format(c=names[places[0]], w=" and ".join(said))
    header = ", ".join(f"col{i} {quoted(name, chr(34))}" for i, name in enumerate(names))
    sql = to_sql(with_names(Query(places[0], aggregate, tuple(conditions)), names))
    return f"table: {header}\nquestion: {asked}\nSQL: {sql}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--examples", type=int, default=40_000)
    arguments = parser.parse_args()
    rng = random.Random(SEED)
    arguments.out.mkdir(parents=True, exist_ok=True)
    with (arguments.out / "train.jsonl").open("w", encoding="utf-8") as file:
        for _ in range(arguments.examples):
            file.write(json.dumps({"prompt": "", "completion": example(rng)}) + "\n")
    with (arguments.out / "validation.jsonl").open("w", encoding="utf-8") as file:
        for _ in range(200):
            asked, _, sql = example(rng).rpartition("SQL:")
            file.write(json.dumps({"prompt": f"{asked}SQL:", "completion": sql}) + "\n")


if __name__ == "__main__":
    main()
