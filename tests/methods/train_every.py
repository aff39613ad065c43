"""A program: trains methods on tiny models and writes what each ends with.

    torchrun --nproc-per-node=2 -m tests.methods.train_every FOLDER METHOD ...

It is started once for all methods, because the start takes longer than the training. The process
of rank 0 writes FOLDER/METHOD.pt: the losses and the trained state.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from lorakit.events import Event, StepTaken
from lorakit.recipe.evaluate import Evaluate
from lorakit.recipe.train import Train
from lorakit.tasks import Head
from lorakit.training.loop import train
from lorakit.training.setup import Setup
from tests.attaching import attach
from tests.conftest import build, small_method
from tests.encoded import separable

STEPS = 6
SEED = 0


def _no_score(_model: object, _last: bool) -> dict[str, dict[str, float]]:
    return {"validation": {"m": 0.0}}


def train_method(name: str) -> dict[str, object]:
    """{"losses": of each step, "state": of the attachment}, by the processes there are."""
    method = small_method(name)
    head = Head.CAUSAL if method.added_tokens else Head.CLASSIFICATION
    kind = "CausalLM" if method.added_tokens else "SequenceClassification"
    model = build("gpt2" if method.added_tokens else "bert", kind)
    torch.manual_seed(SEED)
    attachment = attach(method, model)
    setup = Setup(
        examples=separable(head),
        head=head,
        pad_id=0,
        train=Train(global_batch_size=8, learning_rate=5e-3, warmup=0.0, max_steps=STEPS),
        evaluate=Evaluate(keep="last"),
        seed=SEED,
        watched=("validation", "m"),
    )
    events: list[Event] = []
    torch.manual_seed(SEED)
    # without the state of an earlier test in this process
    AcceleratorState._reset_state()
    train(attachment, setup, Accelerator(cpu=True), _no_score, events.append)
    losses = [event.loss for event in events if isinstance(event, StepTaken)]
    return {"losses": losses, "state": attachment.state()}


def main(folder: Path, names: list[str]) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    main_process = Accelerator(cpu=True).is_main_process
    for name in names:
        found = train_method(name)
        if main_process:
            torch.save(found, folder / f"{name}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
