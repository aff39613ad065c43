"""Makes what the quickstart needs offline: text of a small world, two tiny base models pretrained
on it, and two tasks.

    python scripts/make_assets.py            # everything, into lorakit/assets (some minutes)
    python scripts/make_assets.py --only data

All text comes from the templates below, so nothing here is anybody's data. The same seed gives the
same text everywhere, and the same weights on the same machine and versions.

The world: people visit places and have opinions about things there; restaurants have a name, food,
an area, a price, stars. Pretraining shows an encoder (RoBERTa's shape, masked words) and a decoder
(GPT-2's shape, next word) what the words of that world mean. The tasks then ask for something that
pretraining did not: the verdict on the first of two things, and one fixed way to describe a
restaurant.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

SEED = 2106
ENCODER_STEPS, DECODER_STEPS = 700, 1500
ASSETS = Path(__file__).resolve().parent.parent / "lorakit" / "assets"

# ---------------------------------------------------------------- words

PEOPLE = (
    "Anna Ben Clara David Emma Felix Grace Henry Iris Jack Kate Leo Maria Noah Olga Paul Rosa Sam "
    "Tina Victor "
    "Wendy Yusuf Zoe Amir Bella Carlos Diana Elif Frank Hana Ivan Julia"
).split()
CITIES = (
    "Oslo Paris Rome Lisbon Vienna Prague Dublin Athens Cairo Lima Quito Tokyo Seoul Delhi "
    "Boston Berlin"
).split()
PLACES = (
    "hotel cafe museum library market station theatre castle harbour school inn bakery gallery "
    "hostel lodge farm"
).split()
THINGS = (
    "soup bread coffee tea cake salad cheese fish wine juice waiter cook guide driver room bed "
    "view garden pool music light bus boat map menu kitchen terrace lobby tour film play song "
    "book bill breakfast dinner window "
    "shower service path"
).split()
GOOD = (
    "good great lovely excellent wonderful pleasant superb fine charming perfect splendid "
    "delightful brilliant nice "
    "impressive fantastic"
).split()
BAD = (
    "bad poor awful terrible dreadful dull horrible disappointing unpleasant miserable weak nasty "
    "shabby "
    "dismal mediocre "
    "annoying"
).split()
WHEN = [
    "last week",
    "yesterday",
    "in May",
    "on Sunday",
    "this morning",
    "two days ago",
    "in winter",
    "last night",
]
HOW = ["very", "really", "quite", "so", "rather", "simply"]

# ---------------------------------------------------------------- opinions: the encoder's world

PLAIN = [
    "the {thing} was {word}",
    "the {thing} was {how} {word}",
    "we found the {thing} {word}",
    "everybody called the {thing} {word}",
    "the {thing} turned out to be {word}",
    "the {thing} was {word} and {also}",
    "the {thing} was {word}, even {also}",
    "we found the {thing} {word} and {also}",
    "the {thing} was {how} {word}, {also} even",
]
PRAISE = ["liked", "praised", "enjoyed", "loved", "recommends"]
BLAME = ["disliked", "blamed", "hated", "regrets", "avoids"]


def zipf(rng: random.Random, words: Sequence[str]) -> str:
    """One of `words`, the n-th with weight 1/n: as in real text, a few frequent words carry most of
    the meaning."""
    return rng.choices(words, [1 / n for n in range(1, len(words) + 1)])[0]


def opinion(rng: random.Random, thing: str, good: bool) -> str:
    """A clause about `thing` that comes out positive or negative."""
    word, also = (zipf(rng, GOOD if good else BAD) for _ in range(2))
    return rng.choice(PLAIN).format(thing=thing, word=word, also=also, how=rng.choice(HOW))


def setting(rng: random.Random) -> str:
    """Where and when, or nothing: words that do not matter for the verdict."""
    place, city = rng.choice(PLACES), rng.choice(CITIES)
    return rng.choice(
        [
            "",
            "",
            f"at the {place} in {city} ",
            f"{rng.choice(WHEN)} in {city} ",
            f"{rng.choice(WHEN)} ",
        ]
    )


def review(rng: random.Random, thing: str, good: bool) -> str:
    return sentence(setting(rng) + opinion(rng, thing, good))


def sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def opinion_text(rng: random.Random) -> str:
    """For pretraining: a review, and what somebody made of it."""
    thing, good = rng.choice(THINGS), rng.random() < 0.5
    reaction = f"{rng.choice(PEOPLE)} {zipf(rng, PRAISE if good else BLAME)} the {thing}"
    return f"{review(rng, thing, good)} {sentence(reaction)}"


def opinion_row(rng: random.Random, good: bool) -> dict[str, str]:
    """For the task: two things fare differently; the verdict is on the first.

    What the words mean is not enough.
    """
    first, second = rng.sample(THINGS, 2)
    contrast = rng.choice([", but ", ", while ", "; still, ", ", yet "])
    text = sentence(
        setting(rng) + opinion(rng, first, good) + contrast + opinion(rng, second, not good)
    )
    return {"text": text, "label": "positive" if good else "negative"}


# ---------------------------------------------------------------- restaurants: the decoder's world

COLOURS = (
    "Blue Red Green Golden Silver White Black Purple Old Little Happy Quiet Lucky Merry Proud "
    "Hungry"
).split()
ANIMALS = (
    "Owl Fox Bear Swan Lion Horse Wolf Crane Otter Goose Dragon Rabbit Salmon Raven Badger Pony"
).split()
FOODS = (
    "Thai Italian Indian French Greek Mexican Turkish Polish Korean Spanish Persian Irish Swiss "
    "Danish Cuban Nepali"
).split()
AREAS = (
    "riverside harbour station park castle market library museum bridge school theatre airport "
    "forest lake"
).split()
PRICES = ["cheap", "affordable", "expensive"]
NUMBERS = ["one", "two", "three", "four", "five"]


@dataclass(frozen=True)
class Restaurant:
    """What is known of a restaurant; None is not known."""

    name: str
    food: str | None = None
    area: str | None = None
    price: str | None = None
    stars: int | None = None
    children: bool | None = None

    def facts(self) -> dict[str, str]:
        """What is known, as it is written in a record."""
        known = {f.name: getattr(self, f.name) for f in fields(self)}
        words = {True: "yes", False: "no"}
        return {
            k: words[v] if isinstance(v, bool) else str(v)
            for k, v in known.items()
            if v is not None
        }


KEYS = ("food", "area", "price", "stars", "children")
TOLD = ("price", "stars", "children")
"""What the task tells: so short a pretraining learns to copy these, and not yet the food and the
area."""


def restaurant(rng: random.Random, keys: Sequence[str] = KEYS, least: int = 3) -> Restaurant:
    """A restaurant of which at least `least` of the facts `keys` are known, and the name."""
    known = {
        "food": rng.choice(FOODS),
        "area": rng.choice(AREAS),
        "price": rng.choice(PRICES),
        "stars": rng.randint(1, 5),
        "children": rng.random() < 0.5,
    }
    kept = rng.sample(sorted(keys), rng.randint(least, len(keys)))
    return Restaurant(
        f"{rng.choice(COLOURS)} {rng.choice(ANIMALS)}",
        **{k: v for k, v in known.items() if k in kept},
    )


LOOSE = {  # one sentence per fact, as the decoder sees it while pretraining
    "food": [
        "{name} serves {food} food.",
        "You can eat {food} dishes at {name}.",
        "The cooks at {name} are {food}.",
    ],
    "area": [
        "{name} is near the {area}.",
        "You will find {name} by the {area}.",
        "From the {area} you can see {name}.",
    ],
    "price": [
        "Dinner at {name} is {price}.",
        "{name} is {price}.",
        "People say that {name} is {price}.",
    ],
    "stars": [
        "{name} got {stars} of five stars.",
        "Guests rate {name} {stars} of five.",
        "It has {stars} of five stars.",
    ],
    "yes": [
        "Families like {name}.",
        "Children are welcome at {name}.",
        "{name} has a menu for children.",
    ],
    "no": [
        "{name} is not for children.",
        "Families should not go to {name}.",
        "At {name} you see no children.",
    ],
}


def restaurant_text(rng: random.Random) -> str:
    """For pretraining: a record in any order and some sentences about it, one per fact."""
    r = restaurant(rng)
    facts = list(r.facts().items())
    rng.shuffle(facts)
    words = {**r.facts(), "stars": NUMBERS[(r.stars or 1) - 1]}
    told = [
        rng.choice(LOOSE[value if key == "children" else key]).format(**words)
        for key, value in facts
        if key != "name"
    ]
    return (
        rng.choice(["; ", " | ", ", "]).join(f"{k}: {v}" for k, v in facts) + "\n" + " ".join(told)
    )


def restaurant_row(r: Restaurant) -> dict[str, str]:
    """For the task: the record, and one fixed way to tell it.

    Its words are those of pretraining, for embeddings that were never trained stay frozen.
    """
    words = {**r.facts(), "stars": NUMBERS[(r.stars or 1) - 1]}
    told = [
        LOOSE[value if key == "children" else key][0]
        for key, value in r.facts().items()
        if key != "name"
    ]
    prompt = " | ".join(f"{key}: {value}" for key, value in r.facts().items())
    return {"prompt": prompt, "completion": " ".join(told).format(**words)}


# ---------------------------------------------------------------- the two tasks' files

Rows = list[dict[str, str]]


def distinct(draw: Callable[[int], dict[str, str]], sizes: dict[str, int]) -> dict[str, Rows]:
    """Splits of the given sizes without a row in common or twice; `draw(n)` gives a candidate for
    row n of a split."""
    seen: set[str] = set()
    splits: dict[str, Rows] = {}
    for split, size in sizes.items():
        rows = splits[split] = []
        while len(rows) < size:
            row = draw(len(rows))
            if row and (key := json.dumps(row, sort_keys=True)) not in seen:
                seen.add(key)
                rows.append(row)
    return splits


def opinion_data(seed: int) -> dict[str, Rows]:
    """The classification task: as many positive as negative rows, mixed."""
    rng = random.Random(f"{seed}/opinions")
    splits = distinct(
        lambda n: opinion_row(rng, good=n % 2 == 0), {"train": 1200, "validation": 400}
    )
    for rows in splits.values():
        rng.shuffle(rows)
    return splits


def restaurant_data(seed: int) -> dict[str, Rows]:
    """The generation task."""
    rng = random.Random(f"{seed}/restaurants")
    return distinct(
        lambda n: restaurant_row(restaurant(rng, TOLD, 2)), {"train": 1500, "validation": 200}
    )


def write_rows(folder: Path, splits: dict[str, Rows]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        (folder / f"{split}.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
        )


# ---------------------------------------------------------------- tokenizer


def make_tokenizer(texts: list[str], size: int = 1536, longest: int = 128) -> Any:
    """Byte-level BPE as RoBERTa and GPT-2 have it, but a word is one token wherever it stands in a
    sentence."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        ),
    )
    names = dict(
        zip(
            ("bos_token", "pad_token", "eos_token", "unk_token", "mask_token"), special, strict=True
        )
    )
    return PreTrainedTokenizerFast(tokenizer_object=bpe, model_max_length=longest, **names)


