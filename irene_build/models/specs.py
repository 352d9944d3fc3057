"""Resolves what a user calls a model: a named architecture, a config file or folder, a factory, a hub name."""

from __future__ import annotations

import difflib
import importlib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from irene_build.errors import ModelError

from .stored import Stored, of_config


@dataclass(frozen=True)
class Spec:
    """A transformers class with its configuration, or a factory of any module."""

    name: str
    kind: Any = None
    config: Any = None
    factory: Callable[[], Any] | None = None
    #: What a checkpoint says of its weights: their dtype, and ``quantization_config``.
    dtype: str | None = None
    quantization: Mapping[str, Any] | None = None

    def stored(self) -> Stored | None:
        """How the weights are stored, where not in ``dtype``. Raises ModelError for a format that is not known."""
        return of_config(self.quantization, self.name)


def _toml(name: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    table: dict[str, Any] = tomllib.loads((Path(__file__).parent / name).read_text(encoding="utf-8"))
    return table


@cache
def architectures() -> dict[str, dict[str, Any]]:
    """Name -> entry of architectures.toml, and the 24 BERT miniatures (Turc et al. 2019)."""
    entries: dict[str, dict[str, Any]] = _toml("architectures.toml")
    for layers in (2, 4, 6, 8, 10, 12):
        for hidden in (128, 256, 512, 768):
            config = {
                "num_hidden_layers": layers, "hidden_size": hidden, "num_attention_heads": hidden // 64,
                "intermediate_size": 4 * hidden,
            }  # fmt: skip
            name = f"bert_uncased_L-{layers}_H-{hidden}_A-{hidden // 64}"
            entries[name] = {
                "class": "BertModel", "config": config, "family": "BERT miniatures",
                "parameters": _bert_parameters(layers, hidden) / 1e6,
            }  # fmt: skip
    return entries


def _bert_parameters(layers: int, hidden: int) -> int:
    """Parameters of a BERT with intermediate layers four times as wide: tables, layers, pooler."""
    tables = (30522 + 512 + 2 + 2) * hidden
    layer = 12 * hidden**2 + 13 * hidden
    return tables + layers * layer + hidden**2 + hidden


def named(spec: str, quantised: bool = False) -> str | None:
    """The named architecture that a hub's name stands for (``Qwen/Qwen3-8B-Base``: Qwen3-8B); None where none does.

    Tuning and dates change no shape; with ``quantised``, neither do weights that are stored in fewer bits.
    """
    table = _hub_names()
    endings = table["endings"] + (table["quantised"] if quantised else [])
    name = spec.rpartition("/")[2]
    for start in table["beginnings"]:
        name = name.removeprefix(start)
    while True:
        if name in architectures():
            return name
        if name in table["same"]:
            return str(table["same"][name])
        shorter = next((name.removesuffix(end) for end in endings if name.endswith(end)), None)
        if shorter is None:
            return None
        name = shorter


@cache
def _hub_names() -> dict[str, Any]:
    return _toml("hub_names.toml")


def resolve(spec: str, generates: bool = False) -> Spec:
    """What ``spec`` means; a named model that ``generates`` is the class with its head. Raises ModelError."""
    entry = architectures().get(spec) or architectures().get(named(spec) or "")
    if entry is not None:
        name = entry.get("generates", entry["class"]) if generates else entry["class"]
        kind = _transformers_class(name, spec)
        # ``none``: settings that TOML cannot write, where the class has a default that the model has not.
        settings = {**entry.get("config", {}), **dict.fromkeys(entry.get("none", []))}
        return Spec(spec, kind, kind.config_class(**settings))
    path = Path(spec)
    if path.is_dir() or path.is_file():
        return _from_file(path)
    if ":" in spec:
        return Spec(spec, factory=_factory(spec))
    if spec.endswith(".json"):
        raise ModelError(f"no such file: {spec}")
    if "/" in spec:
        return _from_hub(spec)
    close = difflib.get_close_matches(spec, architectures(), 3, 0.5)
    hint = f"did you mean {', '.join(close)}? " if close else ""
    raise ModelError(
        f"unknown model {spec!r}: {hint}`irene-build models` lists the named ones; a transformers config.json, "
        "its folder, ORGANISATION/NAME on the hub, or package.module:factory work as well"
    )


def _transformers_class(name: str, spec: str) -> Any:
    import transformers

    transformers.utils.logging.set_verbosity_error()
    kind = getattr(transformers, name, None)
    if kind is None:
        raise ModelError(
            f"{spec}: transformers {transformers.__version__} has no class {name}; a newer version may"
        )
    return kind


def _from_file(path: Path) -> Spec:
    file = path / "config.json" if path.is_dir() else path
    _refuse_weights(file)
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"cannot read {file}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{file} is not a transformers configuration: {error}") from None
    return _from_config(data, str(path))


