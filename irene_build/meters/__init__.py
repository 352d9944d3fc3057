"""Energy sources: find them, open them, read joules and watts with their provenance."""

from irene_build.meters.base import Finding, Meter, MeterInfo, Reading
from irene_build.meters.registry import DRIVERS, best_profile, find_meters, open_meter, register_meter

__all__ = [
    "DRIVERS", "Finding", "Meter", "MeterInfo", "Reading", "best_profile", "find_meters", "open_meter",
    "register_meter",
]  # fmt: skip