# ---------------------------------------------------------------- pretraining


def make_encoder(tokenizer: Any) -> nn.Module:
    from transformers import RobertaConfig, RobertaForMaskedLM

    return RobertaForMaskedLM(
        RobertaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=384,
            max_position_embeddings=tokenizer.model_max_length
            + 2,  # RoBERTa counts positions from pad_token_id + 1
            type_vocab_size=1,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            bos_token_id=tokenizer.bos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def make_decoder(tokenizer: Any) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_embd=128,
            n_layer=3,
            n_head=4,
            n_inner=384,
            n_positions=tokenizer.model_max_length,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def masked_batches(tokenizer: Any, rng: random.Random, size: int) -> Iterator[dict[str, Tensor]]:
    """Endless new reviews with words to predict: 80 % of those are masked, 10 % swapped, 10 % left
    (BERT)."""
    import torch

    rate = torch.full((len(tokenizer),), 0.1)
    rate[tokenizer(" ".join(GOOD + BAD + PRAISE + BLAME))["input_ids"]] = (
        0.3  # what the world is about
    )
    rate[tokenizer(" ".join(PEOPLE + CITIES + PLACES + WHEN))["input_ids"]] = (
        0.0  # nobody could guess these
    )
    rate[tokenizer.all_special_ids] = 0.0
    while True:
        fields = tokenizer(
            [opinion_text(rng) for _ in range(size)], padding=True, return_tensors="pt"
        )
        ids = fields["input_ids"]
        chosen = torch.rand(ids.shape) < rate[ids]
        how = torch.rand(ids.shape)
        swapped = torch.where(how < 0.9, torch.randint_like(ids, len(tokenizer)), ids)
        told = torch.where(how < 0.8, tokenizer.mask_token_id, swapped)
        yield {
            "input_ids": torch.where(chosen, told, ids),
            "attention_mask": fields["attention_mask"],
            "labels": torch.where(chosen, ids, -100),
        }


def running_batches(tokenizer: Any, rng: random.Random, size: int) -> Iterator[dict[str, Tensor]]:
    """Endless new texts, one after the other with </s> between, cut into rows of the model's
    length."""
    import torch

    ids: list[int] = []
    length = tokenizer.model_max_length
    while True:
        while len(ids) < size * length:
            texts = [restaurant_text(rng) for _ in range(256)]
            for tokens in tokenizer(texts)["input_ids"]:
                ids += [*tokens, tokenizer.eos_token_id]
        rows = torch.tensor(ids[: size * length]).view(size, length)
        ids = ids[size * length :]
        yield {"input_ids": rows, "labels": rows}


def pretrain(
    model: nn.Module, batches: Iterator[dict[str, Tensor]], steps: int, learning_rate: float
) -> float:
    """AdamW, 5 % warm-up, then a cosine to zero.

    Gives the mean loss of the last 50 steps, in nats per token.
    """
    import torch

    optimizer = torch.optim.AdamW(
        model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01
    )
    warmup = steps // 20
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda n: min(
            (n + 1) / warmup, 0.5 + 0.5 * math.cos(math.pi * max(0, n - warmup) / (steps - warmup))
        ),
    )
    model.train()
    losses, start = [], time.time()
    for step, batch in zip(range(1, steps + 1), batches, strict=False):
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if step % 100 == 0:
            print(
                f"  step {step:5d}  loss {sum(losses[-50:]) / len(losses[-50:]):.3f}  "
                f"{time.time() - start:4.0f} s",
                flush=True,
            )
    return sum(losses[-50:]) / len(losses[-50:])


