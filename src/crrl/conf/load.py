"""Recipes in, a checked `Config` out. Hydra composes; the error messages are ours.

Unknown recipes, unknown keys, wrong types and impossible combinations are `UsageError`s that say what to write instead
(invariant 9). Loading writes nothing: no Hydra working directory, no outputs/ folder.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence, Set
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from crrl.conf.checks import REFUSED, check, check_rows
from crrl.conf.ignored import check_ignored
from crrl.conf.recipes import FOLDER, GROUPS, ready, recipe_names
from crrl.conf.schema import SCHEMAS, Config, RowsConfig, WarmstartConfig, keys
from crrl.errors import CrrlError, UsageError, nearest
from crrl.models import model_folder

AnyConfig = TypeVar("AnyConfig", Config, WarmstartConfig, RowsConfig)

COMPOSING = (HydraException, OmegaConfBaseException, yaml.YAMLError)
SAVED = "saved"
"""Hydra's name for the saved settings of a run, which it composes like a recipe."""
SEARCH = "hydra.searchpath=[pkg://crrl.conf]"  # so that your own recipe finds the ready configurations, too

for _name, _schema in SCHEMAS.items():
    ConfigStore.instance().store(name=_name, node=_schema)


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Config:
    """A training recipe: a name in conf/ or the path of a .yaml file, with `key=value` overrides (the last
    wins)."""
    return _load(name, in_full(overrides), Config)


def load_warmstart(name: str, overrides: Sequence[str] = ()) -> WarmstartConfig:
    """Like `load_recipe`, for an SFT recipe."""
    return _load(name, overrides, WarmstartConfig)


def load_rows(overrides: Sequence[str]) -> RowsConfig:
    """The settings of `crrl sft DATA...`. Raises UsageError."""
    config = _load("sft", in_full(overrides, RowsConfig), RowsConfig)
    check_rows(config, [key for key, _ in map(_split, overrides)])
    return config


def load_saved(path: Path, overrides: Sequence[str] = (), *, model: str = "") -> Config:
    """The settings of a run, from its `config.yaml`, with overrides on top. `model` takes the place of the one that the
    run began with where that is gone, or was named from another folder."""
    overrides = in_full(overrides)
    try:
        raw = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise CrrlError(
            f"{path} does not exist, so this is not a run folder.", "`ls runs` shows the runs there are."
        ) from None
    except OSError as error:
        raise CrrlError(f"{path} cannot be read: {error.strerror}.", "Restore it, or start a new run.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CrrlError(f"{path} is not valid YAML: {_first_line(error)}", "Restore it, or start a new run.") from None
    if not isinstance(raw, dict):
        raise CrrlError(f"{path} has no settings.", "Restore it, or start a new run.")
    began = raw.get("model")
    if model and isinstance(began, dict) and not model_folder(str(began.get("path", ""))).is_dir():
        began["path"] = model
    ConfigStore.instance().store(name=SAVED, node={"defaults": ["train_schema", "_self_"], **raw})
    try:
        config = _compose(FOLDER, SAVED, overrides, Config, set())
    except COMPOSING as error:
        cause = _at_fault(error)
        if getattr(cause, "full_key", None) in [key for key, _ in map(_split, overrides)]:
            raise _explained(error, str(path), Config) from None
        raise CrrlError(f"{path}: {_first_line(cause)}", "Another version of crrl wrote it; start a new run.") from None
    try:
        check(config)
    except UsageError as error:
        if overrides:
            raise
        raise CrrlError(f"{path}: {error.message}", error.remedy or "Restore it, or start a new run.") from None
    check_ignored(config, [key for key, _ in map(_split, overrides)])
    return config


def in_full(overrides: Sequence[str], schema: type = Config) -> list[str]:
    """Overrides with short forms written out: `tracker=wandb` is `tracker.name=[wandb]`. A group stands for its name,
    unless it has ready configurations; a list of one or several words needs no brackets."""
    names = {k.name: k.type.startswith("list[") for k in keys(schema)}
    written = []
    for override in overrides:
        key, equals, value = override.partition("=")
        if key not in GROUPS and f"{key}.name" in names:
            key = f"{key}.name"
        if names.get(key) and equals and not value.startswith("["):
            value = f"[{value}]"
        written.append(f"{key}{equals}{value}")
    return written


def to_yaml(config: Config | WarmstartConfig | RowsConfig) -> str:
    """The text of `config.yaml` in the run folder and of `--dry-run`."""
    return yaml.safe_dump(asdict(config), sort_keys=False, allow_unicode=True)


def _load(name: str, overrides: Sequence[str], schema: type[AnyConfig]) -> AnyConfig:
    folder, stem = _find(name)
    try:
        config = _compose(folder, stem, overrides, schema, _named_groups(folder, stem))
    except COMPOSING as error:
        raise _explained(error, name, schema) from None
    if (kind := type(config)) is not schema:
        verb = "train" if kind is Config else "sft"
        raise UsageError(f"{name} is not a recipe for this verb.", f"Write: crrl {verb} {name}")
    config.recipe = stem
    if isinstance(config, Config):
        check(config)
        own: list[str] = [] if folder == FOLDER else _flat(yaml.safe_load((folder / f"{stem}.yaml").read_text()) or {})
        check_ignored(config, [*own, *(key for key, _ in map(_split, overrides))])
    return config


def _compose(folder: Path, stem: str, overrides: Sequence[str], schema: type[AnyConfig], named: Set[str]) -> AnyConfig:
    """A configuration with overrides on top, not yet checked. `named`: groups that it has chosen itself. Raises
    UsageError: an override that cannot be meant; one of `COMPOSING`."""
    _refuse_unknown(overrides, schema)
    maps: tuple[str, ...] = tuple(f"{k.name}." for k in keys(schema) if isinstance(k.default, dict))
    prepared = [SEARCH, *[_hydra_form(override, maps, named) for override in overrides]]
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir=str(folder), version_base="1.3", job_name="crrl"):
        composed: Any = OmegaConf.to_object(compose(config_name=stem, overrides=prepared))
    config: AnyConfig = composed
    return config


