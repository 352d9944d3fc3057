"""Inputs of speech models, music models and audio codecs."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from ..config import deep, token_ids, torch_zeros
from .kind import Inputs


def _musicgen(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    import torch

    books = int(deep(config, "num_codebooks") or 4)
    if not hasattr(module, "text_encoder"):
        return {"input_ids": torch.full((batch_size * books, seq_len), 5)}
    return {
        "input_ids": token_ids(config, batch_size, seq_len),
        "decoder_input_ids": torch.full((batch_size * books, seq_len), 5),
    }


def _clap(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    import torch

    given = {
        "input_features": torch_zeros(batch_size, 1, 1001, 64),
        "is_longer": torch.zeros((batch_size, 1), dtype=torch.bool),
    }
    if hasattr(module, "text_model"):
        given["input_ids"] = token_ids(config, batch_size, seq_len)
    return given


def _codebooks(attribute: str, extra: int) -> Inputs:
    """Token ids of several streams: [batch, tokens, streams]."""

    def inputs(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
        import torch

        return {"input_ids": torch.full((batch_size, seq_len, int(getattr(config, attribute)) + extra), 5)}

    return inputs


def _dia(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    import torch

    streams = int(deep(config, "num_channels") or 9)
    return {
        "input_ids": token_ids(None, batch_size, seq_len),
        "decoder_input_ids": torch.full((batch_size, seq_len, streams), 5),
    }


def _features(wide: Callable[[Any], int], frames: int = 200, name: str = "input_features") -> Inputs:
    """Acoustic features [batch, frames, wide(config)], and a mask where forward demands one."""

    def inputs(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
        return {name: torch_zeros(batch_size, frames, wide(config))}

    return inputs


def _gemma3n_audio(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    """The mask is true where a frame is padding."""
    import torch

    return {
        "audio_mel": torch_zeros(batch_size, 200, config.input_feat_size),
        "audio_mel_mask": torch.zeros((batch_size, 200), dtype=torch.bool),
    }


def _speecht5(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    """Without pre-nets both sides take hidden states."""
    return {
        "input_values": torch_zeros(batch_size, seq_len, config.hidden_size),
        "decoder_input_values": torch_zeros(batch_size, seq_len, config.hidden_size),
    }


def _clvp(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    size = int(config.decoder_config.feature_size)
    return {
        "input_ids": token_ids(config, batch_size, seq_len), "input_features": torch_zeros(batch_size, size, 400),
    }  # fmt: skip


def _codec(channels_of: Callable[[Any], int], name: str = "hidden_states") -> Inputs:
    """What a part of an audio codec takes: [batch, channels, samples]."""

    def inputs(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
        wide = channels_of(config)
        return {name: torch_zeros(batch_size, wide, 16000 if wide == 1 else seq_len)}

    return inputs


def _neucodec(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    semantic = config.semantic_model_config
    return {
        "input_values": torch_zeros(batch_size, 1, 16000),
        "input_features": torch_zeros(batch_size, 50, int(semantic.feature_projection_input_dim)),
    }


def _voxtral_realtime(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    """One token of text for each step of audio (``audio_length_per_tok`` mel frames)."""
    import torch

    bins, frames = int(config.audio_config.num_mel_bins), seq_len * int(config.audio_length_per_tok)
    return {
        "input_ids": token_ids(config, batch_size, seq_len),
        "input_features": torch_zeros(batch_size, bins, frames),
        "num_delay_tokens": torch.tensor(int(config.default_num_delay_tokens)),
    }


def _samples(module: Any, config: Any, batch_size: int, seq_len: int) -> dict[str, Any]:
    """A waveform of whole tokens."""
    return {"input_values": torch_zeros(batch_size, 8 * prod(config.patch_sizes))}


#: model type -> inputs(module, config, batch_size, seq_len).
FAMILIES: dict[str, Inputs] = {
    "musicgen": _musicgen,
    "musicgen_melody": _musicgen,
    "musicgen_decoder": _musicgen,
    "musicgen_melody_decoder": _musicgen,
    "clap": _clap,
    "clap_audio_model": _clap,
    "kyutai_speech_to_text": _codebooks("num_codebooks", 1),
    "dia": _dia,
    "fun_asr_nano_encoder": _features(lambda c: c.num_mel_bins * c.num_stacked_frames),
    "gemma3n_audio": _gemma3n_audio,
    "gemma4_audio": _features(lambda c: 128),
    "granite_speech5_ctc": _features(lambda c: 4 * c.encoder_config.num_mel_bins, 256),
    "granite_speech5_encoder": _features(lambda c: 4 * c.num_mel_bins, 256),
    "nemotron3_5_transcribe_word_timestamp": _features(lambda c: c.hidden_size, 64, "inputs_embeds"),
    "speecht5": _speecht5,
    "clvp": _clvp,
    "vibevoice_acoustic_tokenizer_decoder": _codec(lambda c: c.hidden_size),
    "vibevoice_acoustic_tokenizer_encoder": _codec(lambda c: c.channels),
    "neucodec": _neucodec,
    "xcodec2": _neucodec,
    "voxtral_realtime": _voxtral_realtime,
    "muse_spark_audio": _samples,
}
