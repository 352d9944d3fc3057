"""Which GPU of the driver's is meant: NVML counts GPUs by PCI address, CUDA by speed and by what it may see."""

import os
import sys
from typing import Any, List

from .errors import HardwareError

_VISIBLE, _ORDER = "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"


def find_gpu(nvml: Any, which: Any = None) -> Any:
    """The NVML handle of a GPU; meter, sampler and watch all ask here.

    ``which``: None, ``auto`` or ``cuda`` is CUDA's device 0, ``cuda:N`` its device N; a number is NVML's own index
    (``nvidia-smi -L``); else a UUID, as far as it is unique, or a PCI address. Raises HardwareError where there is
    none, and where what CUDA would take cannot be told: it names the variable to set.
    """
    text = "cuda:0" if which in (None, "", "auto", "cuda") else str(which)
    try:
        if text.startswith("cuda:"):
            return _cuda_device(nvml, text)
        if text.isdigit():
            return nvml.nvmlDeviceGetHandleByIndex(int(text))
        if text.upper().startswith("MIG"):
            raise HardwareError(_mig("GPU %s" % text))
        if text.upper().startswith("GPU-"):
            return _by_uuid(nvml, text, "GPU %s" % text)
        return nvml.nvmlDeviceGetHandleByPciBusId(text.encode("ascii", "replace"))
    except nvml.NVMLError as error:
        raise HardwareError("NVML: GPU %s: %s" % (text, error)) from None


def gpu_name(nvml: Any, handle: Any) -> str:
    """The GPU's name; ``GPU`` where it is not text. Raises NVMLError."""
    try:
        name = nvml.nvmlDeviceGetName(handle)
    except UnicodeDecodeError:
        return "GPU"
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)


def _cuda_device(nvml: Any, text: str) -> Any:
    number = text[5:]
    if not number.isdigit():
        raise HardwareError("NVML: GPU %r: write cuda:0, an index, a UUID or a PCI address" % text)
    handle = _as_torch_has_it(nvml, int(number)) or _as_cuda_will(nvml, int(number))
    try:
        mig = nvml.nvmlDeviceGetMigMode(handle)[0]
    except nvml.NVMLError:  # this GPU has no such mode
        mig = 0
    if mig:
        raise HardwareError(_mig("CUDA device %s" % number))
    return handle


def _mig(what: str) -> str:
    return (
        "NVML: %s is a slice of a GPU (MIG), and the driver counts the energy of whole boards only: turn MIG off, or "
        "measure the board by its own UUID (GPU-...) with nothing else on it" % what
    )


def _as_torch_has_it(nvml: Any, number: int) -> Any:
    """What torch's CUDA, where it runs already, has under this number; None where it cannot be asked."""
    torch = sys.modules.get("torch")
    try:
        if torch is None or not torch.cuda.is_initialized():
            return None
        about = torch.cuda.get_device_properties(number)
    except (AttributeError, AssertionError, RuntimeError):
        return None
    uuid = str(getattr(about, "uuid", ""))
    if uuid:
        own = uuid if uuid.startswith(("GPU-", "MIG-")) else "GPU-" + uuid
        if own not in _uuids(nvml):
            raise HardwareError(_mig("CUDA device %d" % number))
        return nvml.nvmlDeviceGetHandleByUUID(own)
    try:
        place = about.pci_domain_id, about.pci_bus_id, about.pci_device_id
    except AttributeError:
        return None
    return nvml.nvmlDeviceGetHandleByPciBusId(("%08X:%02X:%02X.0" % place).encode())


def _as_cuda_will(nvml: Any, number: int) -> Any:
    """What CUDA will have under this number, from the variables that it reads; it is not started for that."""
    said = os.environ.get(_VISIBLE)
    if said is None:
        return _numbered(nvml, number, "CUDA device %d" % number)
    visible: List[str] = []
    for entry in said.split(","):
        if not entry.strip() or entry.strip().startswith("-"):
            break  # CUDA reads no further than the first entry that is none
        visible.append(entry.strip())
    what = "%s=%s" % (_VISIBLE, said)
    if number >= len(visible):
        seen = "no GPU" if not visible else "%d" % len(visible)
        raise HardwareError(
            "NVML: CUDA sees %s here (%s), so there is no device %d to measure: change or unset %s, or name the GPU by "
            "its index or UUID" % (seen, what, number, _VISIBLE)
        )
    entry = visible[number]
    if entry.upper().startswith("MIG"):
        raise HardwareError(_mig(what))
    if entry.isdigit():
        return _numbered(nvml, int(entry), what)
    return _by_uuid(nvml, entry, what)


def _numbered(nvml: Any, number: int, what: str) -> Any:
    """CUDA's count is NVML's where it is told to go by PCI address, and where all GPUs are alike."""
    count = nvml.nvmlDeviceGetCount()
    if number >= count:
        raise HardwareError("NVML: %s: there are %d GPUs (see `nvidia-smi -L`)" % (what, count))
    handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
    if os.environ.get(_ORDER) != "PCI_BUS_ID" and len({gpu_name(nvml, handle) for handle in handles}) > 1:
        raise HardwareError(
            "NVML: %s: the GPUs here differ, and CUDA counts them by speed: set %s=PCI_BUS_ID (also where the model "
            "runs), or name the GPU by its UUID" % (what, _ORDER)
        )
    return handles[number]


def _by_uuid(nvml: Any, start: str, what: str) -> Any:
    found = [uuid for uuid in _uuids(nvml) if uuid.lower().startswith(start.lower())]
    if start.upper().startswith("GPU-") and len(found) == 1:
        return nvml.nvmlDeviceGetHandleByUUID(found[0])
    why = "fits %d of the GPUs" % len(found) if found else "is none of the GPUs here"
    raise HardwareError("NVML: %s: %s %s (see `nvidia-smi -L`)" % (what, start, why))


def _uuids(nvml: Any) -> List[str]:
    handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    found = [nvml.nvmlDeviceGetUUID(handle) for handle in handles]
    return [uuid.decode("ascii", "replace") if isinstance(uuid, bytes) else str(uuid) for uuid in found]