def save(model: nn.Module, tokenizer: Any, folder: Path) -> None:
    """In Hugging Face's layout; half precision halves the package, and the models are small enough
    not to notice."""
    model.half().save_pretrained(folder)  # type: ignore[operator]
    tokenizer.save_pretrained(folder)
    for name in ("generation_config.json",):
        (folder / name).unlink(missing_ok=True)


def make_models(folder: Path, seed: int, only: str | None = None) -> None:
    """Both base models, or one of them, from scratch."""
    import torch

    rng = random.Random(f"{seed}/tokenizer")
    texts = [opinion_text(rng) for _ in range(4000)] + [restaurant_text(rng) for _ in range(4000)]
    for name, make, steps, rate, size in (
        ("tiny_encoder", make_encoder, ENCODER_STEPS, 2e-3, 64),
        ("tiny_gpt2", make_decoder, DECODER_STEPS, 3e-3, 16),
    ):
        if only not in (None, name):
            continue
        torch.manual_seed(seed)
        rng = random.Random(f"{seed}/{name}")
        tokenizer = make_tokenizer(texts)
        if name == "tiny_encoder":
            add_ends(tokenizer)
        model = make(tokenizer)
        batches = (masked_batches if name == "tiny_encoder" else running_batches)(
            tokenizer, rng, size
        )
        print(f"{name}: {sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
        loss = pretrain(model, batches, steps, rate)
        print(f"{name}: {loss:.3f} nats per token", flush=True)
        save(model, tokenizer, folder / name)


def add_ends(tokenizer: Any) -> None:
    """<s> before and </s> after a text, as RoBERTa has it; a text pair is one text, </s>, and the
    other."""
    from tokenizers import processors

    ends = [("<s>", tokenizer.bos_token_id), ("</s>", tokenizer.eos_token_id)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=ends
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=["data", "tiny_encoder", "tiny_gpt2"])
    parser.add_argument("--to", type=Path, default=ASSETS, help="folder; default: lorakit/assets")
    arguments = parser.parse_args()
    if arguments.only in (None, "data"):
        write_rows(arguments.to / "quickstart", opinion_data(SEED))
        write_rows(arguments.to / "quickstart_generate", restaurant_data(SEED))
    if arguments.only != "data":
        make_models(arguments.to, SEED, arguments.only)


if __name__ == "__main__":
    main()
