"""What a record says of a model's energy: an estimate, of what, within which boundary, how sure, by which method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True)
class Facts:
    """``energy_j``, ``low_j``, ``high_j``: joules of ``runs`` inferences of the size that ``work`` names.

    ``provenance``: of the labels that the estimator was made of. ``supplier``, ``model_version``, ``download``,
    ``released``, ``licence``: as the user says, empty where unknown.
    """

    model: str
    work: str
    runs: int
    energy_j: float
    low_j: float
    high_j: float
    hardware: str
    boundary: str
    provenance: str
    method: str
    digest: str
    created: datetime
    tool_version: str
    flags: tuple[str, ...] = ()
    co2_g_per_kwh: float | None = None
    supplier: str = ""
    model_version: str = ""
    download: str = ""
    released: datetime | None = None
    licence: str = ""

    @property
    def kwh(self) -> float:
        return self.energy_j / JOULES_PER_KWH

    @property
    def co2_t(self) -> float | None:
        """Tonnes of CO2; None without a factor."""
        return None if self.co2_g_per_kwh is None else self.kwh * self.co2_g_per_kwh * 1e-6

    @property
    def sentence(self) -> str:
        """The estimate in words; what every record says."""
        simulated = (
            " SIMULATED: the estimator was calibrated on simulated energy." if self.is_simulated else ""
        )
        flags = f" Flags: {', '.join(self.flags)}." if self.flags else ""
        return (
            f"Estimate, not a measurement of this model: {self.energy_j:.6g} J for {self.runs:,} inferences of "
            f"{self.work}, 90 % interval {self.low_j:.6g} to {self.high_j:.6g} J, boundary {self.boundary}, on "
            f"{self.hardware}. Method: irene-build {self.tool_version}, estimator {self.digest[:12]} ({self.method}), "
            f"labels {self.provenance}. Energy consumption, estimated, in the sense of Regulation (EU) 2024/1689, "
            f"Annex XI, section 1, point 2(e).{flags}{simulated}"
        )

    @property
    def is_simulated(self) -> bool:
        return self.provenance == "simulated"

    @property
    def named(self) -> dict[str, str]:
        """The same one by one, under the names that the records use for what their formats have no field for."""
        return {
            "irene:estimate": "true",
            "irene:inferences": str(self.runs),
            "irene:work": self.work,
            "irene:energy_j": repr(self.energy_j),
            "irene:interval90_low_j": repr(self.low_j),
            "irene:interval90_high_j": repr(self.high_j),
            "irene:boundary": self.boundary,
            "irene:hardware": self.hardware,
            "irene:provenance": self.provenance,
            "irene:method": f"irene-build {self.tool_version}, {self.method}",
            "irene:estimator_digest": self.digest,
            "irene:flags": " ".join(self.flags),
        }


def of_prediction(prediction: Mapping[str, Any], runs: int, method: str, **more: Any) -> Facts:
    """Facts of a prediction as ``Prediction.to_json`` gives it, times ``runs``."""
    energy, (low, high) = prediction["energy_j"], prediction["interval_j"]
    phase, past = prediction.get("phase") or "forward", prediction.get("past_len") or 0
    work = f"batch {prediction['batch_size']}, {prediction['seq_len']} tokens, {prediction['dtype']}, {phase}"
    if past:
        work += f" after {past} cached tokens"
    about: dict[str, Any] = {
        key: str(prediction[key]) for key in ("hardware", "boundary", "provenance", "digest")
    }
    about |= {"flags": tuple(prediction["flags"]), **more}
    return Facts(
        str(prediction["model"]), work, runs, energy * runs, low * runs, high * runs, method=method, **about
    )
