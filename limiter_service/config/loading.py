"""A pools file, or its text: read, built and checked."""

from collections.abc import Collection
from pathlib import Path

import yaml

from limiter_service.config.building import build
from limiter_service.config.money import check_prices
from limiter_service.config.problems import ConfigError, ConfigProblem, note
from limiter_service.config.sections import Config
from limiter_service.config.text import read


def load(path: Path) -> Config:
    """Read and check a pools file. Raises ConfigError with every problem in it."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), [ConfigProblem("file", f"cannot be read: {error}")]) from error
    return parse(text, path.suffix, str(path), path.parent)


def parse(
    text: str,
    suffix: str,
    source: str = "configuration",
    base: Path | None = None,
    *,
    price_files: Collection[str] | None = None,
) -> Config:
    """Check the text of a pools file; *suffix* (.yaml, .yml, .toml, .json) says how to read it.
    Files that it names are relative to *base*; only *price_files* are read where these are given.
    """
    try:
        raw = read(text, suffix)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        where = " ".join(str(error).split())
        raise ConfigError(source, [ConfigProblem("file", f"cannot be parsed: {where}")]) from error
    problems: list[ConfigProblem] = []
    config = build(Config, {} if raw is None else raw, "", problems)
    if (
        not problems
        and config.price_file
        and config.price_file
        not in (price_files if price_files is not None else (config.price_file,))
    ):
        message = f"{config.price_file!r} is not read for a check; in force: "
        note(problems, "price_file", message + (", ".join(price_files or ()) or "none"))
    if not problems:
        check_prices(config, base, problems)
    if problems:
        raise ConfigError(source, problems)
    assert isinstance(config, Config)
    return config
