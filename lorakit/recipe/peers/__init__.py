"""Peers: keys of LLaMA-Factory, axolotl, TRL, transformers and PEFT, and what each is in a recipe.

One table: a recipe with such a key gets the hint from it, `lorakit import-config` translates with
it, and the pages for people who come from these tools are compared with it.
"""
