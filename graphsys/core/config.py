"""The run file: one tree of frozen models, with every default, unit and limit in one place."""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from graphsys.core.cluster_config import ClusterConfig
from graphsys.core.config_parts import COUNT_LIMIT, WIDTH_LIMIT, Section, Share, Size
from graphsys.core.errors import ConfigError
from graphsys.core.units import parse_bytes

WHOLE_GRAPH_MODELS = ("deep_gcn", "deep_sage", "gcnii", "resgcn")  # built-in models that take no sampled batches


class TaskConfig(Section):
    """What is learned."""

    type: Literal["node_classification", "node_regression"] = Field(
        "node_classification", description="What is predicted; multi-label follows from y [N, C]."
    )
    node_type: str | None = Field(None, description="Node type to predict; may be left out when the store has one.")


class SamplerConfig(Section):
    """How neighbourhoods are drawn."""

    fanouts: tuple[int, ...] = Field((10, 10), description="In-neighbours per node and hop, seeds outwards; -1: all.")
    replace: bool = Field(False, description="Draw each node's neighbours with replacement: always as many as asked.")
    weighted: bool = Field(False, description="Draw in proportion to the edges' weights, which the store must have.")
    batch_size: int = Field(1024, gt=0, lt=COUNT_LIMIT, description="Seeds per batch.")
    samples: Literal["frozen", "fresh"] = Field(
        "fresh", description="fresh: new samples every epoch; frozen: those of the first epoch, again and again."
    )
    seed: int = Field(0, ge=0, lt=1 << 63, description="Seed of shuffling and sampling.")
    threads: int = Field(0, ge=0, description="Sampling threads; 0: one per core. Never changes the result.")

    @model_validator(mode="after")
    def _check_fanouts(self) -> Self:
        if not self.fanouts:
            raise ValueError("fanouts is empty; give one number per hop, such as [10, 10]")
        bad = [fanout for fanout in self.fanouts if fanout == 0 or not -1 <= fanout < COUNT_LIMIT]
        if bad:
            raise ValueError(
                f"fanouts holds {bad[0]}; each entry is a number of neighbours from 1 to 2147483647, or -1 for all"
            )
        return self


class PackConfig(Section):
    """How features reach the trainer."""

    mode: Literal["auto", "packed", "cached", "direct", "memory"] = Field(
        "auto",
        description="packed: sequential windows; cached, direct: rows from the store; memory: all in RAM; auto: memory "
        "where all fits, otherwise what takes the measured disk least time.",
    )
    host_cache: Share = Field("10%", description="Rows kept in memory between batches: bytes, or % of the features.")
    window: Literal["auto"] | Annotated[int, Field(gt=0)] = Field("auto", description="Batches per window.")
    codec: Literal["float32", "float16", "bfloat16", "int8"] = Field(
        "float32", description="How feature rows are kept in windows and in the cache; int8 has a scale per row."
    )
    disk: Size = Field(parse_bytes("20GiB"), description="Most bytes that windows may occupy.")

    @model_validator(mode="after")
    def _check_cache(self) -> Self:
        if isinstance(self.host_cache, str):
            try:
                share = float(self.host_cache[:-1])
            except ValueError:
                share = -1.0
            if not 0 <= share <= 100:
                raise ValueError(f"host_cache is '{self.host_cache}'; give 0% to 100%, or a size such as 512MiB")
        elif self.host_cache < 0:
            raise ValueError("host_cache is negative; give a size such as 512MiB, or 0%")
        return self


class ModelConfig(Section):
    """The network: a built-in by name, or any module by import path."""

    name: Literal["sage", "gcn", "gat", "gin", "deep_gcn", "deep_sage", "gcnii", "resgcn"] = Field(
        "sage",
        description="Built-in model; the last four are for whole graphs, trained with trainer.strategy: pipeline.",
    )
    class_path: str | None = Field(
        None, alias="class", description="User model, as package.module:Class; takes the place of name."
    )
    style: Literal["pyg", "dgl"] = Field(
        "pyg", description="What a user model's forward takes: (x, edge_index) or (blocks, x)."
    )
    kwargs: dict[str, Any] = Field(default_factory=dict, description="Further keyword arguments of a user model.")
    hidden: int = Field(64, gt=0, lt=WIDTH_LIMIT, description="Width of the hidden layers.")
    num_layers: int | None = Field(
        None, gt=0, description="Layers; must equal the number of fanouts, except with trainer.strategy pipeline."
    )
    dropout: float = Field(0.5, ge=0, lt=1, description="Dropout between layers, and on the input.")
    heads: int = Field(4, gt=0, lt=WIDTH_LIMIT, description="Attention heads (gat).")
    alpha: float = Field(0.1, ge=0, le=1, description="Share of the encoder's output in every layer (gcnii).")
    theta: float = Field(0.5, gt=0, description="Layer l is log(theta / l + 1) off the identity (gcnii).")
    aggr: Literal["mean", "sum"] = Field("mean", description="How messages of neighbours are put together (resgcn).")


