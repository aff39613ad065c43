"""A small GPT-2 to pretrain where no pretrained one is available: shape, tokenizer and text, all
made from public data.

    python scripts/make_small_gpt2.py DATA OUT
    lorakit train recipes/small_gpt2/pretrain.yaml model.name=OUT/model task.train=OUT/train.jsonl \
        task.validation=OUT/validation.jsonl
    lorakit merge runs/small_gpt2-pretrain-* --to OUT/pretrained

DATA holds the original files: `webnlg_2017/` (XML), `dart/dart-v1.1.1-full-dev.json`,
`samsum/train.json[.gz]` and `wikisql/data/train*.jsonl[.gz]` with `*.tables*.jsonl`; what is absent
is left out, and said. Only training splits are read, and DART's development set (two thirds of
which are E2E's development set: never select on that one afterwards).

OUT/model: 6 layers of 384 with random weights and a byte-level BPE of 8,192. OUT/train.jsonl: plain
text to continue, a description after its facts, a summary after its dialogue, a question after its
table's header. OUT/validation.jsonl: 300 sets of facts with their descriptions, held out.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

SEED = 2106
VOCABULARY, LONGEST, HELD_OUT = 8192, 512, 300
END = "<|endoftext|>"
Pair = tuple[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    rng = random.Random(SEED)
    facts = list(dict.fromkeys([*webnlg(arguments.data, rng), *dart(arguments.data, rng)]))
    contexts = sorted({context for context, _ in facts})
    held_out = set(rng.sample(contexts, HELD_OUT))
    other = [*wikisql(arguments.data), *samsum(arguments.data)]
    train = [text(*pair) for pair in [*(p for p in facts if p[0] not in held_out), *other]]
    rng.shuffle(train)
    arguments.out.mkdir(parents=True, exist_ok=True)
    write(arguments.out / "train.jsonl", ({"prompt": "", "completion": line} for line in train))
    write(
        arguments.out / "validation.jsonl",
        ({"prompt": context, "completion": said} for context, said in facts if context in held_out),
    )
    tokenizer = make_tokenizer(train)
    make_model(tokenizer, arguments.out / "model")
    tokens = sum(len(ids) for ids in tokenizer(train)["input_ids"])
    print(
        f"{len(train)} texts, {tokens} tokens, {len(held_out)} sets of facts held out -> "
        f"{arguments.out}"
    )


def text(context: str, said: str) -> str:
    """As the recipes for E2E, WebNLG and DART have it: facts, end of text, a space, words."""
    return f"{context}{END} {said}"


def webnlg(data: Path, rng: random.Random) -> Iterator[Pair]:
    """Triples as the reference code writes them, in another order for every description of the same
    set."""
    files = sorted((data / "webnlg_2017").rglob("train/**/*.xml"))
    report("WebNLG", files)
    for file in files:
        for entry in ElementTree.parse(file).iter("entry"):
            triples = [(t.text or "").replace(" | ", " : ") for t in entry.iter("mtriple")]
            for lex in entry.iter("lex"):
                yield (
                    " | ".join(rng.sample(triples, len(triples))),
                    " ".join((lex.text or "").split()),
                )


def dart(data: Path, rng: random.Random) -> Iterator[Pair]:
    files = sorted((data / "dart").glob("*full-dev.json"))
    report("DART", files)
    for file in files:
        for entry in json.loads(file.read_text(encoding="utf-8")):
            triples = [f"{s} : {p.lower()} : {o}" for s, p, o in entry["tripleset"]]
            for annotation in entry["annotations"]:
                if said := " ".join(annotation["text"].split()):
                    yield " | ".join(rng.sample(triples, len(triples))), said


def wikisql(data: Path) -> Iterator[Pair]:
    folder = data / "wikisql" / "data"
    files = sorted(f for f in folder.glob("train*.jsonl*") if "tables" not in f.name)
    report("WikiSQL", files)
    headers = {
        table["id"]: " | ".join(name for name in table["header"] if name)
        for file in folder.glob("train*tables*.jsonl")
        for table in lines(file)
    }
    for file in files:
        for row in lines(file):
            yield headers.get(row["table_id"], ""), row["question"].strip()


def samsum(data: Path) -> Iterator[Pair]:
    """Short dialogues with their summary."""
    files = sorted((data / "samsum").glob("train.json*"))
    report("SAMSum", files)
    for file in files:
        for row in json.loads(opened(file)):
            dialogue = row["dialogue"].replace("\r", "").strip()
            if dialogue and len(dialogue) < 350:
                yield dialogue, " ".join(row["summary"].split())


def lines(file: Path) -> Iterator[dict[str, Any]]:
    return (json.loads(line) for line in opened(file).splitlines())


def opened(file: Path) -> str:
    data = file.read_bytes()
    return (gzip.decompress(data) if file.suffix == ".gz" else data).decode("utf-8")


def report(name: str, files: list[Path]) -> None:
    print(f"{name}: {len(files)} file(s)" if files else f"{name}: not there, left out")


def write(path: Path, rows: Iterator[dict[str, str]]) -> None:
    path.write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
    )


def make_tokenizer(texts: list[str]) -> Any:
    """GPT-2's kind: byte-level BPE, one special token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator((line.replace(END, "\n") for line in texts), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, model_max_length=LONGEST, bos_token=END, eos_token=END
    )


def make_model(tokenizer: Any, folder: Path) -> None:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(SEED)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_layer=6,
        n_embd=384,
        n_head=6,
        n_positions=LONGEST,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main()
