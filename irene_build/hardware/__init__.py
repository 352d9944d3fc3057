"""Hardware profiles: what a PC is made of, and how its energy is measured."""

from irene_build.hardware.profile import (
    HardwareProfile,
    Strubell,
    Supply,
    load_profile,
    profile_names,
    this_pc,
)

__all__ = ["HardwareProfile", "Strubell", "Supply", "load_profile", "profile_names", "this_pc"]
