"""What the numbers say: medians, ratios round by round, a table and a figure."""

from pathlib import Path
from statistics import median

GOALS = {  # how many times better than the best peer ours is to be: at least, and what we hope for
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
Rounds = dict[str, list[float]]  # seconds or bytes of each contender, one number for each round: less is better


def compare(rounds: Rounds) -> dict:
    "Ours against the peer with the best median: their medians, the ratio in each round, and the share of the machine's own speed."
    medians = {name: median(values) for name, values in rounds.items()}
    peer = min((name for name in rounds if name not in ("ours", "machine")), key=medians.get, default=None)
    found = {"ours": medians["ours"], "peer": peer}
    if peer is not None:
        ratios = [theirs / ours for theirs, ours in zip(rounds[peer], rounds["ours"])]
        found |= {"theirs": medians[peer], "ratio": median(ratios), "least": min(ratios), "most": max(ratios)}
    if "machine" in rounds:
        found["share"] = median(bare / ours for bare, ours in zip(rounds["machine"], rounds["ours"]))
    return found


def verdict(
    what: str,  # was measured
    ratio: float,
    same: bool = True,  # whether the tokens are the right ones
) -> str:
    "Whether a goal is reached; nothing where there is none."
    if what not in GOALS:
        return ""
    least, goal = GOALS[what]
    if not same:
        return "missed: other tokens"
    return "goal reached" if ratio >= goal else "met" if ratio >= least else "missed"


def shown(what: str, value: float) -> str:
    "A number with its unit."
    return f"{value / 1e6:.1f} MB" if "memory" in what else f"{1000 * value:.3g} ms"


def summary(what: str, rounds: Rounds) -> str:
    "A line for those who wait."
    c = compare(rounds)
    against = f", {c['ratio']:.2f} times as good as {c['peer']} ({shown(what, c['theirs'])})" if c["peer"] else ""
    return f"{what}: {shown(what, c['ours'])}{against}"


def table(results: dict) -> str:
    "All results in Markdown."
    rows = ["| | ours | best peer | | ratio, round by round | at least (goal) | | of the machine's speed |", "|---|---|---|---|---|---|---|---|"]
    for what, rounds in results["rounds"].items():
        c = compare(rounds)
        if c["peer"] is None:
            continue
        same = "with cache" not in what or results["same tokens"][what[-1]]["ours"]
        cells = [what, shown(what, c["ours"]), c["peer"], shown(what, c["theirs"])]
        cells += [f"**{c['ratio']:.2f}** ({c['least']:.2f} to {c['most']:.2f})", "{} ({})".format(*GOALS[what]) if what in GOALS else ""]
        cells += [verdict(what, c["ratio"], same), f"{c['share']:.0%}" if "share" in c else ""]
        rows.append(f"| {' | '.join(cells)} |")
    names = players(results["rounds"])
    rows += ["", "Above 1, ours is the faster or the smaller. The medians of all:", "", f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for what, rounds in results["rounds"].items():
        rows.append(f"| {what} | {' | '.join(shown(what, median(rounds[name])) if name in rounds else '' for name in names)} |")
    for size, same in results["same tokens"].items():
        said = ", ".join(f"{name} {'yes' if yes else 'no'}" for name, yes in same.items())
        rows += ["", f"The same tokens with cache as without, {size}: {said}."]
    rows += [f"\nLeft out: {line}." for line in results["left out"]]
    return "\n".join([f"# Benchmarks\n\n{results['about']}\n", *rows, ""])


def players(rows: dict[str, Rounds]) -> list[str]:
    "Who takes part in any of the rows; the machine is the last."
    return sorted(dict.fromkeys(name for rounds in rows.values() for name in rounds), key="machine".__eq__)


def figure(
    results: dict,
    path: Path,  # a .png file
) -> None:
    "Bars of all contenders against ours, and what attention costs as the window grows."
    import matplotlib.pyplot as plt

    from transformer_nb.notebook.plotting import use_style

    use_style()
    whole, axes = plt.subplots(2, 2, figsize=(11, 8))
    for ax, start in zip(axes.flat, ("training step", "peak memory", "a token")):
        rows = {what: rounds for what, rounds in results["rounds"].items() if what.startswith(start)}
        names = players(rows)
        for i, (what, rounds) in enumerate(rows.items()):
            places = [names.index(name) + 0.8 * (i + 0.5) / len(rows) - 0.4 for name in rounds]
            ratios = [median(values) / median(rounds["ours"]) for values in rounds.values()]
            ax.barh(places, ratios, 0.8 / len(rows), label=what.removeprefix(f"{start}, "))
        ax.axvline(1, color="black", linewidth=1)
        ax.set(title=start, xlabel="times ours: less is better", yticks=range(len(names)), yticklabels=names)
        ax.invert_yaxis()
        if rows:
            ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2, fontsize=8)
    left, right = axes[1, 1], axes[1, 1].twinx()
    for ax, start, style, unit in ((left, "attention time, ", "o-", 1e3), (right, "attention memory, ", "s:", 1e-6)):
        rows = {int(what.removeprefix(start)): rounds for what, rounds in results["rounds"].items() if what.startswith(start)}
        for i, name in enumerate(players(rows)):
            ax.loglog(list(rows), [unit * median(rounds[name]) for rounds in rows.values()], style, color=f"C{i}", label=name)
            left.legend(fontsize=8)
    left.set_xscale("log", base=2)
    left.set(title="attention and its gradient", xlabel="tokens in the window", ylabel="milliseconds (solid)")
    right.set(ylabel="megabytes (dotted)")
    right.grid(visible=False)
    whole.savefig(path, dpi=120)
    plt.close(whole)
