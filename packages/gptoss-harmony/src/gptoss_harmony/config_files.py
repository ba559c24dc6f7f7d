"""config.json: the two dialects it is written in, read strictly and written back.

`original/` has the sixteen keys of `ModelConfig`, no more and no fewer. Hugging Face's has other
names, a `rope_scaling` (or, since Transformers 5, `rope_parameters`) object, and switches such as
`tie_word_embeddings`; a switch in a position that gpt-oss does not have is refused, because an
engine would silently compute something else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from gptoss_harmony.config import ModelConfig
from gptoss_harmony.errors import CheckpointError

_MAX_SIZE = 1 << 31  # beyond any real size; keeps a hostile config from costing time or memory
_MAX_LAYERS = 1024

# Hugging Face keys that hold one size each, by the name it has here. A second key is an alias.
_SIZES: Mapping[str, tuple[str, ...]] = {
    "num_hidden_layers": ("num_hidden_layers",),
    "num_experts": ("num_local_experts", "num_experts"),
    "experts_per_token": ("num_experts_per_tok", "experts_per_token"),
    "vocab_size": ("vocab_size",),
    "hidden_size": ("hidden_size",),
    "intermediate_size": ("intermediate_size",),
    "swiglu_limit": ("swiglu_limit",),
    "head_dim": ("head_dim",),
    "num_attention_heads": ("num_attention_heads",),
    "num_key_value_heads": ("num_key_value_heads",),
    "sliding_window": ("sliding_window",),
}
_ROPE: Mapping[str, str] = {
    "initial_context_length": "original_max_position_embeddings",
    "rope_scaling_factor": "factor",
    "rope_ntk_alpha": "beta_slow",
    "rope_ntk_beta": "beta_fast",
}
# What every gpt-oss has, and so what these keys must say where they are present.
_FIXED: Mapping[str, Any] = {
    "model_type": "gpt_oss",
    "hidden_act": "silu",
    "attention_bias": True,
    "tie_word_embeddings": False,
    "rms_norm_eps": 1e-5,
    "swiglu_alpha": 1.702,
}
_FIXED_ROPE: Mapping[str, Any] = {
    "rope_type": "yarn",
    "type": "yarn",
    "truncate": False,
    "partial_rotary_factor": 1.0,
    "attention_factor": None,
    "mscale": None,
    "mscale_all_dim": None,
}
_SAME_NAME = (
    "head_dim",
    "hidden_size",
    "initial_context_length",
    "intermediate_size",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "rope_theta",
    "sliding_window",
    "swiglu_limit",
    "vocab_size",
)
_FLOATS = frozenset(
    {"swiglu_limit", "rope_theta", "rope_scaling_factor", "rope_ntk_alpha", "rope_ntk_beta"}
)


def is_hugging_face(config: Mapping[str, Any]) -> bool:
    """Whether a config.json speaks Hugging Face's dialect."""
    return "model_type" in config or "architectures" in config or "num_local_experts" in config


def parse_config(config: Mapping[str, Any], what: str = "config.json") -> ModelConfig:
    """Read either dialect.

    Args:
        config: the parsed JSON object.
        what: names the file in messages.

    Raises:
        CheckpointError: all problems in one message.
    """
    if is_hugging_face(config):
        return parse_hugging_face_config(config, what)
    return parse_original_config(config, what)


def parse_original_config(config: Mapping[str, Any], what: str = "config.json") -> ModelConfig:
    """Read the config.json of an `original/` folder.

    Raises:
        CheckpointError: unknown, missing and ill-typed keys together.
    """
    names = [field.name for field in fields(ModelConfig)]
    problems = []
    unknown = [repr(key[:60]) for key in config if key not in names]
    if unknown:
        problems.append(
            f"unknown keys {_some(unknown)} (an `original/` config has exactly the sizes of the "
            "model; remove them, or use the config.json that belongs to these weights)"
        )
    missing = [name for name in names if name not in config]
    if missing:
        problems.append(f"missing keys {', '.join(missing)}")
    return _build({name: config[name] for name in names if name in config}, problems, what)


def parse_hugging_face_config(config: Mapping[str, Any], what: str = "config.json") -> ModelConfig:
    """Read the config.json of a Hugging Face folder, whichever release of Transformers wrote it.

    Raises:
        CheckpointError: missing keys, aliases that disagree, and switches that gpt-oss lacks.
    """
    problems: list[str] = []
    rope = _rope_object(config, problems)
    values: dict[str, Any] = {}
    for name, keys in _SIZES.items():
        _take(values, name, [(key, config[key]) for key in keys if key in config], keys[0])
    for name, key in _ROPE.items():
        _take(values, name, [(key, rope[key])] if key in rope else [], f"rope_scaling.{key}")
    theta = [(key, place[key]) for place in (config, rope) if (key := "rope_theta") in place]
    _take(values, "rope_theta", theta, "rope_theta")
    for name in [name for name, value in values.items() if isinstance(value, _Problem)]:
        problems.append(values.pop(name).text)
    _check_fixed(config, _FIXED, "", problems)
    _check_fixed(rope, _FIXED_ROPE, "rope_scaling.", problems)
    _check_layer_types(config, problems)
    _check_quantization(config, problems)
    original = config.get("initial_context_length", values.get("initial_context_length"))
    if original != values.get("initial_context_length"):
        problems.append("initial_context_length and original_max_position_embeddings disagree")
    return _build(values, problems, what)


def original_config_json(config: ModelConfig) -> dict[str, Any]:
    """The config.json of an `original/` folder."""
    return asdict(config)


