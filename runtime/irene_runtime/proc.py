"""What the kernel counts: CPU ticks of the host or of a container, and memory."""

import os
from typing import Tuple

CGROUP = "/sys/fs/cgroup"


def cpu_ticks(stat: bytes) -> Tuple[int, int]:
    """``(busy, total)`` ticks of /proc/stat: busy = user + nice + system + irq + softirq, total = busy + idle
    + iowait + steal. Guest time is in user; stolen time ran somebody else's work. Behind a ``usage_usec`` or
    ``usage_nsec``, which a container has of its own, busy is that.
    """
    field = stat.split(b"\n", 1)[0].split()
    if len(field) < 5 or field[0] != b"cpu":
        raise ValueError("no `cpu` line")
    user, nice, system, idle, iowait, irq, softirq, steal = ([int(x) for x in field[1:9]] + [0] * 4)[:8]
    busy = user + nice + system + irq + softirq
    total = busy + idle + iowait + steal
    for unit, tick in ((b"usage_usec ", 10_000), (b"usage_nsec ", 10_000_000)):
        own = stat.rpartition(unit)[2].split() if unit in stat else []
        if own:
            return int(own[0]) // tick, total
    return busy, total


def memory_usage(meminfo: bytes) -> float:
    """Share of memory that is not available, %, from the first lines of /proc/meminfo."""
    size = {}
    for line in meminfo.splitlines():
        name, _, rest = line.partition(b":")
        if name in (b"MemTotal", b"MemAvailable", b"MemFree") and rest.endswith(b" kB"):
            size[name] = int(rest.split()[0])
    free = size.get(b"MemAvailable", size.get(b"MemFree"))
    if free is None or not size.get(b"MemTotal"):
        raise ValueError("no MemTotal or MemAvailable")
    return 100.0 * (1.0 - free / size[b"MemTotal"])


def container_cpu(cgroup: str = CGROUP) -> str:
    """The file that counts the CPU time of the container that this process is in; empty where it is in none."""
    if os.path.exists(os.path.join(cgroup, "cgroup.type")):  # the root of the machine's hierarchy has none
        return os.path.join(cgroup, "cpu.stat")
    usage = os.path.join(cgroup, "cpuacct", "cpuacct.usage")
    inside = os.path.exists("/.dockerenv") or os.path.exists("/run/.containerenv")
    return usage if inside and os.path.exists(usage) else ""
