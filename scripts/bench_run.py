r"""How long a run takes to write its test set, and transformers' `generate` on the same adapter
loaded by PEFT.

    python scripts/bench_run.py RUN decode.no_repeat_ngram=0 data.path=FOLDER [--limit 630] \
        [--batch 32]

lorakit's decoder writes from merged weights, PEFT's model as it is after training, unmerged. The
prompts are sorted by length and cut into batches once; each batch is written both ways in turn, so
both meet the same load. Reported are the ratio over all batches, the spread over batches, and how
many texts are the same. (With no_repeat_ngram transformers counts the prompt too and lorakit does
not, as the reference code: give 0 to compare like with like.) On a CPU it is processor time. Needs
peft. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from lorakit.batches import collate
from lorakit.evaluation.answers import read_splits
from lorakit.evaluation.decode import decode
from lorakit.runs.examiner import Examiner
from lorakit.runs.pointer import Pointer
from lorakit.runs.source import load_source, open_source
from lorakit.tasks import Head


@torch.inference_mode()
def main() -> None:
    args, overrides = _arguments()
    source = open_source(Pointer(args.run, overrides=tuple(overrides)))
    assert source.recipe is not None
    assert source.adapter is not None
    recipe = source.recipe
    loaded, attachment = load_source(source, recipe.model)
    assert attachment is not None
    examples = read_splits(recipe.task, recipe.data, [args.split])[args.split][: args.limit]
    examiner = Examiner(recipe, loaded, {args.split: examples})
    items = sorted(examiner.encoded[args.split], key=lambda item: -item.length)
    plain = AutoModelForCausalLM.from_pretrained(recipe.model.name)
    adapted: Any = PeftModel.from_pretrained(plain, str(Path(source.adapter.folder))).eval()
    ends = sorted({loaded.tokenizer.eos_token_id, *examiner.generation.stops})
    settings, pad = recipe.decode, loaded.tokenizer.pad_token_id
    loaded.model.eval()

    def ours(ids: torch.Tensor, mask: torch.Tensor) -> list[list[int]]:
        return [list(written.ids) for written in decode(loaded.model, ids, mask, settings, ends)]

    def theirs(ids: torch.Tensor, mask: torch.Tensor) -> list[list[int]]:
        search = (
            {"length_penalty": settings.length_penalty, "early_stopping": False}
            if settings.beams > 1
            else {}
        )
        rows = adapted.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=settings.max_new_tokens,
            num_beams=settings.beams,
            do_sample=False,
            pad_token_id=pad,
            eos_token_id=ends,
            no_repeat_ngram_size=settings.no_repeat_ngram,
            **search,
        )[:, ids.shape[1] :].tolist()
        return [
            row[: min((row.index(end) for end in ends if end in row), default=len(row))]
            for row in rows
        ]

    ways: list[Callable[..., list[list[int]]]] = [ours, theirs]
    seconds: list[list[float]] = [[], []]
    same = 0
    with attachment.folded():
        for number, start in enumerate(range(0, len(items), args.batch)):
            fields = collate(
                items[start : start + args.batch], Head.CLASSIFICATION, pad, side="left"
            )
            texts: list[list[list[int]]] = [[], []]
            for way in (0, 1) if number % 2 else (1, 0):
                begin = time.process_time()
                texts[way] = ways[way](fields["input_ids"], fields["attention_mask"])
                seconds[way].append(time.process_time() - begin)
            same += sum(map(list.__eq__, *texts))
    ratios = [a / b for a, b in zip(*seconds, strict=True)]
    low, median, high = (
        statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    )
    print(
        json.dumps(
            {
                "run": Path(args.run).name,
                "split": args.split,
                "prompts": len(items),
                "batch": args.batch,
                "decode": settings.model_dump(exclude_none=True),
                "ratio": round(sum(seconds[0]) / sum(seconds[1]), 3),
                "of_batches": {
                    "median": round(median, 3),
                    "quartiles": [round(low, 3), round(high, 3)],
                    "n": len(ratios),
                },
                "same_texts": f"{same} of {len(items)}",
                "torch": torch.__version__,
            }
        )
    )


def _arguments() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("run")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--batch", type=int, default=32)
    args = parser.parse_args()
    return args, args.overrides


if __name__ == "__main__":
    main()
