"""The error hierarchy, which the runtime owns because it ships."""

from irene_runtime.errors import (
    DatasetError,
    EstimatorError,
    HardwareError,
    InputError,
    IreneError,
    MeasurementError,
    MeterError,
    ModelError,
    OutputError,
    ParityError,
    RunError,
    TreeError,
)

__all__ = [
    "DatasetError", "EstimatorError", "HardwareError", "InputError", "IreneError", "MeasurementError",
    "MeterError", "ModelError", "OutputError", "ParityError", "RunError", "TreeError",
]  # fmt: skip
