"""The steps of `calibrate`, in order: profile, plan, measure, dataset, train, report."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irene_build import console
from irene_build.calibrate import transfer, workload
from irene_build.calibrate.planner import Planner
from irene_build.calibrate.request import Request, parse_seconds
from irene_build.calibrate.summary import campaign_summary, describe
from irene_build.calibrate.targets import read_plan_file
from irene_build.errors import InputError, MeasurementError
from irene_build.paths import hardware_dir
from irene_build.received import json_of, refuse_factories

if TYPE_CHECKING:
    from irene_build.hardware import HardwareProfile
    from irene_build.measure.device import Device
    from irene_build.measure.journal import Journal
    from irene_build.measure.outcome import Outcome
    from irene_build.meters.base import Meter

SIMULATED = (
    "SIMULATED: no energy is measured here. The virtual PC's power is computed from this machine's CPU load; "
    "every joule that follows is a simulated one."
)
#: Other programs may keep so many cores busy before anybody is told.
BUSY_CORES = 0.25
_SIMULATED_BUDGET_S, _BUDGET_S = 180.0, 1800.0


def calibrate(asked: Request) -> None:
    """Do what was asked; raises IreneError."""
    asked.check()
    if asked.origin and asked.hardware and not asked.new and transfer.is_imported(asked.hardware):
        transfer.carry(asked.hardware, asked.origin, asked.labels, asked.train, asked.as_json)
        return
    profile, missed = choose_hardware(asked.hardware)
    virtual = profile.meter.get("driver") == "virtual" or asked.meter == "virtual"
    if not asked.hardware:
        for reason in missed:
            console.note(f"not here: {reason}")
        console.note(f"calibrating {profile.name}: {profile.description}")
    if virtual:
        console.note(SIMULATED)
    planner = Planner(asked, profile, _SIMULATED_BUDGET_S if virtual else _BUDGET_S)
    if asked.dry_run:
        _dry_run(planner)
        return
    tell_if_busy()
    path = hardware_dir(profile.name) / "campaign.sqlite"
    with _prepared(asked, path) as journal:
        outcome = _measure(planner, journal)
    _finish(asked, profile, path, outcome)


def tell_if_busy(seconds: float = 0.5) -> float | None:
    """Says so where other programs use the processors, before anything is measured; the cores that they keep busy."""

    from irene_build.measure.conditions import Conditions
    from irene_runtime.sampler import Sampler

    sampler = Sampler().open()
    try:
        look = Conditions(sampler.sample)
        before = look.snapshot()
        time.sleep(seconds)
        cores = look.foreign_cores(before, look.snapshot())
    finally:
        sampler.close()
    if cores is not None and cores > BUSY_CORES:
        console.note(
            f"this machine is busy: other programs use {cores:.1f} of {os.cpu_count()} cores. What is measured "
            "now is worth less for that; a quiet machine gives errors of a few per cent"
        )
    return cores


def choose_hardware(hardware: str, listen_s: float = 6.0) -> tuple[HardwareProfile, list[str]]:
    """The profile that was asked for, else one around the best real meter, else the simulated PC."""
    from irene_build.hardware import load_profile
    from irene_build.meters import best_profile

    if hardware:
        return load_profile(hardware), []
    profile, findings = best_profile(listen_s)
    return profile, [f"{f.name}: {f.reason}" for f in findings if not f.available]


def _dry_run(planner: Planner) -> None:
    meter = planner.meter()
    plan = planner.plan(planner.protocol(meter))
    if planner.asked.as_json:
        console.emit_json(
            {
                "hardware": planner.profile.name,
                "meter": meter.info.name,
                "boundary": meter.info.boundary,
                **plan.as_dict(),
            }
        )
        return
    console.say(describe(plan))


@contextmanager
def _prepared(asked: Request, path: Path) -> Iterator[Journal]:
    """The journal to go on with or to fill; refuses what would mix two campaigns."""
    from irene_build.measure.journal import Journal, require_same

    if asked.resume and not path.is_file():
        raise InputError(f"nothing to resume: there is no {path}")
    journal = Journal(path)
    try:
        if asked.new and (journal.has_campaign or journal.has_dataset):
            journal.close()
            aside = _free_name(path)
            path.rename(aside)
            console.note(f"the earlier campaign is kept as {aside}")
            journal = Journal(path)
        if not journal.has_campaign and journal.has_dataset:
            raise InputError(
                f"{path} holds an imported dataset: --new keeps it aside, or use another --hardware"
            )
        if asked.resume and not journal.has_campaign:
            raise InputError(f"nothing to resume: {path} holds no campaign")
        if journal.has_campaign and not asked.resume and asked.arguments():
            require_same(journal, asked.arguments())
        yield journal
    finally:
        journal.close()


def _free_name(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.stem}-{number}{path.suffix}")).exists():
        number += 1
    return aside


def _measure(planner: Planner, journal: Journal) -> Outcome:
    """Run or go on with the campaign of the journal; plans it where there is none."""
    from irene_build.measure.device import open_device
    from irene_build.measure.outcome import outcome
    from irene_build.measure.start import start_journal
    from irene_build.meters import open_meter
    from irene_build.meters.assess import idle_noise

    asked, profile = planner.asked, planner.profile
    if journal.has_campaign and journal.get("finished"):
        console.note(f"{journal.path} is a finished campaign (--new starts another)")
        return outcome(journal)
    if asked.threads:
        import torch

        torch.set_num_threads(asked.threads)
    if journal.has_campaign:
        name = asked.meter or journal.get("arguments", {}).get("meter") or None
        unopened = open_meter(profile, name, journal.get("device"))
    else:
        unopened = planner.meter()
        planner.check(unopened)
    with unopened as meter:
        source = str(meter.info.details.get("replayed", meter.info.name))
        if not journal.has_campaign:
            plan = planner.plan(planner.protocol(meter, *idle_noise(meter)))
            if not asked.as_json:
                console.say(describe(plan))
            header: dict[str, Any] = {
                "hardware": profile.name,
                "boundary": meter.info.boundary,
                "provenance": meter.info.provenance,
                "label_source": source,
                "device": planner.device_name,
                "fingerprint": fingerprint(profile, planner.device_name),
            }
            # A profile's standby power is that of its own meter's boundary.
            if profile.standby_power_w is not None and meter.info.boundary == profile.boundary:
                header["standby_power_w"] = profile.standby_power_w
            start_journal(journal, plan, header)
        elif source != journal.get("label_source"):
            raise InputError(
                f"{journal.path} was begun with the meter {journal.get('label_source')!r}, this is "
                f"{source!r}: use that one, or --new"
            )
        else:
            console.note(f"going on with the campaign in {journal.path}")
            _refuse_code(asked, journal)
        return _run(asked, journal, meter, open_device(journal.get("device")))


def _refuse_code(asked: Request, journal: Journal) -> None:
    """A journal may have come from elsewhere: a factory in it runs only where the command line names it as well."""
    targets = [json_of(text, f"{journal.path}: tree") for (text,) in journal.rows("SELECT target FROM tree")]
    models = [str(target.get("model")) for target in targets if isinstance(target, dict)]
    plan = asked.plan_file
    named = [*asked.models, *(target.model for target in (read_plan_file(plan) if plan else ()))]
    refuse_factories(models, str(journal.path), named, "--model")


def _run(asked: Request, journal: Journal, meter: Meter, device: Device) -> Outcome:
    from irene_build.measure.campaign import Campaign
    from irene_build.measure.sampling_cost import sampling_cost
    from irene_runtime.sampler import Sampler

    stop_after = parse_seconds(asked.stop_after) if asked.stop_after else None
    nodes = workload.ReplayWorkload(device.name, workload.free_bytes(device.name))
    gpu = None if device.name == "cpu" else device.name
    sampler = Sampler(gpu=gpu)
    info = {
        "sampler": sampling_cost(seconds=1.0),
        "threads": workload.torch_threads(),
        "device": device.name,
    }
    with console.Progress(1.0, "measuring", quiet=asked.as_json) as progress:

        def report(done: float, total: float, what: str, left_s: float) -> None:
            progress.total = total
            progress.update(done, what, left_s)

        campaign = Campaign(journal, meter, sampler, device, nodes, report, info, gpu, progress.say)
        return campaign.run(stop_after)


def fingerprint(profile: HardwareProfile, device: str) -> dict[str, str]:
    """What tells this PC from another, as the runtime will ask for it."""
    from irene_runtime.monitor import machine_fingerprint
    from irene_runtime.sampler import Sampler

    with_gpu = Sampler(gpu=None if device == "cpu" else device).open()
    try:
        return {**machine_fingerprint(with_gpu.gpu_name), "profile": profile.name}
    finally:
        with_gpu.close()


def _finish(asked: Request, profile: HardwareProfile, path: Path, outcome: Outcome) -> None:
    """Dataset, estimator and what is said about them."""
    from irene_build.dataset.from_campaign import dataset_from_campaign
    from irene_build.dataset.store import save_dataset

    if outcome.finished and not outcome.labelled:
        raise MeasurementError(
            f"{path}: no node has a label; {outcome.failed[0] if outcome.failed else 'every trial was spoilt'}; "
            "see `irene-build doctor`, then start again with --new"
        )
    result: dict[str, Any] = {"hardware": profile.name, "journal": str(path), **asdict(outcome)}
    if outcome.finished:
        dataset = dataset_from_campaign(path)
        save_dataset(dataset, path)
        result.update(
            boundary=dataset.boundary, provenance=dataset.provenance, label_source=dataset.label_source
        )
        kept = ("half_width_median", "half_width_nodes", "energy_j", "above_idle_j", "above_idle_share")
        result.update({key: dataset.info[key] for key in kept})
        if asked.train:
            result.update(_train(asked, profile, dataset))
    if asked.as_json:
        console.emit_json(result)
        return
    console.say(campaign_summary({**result, "new": asked.new}))


def _train(asked: Request, profile: HardwareProfile, dataset: Any) -> dict[str, Any]:
    from irene_build.train import estimator_file

    what = f"carrying {asked.origin} over to" if asked.origin else f"training ({asked.method}) on"
    console.note(f"{what} {len(dataset.trees)} trees")
    started = time.monotonic()
    estimator, errors = transfer.fit(dataset, asked.method, asked.origin, asked.seed)
    path = hardware_dir(profile.name) / "estimator.json"
    estimator_file.save(estimator, path)
    about = {"estimator": str(path), "method": asked.method, "training_s": time.monotonic() - started}
    if errors:
        about = {**about, "carried_from": asked.origin, "transfer": errors}
    return {**about, "evaluation": estimator["evaluation"]}
