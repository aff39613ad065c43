"""What the server of `child` imports before it forks; nothing here may start a thread."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import matplotlib.pyplot  # noqa: F401
import sacrebleu  # noqa: F401
import torch
import transformers.models.gpt2.modeling_gpt2
import transformers.models.roberta.modeling_roberta  # noqa: F401

import lorakit.cli
import lorakit.studies.run
import lorakit.verbs.evaluate
import lorakit.verbs.generate
import lorakit.verbs.merge
import lorakit.verbs.prepare
import lorakit.verbs.train

torch.set_num_threads(1)
lorakit.cli.add_verbs()
