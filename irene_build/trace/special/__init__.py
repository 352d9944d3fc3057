"""Inputs of families that the general rules do not reach: a function each, in rooms by what a model takes in."""

from __future__ import annotations

from . import audio, multimodal, sequences, vision
from .kind import Inputs

#: model type -> inputs, tried before the general rules.
FAMILIES: dict[str, Inputs] = {
    **audio.FAMILIES, **vision.FAMILIES, **multimodal.FAMILIES, **sequences.FAMILIES,
}  # fmt: skip
