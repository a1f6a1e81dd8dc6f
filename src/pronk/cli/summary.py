"""Results -> a closing summary that a person understands at a glance."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pronk.text import plural, quote, visible

if TYPE_CHECKING:
    from rich.console import Console

    from pronk.analysis.metrics import AccuracyRecord
    from pronk.dataset.findings import Finding
    from pronk.model.run import Metrics

MOST_CLASSES, MOST_PAIRS = 12, 5
SAID = ("parts", "columns")  # how the photos are read, which nobody should have to guess


def accuracy_text(accuracy: "AccuracyRecord", verdict: str = "right") -> str:
    """Say an accuracy, or another share of photos, with its interval.

    Example:
        >>> accuracy_text({"value": 0.959, "low": 0.863, "high": 0.989, "n": 49})
        '95.9 % of 49 photos right (95 % interval 86.3 % to 98.9 %)'
    """
    value, low, high = (f"{100 * share:.1f} %" for share in (accuracy["value"], accuracy["low"], accuracy["high"]))
    return f"{value} of {plural(accuracy['n'], 'photo')} {verdict} (95 % interval {low} to {high})"


def print_training(console: "Console", folder: Path, metrics: "Metrics") -> None:
    """Say how good the model is, whether fine-tuning helped, and what to do next."""
    from rich.table import Table

    from pronk.analysis.metrics import show_metrics

    table = Table(title="How good is it?", title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_row("frozen network, validation", accuracy_text(metrics.frozen["val"]["accuracy"]))
    if metrics.fine_tuned:
        table.add_row("fine-tuned, validation", accuracy_text(metrics.fine_tuned["val"]["accuracy"]))
    if metrics.test:
        judged = f"{metrics.cross['models']} models that left photos out" if metrics.cross else "kept model, test"
        table.add_row(f"[bold]{judged}[/bold]", f"[bold]{accuracy_text(metrics.test['accuracy'])}[/bold]")
        for metric, _, shown in show_metrics(metrics.test):
            table.add_row(f"  {metric.note}", shown)
    else:
        table.add_row("kept model, test", "no photos could be set aside: there is no honest number")
    if metrics.test and metrics.test["coverage"]:
        table.add_row("not called unknown, test", accuracy_text(metrics.test["coverage"], "kept"))
    console.print()
    console.print(table)
    if metrics.chosen:
        console.print(f"Chosen for these photos: {metrics.chosen['why']}.", markup=False)
    console.print(_fine_tuning(metrics), markup=False)
    if metrics.test:
        print_confusion(console, metrics.classes, metrics.test["confusion"])
    console.print(f"\nTook {metrics.seconds['total']:.0f} s, at most {metrics.peak_memory_mb:.0f} MiB.", markup=False)
    console.print(f"Look at it:   {folder / 'report.html'}", markup=False)
    console.print(f"Use it:       pronk predict {quote(str(folder))} PHOTO...", markup=False)
    console.print(f"In a browser: pronk serve {quote(str(folder))}", markup=False)


def print_confusion(console: "Console", classes: Sequence[str], confusion: Sequence[Sequence[int]]) -> None:
    """Draw a small confusion matrix, rows are the truth; or, of many classes, say which are confused most."""
    from rich.table import Table
    from rich.text import Text

    from pronk.analysis.metrics import most_confused

    if len(classes) > MOST_CLASSES:
        pairs = most_confused(confusion, most=MOST_PAIRS)
        console.print("\nConfused most:" if pairs else "")
        for truth, answer, n, share in pairs:
            what = f"{visible(classes[truth])} taken for {visible(classes[answer])}"
            console.print(f"  {what}: {plural(n, 'photo')}, {share:.0%} of the class", markup=False)
        return
    table = Table("truth \\ answer", box=None, padding=(0, 2, 0, 0))
    for name in classes:
        table.add_column(Text(name), justify="right")
    for i, name in enumerate(classes):
        cells = [Text(str(n), style="green" if i == j else "red" if n else "dim") for j, n in enumerate(confusion[i])]
        table.add_row(Text(name), *cells)
    console.print()
    console.print(table)


def print_findings(console: "Console", findings: Sequence["Finding"], *, most: int = 5) -> None:
    """Say what was left out and what is worth a look: counts by code, and a few examples each."""
    for finding in findings:
        if finding.code in SAID:
            console.print(f"note: {visible(finding.message)}", markup=False)
    shown = [finding for finding in findings if finding.severity != "info"]
    for code, number in Counter(finding.code for finding in shown).most_common():
        examples = [finding for finding in shown if finding.code == code]
        word = "left out" if examples[0].severity == "error" else "worth a look"
        console.print(f"{word}: {number} {code}", style="yellow", markup=False)
        for finding in examples[:most]:
            console.print(f"  {visible(finding.path)}  {visible(finding.message)}", markup=False)
        hints = {finding.hint for finding in examples if finding.hint}
        if len(hints) == 1:
            console.print(f"  hint: {visible(hints.pop())}", markup=False)
        if number > most:
            console.print(f"  and {number - most} more", markup=False)


def _fine_tuning(metrics: "Metrics") -> str:
    comparison = metrics.comparison
    if not metrics.fine_tuned:
        return "Fine-tuning was left out."
    gained, lost, p = comparison["gained"], comparison["lost"], comparison["p"]
    helped = "helped" if gained > lost else "lowered the validation loss"
    helped = helped if comparison["kept"] != "frozen" else "did not help, so the frozen model was kept"
    if comparison["why"].startswith("asked"):
        helped = f"was compared; the {comparison['kept'].replace('_', '-')} model was kept as asked"
    changed = f"{plural(gained, 'photo')} gained, {lost} lost (exact McNemar p = {p:.2g})"
    return f"Fine-tuning {helped}: {changed}; {comparison['why']}."