class TrainerConfig(Section):
    """How the weights are fitted."""

    strategy: Literal["minibatch", "pipeline"] = Field(
        "minibatch",
        description="minibatch: sampled batches; pipeline: whole graph, layers and nodes spread over processes.",
    )
    epochs: int = Field(30, gt=0, lt=COUNT_LIMIT, description="Passes over the training nodes.")
    lr: float = Field(0.01, gt=0, description="Learning rate.")
    weight_decay: float = Field(0.0, ge=0, description="Weight decay.")
    layer_weight_decay: float | None = Field(
        None,
        ge=0,
        description="Weight decay of the layers between encoder and decoder (pipeline); weight_decay if left out.",
    )
    optimizer: Literal["adam", "adamw"] = Field("adam", description="Optimizer.")
    scheduler: Literal["none", "cosine", "step", "plateau"] = Field("none", description="Learning-rate schedule.")
    scheduler_step: int = Field(10, gt=0, description="Epochs between drops (step), or patience (plateau).")
    scheduler_gamma: float = Field(0.5, gt=0, lt=1, description="Factor of a drop (step, plateau).")
    seed: int = Field(0, ge=0, lt=1 << 63, description="Seed of initial weights and dropout.")
    checkpoint_every: int = Field(1000, gt=0, description="Steps between checkpoints; one is also kept per run end.")
    eval_every: int = Field(1, gt=0, description="Epochs between validations.")
    patience: int | None = Field(None, gt=0, description="Stop after this many validations without improvement.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where the model runs.")
    precision: Literal["float32", "bfloat16", "float16"] = Field("float32", description="Autocast type.")
    threads: int = Field(
        0, ge=0, description="Torch threads; 0: one per core. Never changes what a built-in model learns."
    )
    keep: Literal["best", "last"] = Field(
        "best",
        description="Weights a run ends with; best: of the best validation, or of the last epoch without one; last.",
    )
    refresh: int = Field(
        20, gt=0, description="Epochs between snapshots of the messages of chunks whose turn is to come (pipeline)."
    )
    shuffle_chunks: bool = Field(True, description="Take the chunks in a new order every epoch (pipeline).")
    rescale: bool = Field(
        True, description="Count gradients from other chunks twice, as half of all orders show them (pipeline)."
    )


def strategy_fault(model: ModelConfig, trainer: TrainerConfig) -> str | None:
    """Return what keeps the network from being trained by the run's strategy, in one sentence; None if nothing does.

    A user's class is looked at when it is built.
    """
    on_batches, on_whole_graphs = "sage, gcn, gat or gin", "deep_gcn, deep_sage, gcnii or resgcn"
    strategy: str = trainer.strategy
    deep, pipeline = model.name in WHOLE_GRAPH_MODELS, strategy == "pipeline"
    if not pipeline and trainer.layer_weight_decay is not None:
        return "trainer.layer_weight_decay needs trainer.strategy: pipeline; leave it out, or set the strategy"
    if model.class_path is not None or deep == pipeline:
        return None
    if deep:
        return (
            f"model.name is {model.name}, which is trained on the whole graph; set trainer.strategy to pipeline, or "
            f"take {on_batches}"
        )
    return (
        f"model.name is {model.name}, which takes sampled batches, and trainer.strategy is pipeline; take "
        f"{on_whole_graphs}, or set the strategy to minibatch"
    )


class EmbedConfig(Section):
    """What the embedding table holds."""

    layer: Literal["last"] | Annotated[int, Field(gt=0)] = Field(
        "last", description="Layer whose output is kept, counted from 1; last is the model's output."
    )
    dtype: Literal["float32", "float16"] = Field("float32", description="Type of the vectors.")


