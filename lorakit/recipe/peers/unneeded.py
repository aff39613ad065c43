"""Peers' keys that a recipe does not need, because something else does it, or nothing has to."""

from __future__ import annotations

from lorakit.recipe.peers._table import row

_COMMAND = "the command says it: "

ROWS = (
    row(
        "output_dir output_path", why=_COMMAND + "--runs DIR; the run folder has a name of its own"
    ),
    row("overwrite_output_dir", why=_COMMAND + "--restart"),
    row("resume_from_checkpoint auto_resume_from_checkpoints", why="the same command resumes"),
    row("run_name", why="a run is named after its recipe"),
    row("project wandb_project", why="set WANDB_PROJECT, or the tracker's own variable"),
    row("wandb_entity wandb_name wandb_mode wandb_log_model", why="set wandb's own variables"),
    row("deepspeed", why=_COMMAND + "--strategy zero2"),
    row("fsdp fsdp_config fsdp_version", why=_COMMAND + "--strategy fsdp2"),
    row("use_cpu no_cuda", why=_COMMAND + "--cpu"),
    row("do_train do_eval do_predict", why="a run trains, scores and predicts"),
    row("stage", why="a recipe trains supervised"),
    row("task_type", why="the task decides it"),
    row("logging_steps logging_strategy logging_first_step logging_dir", why="each step is logged"),
    row("plot_loss", why="the page of a run has the curves"),
    row("log_level disable_tqdm", why="--debug shows more"),
    row("save_strategy saves_per_epoch save_only_model", why="checkpoints are written by time"),
    row(
        "flash_attention flash_attn attn_implementation sdp_attention xformers_attention",
        why="the model's fastest attention is taken",
    ),
    row("use_unsloth use_liger_kernel enable_liger_kernel liger_kernel", why="train.fast: auto"),
    row("gradient_checkpointing_kwargs use_reentrant_gc", why="checkpointing does not reenter"),
    row("preprocessing_num_workers dataset_num_proc", why="tokens are cached"),
    row("dataloader_num_workers dataloader_pin_memory", why="batches are made from memory"),
    row("overwrite_cache", why="the cache is keyed by content"),
    row("ddp_timeout ddp_find_unused_parameters", why="processes are set up by --processes"),
    row("push_to_hub hub_model_id hub_strategy hub_token", why="a run is not pushed by training"),
    row("remove_unused_columns", why="only the columns that the task names are read"),
    row("inference_mode auto_mapping peft_version corda_config eva_config", why="PEFT's own"),
    row("megatron_config megatron_core trainable_token_indices", why="PEFT's own"),
    row("fan_in_fan_out", why="the layer says it"),
    row("tf32", why="torch's own setting holds"),
    row("strict special_tokens tokenizer_type model_type", why="the checkpoint says it"),
    row("bnb_4bit_compute_dtype bnb_4bit_use_double_quant double_quantization", why="fixed"),
    row("quantization_method", why="bitsandbytes"),
)
