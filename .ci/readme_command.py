"""Print the command of the README that follows ``<!-- command: NAME -->``. Usage: readme_command.py NAME"""

import re
import sys
from pathlib import Path


def readme_command(readme: str, name: str) -> str:
    """The shell code of the one block marked `name`."""
    blocks = re.findall(rf"<!-- command: {re.escape(name)} -->\n+```sh\n(.*?)```", readme, re.DOTALL)
    if len(blocks) != 1:
        raise SystemExit(f"README.md has {len(blocks)} blocks after <!-- command: {name} -->; there must be one")
    return blocks[0].strip()


if __name__ == "__main__":
    text = Path(__file__).parents[1].joinpath("README.md").read_text(encoding="utf-8")
    print(readme_command(text, sys.argv[1]))
