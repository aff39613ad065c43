"""200 adapters, each with 200 changes of its bytes: refused, or read as what was saved, to the
last bit.

Nothing else is right: lorakit wrote a digest, so that no change of what it reads may pass. What it
does not read (the tokenizer next to the adapter, PEFT's own file where the header says the same)
may be another."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor

from lorakit.adapters.save import save_adapter
from lorakit.methods import methods
from lorakit.recipe.load import compose
from lorakit.runs.pointer import Pointer
from lorakit.runs.source import Source, open_source
from tests.attaching import attach, attach_saved
from tests.conftest import Tiny, build, make_about, make_tokenizer
from tests.nightly.plan import ONLY, Silent, Tried, count, random_of

FLIPS = 200
KINDS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("lora", "roberta", {"r": 4}),
    ("lora", "gpt2", {"r": 2}),
    ("lora", "llama", {"targets": "all-linear", "r": 1}),
    ("lora", "deberta-v2", {"r": 3, "alpha": 5}),
    ("bitfit", "roberta", {}),
    ("bitfit", "bert", {}),
    ("full", "bert", {}),
    ("top_layers", "distilbert", {"n": 1}),
    ("adapter_h", "roberta", {"r": 2}),
    ("prefix_layer", "gpt2", {}),
    ("lora", "opt", {"r": 4}),
)
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}</s>{% endfor %}"
SPLITS = {split: f"lorakit:quickstart/{split}.jsonl" for split in ("train", "validation")}


@dataclass
class Saved:
    """An adapter as it was saved, and what it is when it is read."""

    folder: Path
    base: Tiny
    contents: dict[str, bytes]
    wanted: tuple[Any, ...] = ()
    file: Any = None


def make(random: Random, folder: Path) -> Saved:
    """One that lorakit writes after training: a method, an architecture, a head."""
    method, model_type, fields = random.choice(KINDS)
    head = (
        random.choice(("SequenceClassification", "CausalLM"))
        if model_type in ("gpt2", "llama", "opt")
        else None
    )
    base = build(model_type, head or "SequenceClassification", seed=random.randrange(1000))
    task = {"name": "classification", **SPLITS, "classes": ["no", "yes"]}
    if head == "CausalLM":
        task = {"name": "text", **SPLITS}
    plain = {"name": method, **methods.get(method).tiny, **fields}
    made = compose(
        {"task": task, "model": {"name": "some/base"}, "method": plain, "data": {"max_length": 32}}
    )
    trained = copy.deepcopy(base)
    torch.manual_seed(random.randrange(1000))
    attachment = attach(made.method, trained)
    trained.step(attachment, steps=2)
    about = make_about(
        trained,
        attachment,
        head=made.task.head.value,
        labels=list(made.task.labels),
        task=made.task.model_dump(mode="json", exclude_none=True),
        decode=made.decode.model_dump(mode="json"),
    )
    tokenizer = make_tokenizer()
    if head == "CausalLM" and random.random() < 0.5:
        tokenizer.chat_template = TEMPLATE
    save_adapter(folder, attachment, about, tokenizer)
    saved = Saved(folder, base, {path.name: path.read_bytes() for path in sorted(folder.iterdir())})
    source = open_source(Pointer(str(folder)))
    saved.file, saved.wanted = digest_of(source), understood(source, base)
    return saved


def digest_of(source: Source) -> str:
    """Of all that an adapter's folder decides."""
    found = source.adapter
    assert found is not None
    digest = hashlib.blake2b(repr((found.about, found.peft_config, sorted(found.tensors))).encode())
    for name in sorted(found.tensors):
        digest.update(repr((found.tensors[name].dtype, found.tensors[name].shape)).encode())
        digest.update(found.tensors[name].contiguous().view(torch.uint8).numpy().tobytes())
    digest.update(asked(source).encode())
    return digest.hexdigest()


def asked(source: Source) -> str:
    """How it would be asked and scored; nothing where it no longer says so, for then a task must
    be given."""
    if source.recipe is None:
        return ""
    template = source.recipe.model.chat_template
    text = Path(template).read_text(encoding="utf-8") if template else ""
    return json.dumps(source.recipe.plain(), sort_keys=True) + text


def understood(source: Source, base: Tiny) -> tuple[Tensor, str]:
    """What a verb makes of it: logits on its base, and how it is asked."""
    model = copy.deepcopy(base)
    assert source.adapter is not None
    attach_saved(source.adapter, model)
    return model.logits(), asked(source)


def flipped(data: bytes, random: Random) -> tuple[bytes, str]:
    """One change of a file's bytes, and what it was."""
    at = random.randrange(len(data))
    if data[:1] != b"{" and random.random() < 0.3:  # a tensor file's header is a small part of it
        at = random.randrange(min(len(data), 8 + int.from_bytes(data[:8], "little")))
    act = random.random()
    if act < 0.7:
        bit = random.randrange(8)
        return data[:at] + bytes([data[at] ^ (1 << bit)]) + data[
            at + 1 :
        ], f"bit {bit} of byte {at}"
    if act < 0.8:
        return data[:at], f"cut at {at}"
    if act < 0.9:
        end = at + random.choice((1, 1, 2, 4, 8, 64))
        return data[:at] + data[end:], f"bytes {at} to {end} left out"
    if act < 0.95:
        end = min(len(data), at + random.choice((1, 4, 64, 4096)))
        return data[:at] + bytes(end - at) + data[end:], f"bytes {at} to {end} zero"
    return data[:at] + random.choice((b"\x00", b" ", b"1", b'"', data[:at][-4:])) + data[
        at:
    ], f"more at {at}"


def attempt(tried: Tried, saved: Saved, name: str, random: Random) -> None:
    weights = [3 if file.endswith(".safetensors") else 1 for file in saved.contents]
    file = random.choices(list(saved.contents), weights)[0]
    data, what = flipped(saved.contents[file], random)
    if data == saved.contents[file]:
        data, what = data[:-1], "the last byte left out"
    path = saved.folder / file
    if random.random() < 0.01:
        path.unlink()
        what = "removed"
    else:
        path.write_bytes(data)
    with tried.case(name):
        source = open_source(Pointer(str(saved.folder)))
        if digest_of(source) != saved.file:
            compare(understood(source, saved.base), saved.wanted, f"{file}: {what}")
    path.write_bytes(saved.contents[file])


def compare(found: tuple[Tensor, str], wanted: tuple[Tensor, str], where: str) -> None:
    if found[0].shape != wanted[0].shape or not torch.equal(found[0], wanted[0]):
        gap = (
            ""
            if found[0].shape != wanted[0].shape
            else f"by {float((found[0] - wanted[0]).abs().max()):.3g}"
        )
        raise Silent(f"other logits, {where.split(':')[0]}", gap, where)
    if found[1] not in ("", wanted[1]):
        raise Silent(f"asked otherwise, {where.split(':')[0]}", where)


def test_adapters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first number of a case is the adapter's, the second the change's."""
    monkeypatch.chdir(tmp_path)
    with Tried("adapters") as tried:
        for number in range(count(200)):
            names = {f"adapters:{number}:{flip}": flip for flip in range(count(FLIPS))}
            chosen = {name: flip for name, flip in names.items() if ONLY in (None, name)}
            saved = make(random_of("adapters", number), tmp_path / "adapter") if chosen else None
            for name, flip in chosen.items():
                assert saved is not None
                attempt(tried, saved, name, random_of("adapters", number, flip))
            shutil.rmtree(tmp_path / "adapter", ignore_errors=True)
