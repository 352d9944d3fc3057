"""Draws new cases for every property test, for as long as is asked, until one fails.

    python tests/fuzz/new_cases.py --seconds 600        (`make fuzz FUZZ_SECONDS=600`)

The tests themselves draw the same cases every time. What is found here is kept as an example of its test, so that it
is tried again from then on.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_KEEP = """
A new case fails; the lines above name its test and its values ("Falsifying example"). Keep it:
  1. put it above the test, below @given, as  @example(name=value, ...)  (from hypothesis import example)
  2. run the test: it must fail with it; mend the code, and it passes
The same cases again:  python -m pytest -m hypothesis --hypothesis-profile=new --hypothesis-seed={seed}
"""


def command(seed: int, where: list[str]) -> list[str]:
    """One round: all property tests, with cases that the seed tells."""
    options = ["--hypothesis-profile=new", f"--hypothesis-seed={seed}", "-p", "no:cacheprovider"]
    return [sys.executable, "-m", "pytest", "-q", "-x", "-m", "hypothesis", *options, *where]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600.0, help="begin no round after this time")
    parser.add_argument("--seed", type=int, default=None, help="of the first round; the next ones count up")
    parser.add_argument("where", nargs="*", default=["tests"], help="tests, as pytest takes them")
    options = parser.parse_args()
    first = random.SystemRandom().randrange(2**31) if options.seed is None else options.seed
    end, rounds = time.monotonic() + options.seconds, 0
    while not rounds or time.monotonic() < end:
        seed = first + rounds
        print(f"round {rounds + 1}, seed {seed}", flush=True)
        if subprocess.run(command(seed, options.where), cwd=ROOT, check=False).returncode:
            print(_KEEP.format(seed=seed))
            return 1
        rounds += 1
    print(f"{rounds} rounds of new cases: none fails")
    return 0


if __name__ == "__main__":
    sys.exit(main())
