"""The verbs of latlab from Python, as on the command line.

>>> from latlab.harness import Lab
>>> result = Lab("latlab.db").onboard("local", space="nasbench201", budget=20)  # doctest: +SKIP
>>> result.table.sort_values("latency_ms").head()                               # doctest: +SKIP
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from latlab.harness import sustained
from latlab.harness.active_learning.block_latencies import block_latencies
from latlab.harness.active_learning.holdout import holdout_of
from latlab.harness.active_learning.latency_table import latency_table, whole_space
from latlab.harness.active_learning.loop import Loop, refitted
from latlab.harness.active_learning.onboarding import Onboarding, Plan
from latlab.harness.active_learning.onboarding import onboard as run_onboarding
from latlab.harness.active_learning.predictor_factory import predictor_for
from latlab.harness.active_learning.source_devices import ALL, ENOUGH_LABELS, Study, source_devices, thinned
from latlab.harness.architectures import (
    blocks_of,
    is_block_space,
    parse_archs,
    sample_space,
    some_blocks,
    space_named,
    space_to_measure,
)
from latlab.harness.errors import BadInputError, LatlabError
from latlab.harness.exporters import Artifact, ArtifactCache, CacheError, ExportError, ExportRequest
from latlab.harness.exporters import user_model as models
from latlab.harness.exporters.campaign_options import campaign_options
from latlab.harness.exporters.service import Exports
from latlab.harness.fleet.fleet import Fleet
from latlab.harness.fleet.jobs import Job, Observer, Watcher
from latlab.harness.inventory.inventory import load_inventory, policy_named
from latlab.harness.measurement.replication import Replication
from latlab.harness.measurement.session import Sitting
from latlab.harness.paths import cache_folder, writable_folder
from latlab.harness.statistics.ranking import Resolve
from latlab.harness.store.store import Campaign, Measurement, Store, StoreError
from latlab.harness.targets import Target
from latlab.predictors import SourceDevice
from latlab.search_spaces import Architecture, BlockSpace, SearchSpace

if TYPE_CHECKING:
    from latlab.harness.quality.assessment import Quality

__all__ = ["Lab"]


class Lab:
    """A store, an inventory and a cache of exported networks, with the verbs that work on them.

    Args:
        store: file that everything measured goes to; made where there is none.
        inventory: file that describes the devices; default `inventory.yaml` where there is one. `local` always exists.
        cache: folder of exported networks; default in the user's cache folder.
    """

    def __init__(
        self, store: str | Path = "latlab.db", *, inventory: Path | None = None, cache: Path | None = None
    ) -> None:
        self.inventory = load_inventory(inventory)
        self._cache_folder = cache or cache_folder() / "artifacts"
        self.store = Store(store)

    @property
    def cache(self) -> ArtifactCache:
        try:
            return ArtifactCache(self._cache_folder)
        except CacheError as error:
            raise BadInputError(str(error)) from error

    # Measuring

    def measure(
        self,
        devices: str | Sequence[str] = "local",
        *,
        space: str | None = None,
        count: int | None = None,
        archs: Sequence[str] | None = None,
        blocks: bool = False,
        model: str | None = None,
        input_shape: Sequence[int] | None = None,
        policy: str = "default",
        runtime: str | None = None,
        accelerator: str | None = None,
        threads: int | None = None,
        batch_size: int | None = None,
        seed: int = 0,
        new_session: bool = False,
        as_written: bool = False,
        raw: bool = True,
        resolve: Resolve | None = None,
        observe: Observer | None = None,
        watch: Watcher | None = None,
        say: Callable[[str], None] | None = None,
    ) -> pd.DataFrame:
        """Measure `count` random architectures of a space, the listed ones, its blocks, or a model of your own.

        The same call continues its campaign; a larger count extends it; `new_session` measures again.

        Args:
            devices: names of the inventory, full targets, or `all`; they work side by side. Where neither a target
                nor runtime, accelerator, threads or batch size is given, a device's own targets are measured.
            blocks: measure the blocks that networks of the space are made of, each alone, `count` of them or all: a
                lookup table. They are a space of their own (`fbnet-blocks`).
            policy: how networks are timed: a preset's name, or that of one of the inventory's policies.
            raw: with a column `passes`, the raw samples in ns: a list per pass.
            resolve: then add passes where intervals overlap and the order matters; the same call goes on with that.
            observe: called with every finished row and every incident.
            watch: called once with the state of every device, which changes as they work.
            say: told, in a sentence, what each round of further passes does.

        Returns:
            One row per target and architecture, in the order asked for (columns as `Store.table`). Where devices
            failed on the way, `attrs["errors"]` lists why; with `resolve`, `attrs["resolved"]` says of each target
            how the question stands (`Resolved.to_json`).

        Raises:
            LatlabError: why the device failed, where there is no row at all.
        """
        if model is not None:
            own = models.locate(model, input_shape, runtime, batch_size)
            options = (runtime, accelerator, threads, None)
            return self._measure_model(
                devices, own, options, policy, seed, new_session, raw, resolve, observe, watch, say
            )
        if space is None:
            raise BadInputError("say what to measure: a space, or a model of your own")
        if archs is not None if blocks else (count is None) == (archs is None):
            raise BadInputError("say which architectures: how many (count), or a list of them, not both")
        chosen_space = blocks_of(space) if blocks else space_to_measure(space)
        targets = self.targets(devices, runtime, accelerator, threads, batch_size)
        if isinstance(chosen_space, BlockSpace) and archs is None:
            wanted = some_blocks(chosen_space, count, seed, as_written)
        elif archs is None:
            wanted = sample_space(chosen_space, count or 0, seed)
        else:
            wanted = parse_archs(chosen_space, archs)
        selection = "random" if archs is None else "listed"
        campaigns = [
            self.store.campaign(
                target,
                chosen_space.name,
                policy_named(policy, self.inventory),
                seed,
                selection,
                campaign_options(target, as_written),
            )
            for target in targets
        ]
        return self._run(
            campaigns,
            [arch.text for arch in wanted],
            "listed",
            new_session=new_session,
            raw=raw,
            resolve=resolve,
            observe=observe,
            watch=watch,
            say=say,
        )

    def targets(
        self,
        devices: str | Sequence[str],
        runtime: str | None = None,
        accelerator: str | None = None,
        threads: int | None = None,
        batch_size: int | None = None,
    ) -> list[Target]:
        """What a command's words and options mean: full targets, or devices with the options or their own targets.

        Raises:
            BadInputError: for an unknown device, or a full target beside options.
        """
        words = [devices] if isinstance(devices, str) else list(devices)
        options = any(value is not None for value in (runtime, accelerator, threads, batch_size))
        chosen: list[Target] = []
        for name, target in self.inventory.select(words):
            config = self.inventory.device(name)
            if target is not None and options:
                raise BadInputError(
                    f"{target} says it all: leave out --runtime, --accelerator, --threads, --batch-size"
                )
            if target is not None:
                chosen.append(target)
            elif options:
                chosen.append(
                    Target(
                        name,
                        runtime or config.default_runtime,
                        accelerator or "cpu",
                        threads=threads or 1,
                        batch_size=batch_size or 1,
                    )
                )
            else:
                chosen += config.all_targets(name)
        if not chosen:
            raise BadInputError("say which devices")
        return list(dict.fromkeys(chosen))

    def drive(
        self, jobs: Sequence[Job], observe: Observer | None = None, watch: Watcher | None = None
    ) -> list[LatlabError]:
        """Do jobs on their devices; the errors of those that failed, which do not keep the others from ending well.

        Raises what is no device's trouble: the store or the cache cannot be written.
        """
        if not jobs:
            return []
        with Fleet(self.store, self.inventory, self.cache, jobs) as fleet:
            if watch:
                watch(fleet.devices)
            for event in fleet.run():
                if observe:
                    observe(event)
        errors = [job.error for job in jobs if job.error]
        for error in errors:
            own = isinstance(error, StoreError) or isinstance(error.__cause__, CacheError)  # our disk is full, say
            if own or not isinstance(error, LatlabError):
                raise error
        return [error for error in errors if isinstance(error, LatlabError)]

    def sustain(
        self,
        device: str = "local",
        *,
        space: str | None = None,
        arch: str | None = None,
        model: str | None = None,
        input_shape: Sequence[int] | None = None,
        minutes: float = 30.0,
        runtime: str | None = None,
        accelerator: str | None = None,
        threads: int | None = None,
        batch_size: int | None = None,
        seed: int = 0,
        as_written: bool = False,
        observe: Observer | None = None,
        watch: Watcher | None = None,
        follow: Callable[[sustained.Run], None] | None = None,
    ) -> sustained.Result:
        """Run one network for minutes without a pause: what heat and power limits leave of its latency.

        Each call begins anew, in a session of its own, because a device that has cooled down cannot go on. Every pass
        is in the store at once; a run that was ended early is as long as it is.

        Args:
            device: one of the inventory, or a full target; of several targets, the device's first.
            minutes: on the device's clock.
            follow: called once with the run, whose `readings` grow while it lasts; `Run.result` is what there is
                when it is interrupted.

        Raises:
            LatlabError: why the network could not be exported, or why the device failed before the first pass.
        """
        target, *others = self.targets(device, runtime, accelerator, threads, batch_size)
        if any(other.device != target.device for other in others):
            raise BadInputError("one device at a time is put under sustained load", "Name one.")
        if model is not None:
            own = models.locate(model, input_shape, runtime, batch_size)
            target, artifact = own.target(target), own.artifact(self._cache_folder)
            where, network, options = "model", own.name, {"sha256": artifact.sha256}
        elif space is None or arch is None:
            raise BadInputError("say which network: a space and an architecture, or a model of your own")
        else:
            (one,) = parse_archs(space_to_measure(space), [arch])
            where, network, options = space, one.text, campaign_options(target, as_written)
            request = ExportRequest(
                space, network, target.format, target.batch_size, target.precision, seed, as_written
            )
            with Exports(self.cache) as exports:
                try:
                    artifact = exports.submit(request).result()
                except ExportError as error:
                    raise LatlabError(f"{network} cannot be exported: {error.message}") from error
        campaign = self.store.campaign(target, where, sustained.policy_of(target), seed, sustained.ROLE, options)
        with self.store.writing():
            sustained.close_earlier(self.store, campaign)
        run = sustained.Run(
            self.store,
            campaign,
            self.store.latest_session(campaign) + 1,
            artifact,
            network,
            f"{where}/{network}",
            60 * minutes,
        )
        if follow:
            follow(run)
        errors = self.drive([Job(target, run.work)], observe, watch)
        result = run.result()
        if errors and not result.readings:
            raise errors[0]
        return replace(result, error=errors[0].message) if errors else result

    def _run(
        self,
        campaigns: Sequence[Campaign],
        archs: Sequence[str],
        role: str,
        *,
        new_session: bool,
        raw: bool = False,
        resolve: Resolve | None = None,
        observe: Observer | None,
        watch: Watcher | None,
        say: Callable[[str], None] | None = None,
        submit: Callable[[str], Future[Artifact]] | None = None,
    ) -> pd.DataFrame:
        """Measure what the campaigns' sessions lack of `archs`; the rows of all of them, in that order."""
        archs = list(dict.fromkeys(archs))
        sessions = [self.store.latest_session(one) + (1 if new_session else 0) or 1 for one in campaigns]
        jobs, rounds = [], []
        for campaign, session in zip(campaigns, sessions, strict=True):
            missing = len(_missing(self.store.rows(campaign, session), archs))
            further = Replication(self.store, campaign, session, archs, resolve, say) if resolve else None
            rounds += [further] if further else []
            if missing or (further and not further.is_over):
                work = partial(self._measure_missing, campaign, session, archs, role, submit, further)
                jobs.append(Job(Target.parse(campaign.target), work, total=missing))
        errors = self.drive(jobs, observe, watch)
        frames = []
        for campaign, session in zip(campaigns, sessions, strict=True):
            table = self.store.table(target=campaign.target, space=campaign.space, raw=raw)
            table = table[(table["campaign"] == campaign.id) & (table["session"] == session)]
            there = set(table["arch"])
            frames.append(table.set_index("arch").loc[[arch for arch in archs if arch in there]].reset_index())
        rows = frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)
        if errors and rows.empty:
            raise errors[0]
        rows.attrs["errors"] = [str(error) for error in errors]
        rows.attrs["resolved"] = [further.resolved().to_json() for further in rounds]
        return rows

    def _measure_missing(
        self,
        campaign: Campaign,
        session: int,
        archs: Sequence[str],
        role: str,
        submit: Callable[[str], Future[Artifact]] | None,
        further: Replication | None,
        sitting: Sitting,
        tell: Callable[[Measurement], None],
    ) -> None:
        todo = [(arch, role) for arch in _missing(self.store.resume(campaign, session), archs)]
        # So that neither size nor an earlier session's order is confounded with how the device warms up.
        order = f"{campaign.seed}/{session}"
        random.Random(order).shuffle(todo)
        self.store.note_session(campaign.id, session, order_seed=order)
        for row in sitting.run(campaign, session, todo, submit):
            tell(row)
        if further:
            further.work(sitting, role, submit)

    def _measure_model(
        self,
        devices: str | Sequence[str],
        own: models.OwnModel,
        options: tuple[str | None, str | None, int | None, int | None],
        policy: str,
        seed: int,
        new_session: bool,
        raw: bool,
        resolve: Resolve | None,
        observe: Observer | None,
        watch: Watcher | None,
        say: Callable[[str], None] | None,
    ) -> pd.DataFrame:
        """The file decides the format; a device that has another runtime for it as its usual one takes that."""
        runtime, accelerator, threads, _ = options
        targets = [own.target(target) for target in self.targets(devices, runtime, accelerator, threads, None)]
        artifact = own.artifact(self._cache_folder)
        campaigns = [
            self.store.campaign(
                target, "model", policy_named(policy, self.inventory), seed, own.name, {"sha256": artifact.sha256}
            )
            for target in dict.fromkeys(targets)
        ]
        future: Future[Artifact] = Future()
        future.set_result(artifact)
        return self._run(
            campaigns,
            [own.name],
            "listed",
            new_session=new_session,
            raw=raw,
            resolve=resolve,
            observe=observe,
            watch=watch,
            say=say,
            submit=lambda _: future,
        )

    def embed(
        self,
        devices: str | Sequence[str] = "local",
        *,
        space: str,
        policy: str = "default",
        runtime: str | None = None,
        accelerator: str | None = None,
        threads: int | None = None,
        batch_size: int | None = None,
        seed: int = 0,
        new_session: bool = False,
        observe: Observer | None = None,
        watch: Watcher | None = None,
    ) -> pd.DataFrame:
        """HELP's hardware embedding: the latencies of the space's ten reference architectures.

        Args:
            devices: as for `measure`.

        Returns:
            Columns target, arch, latency_ms, stderr_ms, status, and embedding: latency min-max scaled among the ten,
            as HELP feeds it to its predictor (NaN where the architecture failed).
        """
        chosen_space = space_to_measure(space)
        texts = [arch.text for arch in chosen_space.references()]
        if not texts:
            raise BadInputError(f"{space} has no reference architectures", "Embed the device in a whole space.")
        campaigns = [
            self.store.campaign(
                target, space, policy_named(policy, self.inventory), seed, "references", campaign_options(target, False)
            )
            for target in self.targets(devices, runtime, accelerator, threads, batch_size)
        ]
        rows = self._run(campaigns, texts, "reference", new_session=new_session, observe=observe, watch=watch)
        rows = rows[["target", "arch", "latency_ms", "stderr_ms", "status"]].copy()
        grouped = rows.groupby("target", sort=False)["latency_ms"]
        span = grouped.transform("max") - grouped.transform("min")
        rows["embedding"] = (rows["latency_ms"] - grouped.transform("min")) / span.where(span > 0)
        return rows

    # Predicting

    def predict(
        self,
        target: str,
        *,
        space: str | None = None,
        archs: Sequence[str] | None = None,
        predictor: str | None = None,
        sources: str | Sequence[str] = ALL,
        facts: Mapping[str, float] | None = None,
        seed: int = 0,
    ) -> pd.DataFrame:
        """Latencies of any architectures on a target, from what the store holds of it and of other devices.

        Of a target without measurements in `space`, predictors that can say something from their prior alone do so,
        with wide intervals; the others raise.

        Args:
            target: of a device with only one target in the store, its name will do.
            archs: None for the whole space, or a large sample of it where it is too large.
            predictor: None for latlab's own.
            sources: which other devices it is pre-trained on: `all`, `none`, or names (see `sources`).
            facts: of the target's hardware (cores, clock_ghz, bandwidth_gbs, tops), for predictors that take them.
            seed: of what chance the predictor needs.

        Returns:
            Columns arch, latency_ms, std_ms, lower_ms, upper_ms (90 %), measured (whether a row of the support);
            `attrs["sources"]` names the devices it was pre-trained on, `attrs["support"]` counts the measurements.
        """
        target = self._stored_target(target)
        if "/" in target or space is None:
            Target.parse(target)
        table = self.store.table(target=target)
        table = table[(table["status"] == "ok") & (table["role"] != "holdout") & (table["space"] != "model")]
        spaces = [name for name in dict.fromkeys(table["space"]) if not is_block_space(name)]
        if space is None:
            if len(spaces) > 1:
                raise BadInputError(f"{target} has measurements of several spaces", f"Name one: {', '.join(spaces)}.")
            space = spaces[0] if spaces else ""
        table = table[table["space"] == space]
        nothing = table.empty
        if nothing and not space:
            known = ", ".join(sorted(set(self.store.table()["target"]))) or "none yet"
            raise BadInputError(
                f"the store {self.store.path} has no measurements of {target}{f' in {space}' if space else ''}",
                f"It has: {known}. Measure some first (latlab onboard {target.split('/')[0]}), "
                "or name a space, to be predicted from other devices alone.",
            )
        chosen_space = space_named(space)
        wanted = parse_archs(chosen_space, archs) if archs is not None else whole_space(chosen_space)
        others = self._sources(chosen_space, self._study(target, table), sources)
        blocks = block_latencies(self.store, target, chosen_space)
        fitted = predictor_for(predictor, chosen_space, seed=seed, sources=others, facts=facts, blocks=blocks)
        loop = refitted(chosen_space, table, fitted) or Loop(chosen_space, fitted, budget=0, seed=seed)
        try:
            prediction = loop.predict(wanted)
        except ValueError as error:
            if not nothing:
                raise
            raise BadInputError(
                f"the store {self.store.path} has no measurements of {target} in {space}, and the predictor "
                f"{fitted.name} needs some",
                f"Measure some first (latlab onboard {target.split('/')[0]}), or choose another with --predictor.",
            ) from error
        result = latency_table(wanted, prediction, set(table["arch"]))
        result.attrs |= {"sources": [source.name for source in others], "support": loop.measured}
        return result

    def sources(
        self,
        space: str,
        *,
        exclude_target: str | None = None,
        which: str | Sequence[str] = ALL,
        holdout: Sequence[str] = (),
    ) -> list[SourceDevice]:
        """Devices to pre-train a predictor on: imported ones, and measured targets of the store.

        With all their labels; `onboard`, `predict` and `report` take at most 2,000 of each.

        Args:
            exclude_target: the target under study, which is never its own source, nor is the same target under
                another name of its device, nor an imported copy of its labels. Other targets of its device are
                sources: they are paid for, and tell much.
            which: `all`, `none`, or names: of imported sources, targets, or devices. Unasked, targets with fewer than
                ten labels are left out, and simulated ones where the target is real.
            holdout: architectures whose labels are left out of the sources measured on the target's own device.
        """
        chosen_space = space_named(space)
        target = None if exclude_target is None else self._stored_target(exclude_target)
        rows = self.store.table(target=target, space=space) if target is not None else None
        study = self._study(target, rows, parse_archs(chosen_space, holdout))
        return source_devices(self.store, chosen_space, study, which)

    def _sources(self, space: SearchSpace, study: Study, which: str | Sequence[str]) -> list[SourceDevice]:
        """What commands pre-train on."""
        return [thinned(source, ENOUGH_LABELS) for source in source_devices(self.store, space, study, which)]

    def _study(
        self, target: str | None, rows: pd.DataFrame | None = None, holdout: Sequence[Architecture] = ()
    ) -> Study:
        """What is known of a target that bears on which sources it may have. `rows`: what was measured of it."""
        if target is None:
            return Study()
        device = target.partition("/")[0]
        config = self.inventory.devices.get(device)
        simulated = bool(config and config.transport == "simulated") or (rows is not None and rows["simulated"].any())
        address = self._address(device)
        return Study(target, lambda name: self._address(name) == address, bool(simulated), holdout)

    def _address(self, device: str) -> tuple[object, ...]:
        """Where a device is, so that two names of the same one are known; an unknown one is where its name is."""
        config = self.inventory.devices.get(device)
        if config is None or config.transport == "simulated":
            return ("local", None, None, None) if device == "local" else (device,)
        return (config.transport, *(getattr(config, field, None) for field in ("host", "port", "serial")))

    # The closed loop

    def onboard(self, device: str = "local", *, space: str, **options: Any) -> Onboarding:
        """`onboard_fleet` for one target: a full one, or a device, whose first target is taken."""
        how = [options.pop(name, None) for name in ("runtime", "accelerator", "threads", "batch_size")]
        return self.onboard_fleet([str(self.targets(device, *how)[0])], space=space, **options)[0]

    def onboard_fleet(
        self,
        devices: str | Sequence[str],
        *,
        space: str,
        budget: int = 20,
        until_percent: float | None = None,
        holdout: int = 0,
        policy: str = "default",
        runtime: str | None = None,
        accelerator: str | None = None,
        threads: int | None = None,
        batch_size: int | None = None,
        seed: int = 0,
        predictor: str | None = None,
        sources: str | Sequence[str] = ALL,
        facts: Mapping[str, float] | None = None,
        as_written: bool = False,
        out: str | Path | None = None,
        observe: Observer | None = None,
        watch: Watcher | None = None,
        say: Callable[[str], None] | None = None,
    ) -> list[Onboarding]:
        """Measure the most informative architectures, predict the whole space, write table, predictor and report.

        Args:
            devices: as for `measure`; they work side by side.
            budget: how many architectures to measure.
            until_percent: stop earlier, once the expected error over the space is at most this.
            holdout: also measure this many random architectures that the predictor never sees, in two sessions.
            predictor, sources, facts: as for `predict`.
            say: told which predictor learns from which devices first, which may take a while.
            out: folder for latency_table.parquet and .csv, predictor/ and report.html; of several targets, each has
                its own folder in there.

        Returns:
            One for each target; those that failed are left out.

        Raises:
            LatlabError: where all failed.
        """
        targets = self.targets(devices, runtime, accelerator, threads, batch_size)
        if budget < 1:
            raise BadInputError(f"the budget must be at least 1, not {budget}")
        if until_percent is not None and not until_percent > 0:
            raise BadInputError(f"the error to reach must be a positive percentage, not {until_percent}")
        chosen_space = space_to_measure(space)
        fresh = predictor_for(predictor, chosen_space, seed=seed, facts=facts)
        must = fresh.wanted()
        if budget < len(must):
            raise BadInputError(
                f"the predictor {fresh.name} needs {len(must)} architectures of its own choice, the budget is {budget}",
                f"Give it --budget {len(must)} or more.",
            )
        if budget + holdout > chosen_space.size:
            raise BadInputError(f"{space} has only {chosen_space.size} architectures")
        unseen = holdout_of(chosen_space, holdout, seed, must)
        plans = []
        for target in targets:
            folder = _default_folder(target, space, seed) if out is None else Path(out)
            if out is not None and len(targets) > 1:
                folder = folder / str(target).replace("/", "-")
            plans.append(
                Plan(
                    target=target,
                    space=chosen_space,
                    policy=policy_named(policy, self.inventory),
                    predictor=fresh.name,
                    sources=tuple(self._sources(chosen_space, self._study(str(target), None, unseen), sources)),
                    facts=facts or {},
                    blocks=block_latencies(self.store, str(target), chosen_space),
                    budget=budget,
                    until_percent=until_percent,
                    holdout=holdout,
                    seed=seed,
                    as_written=as_written,
                    options=campaign_options(target, as_written),
                    out=writable_folder(folder),
                )
            )
        return run_onboarding(self, plans, observe, watch, say)

    def report(
        self,
        *,
        target: str | None = None,
        space: str | None = None,
        out: str | Path = "report.html",
        predictor: str | None = None,
        sources: str | Sequence[str] = ALL,
        facts: Mapping[str, float] | None = None,
        seed: int = 0,
    ) -> Path:
        """Write the report of what the store holds of a target and space; its path.

        Everything measured there is shown; the predictor is fitted to what is not hold-out.

        Args:
            target: of a device with only one target in the store, its name will do.
            predictor, sources, facts, seed: as for `predict`.
        """
        from latlab.harness.report.build import store_report

        target = None if target is None else self._stored_target(target)
        rows = self.store.table(target=target, space=space, raw=True)
        if space is None:
            rows = rows[~rows["space"].map(is_block_space).astype(bool)]
        if len(_pairs(rows)) != 1:
            everything = _pairs(self.store.table())
            known = "\n".join(f"  --target {t} --space {s}" for t, s in everything) or "  nothing yet"
            raise BadInputError(f"say which of these the report is about, the store {self.store.path} has:\n{known}")
        path = Path(out)
        writable_folder(path.parent)
        target, space = _pairs(rows)[0]
        others: list[SourceDevice] = []
        fitted = None
        if space != "model":
            chosen_space = space_named(space)
            held_out = parse_archs(chosen_space, rows.loc[rows["role"] == "holdout", "arch"].unique())
            others = self._sources(chosen_space, self._study(target, rows, held_out), sources)
            blocks = block_latencies(self.store, target, chosen_space)
            fitted = predictor_for(predictor, chosen_space, seed=seed, sources=others, facts=facts, blocks=blocks)
        try:
            return store_report(self.store, rows, fitted, [source.name for source in others], path)
        except OSError as error:
            raise BadInputError(f"cannot write the report {path}: {error.strerror or error}") from error

    def quality(self, target: str | None = None, *, space: str | None = None) -> list[Quality]:
        """How far the labels of the store can be trusted: one for each target and space that has any.

        Args:
            target: only this one, or all targets of a device; None for all.
            space: only this one.

        Raises:
            BadInputError: where the store has no label of them.
        """
        from latlab.harness.quality.assessment import study

        rows = self.store.table(space=space)
        rows = rows[(rows["status"] == "ok") & (rows["latency_ms"] > 0)]
        if target is not None:
            rows = rows[rows["target"].isin([one for one in set(rows["target"]) if target in (one, one.split("/")[0])])]
        pairs = _pairs(rows)
        if not pairs:
            everything = self.store.table()
            known = "\n".join(f"  {t} --space {s}" for t, s in _pairs(everything[everything["status"] == "ok"]))
            asked = f" of {target or 'anything'}{f' in {space}' if space else ''}" if target or space else ""
            raise BadInputError(
                f"the store {self.store.path} has no labels{asked}",
                f"It has labels of:\n{known}" if known else "Measure some first (latlab measure).",
            )
        return [study(self.store, *pair) for pair in pairs]

    def _stored_target(self, word: str) -> str:
        """The target that a device's name stands for where the store has only one of it; any other word as it is."""
        own = sorted({target for target in self.store.table()["target"] if target.split("/")[0] == word})
        if len(own) > 1:
            raise BadInputError(f"the store has several targets of {word}", f"Name one: {', '.join(own)}.")
        return own[0] if own else word


def _pairs(rows: pd.DataFrame) -> list[tuple[str, str]]:
    return list(dict.fromkeys(zip(rows["target"], rows["space"], strict=True)))


def _default_folder(target: Target, space: str, seed: int) -> Path:
    return Path("latlab-out") / str(target).replace("/", "-") / (space if seed == 0 else f"{space}-seed{seed}")


def _missing(rows: Mapping[str, Measurement], archs: Sequence[str]) -> list[str]:
    """Of `archs`, those without a row that is final; what was lost with its device is not."""
    open_ = ("running", "device_lost")
    return [arch for arch in archs if arch not in rows or rows[arch].status in open_]
