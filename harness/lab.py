"""The verbs of latlab from Python, as on the command line.

>>> from latlab.harness import Lab
>>> result = Lab("latlab.db").onboard("local", space="nasbench201", budget=20)  # doctest: +SKIP
>>> result.table.sort_values("latency_ms").head()                               # doctest: +SKIP
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pandas as pd

from latlab.harness import models
from latlab.harness.errors import BadInputError
from latlab.harness.exporters import Artifact, ArtifactCache, CacheError
from latlab.harness.inputs import (
    campaign_options,
    parse_archs,
    policy_named,
    predictor_for,
    sample_space,
    space_named,
)
from latlab.harness.inventory import load_inventory
from latlab.harness.loop import refitted
from latlab.harness.onboarding import Observer, Onboarding, Plan
from latlab.harness.onboarding import onboard as run_onboarding
from latlab.harness.paths import cache_folder, writable_folder
from latlab.harness.sitting import Sitting
from latlab.harness.store import Campaign, Store
from latlab.harness.tables import latency_table, whole_space
from latlab.harness.targets import Target
from latlab.predictors import DEFAULT

__all__ = ["Lab"]

DEFAULT_RUNTIME = "onnxruntime"


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
        device: str = "local",
        *,
        space: str | None = None,
        count: int | None = None,
        archs: Sequence[str] | None = None,
        model: str | None = None,
        input_shape: Sequence[int] | None = None,
        policy: str = "default",
        runtime: str | None = None,
        threads: int = 1,
        batch_size: int | None = None,
        seed: int = 0,
        new_session: bool = False,
        as_written: bool = False,
        observe: Observer | None = None,
    ) -> pd.DataFrame:
        """Measure `count` random architectures of a space, the listed ones, or a model of your own.

        The same call continues its campaign; a larger count extends it; `new_session` measures again.

        Returns:
            One row per architecture, in the order asked for (columns as `Store.table` with `raw`).
        """
        self.inventory.device(device)
        if model is not None:
            return self._measure_model(
                device, model, input_shape, policy, runtime, threads, batch_size, seed, new_session, observe
            )
        if space is None:
            raise BadInputError("say what to measure: a space, or a model of your own")
        if (count is None) == (archs is None):
            raise BadInputError("say which architectures: how many (count), or a list of them, not both")
        chosen_space = space_named(space)
        target = Target(device, runtime or DEFAULT_RUNTIME, threads=threads, batch_size=batch_size or 1)
        wanted = (
            sample_space(chosen_space, count, seed) if count is not None else parse_archs(chosen_space, archs or [])
        )
        campaign = self.store.campaign(
            target,
            space,
            policy_named(policy),
            seed,
            "random" if count is not None else "listed",
            campaign_options(target, as_written),
        )
        # A random sample is in random order already; a list is shuffled, so that its order (often by size) is not
        # confounded with how the device warms up.
        return self._run(
            campaign,
            [arch.text for arch in wanted],
            "listed",
            shuffle=count is None,
            new_session=new_session,
            as_written=as_written,
            observe=observe,
        )

    def _run(
        self,
        campaign: Campaign,
        archs: Sequence[str],
        role: str,
        *,
        new_session: bool,
        observe: Observer | None,
        shuffle: bool = False,
        as_written: bool = False,
        submit: Callable[[str], Future[Artifact]] | None = None,
    ) -> pd.DataFrame:
        """Measure what the campaign's session lacks of `archs`; the rows of all of them, in that order."""
        archs = list(dict.fromkeys(archs))
        session = self.store.latest_session(campaign) + (1 if new_session else 0) or 1
        done = {arch for arch, row in self.store.rows(campaign, session).items() if row.status != "running"}
        todo = [(arch, role) for arch in archs if arch not in done]
        if shuffle:
            random.Random(campaign.seed).shuffle(todo)
        if todo:
            target = Target.parse(campaign.target)
            with Sitting(
                self.store, self.inventory, self.cache, target, seed=campaign.seed, as_written=as_written
            ) as sitting:
                for row in sitting.run(campaign, session, todo, submit):
                    if observe:
                        observe(row)
        table = self.store.table(target=campaign.target, space=campaign.space, raw=True)
        table = table[(table["campaign"] == campaign.id) & (table["session"] == session)]
        there = set(table["arch"])
        return table.set_index("arch").loc[[arch for arch in archs if arch in there]].reset_index()

    def _measure_model(
        self,
        device: str,
        model: str,
        input_shape: Sequence[int] | None,
        policy: str,
        runtime: str | None,
        threads: int,
        batch_size: int | None,
        seed: int,
        new_session: bool,
        observe: Observer | None,
    ) -> pd.DataFrame:
        own = models.locate(model, input_shape, runtime, batch_size)
        target = Target(device, own.runtime, threads=threads, batch_size=own.batch_size)
        artifact = own.artifact(self._cache_folder)
        campaign = self.store.campaign(
            target, "model", policy_named(policy), seed, own.name, {"sha256": artifact.sha256}
        )
        future: Future[Artifact] = Future()
        future.set_result(artifact)
        return self._run(
            campaign, [own.name], "listed", new_session=new_session, observe=observe, submit=lambda _: future
        )

    def embed(
        self,
        device: str = "local",
        *,
        space: str,
        policy: str = "default",
        runtime: str = DEFAULT_RUNTIME,
        threads: int = 1,
        batch_size: int = 1,
        seed: int = 0,
        new_session: bool = False,
        observe: Observer | None = None,
    ) -> pd.DataFrame:
        """HELP's hardware embedding: the latencies of the space's ten reference architectures.

        Returns:
            Columns arch, latency_ms, stderr_ms, status, and embedding: latency min-max scaled among the ten,
            as HELP feeds it to its predictor (NaN where the architecture failed).
        """
        chosen_space = space_named(space)
        target = Target(device, runtime, threads=threads, batch_size=batch_size)
        campaign = self.store.campaign(
            target, space, policy_named(policy), seed, "references", campaign_options(target, False)
        )
        texts = [arch.text for arch in chosen_space.references()]
        rows = self._run(campaign, texts, "reference", shuffle=True, new_session=new_session, observe=observe)
        rows = rows[["arch", "latency_ms", "stderr_ms", "status"]].copy()
        span = rows["latency_ms"].max() - rows["latency_ms"].min()
        rows["embedding"] = (rows["latency_ms"] - rows["latency_ms"].min()) / span if span else np.nan
        return rows

    # Predicting

    def predict(
        self,
        target: str,
        *,
        space: str | None = None,
        archs: Sequence[str] | None = None,
        predictor: str = DEFAULT,
    ) -> pd.DataFrame:
        """Latencies of any architectures on a target, from what the store holds of it.

        Args:
            archs: None for the whole space, or a large sample of it where it is too large.

        Returns:
            Columns arch, latency_ms, std_ms, lower_ms, upper_ms (90 %), measured (whether a row of the support).
        """
        Target.parse(target)
        table = self.store.table(target=target)
        table = table[(table["status"] == "ok") & (table["role"] != "holdout") & (table["space"] != "model")]
        spaces = list(dict.fromkeys(table["space"]))
        if space is None:
            if len(spaces) > 1:
                raise BadInputError(f"{target} has measurements of several spaces", f"Name one: {', '.join(spaces)}.")
            space = spaces[0] if spaces else ""
        table = table[table["space"] == space]
        if table.empty:
            known = ", ".join(sorted(set(self.store.table()["target"]))) or "none yet"
            raise BadInputError(
                f"the store {self.store.path} has no measurements of {target}{f' in {space}' if space else ''}",
                f"It has: {known}. Measure some first: latlab onboard {target.split('/')[0]}",
            )
        chosen_space = space_named(space)
        predictor_for(predictor, chosen_space)
        loop = refitted(chosen_space, table, predictor)
        assert loop is not None
        wanted = parse_archs(chosen_space, archs) if archs is not None else whole_space(chosen_space)
        return latency_table(wanted, loop.predict(wanted), set(table["arch"]))

    # The closed loop

    def onboard(
        self,
        device: str = "local",
        *,
        space: str,
        budget: int = 20,
        until_percent: float | None = None,
        holdout: int = 0,
        policy: str = "default",
        runtime: str = DEFAULT_RUNTIME,
        threads: int = 1,
        batch_size: int = 1,
        seed: int = 0,
        predictor: str = DEFAULT,
        as_written: bool = False,
        out: str | Path | None = None,
        observe: Observer | None = None,
    ) -> Onboarding:
        """Measure the most informative architectures, predict the whole space, write table, predictor and report.

        Args:
            budget: how many architectures to measure.
            until_percent: stop earlier, once the expected error over the space is at most this.
            holdout: also measure this many random architectures that the predictor never sees, in two sessions.
            out: folder for latency_table.parquet and .csv, predictor/ and report.html.
        """
        target = Target(device, runtime, threads=threads, batch_size=batch_size)
        if budget < 1:
            raise BadInputError(f"the budget must be at least 1, not {budget}")
        if until_percent is not None and not until_percent > 0:
            raise BadInputError(f"the error to reach must be a positive percentage, not {until_percent}")
        chosen_space = space_named(space)
        if budget + holdout > chosen_space.size:
            raise BadInputError(f"{space} has only {chosen_space.size} architectures")
        plan = Plan(
            target=target,
            space=chosen_space,
            policy=policy_named(policy),
            predictor=predictor_for(predictor, chosen_space).name,
            budget=budget,
            until_percent=until_percent,
            holdout=holdout,
            seed=seed,
            as_written=as_written,
            options=campaign_options(target, as_written),
            out=writable_folder(out or _default_folder(target, space, seed)),
        )
        self.inventory.device(device)
        return run_onboarding(self, plan, observe)

    def report(
        self,
        *,
        target: str | None = None,
        space: str | None = None,
        out: str | Path = "report.html",
        predictor: str = DEFAULT,
    ) -> Path:
        """Write the report of what the store holds of a target and space; its path.

        Everything measured there is shown; the predictor is fitted to what is not hold-out.
        """
        from latlab.harness.reporting import store_report

        rows = self.store.table(target=target, space=space, raw=True)
        pairs = list(dict.fromkeys(zip(rows["target"], rows["space"], strict=True)))
        if len(pairs) != 1:
            known = "\n".join(f"  --target {t} --space {s}" for t, s in pairs) or "  nothing yet"
            raise BadInputError(f"say which of these the report is about, the store {self.store.path} has:\n{known}")
        path = Path(out)
        writable_folder(path.parent)
        try:
            return store_report(self.store, rows, predictor, path)
        except OSError as error:
            raise BadInputError(f"cannot write the report {path}: {error.strerror or error}") from error


def _default_folder(target: Target, space: str, seed: int) -> Path:
    return Path("latlab-out") / str(target).replace("/", "-") / (space if seed == 0 else f"{space}-seed{seed}")
