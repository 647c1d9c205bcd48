"""Labels: networks are measured, or what was measured elsewhere is imported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

from latlab.harness.active_learning.imported_labels import import_labels
from latlab.harness.active_learning.prediction import source_filter_of, sources_of
from latlab.harness.active_learning.predictor_factory import PredictorOptions, predictor_for
from latlab.harness.active_learning.sampling import choose_networks, sampler_named
from latlab.harness.active_learning.source_devices import ALL
from latlab.harness.architectures import blocks_of, parse_archs, sample_space, some_blocks, space_to_measure
from latlab.harness.devices.target_selection import TargetOptions
from latlab.harness.errors import BadInputError
from latlab.harness.exporters import Artifact
from latlab.harness.exporters.campaign_options import campaign_options
from latlab.harness.fleet.campaigns import Measurements, measure_campaigns
from latlab.harness.fleet.jobs import RunListener
from latlab.harness.inventory.inventory import policy_named
from latlab.harness.lab.base import LabBase
from latlab.harness.models.input_options import InputOptions
from latlab.harness.statistics.ranking import Resolve
from latlab.harness.store.own_labels import KeptLabels
from latlab.harness.store.store import Campaign
from latlab.harness.store.vocabulary import USER_MODEL_SPACE, Role, Selection
from latlab.harness.targets import Devices
from latlab.harness.timing_policy import TimingPolicy
from latlab.search_spaces import Architecture, BlockSpace, SearchSpace

__all__ = ["Measuring"]

READ_BEFORE_S = 15.0
"""Longest time in seconds that the file of a model is read before it is measured. What takes longer has a label, and
teaches nothing of other models."""


class Measuring(LabBase):
    """The verbs that make labels."""

    def measure(
        self,
        devices: Devices = "local",
        *,
        space: str | None = None,
        count: int | None = None,
        archs: Sequence[str | Architecture] | None = None,
        blocks: bool = False,
        model: str | Path | None = None,
        inputs: InputOptions = InputOptions(),
        options: TargetOptions = TargetOptions(),
        policy: str = "default",
        seed: int = 0,
        new_session: bool = False,
        as_written: bool = False,
        raw: bool = True,
        resolve: Resolve | None = None,
        acquisition: str = "random",
        encoding_table: str | Path | None = None,
        listener: RunListener = RunListener(),
    ) -> Measurements:
        """Measure `count` random architectures of a space, the listed ones, its blocks, or a model of your own.

        The same call continues its campaign; a larger count extends it; `new_session` measures again.

        Args:
            devices: names of the inventory, full targets, or `all`; they work side by side.
            space: name of the search space; None for a model of your own.
            count: number of random architectures.
            archs: canonical strings of architectures.
            blocks: measure the blocks that networks of the space are made of, each alone, `count` of them or all, for a
                lookup table. They are a space of their own (e.g. `fbnet-blocks`).
            model: a model file (ONNX, TFLite, TorchScript, `torch.export`) or `package.module:factory`, whose code is
                run here.
            inputs: what the model's file leaves open of its inputs: shapes, ranges, values.
            options: runtime, accelerator, threads and batch size; without any, a device's own targets are measured.
            policy: how networks are timed: name of a preset, or of one of the inventory's policies.
            seed: seed of the random architectures, of the weights, and of the order of measuring.
            new_session: measure everything again, in a session of its own.
            as_written: export networks as published, with their dead edges.
            raw: add a column `passes`: raw samples in ns, a list for each pass.
            resolve: a ranking question: passes are added where intervals overlap and the order matters to it. The same
                call continues it.
            acquisition: with `count`: the sampler that chooses the architectures (`predictors.samplers`), such as
                `kmeans:arch2vec`.
            encoding_table: a file with encodings, which such a sampler reads instead of computing them.
            listener: what is called during the run.

        Raises:
            BadInputError: if the arguments make no sense, or a name is unknown.
            LatlabError: why the device failed, if there is no row at all.
        """
        named = policy_named(policy, self.inventory)
        if acquisition != "random" or encoding_table is not None:
            archs = self._sampled(devices, options, space, count, acquisition, encoding_table, seed, blocks)
            count = None
        files: dict[str, Callable[[str], Future[Artifact]]] = {}
        if model is not None:
            campaigns = []
            for alone in options.by_runtime():
                own, targets, artifact = self._own_model(model, inputs, devices, alone, listener)
                identity = {"sha256": artifact.sha256, **own.identity}
                artifact = self._with_kernels(artifact)
                for target in targets:
                    campaign = self.store.campaign(target, USER_MODEL_SPACE, named, seed, own.name, identity)
                    campaigns.append(campaign)
                    files[campaign.id] = _ready(artifact)
                texts = [own.name]
        else:
            chosen_space, wanted = _networks(space, count, archs, blocks, seed, as_written)
            selection = Selection.RANDOM if archs is None else Selection.LISTED
            campaigns = self._campaigns(devices, options, chosen_space.name, named, seed, selection, as_written)
            texts = [arch.text for arch in wanted]
        return measure_campaigns(
            self.store,
            campaigns,
            texts,
            Role.LISTED,
            self.run_jobs,
            new_session=new_session,
            raw=raw,
            resolve=resolve,
            files=files,
            listener=listener,
        )

    def _sampled(
        self,
        devices: Devices,
        options: TargetOptions,
        space: str | None,
        count: int | None,
        acquisition: str,
        encoding_table: str | Path | None,
        seed: int,
        blocks: bool,
    ) -> list[Architecture]:
        """Return the architectures that a sampler chooses; the arguments are those of `measure`."""
        if space is None or count is None or blocks:
            raise BadInputError("--acquisition chooses how many networks of a space you ask for: --space and --count")
        chosen = space_to_measure(space)
        if not 1 <= count <= chosen.size:
            raise BadInputError(f"{space} has {chosen.size} architectures: the count must be between 1 and that")
        table = None if encoding_table is None else Path(encoding_table)
        sampler = sampler_named(acquisition, table)
        target = self.targets(devices, options)[0]
        sources = sources_of(self.store, chosen, source_filter_of(self.inventory, str(target), None, []), ALL)
        predictor = predictor_for(PredictorOptions(), chosen, seed=seed, sources=sources)
        return choose_networks(chosen, sampler, count, seed=seed, predictor=predictor, sources=sources, table=table)

    def embed(
        self,
        devices: Devices = "local",
        *,
        space: str,
        options: TargetOptions = TargetOptions(),
        policy: str = "default",
        seed: int = 0,
        new_session: bool = False,
        listener: RunListener = RunListener(),
    ) -> Measurements:
        """Measure HELP's hardware embedding: the latencies of the space's ten reference architectures.

        Args:
            devices, options, policy, seed, new_session, listener: as for `measure`.

        Returns:
            Rows with the columns target, arch, latency_ms, stderr_ms, status, and embedding: the latency, scaled so
            that the least of the ten is 0 and the greatest is 1, as HELP feeds it to its predictor (NaN if the
            architecture failed).
        """
        texts = [arch.text for arch in space_to_measure(space).references()]
        if not texts:
            raise BadInputError(f"{space} has no reference architectures", "Embed the device in a whole space.")
        named = policy_named(policy, self.inventory)
        campaigns = self._campaigns(devices, options, space, named, seed, Selection.REFERENCES, as_written=False)
        found = measure_campaigns(
            self.store, campaigns, texts, Role.REFERENCE, self.run_jobs, new_session=new_session, listener=listener
        )
        rows = found.rows[["target", "arch", "latency_ms", "stderr_ms", "status"]].copy()
        grouped = rows.groupby("target", sort=False)["latency_ms"]
        span = grouped.transform("max") - grouped.transform("min")
        rows["embedding"] = (rows["latency_ms"] - grouped.transform("min")) / span.where(span > 0)
        return replace(found, rows=rows)

    def import_labels(self, files: str | Path | Sequence[str | Path], as_target: str, **how: Any) -> list[KeptLabels]:
        """Import labels that were measured elsewhere as those of a target: predictors, reports and onboarding use them.

        Importing again changes only labels that are different in the file.

        Args:
            files: one file or several; docs/own-labels.md describes their forms.
            as_target: a full target, or a part of it (`imported_labels.named_target`); `each` for the targets that the
                file names itself.
            how: `space`, `device`, `format`, `unit`, `arch_format`, `insist` as for `read_sources`; `as_written` if
                networks were timed with their dead edges.

        Raises:
            BadInputError: naming file and place of what is wrong; nothing is imported then.
        """
        named = [files] if isinstance(files, (str, Path)) else list(files)
        return import_labels(self.store, self.inventory, [Path(one) for one in named], as_target, **how)

    def _with_kernels(self, artifact: Artifact) -> Artifact:
        """Return the file of a model with what it executes, if that can be read soon: the device waits meanwhile."""
        from latlab.harness.active_learning.model_prediction import work_of_artifact  # scipy.linalg is heavy

        try:
            return replace(artifact, kernels=tuple(work_of_artifact(artifact, self.cache, READ_BEFORE_S).to_json()))
        except BadInputError:  # a file that no runtime takes here may run on the device
            return artifact

    def _campaigns(
        self,
        devices: Devices,
        options: TargetOptions,
        space: str,
        policy: TimingPolicy,
        seed: int,
        selection: Selection,
        as_written: bool,
    ) -> list[Campaign]:
        return [
            self.store.campaign(target, space, policy, seed, selection, campaign_options(target, as_written))
            for target in self.targets(devices, options)
        ]


def _networks(
    space: str | None,
    count: int | None,
    archs: Sequence[str | Architecture] | None,
    blocks: bool,
    seed: int,
    as_written: bool,
) -> tuple[SearchSpace, list[Architecture]]:
    """Return the space to measure, and the architectures of it that are to be measured."""
    if space is None:
        raise BadInputError("say what to measure: a space, or a model of your own")
    if archs is not None if blocks else (count is None) == (archs is None):
        raise BadInputError("say which architectures: how many (count), or a list of them, not both")
    chosen: SearchSpace = blocks_of(space) if blocks else space_to_measure(space)
    if archs is not None:
        return chosen, parse_archs(chosen, archs)
    if isinstance(chosen, BlockSpace):
        return chosen, some_blocks(chosen, count, seed, as_written)
    return chosen, sample_space(chosen, count or 0, seed)


def _ready(artifact: Artifact) -> Callable[[str], Future[Artifact]]:
    future: Future[Artifact] = Future()
    future.set_result(artifact)
    return lambda _: future