class RunConfig(Section):
    """One run, whole; the key names are stable."""

    store: Path = Field(description="Store to learn from.")
    out: Path = Field(description="Folder that receives everything the run writes.")
    memory: Size = Field(description="Hard limit of every stage's data, in bytes; the interpreters come on top.")
    task: TaskConfig = TaskConfig()
    sampler: SamplerConfig = SamplerConfig()
    pack: PackConfig = PackConfig()
    model: ModelConfig = ModelConfig()
    trainer: TrainerConfig = TrainerConfig()
    cluster: ClusterConfig = ClusterConfig()
    embed: EmbedConfig = EmbedConfig()

    @model_validator(mode="after")
    def _check_strategy(self) -> Self:
        fault = strategy_fault(self.model, self.trainer)
        if fault is not None:
            raise ValueError(fault)
        return self

    @model_validator(mode="after")
    def _check_layers(self) -> Self:
        layers, hops = self.model.num_layers, len(self.sampler.fanouts)
        pipeline = self.trainer.strategy == "pipeline"
        if pipeline and layers is None:
            raise ValueError("model.num_layers is missing; trainer.strategy pipeline needs the number of layers")
        if not pipeline and layers is not None and layers != hops:
            raise ValueError(
                f"sampler.fanouts has {hops} entries and model.num_layers is {layers}; a model of {layers} layers "
                f"needs {layers} fanouts, one per hop"
            )
        if isinstance(self.embed.layer, int) and self.embed.layer > self.num_layers:
            raise ValueError(
                f"embed.layer is {self.embed.layer}, but the model has {self.num_layers} layers; give 1 to "
                f"{self.num_layers}"
            )
        return self

    @model_validator(mode="after")
    def _check_shape(self) -> Self:
        cluster = self.cluster
        stages, ways, workers = cluster.stages, cluster.ways, cluster.num_workers
        if self.trainer.strategy != "pipeline":
            if stages * ways > 1:
                raise ValueError("cluster.stages and cluster.ways need trainer.strategy: pipeline; leave them out")
            return self
        if self.trainer.precision != "float32":
            raise ValueError(
                f"trainer.precision is {self.trainer.precision}; trainer.strategy pipeline computes in float32: leave "
                f"it out"
            )
        if stages > self.num_layers:
            raise ValueError(
                f"cluster.stages is {stages} and model.num_layers is {self.num_layers}; give at most one stage per "
                f"layer"
            )
        if workers not in (1, stages * ways):  # 1 is the default: the shape says how many
            raise ValueError(
                f"cluster.num_workers is {workers}, but {stages} stages x {ways} ways are {stages * ways} processes; "
                f"leave num_workers out, or make them equal"
            )
        return self

    @property
    def num_layers(self) -> int:
        """Number of message-passing layers L, equal to the number of fanouts where batches are sampled."""
        if self.trainer.strategy == "pipeline" and self.model.num_layers is not None:
            return self.model.num_layers
        return len(self.sampler.fanouts)

    def resolved(self) -> dict[str, Any]:
        """Return the whole config as plain JSON values, sizes in bytes."""
        return self.model_dump(mode="json", by_alias=True)


def load_run(path: Path, overrides: list[str] | None = None) -> RunConfig:
    """Return the run that a YAML file describes, with ``a.b=value`` overrides applied.

    Raises:
        ConfigError: The file cannot be read, a key is unknown or a value is wrong; every fault is named with its key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"run file {path} cannot be read: {reason}") from error
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        where = f" at line {place.line + 1}, column {place.column + 1}" if place else ""
        raise ConfigError(f"run file {path} is not YAML{where}: {getattr(error, 'problem', error)}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"run file {path} holds {type(tree).__name__}, not keys and values such as 'store: my.gs'")
    for override in overrides or []:
        _apply_override(tree, override)
    return parse_run(tree, origin=str(path))


def parse_run(tree: dict[str, Any], *, origin: str = "run") -> RunConfig:
    """Return the validated run of a plain dict; ``origin`` names it in messages.

    Raises:
        ConfigError: As :func:`load_run`.
    """
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        # A union reports one fault per member; the first names the key and what was found.
        by_key = {_key(fault["loc"]): _fault(fault) for fault in reversed(error.errors())}
        raise ConfigError(f"{origin}: {'; '.join(reversed(by_key.values()))}") from error


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, sign, text = override.partition("=")
    if not sign or not key:
        raise ConfigError(f"--set {override}: write it as key=value, such as --set trainer.lr=0.003")
    *parents, last = key.split(".")
    branch = tree
    for parent in parents:
        child = branch.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(f"--set {override}: '{parent}' holds a value, not further keys")
        branch = child
    try:
        branch[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: '{text}' is not a YAML value") from error


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = RunConfig
    for part in location[:-1]:
        child = model.model_fields[str(part)].annotation if str(part) in model.model_fields else None
        if not (isinstance(child, type) and issubclass(child, BaseModel)):
            return []
        model = child
    return [info.alias or name for name, info in model.model_fields.items()]


def _location(parts: tuple[int | str, ...]) -> tuple[int | str, ...]:
    inner = ("function-", "constrained-", "literal[")  # pydantic's own names of a union's members
    return tuple(part for part in parts if part not in ("int", "str") and not str(part).startswith(inner))


def _key(parts: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in _location(parts)) or "the run"


def _fault(fault: Any) -> str:
    location, key = _location(fault["loc"]), _key(fault["loc"])
    if fault["type"] == "extra_forbidden":
        known = _known_keys(location)
        near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"the keys there are {', '.join(known) or 'none'}"
        return f"unknown key '{key}'; {hint}"
    if fault["type"] == "missing":
        return f"the key '{key}' is missing"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "value_error":
        return message if key == "the run" else f"{key}: {message}"
    return f"{key} is {fault['input']!r}: {message[0].lower()}{message[1:]}"