#: What begins a file of weights or of a graph -> what it is, and what to pass instead.
_FILES = (
    (("gguf",), b"GGUF", "a GGUF file", "its model's config.json, with --weights int4 or what it is stored in"),
    (("onnx",), b"\x08", "an ONNX graph", "the nn.Module that it was exported from, or its config.json"),
    (("safetensors",), b"", "a file of weights", "the config.json beside it, or its folder"),
    (("bin", "pt", "pth", "ckpt", "h5", "msgpack"), b"PK", "a file of weights", "the config.json beside it"),
    (("pt2",), b"PK", "an exported program", "the nn.Module that it was exported from"),
    (("tflite", "engine", "plan", "mlmodel"), b"", "a compiled model", "the nn.Module that it was made from"),
)  # fmt: skip


def _refuse_weights(file: Path) -> None:
    """Raises ModelError for files that hold weights or graphs: a tree is traced from a model's structure."""
    suffix = file.suffix.removeprefix(".").lower()
    try:
        with file.open("rb") as opened:
            head = opened.read(4)
    except OSError:
        return
    for suffixes, magic, what, instead in _FILES:
        if suffix in suffixes or (magic and len(magic) > 1 and head.startswith(magic)):
            raise ModelError(f"{file} is {what}, not a model's structure; pass {instead}")


def _from_hub(name: str) -> Spec:
    """The config.json of a public model: from the local cache of the hub, else downloaded (10 s at most)."""
    import urllib.request

    from huggingface_hub import constants, try_to_load_from_cache

    cached = try_to_load_from_cache(name, "config.json")
    if isinstance(cached, str):
        return _from_file(Path(cached))
    url = f"{constants.ENDPOINT}/{name}/resolve/main/config.json"
    try:
        if constants.HF_HUB_OFFLINE:
            raise OSError("HF_HUB_OFFLINE is set")
        with urllib.request.urlopen(url, timeout=10) as answer:
            data = json.loads(answer.read(2**24))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            f"{name}: not a named architecture, not a file, and its config.json could not be had from the hub "
            f"({error}); pass a config.json of it instead"
        ) from None
    return _from_config(data, name)


def _from_config(data: Any, where: str) -> Spec:
    if not isinstance(data, dict) or not isinstance(data.get("model_type"), str):
        raise ModelError(f'{where} is not a transformers configuration: it has no "model_type"')
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    model_type = data["model_type"]
    listed = data.get("architectures")
    named = [n for n in listed if _is_model_class(n)] if isinstance(listed, list) else []
    mapped = MODEL_MAPPING_NAMES.get(model_type)
    base = mapped[0] if isinstance(mapped, (tuple, list)) else mapped
    if not named and base is None:
        needs = " (it needs code from its repository, which is never run)" if data.get("auto_map") else ""
        raise ModelError(
            f"{where}: transformers {transformers.__version__} has no model type {model_type!r}{needs}"
        )
    kind = _transformers_class((named or [base])[0], where)
    try:
        config = kind.config_class.from_dict(data)
    except Exception as error:
        said = " ".join(str(error).split())[:240]
        raise ModelError(f"{where}: {kind.config_class.__name__} refuses it: {said}") from None
    inner = data.get("text_config")
    text: dict[str, Any] = inner if isinstance(inner, dict) else {}
    dtype = next(
        (d for part in (data, text) for d in (part.get("dtype"), part.get("torch_dtype")) if d), None
    )
    quantization = data.get("quantization_config") or text.get("quantization_config")
    return Spec(
        where, kind, config, dtype=str(dtype).removeprefix("torch.") if dtype else None,
        quantization=quantization if isinstance(quantization, dict) else None,
    )  # fmt: skip


def _is_model_class(name: Any) -> bool:
    """Whether transformers has a model of this name, and not some other thing."""
    import transformers

    kind = getattr(transformers, name, None) if isinstance(name, str) else None
    return (
        isinstance(kind, type)
        and issubclass(kind, transformers.PreTrainedModel)
        and hasattr(kind, "config_class")
    )


def _factory(spec: str) -> Callable[[], Any]:
    package, _, name = spec.partition(":")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        target: Any = importlib.import_module(package)
    except ImportError as error:
        raise ModelError(f"{spec}: cannot import {package}: {error}") from None
    for part in name.split("."):
        target = getattr(target, part, None)
    if not callable(target):
        raise ModelError(f"{spec}: {package} has no callable {name!r}")
    found: Callable[[], Any] = target
    return found
