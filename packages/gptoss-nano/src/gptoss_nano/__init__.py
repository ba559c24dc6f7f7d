"""nano: a small gpt-oss model as data. `gptoss_harmony.nano` unpacks it; this package has no code.

`nano.safetensors` is the packed model, `card.md` says what it can and cannot do.
"""
