"""What is wrong with a file, and where."""

import msgspec


class ConfigProblem(msgspec.Struct, frozen=True):
    """One thing that is wrong: where in the file, and what is allowed there."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


class ConfigError(Exception):
    """The file is refused; `problems` lists everything that is wrong with it."""

    def __init__(self, source: str, problems: list[ConfigProblem]) -> None:
        self.source, self.problems = source, problems
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__("\n".join([f"{source}: {count}", *(f"  {p}" for p in problems)]))


def join(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)


def note(problems: list[ConfigProblem], path: str, message: str) -> None:
    problems.append(ConfigProblem(path, message))
