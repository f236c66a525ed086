"What CI runs as a sample is drawn by the commit: the same on every machine, and another one after the next change."

import random
import subprocess
from pathlib import Path


def commit() -> str:
    "The hash of the commit that is checked out; empty outside a repository."
    command = ["git", "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True).stdout.strip()
    except OSError:  # no git here
        return ""


def drawn(things: list, count: int) -> list:
    "A sample without repetition, in the order of the list; all of it if it is no longer than that."
    places = random.Random(commit()).sample(range(len(things)), min(count, len(things)))
    return [things[place] for place in sorted(places)]
