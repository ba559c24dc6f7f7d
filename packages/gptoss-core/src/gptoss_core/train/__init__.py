"""Training: supervised fine-tuning on harmony conversations, and training from scratch.

Read it as data: documents -> packing -> rename -> vocabulary -> batches -> forward -> loss ->
trainer -> loop -> saving. `command` is `gptoss train`.
"""
