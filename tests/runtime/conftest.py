"""Fixtures of this folder."""

from tests.nvml import fake_nvml, nvml_library

__all__ = ["fake_nvml", "nvml_library"]
