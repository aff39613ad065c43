"""A recipe's LoRA run through stock PEFT and transformers' Trainer, as the yardstick for `lorakit train`.

Same data, settings, metric and protocol (best epoch on the first evaluation split); injection, loop, batching and
checkpointing are theirs. Needs peft. Prints one JSON line per seed.

    python -m lorakit.bench._trainer minilm/glue_mrpc data.path=GLUE model.name=MODEL

The first word may be a style, as people write such a script: `grouped` (what is meant without one: batches by length),
`tuned` (that and bf16 autocast), `dynamic` (batches in any order, padded to their longest), `padded` (to the recipe's
data.max_length).
"""

from __future__ import annotations

import json
import sys
import tempfile
import time

import torch
from peft import LoraConfig, TaskType, get_peft_model
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)

from lorakit.bases.files import location
from lorakit.methods.reparam.lora import LoRA
from lorakit.recipe import Recipe
from lorakit.recipe.load import load_recipe
from lorakit.tasks import Example


class Rows(torch.utils.data.Dataset):
    """A task's examples as the Trainer takes them."""

    def __init__(self, examples: list[Example], tokenizer, max_length: int):
        pairs = [e.pair for e in examples] if examples[0].pair is not None else None
        self.fields = tokenizer(
            [e.text for e in examples], pairs, truncation=True, max_length=max_length
        )
        self.targets = [e.target for e in examples]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int) -> dict:
        return {name: self.fields[name][i] for name in self.fields} | {"labels": self.targets[i]}


STYLES = ("grouped", "tuned", "dynamic", "padded")


def run(recipe: Recipe, seed: int, style: str = "grouped") -> dict:
    task, settings, method = recipe.task, recipe.train, recipe.method
    assert isinstance(method, LoRA), "PEFT is the yardstick for lora"
    set_seed(seed)
    base = location(recipe.model.name)
    config = AutoConfig.from_pretrained(base, num_labels=len(task.labels), **recipe.model.config)
    model = AutoModelForSequenceClassification.from_pretrained(base, config=config)
    lora = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=method.r,
        lora_alpha=int(method.alpha),
        lora_dropout=method.dropout,
        target_modules=[
            str(target) for target in method.targets
        ],  # roles that are its modules' names, as in BERT
    )
    model = get_peft_model(model, lora)
    tokenizer = AutoTokenizer.from_pretrained(base)
    splits = {s: task.read(s, recipe.data) for s in ("train", task.eval_splits[0])}
    rows = {s: Rows(examples, tokenizer, recipe.data.max_length) for s, examples in splits.items()}
    by_length = style in ("grouped", "tuned")
    padding = (
        {"padding": "max_length", "max_length": recipe.data.max_length} if style == "padded" else {}
    )

    def metrics(output) -> dict[str, float]:
        # against the Trainer's own labels: where it groups by length, it does so in evaluation too
        return task.score(
            [task.to_prediction(row) for row in output.predictions.tolist()],
            output.label_ids.tolist(),
        )

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            num_train_epochs=settings.epochs,
            per_device_train_batch_size=settings.global_batch_size,
            per_device_eval_batch_size=recipe.evaluate.batch_size,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            warmup_steps=settings.warmup,
            lr_scheduler_type="linear",
            max_grad_norm=settings.max_grad_norm,
            eval_strategy="epoch",
            save_strategy="no",
            logging_strategy="no",
            train_sampling_strategy="group_by_length" if by_length else "random",
            bf16=style == "tuned",
            seed=seed,
            use_cpu=not torch.cuda.is_available(),
            report_to="none",
            disable_tqdm=True,
        )
        trainer = Trainer(
            model,
            arguments,
            train_dataset=rows["train"],
            eval_dataset=rows[task.eval_splits[0]],
            data_collator=DataCollatorWithPadding(tokenizer, **padding),
            compute_metrics=metrics,
        )
        begin = time.process_time()
        seconds = trainer.train().metrics["train_runtime"]
        processor = time.process_time() - begin
    epochs = [entry for entry in trainer.state.log_history if f"eval_{task.primary}" in entry]
    best = max(epochs, key=lambda entry: entry[f"eval_{task.primary}"])
    scores = {name: best[f"eval_{name}"] for name in metrics_names(best)}
    return {
        "seed": seed,
        "scores": scores,
        "best_epoch": best["epoch"],
        "seconds": seconds,
        "processor": processor,
    }


def metrics_names(entry: dict) -> list[str]:
    timing = {"eval_loss", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second"}
    return [
        key.removeprefix("eval_") for key in entry if key.startswith("eval_") and key not in timing
    ]


if __name__ == "__main__":
    words = sys.argv[1:]
    chosen = words.pop(0) if words[0] in STYLES else "grouped"
    loaded = load_recipe(words[0], words[1:]).recipe
    for number in loaded.seeds:
        print(json.dumps(run(loaded, number, chosen)), flush=True)
