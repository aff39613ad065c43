"""How long beam search takes: `lorakit.evaluate.decode` beside transformers' `generate`, in one process, in turns.

A GPT-2 with random weights and a LoRA (r=4 on c_attn, random B) writes after random prompts; three ways:

    lorakit      decode() with the LoRA merged
    hf           generate() with the LoRA merged
    hf_peft      generate() with stock PEFT's LoRA beside the frozen weights, as after training

Only ratios within one run mean anything on a shared machine: every round times all three, and what is reported is the
median over the rounds of each round's ratio, with its quartiles; on a CPU in processor time, so that waiting for other
jobs does not count. Needs peft. Prints one JSON line.

    python scripts/bench_generate.py --rounds 5
    python scripts/bench_generate.py --layers 12 --width 768 --vocabulary 50257 --prompts 8 --batch 8
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from lorakit.evaluate.decode import decode
from lorakit.recipe.schema import Decode

PAD, END = 0, 1
Texts = list[list[int]]


def main() -> None:
    args = _arguments()
    torch.manual_seed(args.seed)
    merged, adapted = models(args)
    batches = prompts(args)
    ways: dict[str, Callable[[], Texts]] = {
        "lorakit": lambda: ours(merged, batches, args),
        "hf": lambda: theirs(merged, batches, args),
        "hf_peft": lambda: theirs(adapted, batches, args),
    }
    clock = time.process_time if args.device == "cpu" else time.perf_counter
    texts: dict[str, Texts] = {}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for i in range(args.rounds):
        for name in [*ways][i % 3 :] + [*ways][: i % 3]:  # nobody is always first
            start = clock()
            texts[name] = ways[name]()
            seconds[name].append(clock() - start)
    print(json.dumps(summary(args, texts, seconds)))


def models(args: argparse.Namespace) -> tuple[Any, Any]:
    """The same function twice: with the LoRA merged, and beside the weights."""
    config = GPT2Config(
        n_layer=args.layers, n_embd=args.width, n_head=args.width // 64, vocab_size=args.vocabulary, pad_token_id=PAD,
        bos_token_id=END, eos_token_id=END,
    )  # fmt: skip
    base = GPT2LMHeadModel(config)
    with torch.no_grad():
        for parameter in base.parameters():  # random weights as they come give a flat distribution, full of ties
            if parameter.ndim > 1:
                parameter.mul_(args.sharpness)
    lora = LoraConfig(task_type="CAUSAL_LM", target_modules=["c_attn"], r=4, fan_in_fan_out=True)
    adapted = get_peft_model(base, lora)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.02)
    merged: Any = copy.deepcopy(adapted)
    merged = merged.merge_and_unload()
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[args.dtype]
    return tuple(model.to(args.device, dtype).eval().requires_grad_(False) for model in (merged, adapted))  # type: ignore[return-value]


def prompts(args: argparse.Namespace) -> list[tuple[Tensor, Tensor]]:
    """Batches of (ids, mask), padded on the left, the longest first."""
    lengths = sorted((30 + 31 * i // args.prompts for i in range(args.prompts)), reverse=True)
    found = []
    for start in range(0, args.prompts, args.batch):
        part = lengths[start : start + args.batch]
        ids, mask = (torch.zeros(len(part), part[0], dtype=torch.long, device=args.device) for _ in range(2))
        for row, length in enumerate(part):
            ids[row, -length:] = torch.randint(2, args.vocabulary, (length,))
            mask[row, -length:] = 1
        found.append((ids, mask))
    return found


def ours(model: Any, batches: list[tuple[Tensor, Tensor]], args: argparse.Namespace) -> Texts:
    settings = Decode(max_new_tokens=args.new_tokens, beams=args.beams, length_penalty=args.length_penalty)
    return [written.ids for ids, mask in batches for written in decode(model, ids, mask, settings, (END,))]


@torch.inference_mode()
def theirs(model: Any, batches: list[tuple[Tensor, Tensor]], args: argparse.Namespace) -> Texts:
    search = {"length_penalty": args.length_penalty, "early_stopping": False} if args.beams > 1 else {}
    found = []
    for ids, mask in batches:
        rows = model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=args.new_tokens, num_beams=args.beams, do_sample=False,
            pad_token_id=PAD, eos_token_id=END, **search,
        )[:, ids.shape[1] :]  # fmt: skip
        found += [row[: row.index(END)] if END in row else row for row in rows.tolist()]
    return found


def summary(args: argparse.Namespace, texts: dict[str, Texts], seconds: dict[str, list[float]]) -> dict[str, Any]:
    same = {name: sum(map(list.__eq__, texts["lorakit"], texts[name])) for name in ("hf", "hf_peft")}
    lengths = [len(text) for text in texts["lorakit"]]
    return {
        "setting": vars(args),
        "seconds": {name: round(statistics.median(values), 3) for name, values in seconds.items()},
        "ratio_to_hf": _spread(seconds["lorakit"], seconds["hf"]),
        "ratio_to_hf_peft": _spread(seconds["lorakit"], seconds["hf_peft"]),
        "same_texts": {name: f"{n} of {len(lengths)}" for name, n in same.items()},
        "tokens": {"fewest": min(lengths), "mean": round(statistics.mean(lengths), 1), "most": max(lengths)},
        "torch": torch.__version__,
    }


def _spread(ours: list[float], theirs: list[float]) -> dict[str, Any]:
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    return {"median": round(median, 3), "quartiles": [round(low, 3), round(high, 3)], "rounds": len(ratios)}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    numbers = {"layers": 6, "width": 384, "vocabulary": 8192, "prompts": 64, "batch": 64, "beams": 10, "new_tokens": 32,
               "rounds": 5, "seed": 0}  # fmt: skip
    for name, value in numbers.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    parser.add_argument("--length-penalty", type=float, default=1.0)
    parser.add_argument("--sharpness", type=float, default=4.0, help="what the random weights are multiplied by")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


if __name__ == "__main__":
    main()
