"""The steps of `calibrate`, in order: profile, plan, measure, dataset, train, report."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irene_build import console
from irene_build.calibrate import transfer
from irene_build.calibrate import workload as parts
from irene_build.errors import InputError, MeasurementError
from irene_build.paths import find_artifact, hardware_dir

if TYPE_CHECKING:
    from irene_build.hardware import HardwareProfile
    from irene_build.measure.journal import Journal
    from irene_build.measure.outcome import Outcome
    from irene_build.measure.plan import Plan, Protocol, Target
    from irene_build.meters.base import Meter

SIMULATED = (
    "SIMULATED: no energy is measured here. The virtual PC's power is computed from this machine's CPU load; "
    "every joule that follows is a simulated one."
)
_DEFAULT_BUDGET_S = {True: 180.0, False: 1800.0}


@dataclass(frozen=True)
class Request:
    """The options of `calibrate`."""

    hardware: str
    meter: str
    models: tuple[str, ...]
    grid: str | None
    plan_file: Path | None
    budget: str
    precision: float
    seed: int
    device: str
    threads: int
    dry_run: bool
    resume: bool
    new: bool
    stop_after: str
    train: bool
    method: str
    origin: str
    labels: int
    as_json: bool

    def arguments(self) -> dict[str, Any]:
        """What was said about the plan; what was left open is not in it."""
        said = {
            "meter": self.meter,
            "models": list(self.models),
            "grid": self.grid or "",
            "plan": "" if self.plan_file is None else str(self.plan_file),
            "budget": self.budget,
            "precision": self.precision if self.precision != 0.01 else None,
            "seed": self.seed,
            "device": self.device,
            "from": self.origin,
            "labels": self.labels,
        }
        return {key: value for key, value in said.items() if value}


def check(asked: Request) -> None:
    """Raises InputError for options that make no sense, before anything is opened."""
    if asked.method not in ("best", "paper"):
        raise InputError(f"--method {asked.method!r}: expected best or paper")
    if not 1e-4 <= asked.precision <= 0.5:
        raise InputError(f"--precision {asked.precision:g}: expected 0.0001 to 0.5 (0.01 is 1 %)")
    if asked.plan_file is not None and (asked.models or asked.grid):
        raise InputError("--plan already says what to measure: leave out --model and --grid")
    if asked.resume and asked.new:
        raise InputError("--resume and --new exclude each other")
    if bool(asked.origin) != bool(asked.labels) or asked.labels < 0:
        raise InputError("--from HARDWARE and --labels N (at least 1) belong together")
    if asked.origin:
        find_artifact(asked.origin, "estimator.json")
    if asked.grid is not None:
        parts.parse_grid(asked.grid)
    if asked.plan_file is not None:
        parts.read_plan_file(asked.plan_file)
    for text in (asked.budget, asked.stop_after):
        if text:
            parts.parse_seconds(text)


def calibrate(asked: Request) -> None:
    """Do what was asked; raises IreneError."""
    check(asked)
    if asked.origin and asked.hardware and not asked.new and transfer.is_imported(asked.hardware):
        transfer.carry(asked.hardware, asked.origin, asked.labels, asked.train, asked.as_json)
        return
    profile, missed = parts.choose_hardware(asked.hardware)
    virtual = profile.meter.get("driver") == "virtual" or asked.meter == "virtual"
    if not asked.hardware:
        for reason in missed:
            console.note(f"not here: {reason}")
        console.note(f"calibrating {profile.name}: {profile.description}")
    if virtual:
        console.note(SIMULATED)
    if asked.dry_run:
        _dry_run(asked, profile, virtual)
        return
    path = hardware_dir(profile.name) / "campaign.sqlite"
    with _prepared(asked, path) as journal:
        outcome = _measure(asked, profile, journal, virtual)
    _finish(asked, profile, path, outcome)


def _targets(asked: Request, device: str, budget_s: float) -> list[Target]:
    if asked.plan_file is not None:
        return parts.read_plan_file(asked.plan_file)
    return parts.default_targets(device, budget_s, asked.models, asked.grid or "")


def _plan(asked: Request, profile: HardwareProfile, virtual: bool, protocol: Protocol) -> Plan:
    from irene_build.measure.device import open_device
    from irene_build.measure.plan import make_plan

    device = open_device(asked.device or profile.device)
    budget_s = parts.parse_seconds(asked.budget) if asked.budget else _DEFAULT_BUDGET_S[virtual]
    targets = _targets(asked, device.name, budget_s)
    console.note(f"tracing {len(targets)} model inputs")
    return make_plan(
        targets, parts.trace_target, protocol, device.speed(), budget_s, asked.arguments(), asked.labels
    )


def _dry_run(asked: Request, profile: HardwareProfile, virtual: bool) -> None:
    from irene_build.measure.plan import protocol_for
    from irene_build.meters import open_meter

    info = open_meter(profile, asked.meter or None).info
    plan = _plan(asked, profile, virtual, protocol_for(info, 0.0, 0.0, asked.precision, asked.seed))
    if asked.as_json:
        console.emit_json(
            {"hardware": profile.name, "meter": info.name, "boundary": info.boundary, **plan.as_dict()}
        )
        return
    console.say(describe(plan))


def describe(plan: Plan) -> str:
    """A plan for a person."""
    rows = []
    for number, target in enumerate(plan.targets):
        own = [work for work in plan.works if work.places[0][0] == number]
        rows.append(
            (str(target), len(own), sum(1 for w in plan.works for tree, _ in w.places if tree == number))
        )
    p = plan.protocol
    lines = [
        console.table(rows, ("model and input", "to measure", "nodes covered")),
        f"{len(plan.works)} distinct nodes stand for {plan.nodes}; windows of {p.window_s:.2f} s, "
        f"{p.min_rounds} to {p.most_rounds} rounds, fewer where +/- {100 * p.precision:g} % is reached",
        _length(plan),
        *(f"note: {note}" for note in plan.notes),
    ]
    return "\n".join(lines)


def _length(plan: Plan) -> str:
    p = plan.protocol
    least, most = (console.duration(plan.seconds(rounds)) for rounds in (p.min_rounds, p.most_rounds))
    rounds = f"{p.min_rounds} {'round' if p.min_rounds == 1 else 'rounds'}"
    if plan.budget_s is None:
        return f"measuring takes {least} ({rounds}), {most} where all {p.most_rounds} rounds are needed"
    if plan.seconds(p.most_rounds) <= plan.budget_s:
        return f"measuring takes {least} to {most}"
    budget = console.duration(plan.budget_s)
    return (
        f"measuring ends after {budget}, the budget; {rounds} of every node: {least}, the rest repeats them"
    )


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


def _measure(asked: Request, profile: HardwareProfile, journal: Journal, virtual: bool) -> Outcome:
    """Run or go on with the campaign of the journal; plans it where there is none."""
    from irene_build.measure import campaign
    from irene_build.measure.device import open_device
    from irene_build.measure.outcome import outcome
    from irene_build.measure.plan import protocol_for
    from irene_build.meters import open_meter

    if journal.has_campaign and journal.get("finished"):
        console.note(f"{journal.path} is a finished campaign (--new starts another)")
        return outcome(journal)
    if asked.threads:
        import torch

        torch.set_num_threads(asked.threads)
    wanted = asked.meter or (journal.get("arguments", {}).get("meter", "") if journal.has_campaign else "")
    with open_meter(profile, wanted or None) as meter:
        source = str(meter.info.details.get("replayed", meter.info.name))
        if not journal.has_campaign:
            noise, level = parts.idle_noise(meter)
            protocol = protocol_for(meter.info, noise, level, asked.precision, asked.seed)
            plan = _plan(asked, profile, virtual, protocol)
            if not asked.as_json:
                console.say(describe(plan))
            header: dict[str, Any] = {
                "hardware": profile.name,
                "boundary": meter.info.boundary,
                "provenance": meter.info.provenance,
                "label_source": source,
                "device": asked.device or profile.device,
                "fingerprint": parts.fingerprint(profile),
            }
            # A profile's standby power is that of its own meter's boundary.
            if profile.standby_power_w is not None and meter.info.boundary == profile.boundary:
                header["standby_power_w"] = profile.standby_power_w
            campaign.start_journal(journal, plan, header)
        elif source != journal.get("label_source"):
            raise InputError(
                f"{journal.path} was begun with the meter {journal.get('label_source')!r}, this is "
                f"{source!r}: use that one, or --new"
            )
        else:
            console.note(f"going on with the campaign in {journal.path}")
        return _run(asked, journal, meter, open_device(journal.get("device")))


def _run(asked: Request, journal: Journal, meter: Meter, device: Any) -> Outcome:
    from irene_build.measure.campaign import Campaign
    from irene_build.meters.sampler_process import sampling_cost
    from irene_runtime.sampler import Sampler

    stop_after = parts.parse_seconds(asked.stop_after) if asked.stop_after else None
    workload = parts.ReplayWorkload(device.name, parts.free_bytes(device.name))
    gpu = None if device.name == "cpu" else int(device.name.partition(":")[2] or 0)
    sampler = Sampler()
    info = {"sampler": sampling_cost(seconds=1.0), "threads": parts.torch_threads(), "device": device.name}
    with console.Progress(1.0, "measuring", quiet=asked.as_json) as progress:

        def report(done: float, total: float, what: str, left_s: float) -> None:
            progress.total = total
            progress.update(done, what, left_s)

        campaign = Campaign(journal, meter, sampler, device, workload, report, info, gpu, progress.say)
        return campaign.run(stop_after)


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
    console.say(summary(result))


def _train(asked: Request, profile: HardwareProfile, dataset: Any) -> dict[str, Any]:
    from irene_build.train import api

    what = f"carrying {asked.origin} over to" if asked.origin else f"training ({asked.method}) on"
    console.note(f"{what} {len(dataset.trees)} trees")
    started = time.monotonic()
    estimator, transfer = parts.fit(dataset, asked.method, asked.origin, asked.seed)
    path = hardware_dir(profile.name) / "estimator.json"
    api.save(estimator, path)
    seconds = time.monotonic() - started
    about = {"estimator": str(path), "method": asked.method, "training_s": seconds}
    if transfer:
        about = {**about, "carried_from": asked.origin, "transfer": transfer}
    return {**about, "evaluation": estimator["evaluation"]}


def summary(result: dict[str, Any]) -> str:
    """The end of a calibration, for a person."""
    simulated = "simulated " if result.get("provenance") == "simulated" else ""
    lines = [
        f"{result['labelled']} of {result['works']} distinct nodes have {simulated}labels, "
        f"from {result['trials']} trials ({result['rejected']} rejected)"
    ]
    lines += [f"could not run {text}" for text in result["failed"]]
    lines += [f"note: {note}" for note in result["notes"]]
    if not result["finished"]:
        lines.append("not finished: run the same command again to go on")
        return "\n".join(lines)
    known = result["half_width_nodes"]
    if 2 * known < result["labelled"]:
        lines.append(
            "most nodes were measured once: a longer --budget repeats them and tells how well that goes"
        )
    else:
        of = "" if known == result["labelled"] else f" ({known} nodes; the others have a single round)"
        lines.append(f"typical 95 % half-width of a label: {100 * result['half_width_median']:.2f} %{of}")
    if result.get("above_idle_share") is not None:
        lines.append(
            f"above idle: {100 * result['above_idle_share']:.0f} % of the {simulated}energy of these nodes"
        )
    if "transfer" in result:
        errors = [
            (tier, f"{found['no_label']:.2f}", f"{found['carried']:.2f}" if "carried" in found else "")
            for tier, found in result["transfer"].items()
        ]
        lines += ["", f"error of the estimator of {result['carried_from']} here, % of {simulated}energy"]
        lines.append(
            console.table(errors, ("tier", "no label", f"carried by {result['labelled'] - 1} labels"))
        )
    rows = []
    for tier, protocols in result.get("evaluation", {}).items():
        for level, found in protocols.get("model-out", {}).items():
            cover = "" if found["coverage90"] is None else f"{found['coverage90']:.1f}"
            rows.append((tier, level, f"{found['mape']:.2f}", cover, found["n"]))
    if rows:
        lines += ["", f"error on models left out, % of {simulated}energy"]
        lines.append(console.table(rows, ("tier", "level", "mean", "in 90 % interval", "nodes")))
    if result["disturbed"]:
        lines.append(
            f"{result['disturbed']} of {result['labelled']} labels were disturbed by other programs "
            f"({result['foreign_cores']:.1f} cores busy): errors are as large as that makes them; "
            "leave the PC alone and use --new"
        )
    if "estimator" in result:
        lines.append(f"wrote {result['estimator']}")
    return "\n".join(lines)
