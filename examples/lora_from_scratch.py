"""The quickstart without lorakit: LoRA on a tiny RoBERTa in plain torch and transformers, with the
same losses.

`lorakit train quickstart` does this and more; here the whole of it can be read from top to bottom.
The package must be installed for its tiny model and data; none of its code is used.

    python examples/lora_from_scratch.py
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, set_seed
from transformers.utils import logging

# as recipes/quickstart.yaml has it
TARGETS, R, ALPHA = ("query", "value"), 8, 16
EPOCHS, BATCH, RATE, WARMUP, LENGTH, SEED = 2, 32, 5e-3, 0.06, 64, 0
LABELS = ["negative", "positive"]


class LoRALinear(nn.Module):
    """h = W0 x + b + (alpha/r) B A x, with A (r, in) random, B (out, r) zero, and W0 and b
    frozen."""

    def __init__(self, base: nn.Linear, r: int, alpha: float):
        super().__init__()
        self.base, self.scale = base, alpha / r
        self.A = nn.Parameter(torch.empty(r, base.in_features))
        self.B = nn.Parameter(torch.zeros(base.out_features, r))
        nn.init.kaiming_uniform_(
            self.A, a=math.sqrt(5)
        )  # as the reference code has it: U(-1/sqrt(in), 1/sqrt(in))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.scale * (x @ self.A.T) @ self.B.T

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """W0 + (alpha/r) B A, a plain layer again."""
        plain = copy.deepcopy(self.base)
        plain.weight += self.scale * (self.B @ self.A)
        return plain


def build(assets: Path) -> nn.Module:
    """The base with LoRA on the targets; only A, B and the head, which the checkpoint does not
    hold, will train."""
    set_seed(SEED)  # before the head and A are drawn
    model = AutoModelForSequenceClassification.from_pretrained(
        assets / "tiny_encoder", num_labels=len(LABELS), dtype=torch.float32
    )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("classifier."))
    for name, layer in list(model.named_modules()):
        if name.endswith(TARGETS):
            model.set_submodule(name, LoRALinear(layer, R, ALPHA))
    return model


def merge(model: nn.Module) -> None:
    for name, layer in list(model.named_modules()):
        if isinstance(layer, LoRALinear):
            model.set_submodule(name, layer.merged())


def batches(lengths: list[int], epoch: int) -> list[list[int]]:
    """The examples of each step of an epoch: shuffled, sorted by length within 50 batches, the
    batches shuffled."""
    rng = np.random.default_rng([SEED, epoch])
    order = rng.permutation(len(lengths))
    found = []
    for start in range(0, len(order), 50 * BATCH):
        group = sorted(order[start : start + 50 * BATCH].tolist(), key=lambda i: -lengths[i])
        found += [group[i : i + BATCH] for i in range(0, len(group), BATCH)]
    return [found[i] for i in rng.permutation(len(found))]


def rate_at(step: int, total: int) -> float:
    """Linear warm-up from zero, then linear to zero."""
    warm = math.ceil(WARMUP * total)
    return RATE * (step / warm if step < warm else (total - step) / (total - warm))


def train(model: nn.Module, tokenizer, rows: list[dict]) -> Iterator[tuple[int, float]]:
    """Trains in place; gives (step, loss) after each of AdamW's steps."""
    ids = tokenizer([row["text"] for row in rows], truncation=True, max_length=LENGTH)["input_ids"]
    targets = torch.tensor([LABELS.index(row["label"]) for row in rows])
    lengths = [len(tokens) for tokens in ids]
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0)
    plan = [batch for epoch in range(EPOCHS) for batch in batches(lengths, epoch)]
    model.train()
    for step, batch in enumerate(plan):
        optimizer.param_groups[0]["lr"] = rate_at(step, len(plan))
        inputs = tokenizer.pad({"input_ids": [ids[i] for i in batch]}, return_tensors="pt")
        loss = F.cross_entropy(model(**inputs).logits, targets[batch])
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        yield step + 1, loss.item()


@torch.no_grad()
def logits_of(model: nn.Module, tokenizer, rows: list[dict]) -> Tensor:
    model.eval()
    inputs = tokenizer(
        [row["text"] for row in rows], truncation=True, max_length=LENGTH, padding=True
    )
    return model(**inputs.convert_to_tensors("pt")).logits


def accuracy(logits: Tensor, rows: list[dict]) -> float:
    return (
        100
        * sum(LABELS[i] == row["label"] for i, row in zip(logits.argmax(-1), rows, strict=True))
        / len(rows)
    )


def read(assets: Path, split: str) -> list[dict]:
    return [
        json.loads(line)
        for line in (assets / "quickstart" / f"{split}.jsonl").read_text("utf-8").splitlines()
    ]


def main() -> None:
    logging.set_verbosity_error()  # transformers reports that the head is new, which it should be
    logging.disable_progress_bar()
    assets = Path(str(files("lorakit"))) / "assets"
    tokenizer, rows = (
        AutoTokenizer.from_pretrained(assets / "tiny_encoder"),
        read(assets, "validation"),
    )
    model = build(assets)
    print(
        f"trains {sum(p.numel() for p in model.parameters() if p.requires_grad):,} parameters, "
        "head included"
    )
    print(f"untrained: accuracy {accuracy(logits_of(model, tokenizer, rows), rows):.2f}")
    for step, loss in train(model, tokenizer, read(assets, "train")):
        if step <= 5 or step % 25 == 0:
            print(f"step {step}  loss {loss:.6f}")
    trained = logits_of(model, tokenizer, rows)
    print(f"trained: accuracy {accuracy(trained, rows):.2f}")
    merge(model)
    print(
        f"merged: no logit differs by more than "
        f"{(logits_of(model, tokenizer, rows) - trained).abs().max():.1e}"
    )


if __name__ == "__main__":
    main()
