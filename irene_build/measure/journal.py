"""The journal of a campaign: one SQLite file that survives whatever happens to the process that writes it.

Schema, version 2. Times ``*_ns`` are ``time.monotonic_ns`` of the session that wrote them (they mean
nothing across sessions); JSON is text. What was observed:

    campaign(key, value)      format, version, hardware, boundary, provenance, label_source, arguments,
                              protocol, seed, notes, finished; values are JSON
    tree(id, target, nodes, tree)            target: JSON; tree: zlib of a tree file
    work(id, key, name, estimate_s, failed)  a distinct node, measured once; failed: why it could not run
    node(tree, node, work)                   the nodes of trees that a measurement stands for
    session(id, started_ns, wall_s, boot, meter, info)   one process at work, as long as one line maps its clock
                              to the meter's; meter, info: JSON
    power(session, host_ns, value, meter_s)  every reading: W, or cumulative J; meter_s: the meter's clock
    resource(session, host_ns, ...)          every sample, columns as irene_runtime.sampler.Sample
    event(session, host_ns, wall_s, kind, detail)        what happened, detail: JSON
    pulse(session, busy)                     a load pulse; busy: JSON [[start_ns, end_ns], ...]
    round(number, works)                     works of a round in their random order: JSON
    trial(id, session, round, work, attempt, start_ns, end_ns, runs, idle_start_ns, idle_end_ns, accepted,
          reasons, foreign_cores)            a measured window, the idle window before it; reasons: JSON;
                                             foreign_cores: cores and GPUs that others used, NULL: not known

What is derived from it, by irene_build.measure.relabel, at any time and to the bit:

    clock(session, offset_s, drift, reference_s, residual_s, pulses, score, sent)   pulses found of those sent
    label(trial, energy_j, above_idle_j, power_w, idle_w, latency_s, readings, clock_offset_s, clock_drift,
          clock_residual_s, error_j, features)           J of one run; error_j: of quantisation and clock
    result(work, energy_j, std_j, above_idle_j, half_width, trials, features)   half_width: 95 %, relative

Version 1 has no ``foreign_cores``; it is added, unknown, when such a file is opened.
``irene_build.dataset.store`` keeps the dataset in the same file.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from irene_build.errors import DatasetError, InputError, MeasurementError
from irene_build.received import inflate, json_of, plain_tables

FORMAT = "irene-campaign"
VERSION = 2
SAMPLE_COLUMNS = (
    "cpu_busy_ticks", "cpu_total_ticks", "cpu_util", "mem_usg", "gpu_util", "gm_usg", "g_clk", "gm_clk",
    "gpu_energy_j", "gpu_power_w",
)  # fmt: skip
OBSERVED = {
    "campaign": "key TEXT PRIMARY KEY, value TEXT NOT NULL",
    "tree": "id INTEGER PRIMARY KEY, target TEXT NOT NULL, nodes INTEGER NOT NULL, tree BLOB NOT NULL",
    "work": "id INTEGER PRIMARY KEY, key TEXT UNIQUE NOT NULL, name TEXT NOT NULL, estimate_s REAL NOT NULL,"
    " failed TEXT",
    "node": "tree INTEGER NOT NULL, node INTEGER NOT NULL, work INTEGER NOT NULL, PRIMARY KEY(tree, node)",
    "session": "id INTEGER PRIMARY KEY, started_ns INTEGER NOT NULL, wall_s REAL NOT NULL,"
    " boot TEXT NOT NULL, meter TEXT NOT NULL, info TEXT NOT NULL",
    "power": "session INTEGER NOT NULL, host_ns INTEGER NOT NULL, value REAL NOT NULL, meter_s REAL",
    "resource": "session INTEGER NOT NULL, host_ns INTEGER NOT NULL, "
    + ", ".join(f"{name} REAL" for name in SAMPLE_COLUMNS),
    "event": "session INTEGER NOT NULL, host_ns INTEGER NOT NULL, wall_s REAL NOT NULL, kind TEXT NOT NULL,"
    " detail TEXT NOT NULL",
    "pulse": "session INTEGER NOT NULL, busy TEXT NOT NULL",
    "round": "number INTEGER PRIMARY KEY, works TEXT NOT NULL",
    "trial": "id INTEGER PRIMARY KEY, session INTEGER NOT NULL, round INTEGER NOT NULL,"
    " work INTEGER NOT NULL, attempt INTEGER NOT NULL, start_ns INTEGER NOT NULL,"
    " end_ns INTEGER NOT NULL, runs INTEGER NOT NULL,"
    " idle_start_ns INTEGER NOT NULL, idle_end_ns INTEGER NOT NULL, accepted INTEGER NOT NULL,"
    " reasons TEXT NOT NULL, foreign_cores REAL, UNIQUE(round, work, attempt)",
}
DERIVED = {
    "clock": "session INTEGER PRIMARY KEY, offset_s REAL, drift REAL, reference_s REAL, residual_s REAL,"
    " pulses INTEGER, score REAL, sent INTEGER",
    "label": "trial INTEGER PRIMARY KEY, energy_j REAL, above_idle_j REAL, power_w REAL, idle_w REAL,"
    " latency_s REAL, readings INTEGER, clock_offset_s REAL, clock_drift REAL, clock_residual_s REAL,"
    " error_j REAL, features TEXT",
    "result": "work INTEGER PRIMARY KEY, energy_j REAL, std_j REAL, above_idle_j REAL, half_width REAL,"
    " trials INTEGER, features TEXT",
}
BUSY_TIMEOUT_S = 10.0


class Journal:
    """Writes and reads one journal file. One writer at a time; threads of that process may share it."""

    def __init__(self, path: Path, *, must_exist: bool = False) -> None:
        """Open, or create where there is none. Raises InputError where it is in use or not a journal."""
        self.path = path
        self._lock = threading.RLock()
        self._depth = 0
        self._guard: int | None = None
        if must_exist and not path.is_file():
            raise InputError(f"no journal at {path}: run `irene-build calibrate` first")
        self._lock_path = path.with_name(path.name + ".lock")
        self._made = not path.exists()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._guard = self._claim()
        except OSError as error:
            raise InputError(
                f"cannot write in {path.parent}: {error.strerror}; make it writable or use other --artifacts"
            ) from None
        try:
            self.database = self._connect()
        except BaseException:
            self._release()
            raise

    def _claim(self) -> int:
        """An advisory lock that the system drops with the process, even after kill -9."""
        while True:
            guard = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                owner = os.pread(guard, 32, 0).decode(errors="replace").strip() or "?"
                os.close(guard)
                raise InputError(
                    f"{self.path} is being written by another irene-build (process {owner}): "
                    "wait for it, stop it with Ctrl-C, or use other --artifacts"
                ) from None
            # Who had the lock before removes the file as it lets go: then this one locks nothing.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(guard), self._lock_path.stat()):
                    break
            os.close(guard)
        os.ftruncate(guard, 0)
        os.pwrite(guard, f"{os.getpid()}\n".encode(), 0)
        return guard

    def _release(self) -> None:
        if self._guard is not None:
            self._lock_path.unlink(missing_ok=True)
            os.close(self._guard)
            self._guard = None

    def _connect(self) -> sqlite3.Connection:
        try:
            database = sqlite3.connect(
                self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise InputError(f"cannot open {self.path}: {error}; is it a file that may be written?") from None
        try:
            database.execute("PRAGMA journal_mode = WAL")
            # A finished trial must survive a power cut too, so every commit reaches the disk.
            database.execute("PRAGMA synchronous = FULL")
            plain_tables(database, self.path)
            if database.execute("SELECT 1 FROM sqlite_master WHERE name = 'campaign'").fetchone():
                self._check(dict(database.execute("SELECT key, value FROM campaign")))
                _upgrade(database)
        except sqlite3.OperationalError as error:
            database.close()
            raise self._failure(error) from None
        except sqlite3.DatabaseError as error:
            database.close()
            raise DatasetError(f"{self.path} is not a usable SQLite file: {error}") from None
        except DatasetError:
            database.close()
            raise
        return database

    def _check(self, header: Mapping[str, str]) -> None:
        if header.get("format") != json.dumps(FORMAT):
            raise DatasetError(f"{self.path}: format is {header.get('format')}, expected {FORMAT!r}")
        version = header.get("version", "")
        if not version.isdecimal() or int(version) > VERSION:
            raise DatasetError(
                f"{self.path}: journal version {version} is newer than {VERSION}, the newest known here:"
                " update irene-build"
            )

    @property
    def has_campaign(self) -> bool:
        return self._has("campaign")

    @property
    def has_dataset(self) -> bool:
        """A dataset of this campaign, or one that was imported."""
        return self._has("dataset")

    def _has(self, table: str) -> bool:
        return bool(self.rows("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (table,)))

    def create(self, header: Mapping[str, Any]) -> None:
        """Make the tables and write the campaign's header; part of the caller's transaction."""
        with self.transaction():
            for name, columns in {**OBSERVED, **DERIVED}.items():
                self.database.execute(f"CREATE TABLE {name}({columns})")
            self.database.execute("CREATE INDEX power_time ON power(session, host_ns)")
            self.database.execute("CREATE INDEX resource_time ON resource(session, host_ns)")
            self.set("format", FORMAT)
            self.set("version", VERSION)
            for key, value in header.items():
                self.set(key, value)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; nests. Raises MeasurementError where the disk is full or the file is locked."""
        with self._lock:
            if self._depth:
                yield
                return
            try:
                self.database.execute("BEGIN IMMEDIATE")
                self._depth = 1
                yield
                self.database.execute("COMMIT")
            except BaseException as error:
                if self.database.in_transaction:
                    self.database.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    raise self._failure(error) from None
                raise
            finally:
                self._depth = 0

    def _failure(self, error: sqlite3.Error) -> MeasurementError:
        text = str(error)
        advice = "close the program that holds it" if "locked" in text else "free space or check the disk"
        return MeasurementError(
            f"cannot write {self.path}: {text}; every finished trial is safe: {advice}"
            " and run the same command again"
        )

    def set(self, key: str, value: Any) -> None:
        text = json.dumps(value, sort_keys=True, allow_nan=False)
        with self.transaction():
            self.database.execute("INSERT OR REPLACE INTO campaign VALUES(?, ?)", (key, text))

    def get(self, key: str, default: Any = None) -> Any:
        row = self.rows("SELECT value FROM campaign WHERE key = ?", (key,))
        return json_of(row[0][0], f"{self.path}: campaign.{key}") if row else default

    def rows(self, query: str, values: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self.database.execute(query, tuple(values)).fetchall()
            except sqlite3.Error as error:
                raise DatasetError(f"{self.path} is damaged or not a journal: {error}") from None

    def insert(self, table: str, *rows: Iterable[Any]) -> int:
        """Append rows; gives the id of the last one."""
        with self.transaction():
            last = 0
            for row in rows:
                values = tuple(row)
                marks = ", ".join("?" * len(values))
                last = self.database.execute(f"INSERT INTO {table} VALUES({marks})", values).lastrowid or 0
            return last

    def event(self, session: int, kind: str, detail: Mapping[str, Any] | None = None) -> None:
        text = json.dumps(detail or {}, sort_keys=True)
        self.insert("event", (session, time.monotonic_ns(), time.time(), kind, text))

    def replace_derived(self, tables: Mapping[str, Iterable[Iterable[Any]]]) -> None:
        """Swap the derived tables for new rows, in one transaction."""
        with self.transaction():
            for name, rows in tables.items():
                self.database.execute(f"DROP TABLE IF EXISTS {name}")
                self.database.execute(f"CREATE TABLE {name}({DERIVED[name]})")
                self.insert(name, *rows)

    def close(self) -> None:
        """Fold the write-ahead log back, so that the one file is everything; a new one left empty goes."""
        with self._lock:
            empty = self._made and not self.has_campaign
            # Full or locked: the log stays beside the file and the next opening folds it in.
            with suppress(sqlite3.Error):
                self.database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                self.database.execute("PRAGMA journal_mode = DELETE")
            self.database.close()
            if empty:
                # Wrong input leaves nothing behind, neither a file nor the folder made for it.
                for ending in ("", "-wal", "-shm"):
                    self.path.with_name(self.path.name + ending).unlink(missing_ok=True)
            self._release()
            if empty:
                with suppress(OSError):
                    self.path.parent.rmdir()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def require_same(journal: Journal, arguments: Mapping[str, Any]) -> None:
    """Raises InputError where an unfinished campaign was planned with other arguments."""
    planned = journal.get("arguments")
    changed = [key for key in sorted({*planned, *arguments}) if planned.get(key) != arguments.get(key)]
    if changed:
        said = "; ".join(f"{key} was {planned.get(key)!r}, now {arguments.get(key)!r}" for key in changed)
        raise InputError(
            f"{journal.path} holds a campaign that was planned differently ({said}): "
            "--resume goes on with it, --new keeps it aside and starts another"
        )


def _upgrade(database: sqlite3.Connection) -> None:
    """Version 1 to 2, all or nothing."""
    if database.execute("SELECT value FROM campaign WHERE key = 'version'").fetchone() == ("1",):
        database.execute("BEGIN IMMEDIATE")
        # Where `foreign_cores` comes last in both, rows are written alike.
        database.execute("ALTER TABLE trial ADD COLUMN foreign_cores REAL")
        database.execute("UPDATE campaign SET value = ? WHERE key = 'version'", (str(VERSION),))
        database.execute("COMMIT")


def pack(text: str) -> bytes:
    """How tree files are kept."""
    return zlib.compress(text.encode("utf-8"), 6)


def unpack(blob: bytes) -> str:
    return inflate(blob, "a tree of the journal").decode("utf-8")