def _find(name: str) -> tuple[Path, str]:
    """Folder and stem. A name that ends in .yaml is a path; anything else is a name in conf/."""
    if name.endswith((".yaml", ".yml")):
        path = Path(name).resolve()
        if not path.is_file():
            raise UsageError(f"Recipe file {name} does not exist.", _recipes_hint(name))
        return path.parent, path.stem
    if name not in recipe_names():
        raise UsageError(f"There is no recipe '{name}'.", _recipes_hint(name))
    return FOLDER, name


def _recipes_hint(name: str) -> str:
    return nearest(Path(name).stem, recipe_names()) + " Your own: the path of a .yaml file."


def _split(override: str) -> tuple[str, str]:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise UsageError(f"'{override}' is not key=value.", f"Write {override.strip('=') or 'key'}=VALUE.")
    if key[0] in "+~":
        raise UsageError(f"'{override}': every key exists already.", f"Write {override.lstrip('+~')}.")
    return key, value


def _refuse_unknown(overrides: Sequence[str], schema: type) -> None:
    valid = [k.name for k in keys(schema)]
    maps = {k.name: k.type.count("dict[") for k in keys(schema) if isinstance(k.default, dict)}
    for override in overrides:
        key, value = _split(override)
        if key in GROUPS and schema is Config:
            if value not in ready(key):
                raise UsageError(f"There is no ready configuration {override}.", nearest(value, ready(key)))
            continue
        if key in valid or any(key.startswith(f"{m}.") and _depth(key, m) == deep for m, deep in maps.items()):
            continue
        raise _unknown(key, valid)


def _depth(key: str, group: str) -> int:
    return key.count(".") - group.count(".")


def _unknown(key: str, valid: Sequence[str]) -> UsageError:
    if (word := key.rsplit(".", 1)[-1]) in REFUSED:
        return UsageError(f"{key} is not a setting.", REFUSED[word])
    inside = [v for v in valid if v.startswith(key + ".")]
    if inside:
        return UsageError(f"{key} is a group of settings.", "Set one of: " + ", ".join(inside) + ".")
    # `max_steps` for `trainer.max_steps`: people remember only the last word.
    same = [v for v in valid if v.rsplit(".", 1)[-1] == word]
    if not same:
        near = difflib.get_close_matches(word, [v.rsplit(".", 1)[-1] for v in valid], n=2, cutoff=0.75)
        same = [v for v in valid if v.rsplit(".", 1)[-1] in near]
    hint = f"Did you mean {' or '.join(repr(s) for s in same[:3])}?" if same else nearest(key, valid)
    return UsageError(f"There is no setting '{key}'.", hint)


def _named_groups(folder: Path, stem: str) -> set[str]:
    """Groups that a recipe, or one it builds on, has chosen itself: Hydra replaces such a choice, and adds one where
    there is none (after the recipe's own settings, which it then overrides)."""
    try:
        raw = yaml.safe_load((folder / f"{stem}.yaml").read_text())
    except yaml.YAMLError:
        return set()  # composing it says so, too, and where
    named: set[str] = set()
    for entry in (raw or {}).get("defaults", []):
        if isinstance(entry, dict):
            named |= set(entry)
        else:
            homes = (home for home in (folder, FOLDER) if entry != stem and (home / f"{entry}.yaml").is_file())
            named |= next((_named_groups(home, entry) for home in homes), set())
    return named


def _hydra_form(override: str, maps: tuple[str, ...], named: Set[str]) -> str:
    """Hydra adds a new entry of a map only with `++`, a new choice of a group with `+`, and reads quotes and commas in
    values as its own grammar."""
    key, value = _split(override)
    prefix = "++" if f"{key}.".startswith(maps) else "+" if key in GROUPS and key not in named else ""
    grammar = value.startswith(("[", "{", "'", '"')) and not value.startswith("{{")  # that is a template
    plain = any(c in value for c in " ()'\",=:${") and not grammar
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"{prefix}{key}='{escaped}'" if plain else f"{prefix}{key}={value}"


def _explained(error: BaseException, name: str, schema: type) -> UsageError:
    cause = _at_fault(error)
    key = str(getattr(cause, "full_key", None) or "")
    if key and "not in" in str(cause):
        unknown = _unknown(key, [k.name for k in keys(schema)])
        return UsageError(f"Recipe {name}: {unknown.message}", unknown.remedy)
    if key:
        found = [k for k in keys(schema) if k.name == key]
        kind = f" It is {found[0].type}: {found[0].doc}." if found else ""
        return UsageError(
            f"{key}: {_first_line(cause)}.{kind}",
            f"Write e.g. {key}={found[0].default}." if found else "",
        )
    return UsageError(
        f"Recipe {name} cannot be read: {_first_line(error)}",
        "`crrl train quickstart --dry-run` shows a complete one.",
    )


def _at_fault(error: BaseException) -> BaseException:
    """Hydra wraps OmegaConf's errors; the outermost of those names the key."""
    cause: BaseException | None = error
    while cause is not None and not getattr(cause, "full_key", None):
        cause = cause.__cause__ or cause.__context__
    return cause or error


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__


def _flat(tree: dict[str, Any], prefix: str = "") -> list[str]:
    names: list[str] = []
    for key, value in tree.items():
        if isinstance(value, dict):
            names += _flat(value, f"{prefix}{key}.")
        elif key != "defaults":
            names.append(f"{prefix}{key}")
    return names
