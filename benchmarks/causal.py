"""A causal recipe trained with PEFT and transformers' Trainer, or TRL's SFTTrainer.

Examples, prompts and settings are those of the recipe; only training is measured, without
evaluation. Prints one JSON line.

    python -m benchmarks.causal trainer:ATTENTION e2e data.path=E2E model.name=MODEL
    python -m benchmarks.causal sft:ATTENTION ...

trainer: the base in the dtype that lorakit keeps it in, batches by length, padded to the longest.
sft: the same settings for SFTTrainer, which tokenises and takes the loss of the answers itself.

Source: run_clm.py of transformers' examples and its page "Trainer"; the page "SFT Trainer" of TRL's
documentation (prompt and completion, `peft_config`, `model_init_kwargs`).
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from typing import Any

from peft import LoraConfig, TaskType, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainingArguments,
    set_seed,
)

from benchmarks.watched import WatchedTraining, arguments_of
from lorakit.bases.base import DTYPES
from lorakit.bases.files import location
from lorakit.bench._models import peft_targets
from lorakit.bench._parts import PartsClock
from lorakit.recipe import Recipe
from lorakit.recipe.load import load_recipe
from lorakit.runs.precision import resolve_precision
from lorakit.tasks import Example


class WatchedCausal(WatchedTraining, Trainer):
    """The Trainer, which also says how many tokens it trained on."""


def run(recipe: Recipe, seed: int, script: str) -> dict[str, Any]:
    """Train one seed with `trainer:ATTENTION` or `sft:ATTENTION`."""
    clock = PartsClock()
    set_seed(seed)
    kind, attention = script.split(":")
    tokenizer = AutoTokenizer.from_pretrained(location(recipe.model.name))
    model = AutoModelForCausalLM.from_pretrained(
        location(recipe.model.name),
        dtype=DTYPES[resolve_precision(recipe).model.dtype],
        attn_implementation=attention,
    )
    examples = recipe.task.read(recipe.task.train_split, recipe.data)
    pairs = [(_prompt(e, tokenizer), str(e.target)) for e in examples]
    with tempfile.TemporaryDirectory() as folder:
        make = {"trainer": _trainer, "sft": _sft}[kind]
        with clock.part("tokenising"):
            data = _encoded(pairs, tokenizer) if kind == "trainer" else _columns(pairs)
        with clock.part("tokenising" if kind == "sft" else "rest"):
            arguments = arguments_of(recipe, folder, seed) | {"eval_strategy": "no"}
            arguments["train_sampling_strategy"] = "group_by_length"
            trainer = make(recipe, model, tokenizer, data, arguments)
        trainer.train()
    parts = clock.seconds | trainer.steps.seconds()
    parts["rest"] = time.process_time() - sum(s for name, s in parts.items() if name != "rest")
    return {"seed": seed, "scores": {}, "parts": parts, **trainer.counted()}


def _prompt(example: Example, tokenizer: Any) -> str:
    """The prompt; some tasks, as the paper's code, end it with the end-of-text token."""
    return example.text + tokenizer.eos_token if example.eos else example.text


def _encoded(pairs: list[tuple[str, str]], tokenizer: Any) -> list[dict[str, Any]]:
    rows = []
    for prompt, answer in pairs:
        first = tokenizer(prompt)["input_ids"]
        last = tokenizer(answer, add_special_tokens=False)["input_ids"]
        last = [*last, tokenizer.eos_token_id]
        rows.append({"input_ids": first + last, "labels": [-100] * len(first) + last})
    return rows


def _columns(pairs: list[tuple[str, str]]) -> Any:
    from datasets import Dataset

    prompts, answers = zip(*pairs, strict=True)
    return Dataset.from_dict({"prompt": list(prompts), "completion": list(answers)})


def _lora(recipe: Recipe, model: Any) -> LoraConfig:
    method: Any = recipe.method
    return LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=method.r,
        lora_alpha=int(method.alpha),
        lora_dropout=method.dropout,
        target_modules=peft_targets(model, method.targets),
    )


def _trainer(
    recipe: Recipe, model: Any, tokenizer: Any, rows: Any, arguments: dict[str, Any]
) -> WatchedCausal:
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return WatchedCausal(
        get_peft_model(model, _lora(recipe, model)),
        TrainingArguments(**arguments),
        train_dataset=rows,
        data_collator=DataCollatorForSeq2Seq(tokenizer),
    )


def _sft(recipe: Recipe, model: Any, tokenizer: Any, rows: Any, arguments: dict[str, Any]) -> Any:
    # trl is in the bench extra, which the type checker of CI does not have
    from trl import SFTConfig, SFTTrainer  # pyright: ignore[reportMissingImports]

    class WatchedSft(WatchedTraining, SFTTrainer):
        """SFTTrainer, which also says how many tokens it trained on."""

    # its defaults are bf16 autocast and recomputed activations, which a CPU only loses by
    config = SFTConfig(
        **arguments, bf16=False, gradient_checkpointing=False, max_length=recipe.data.max_length
    )
    return WatchedSft(
        model,
        config,
        train_dataset=rows,
        processing_class=tokenizer,
        peft_config=_lora(recipe, model),
    )


if __name__ == "__main__":
    loaded = load_recipe(sys.argv[2], sys.argv[3:]).recipe
    print(json.dumps(run(loaded, loaded.seeds[0], sys.argv[1])), flush=True)
