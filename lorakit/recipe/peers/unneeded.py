"""Peers' keys that a recipe does not need, because something else does it, or nothing has to."""

from __future__ import annotations

from lorakit.recipe.peers._table import Counterpart, row

_COMMAND = "the command says it: "


def _row(theirs: str, why: str) -> Counterpart:
    return Counterpart(tuple(theirs.split()), why=why, unneeded=True)


ROWS = (
    _row(
        "output_dir output_path", why=_COMMAND + "--runs DIR; the run folder has a name of its own"
    ),
    _row("overwrite_output_dir", why=_COMMAND + "--restart"),
    _row("resume_from_checkpoint auto_resume_from_checkpoints", why="the same command resumes"),
    _row("run_name", why="a run is named after its recipe"),
    _row("project", why="set WANDB_PROJECT, or the tracker's own variable"),
    _row("wandb_entity wandb_name wandb_mode wandb_log_model", why="set wandb's own variables"),
    row("deepspeed", why=_COMMAND + "--strategy zero2"),
    row("fsdp fsdp_config fsdp_version", why=_COMMAND + "--strategy fsdp2"),
    row("use_cpu no_cuda", why=_COMMAND + "--cpu"),
    row("special_tokens", why="the checkpoint's own tokens are taken"),
    _row("do_train do_eval do_predict", why="a run trains, scores and predicts"),
    _row("stage", why="a recipe trains supervised"),
    _row("task_type", why="the task decides it"),
    _row(
        "logging_steps logging_strategy logging_first_step logging_dir", why="each step is logged"
    ),
    _row("plot_loss", why="the page of a run has the curves"),
    _row("log_level disable_tqdm", why="--debug shows more"),
    _row("save_strategy saves_per_epoch save_only_model", why="checkpoints are written by time"),
    _row(
        "flash_attention flash_attn attn_implementation sdp_attention xformers_attention",
        why="the model's fastest attention is taken",
    ),
    _row("use_unsloth use_liger_kernel enable_liger_kernel liger_kernel", why="train.fast: auto"),
    _row("gradient_checkpointing_kwargs use_reentrant_gc", why="checkpointing does not reenter"),
    _row("preprocessing_num_workers dataset_num_proc", why="tokens are cached"),
    _row("dataloader_num_workers dataloader_pin_memory", why="batches are made from memory"),
    _row("overwrite_cache", why="the cache is keyed by content"),
    _row("ddp_timeout ddp_find_unused_parameters", why="processes are set up by --processes"),
    _row("push_to_hub hub_model_id hub_strategy hub_token", why="a run is not pushed by training"),
    _row("remove_unused_columns", why="only the columns that the task names are read"),
    _row("inference_mode auto_mapping peft_version corda_config eva_config", why="PEFT's own"),
    _row("megatron_config megatron_core trainable_token_indices", why="PEFT's own"),
    _row("fan_in_fan_out", why="the layer says it"),
    _row("tf32", why="torch's own setting holds"),
    _row("strict tokenizer_type model_type", why="the checkpoint says it"),
    _row("quantization_method", why="bitsandbytes"),
)
