"""Print the sizes of our packages, so that a reviewer sees drift and asks why."""

import ast
import statistics
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("limiter_wire", "limiter_service", "client_sdk", "scripts", "tests")


def functions(path: Path) -> list[int]:
    """Lines of every function in a file."""
    tree = ast.parse(path.read_text("utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = [node for node in ast.walk(tree) if isinstance(node, kinds)]
    return [(node.end_lineno or node.lineno) - node.lineno + 1 for node in found]


def main() -> None:
    """One row per package."""
    print(
        f"{'package':16}{'files':>7}{'lines':>8}{'median':>8}{'biggest':>9}{'fn med/p90/max':>17}"
    )
    for package in PACKAGES:
        files = [path for path in (ROOT / package).rglob("*.py") if "_sync" not in path.parts]
        lines = sorted(len(path.read_text("utf-8").splitlines()) for path in files)
        sizes = sorted(size for path in files for size in functions(path)) or [0]
        shape = f"{sizes[len(sizes) // 2]}/{sizes[len(sizes) * 9 // 10]}/{sizes[-1]}"
        print(
            f"{package:16}{len(files):7}{sum(lines):8}{statistics.median(lines):8.0f}"
            f"{lines[-1]:9}{shape:>17}"
        )
    for path in sorted((ROOT / "lua").rglob("*.lua")):
        print(f"{path.relative_to(ROOT)!s:32}{len(path.read_text('utf-8').splitlines()):6}")


if __name__ == "__main__":
    main()
