"""What the numbers say: medians, ratios round by round, a table and a figure."""

import statistics
from pathlib import Path

GOALS = {  # of ours against the best peer: at least, and better still
    "training step, S, float32": (1.0, 1.2),
    "training step, M, float32": (1.0, 1.1),
    "training step, M, bf16": (1.1, 1.2),
    "peak memory, S, float32": (1.0, 1.0),
    "peak memory, M, float32": (1.0, 1.0),
    "peak memory, M, bf16": (1.0, 1.0),
    "a token with cache, S": (3.0, 4.0),
    "a token with cache, M": (1.4, 2.5),
    "a token without cache, S": (1.0, 1.0),
    "a token without cache, M": (1.0, 1.0),
}
Rounds = dict[str, list[float]]  # of each contender, what each round took: less is better


def compare(
    rounds: Rounds,
) -> dict:
    "Ours against the peer with the best median: their medians, the ratio of each round, and the share of the machine's own speed."
    medians = {name: statistics.median(values) for name, values in rounds.items()}
    peer = min((name for name in rounds if name not in ("ours", "machine")), key=medians.get, default=None)
    found = {"ours": medians["ours"], "peer": peer}
    if peer is not None:
        ratios = [theirs / ours for theirs, ours in zip(rounds[peer], rounds["ours"])]
        found |= {"theirs": medians[peer], "ratio": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}
    if "machine" in rounds:
        found["share"] = statistics.median(bare / ours for bare, ours in zip(rounds["machine"], rounds["ours"]))
    return found


def verdict(
    name: str,  # of what was measured
    ratio: float,
    same: bool = True,  # whether what was written is right
) -> str:
    "Whether the median of the ratios reaches the goal."
    if name not in GOALS:
        return ""
    least, goal = GOALS[name]
    if not same:
        return "missed: other tokens with the cache"
    return "goal reached" if ratio >= goal else "met" if ratio >= least else "missed"


def shown(
    name: str,
    value: float,  # seconds or bytes
) -> str:
    "A number with its unit."
    return f"{value / 1e6:.1f} MB" if "memory" in name else f"{1000 * value:.3g} ms"


def summary(
    what: str,
    results: dict,
) -> str:
    "A line for one row of the table."
    c = compare(results["rounds"][what])
    against = "" if c["peer"] is None else f", {c['ratio']:.2f} times as good as {c['peer']} ({shown(what, c['theirs'])})"
    return f"{what}: {shown(what, c['ours'])}{against}"


def table(
    results: dict,  # see `__main__`
) -> str:
    "All results in Markdown."
    names = list(dict.fromkeys(name for rounds in results["rounds"].values() for name in rounds))
    lines = [f"# Benchmarks\n\n{results['about']}\n"]
    lines += ["| | ours | best peer | | ratio, round by round | at least (goal) | | of the machine's speed |", "|" + "---|" * 8]
    for name, rounds in results["rounds"].items():
        c = compare(rounds)
        if c["peer"] is None:
            continue
        least, goal = GOALS.get(name, ("", ""))
        same = "with cache" not in name or results["same tokens"].get(name, {}).get("ours", True)
        cells = [name, shown(name, c["ours"]), c["peer"], shown(name, c["theirs"])]
        cells += [f"**{c['ratio']:.2f}** ({c['least']:.2f} to {c['most']:.2f})", f"{least} ({goal})" if name in GOALS else ""]
        cells += [verdict(name, c["ratio"], same), f"{c['share']:.0%}" if "share" in c else ""]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["\nRatios above 1 say that ours is faster or smaller. Medians of all:\n"]
    lines += ["| | " + " | ".join(names) + " |", "|" + "---|" * (len(names) + 1)]
    for name, rounds in results["rounds"].items():
        cells = [shown(name, statistics.median(rounds[n])) if n in rounds else "" for n in names]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    for name, same in results["same tokens"].items():
        said = ", ".join(f"{who} {'yes' if yes else 'no'}" for who, yes in same.items())
        lines.append(f"\nThe same tokens as without the cache ({name}): {said}.")
    lines += [f"\nLeft out: {line}." for line in results["left out"]]
    return "\n".join(lines) + "\n"


def figure(
    results: dict,
    path: Path,  # a .png file
) -> None:
    "Bars of every contender against ours, and what attention costs as the window grows."
    import matplotlib.pyplot as plt

    from transformer_nb.plotting import use_style

    use_style()
    grids, axes = plt.subplots(2, 2, figsize=(11, 7.5), layout="constrained")
    for ax, start, title in zip(axes.flat, ("training", "peak", "a token"), ("training step", "peak memory of training", "generation")):
        chosen = {k: v for k, v in results["rounds"].items() if k.startswith(start)}
        names = list(dict.fromkeys(n for rounds in chosen.values() for n in rounds))
        for i, (label, rounds) in enumerate(chosen.items()):
            ours, height = statistics.median(rounds["ours"]), 0.8 / len(chosen)
            places = [names.index(n) + (i - (len(chosen) - 1) / 2) * height for n in rounds]
            values = [statistics.median(values) / ours for values in rounds.values()]
            ax.barh(places, values, height, label=label.partition(", ")[2] if start != "a token" else label)
        ax.axvline(1, color="black", linewidth=1)
        ax.set(title=title, xlabel="times ours: less is better", yticks=range(len(names)), yticklabels=names)
        ax.invert_yaxis()
        if chosen:
            ax.legend(fontsize=8)
    ax, right = axes[1, 1], axes[1, 1].twinx()
    for side, start, style, unit in ((ax, "attention time", "o-", 1e3), (right, "attention memory", "s:", 1e-6)):
        curves = {}
        for label, rounds in results["rounds"].items():
            if label.startswith(start):
                for name, values in rounds.items():
                    curves.setdefault(name, []).append((int(label.rpartition(" ")[2]), statistics.median(values) * unit))
        for i, (name, points) in enumerate(curves.items()):
            side.loglog(*zip(*points), style, color=f"C{i}", label=name if side is ax else None)
    ax.set(title="attention and its gradient", xlabel="tokens in the window", ylabel="milliseconds (solid)")
    right.set_ylabel("megabytes (dotted)")
    if ax.lines:
        ax.legend(fontsize=8)
    grids.savefig(path, dpi=120)
    plt.close(grids)