def hugging_face_config_json(config: ModelConfig, *, packed: bool) -> dict[str, Any]:
    """The config.json of a Hugging Face folder.

    Args:
        config: the sizes.
        packed: experts are MXFP4 (adds `quantization_config`), else bf16.
    """
    result = {name: getattr(config, name) for name in _SAME_NAME} | {
        "architectures": ["GptOssForCausalLM"],
        "attention_bias": True,
        "attention_dropout": 0.0,
        "dtype": "bfloat16",
        "experts_per_token": config.experts_per_token,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "layer_types": _layer_types(config.num_hidden_layers),
        "max_position_embeddings": config.max_context_length,
        "model_type": "gpt_oss",
        "num_experts_per_tok": config.experts_per_token,
        "num_local_experts": config.num_experts,
        "output_router_logits": False,
        "rms_norm_eps": 1e-5,
        "rope_scaling": {"rope_type": "yarn", "truncate": False}
        | {key: getattr(config, name) for name, key in _ROPE.items()},
        "router_aux_loss_coef": 0.9,
        "tie_word_embeddings": False,
        "use_cache": True,
    }
    if has_harmony_tokens(config):
        result |= {"eos_token_id": 200_002, "pad_token_id": 199_999}
    if packed:
        result["quantization_config"] = {
            "modules_to_not_convert": [
                "model.layers.*.self_attn",
                "model.layers.*.mlp.router",
                "model.embed_tokens",
                "lm_head",
            ],
            "quant_method": "mxfp4",
        }
    return result


def has_harmony_tokens(config: ModelConfig) -> bool:
    """Whether the vocabulary reaches the special tokens; toy vocabularies do not."""
    return config.vocab_size > 200_012


def generation_config_json() -> dict[str, Any]:
    """The generation_config.json of a Hugging Face folder: sampling on, harmony's stop tokens."""
    return {
        "bos_token_id": 199_998,
        "do_sample": True,
        "eos_token_id": [200_002, 199_999, 200_012],
        "pad_token_id": 199_999,
    }


class _Problem:
    """A value that could not be taken, with the reason."""

    def __init__(self, text: str) -> None:
        self.text = text


def _take(values: dict[str, Any], name: str, found: list[tuple[str, Any]], key: str) -> None:
    """Put the one value that all of `found` agree on into `values`, or a `_Problem`."""
    if not found:
        values[name] = _Problem(f"missing key {key}")
    elif any(value != found[0][1] for _, value in found):
        values[name] = _Problem(f"{' and '.join(key for key, _ in found)} disagree")
    else:
        values[name] = found[0][1]


def _rope_object(config: Mapping[str, Any], problems: list[str]) -> Mapping[str, Any]:
    """`rope_parameters` (Transformers 5) or `rope_scaling` (before)."""
    for key in ("rope_parameters", "rope_scaling"):
        rope = config.get(key)
        if isinstance(rope, dict):
            return rope
        if rope is not None:
            problems.append(f"{key} must be an object")
    return {}


def _check_fixed(
    config: Mapping[str, Any], fixed: Mapping[str, Any], prefix: str, problems: list[str]
) -> None:
    """Note every switch that says something else than gpt-oss has."""
    for key, expected in fixed.items():
        if key in config and config[key] is not None and config[key] != expected:
            rule = f"must be {expected!r}" if expected is not None else "is not supported"
            problems.append(f"{prefix}{key} {rule}, not {str(config[key])[:60]!r}")


def _check_layer_types(config: Mapping[str, Any], problems: list[str]) -> None:
    """Even layers slide, odd layers see all; nothing else is a gpt-oss."""
    given, layers = config.get("layer_types"), config.get("num_hidden_layers")
    if given is None or type(layers) is not int or not 0 < layers <= _MAX_LAYERS:
        return
    if given != _layer_types(layers):
        problems.append(
            f"layer_types must alternate sliding_attention and full_attention over {layers} layers"
        )


def _check_quantization(config: Mapping[str, Any], problems: list[str]) -> None:
    """MXFP4 or nothing."""
    quantization = config.get("quantization_config")
    if quantization is None:
        return
    method = quantization.get("quant_method") if isinstance(quantization, dict) else quantization
    if method != "mxfp4":
        problems.append(
            f"quantization_config has the method {str(method)[:60]!r}; only mxfp4 (or none, bf16) "
            "can be read"
        )


def _layer_types(layers: int) -> list[str]:
    """The alternation, as Hugging Face writes it."""
    return ["full_attention" if layer % 2 else "sliding_attention" for layer in range(layers)]


def _build(values: dict[str, Any], problems: list[str], what: str) -> ModelConfig:
    """Check types and ranges and make the config, or raise everything found so far."""
    typed: dict[str, Any] = {}
    for name, value in values.items():
        if name in _FLOATS:
            good = type(value) in (int, float) and abs(value) < 1e12
        else:
            good = type(value) is int and value < (
                _MAX_LAYERS if name == "num_hidden_layers" else _MAX_SIZE
            )
        if good:
            typed[name] = float(value) if name in _FLOATS else value
        else:
            kind = "a finite number" if name in _FLOATS else "a sensible whole number"
            problems.append(f"{name} must be {kind}, not {str(value)[:60]!r}")
    if problems:
        raise CheckpointError(f"{what}: " + "; ".join(problems))
    try:
        return ModelConfig(**typed)
    except CheckpointError as error:
        raise CheckpointError(f"{what}: {str(error).removeprefix('config: ')}") from error


def _some(items: list[str], limit: int = 12) -> str:
    """The first few items, and how many more there are."""
    rest = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + rest
